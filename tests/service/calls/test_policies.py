"""What is said about calls holds wherever the service runs."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from sage import (
    ConfigError,
    ServiceCallError,
    ServiceCancelledError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.channel.service_message import ServiceResponse
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from service.calls.call_services import Zoo, note, notes
from service.calls.conftest import eventually, services_of

QUICK = {"max_attempts": 4, "initial_delay": 0.005, "retry_on": ["ConnectionError"]}


class Counted:
    """Writes down each execution; the first ones fail, or take for ever."""

    def __init__(self, path, bad=0):
        self.path, self.bad = str(path), bad

    def fetch(self, value=None):
        note(self.path, "x")
        if len(notes(self.path)) <= self.bad:
            raise ConnectionError("connection refused")
        return value

    def fetch_or_hang(self, value):
        """The bad ones wait for the first good one, and some time more."""
        note(self.path, "x")
        if len(notes(self.path)) <= self.bad:
            eventually(lambda: len(notes(self.path)) > self.bad, "a good call")
            time.sleep(0.5)
        return value

    def fetch_or_die(self, value):
        note(self.path, "x")
        if len(notes(self.path)) <= self.bad:
            os._exit(9)
        return value

    def runs(self):
        return len(notes(self.path))


def counted(isolation, tmp_path, bad=0, **options):
    return services_of(isolation, ("it", Counted, tmp_path / "runs", bad), **options)


# ---- retries


def test_an_idempotent_call_is_tried_again(isolation, tmp_path):
    with counted(isolation, tmp_path, 2, retry=QUICK, idempotent=True) as made:
        assert made.manager.get_sync_proxy("it").fetch(5) == 5
        assert len(notes(tmp_path / "runs")) == 3
        assert made.env.services.status()["it"]["retries"] == 2
        figures = made.manager.get_statistics("it").methods["fetch"].since_start
        assert (figures.calls, figures.failed) == (1, 0)


def test_a_call_that_is_not_idempotent_is_not_tried_again(isolation, tmp_path):
    with counted(isolation, tmp_path, 2, retry=QUICK) as made:
        with pytest.raises(ServiceCallError, match="connection refused"):
            made.manager.get_sync_proxy("it").fetch()
        assert len(notes(tmp_path / "runs")) == 1


def test_there_are_no_more_attempts_than_asked_for(isolation, tmp_path):
    with counted(isolation, tmp_path, 99) as made:
        proxy = made.manager.get_sync_proxy("it").options(retry=QUICK, idempotent=True)
        with pytest.raises(ServiceCallError, match="connection refused"):
            proxy.fetch()
        assert len(notes(tmp_path / "runs")) == 4


def test_all_calls_together_have_a_budget_of_retries(isolation, tmp_path):
    budget = {"ratio": 0, "min_per_second": 0, "max_tokens": 2}
    with counted(
        isolation, tmp_path, 99, retry=QUICK, idempotent=True, retry_budget=budget
    ) as made:
        for _ in range(3):
            with pytest.raises(ServiceCallError):
                made.manager.get_sync_proxy("it").fetch()
        assert len(notes(tmp_path / "runs")) == 3 + 2


def test_futures_are_tried_again_though_nobody_waits(isolation, tmp_path):
    with counted(isolation, tmp_path, 2, retry=QUICK, idempotent=True) as made:
        called = threading.Event()
        future = made.manager.get_async_proxy("it").fetch(5)
        future.add_done_callback(lambda _: called.set())
        assert called.wait(10)
        assert future.result() == 5


def test_futures_that_are_tried_again_can_be_awaited(isolation, tmp_path):
    async def ask(manager):
        return await manager.get_async_proxy("it").fetch(5)

    with counted(isolation, tmp_path, 2, retry=QUICK, idempotent=True) as made:
        assert asyncio.run(ask(made.manager)) == 5


@pytest.mark.parametrize("isolation", ["process", "replicas"])
def test_a_call_survives_the_death_of_its_process(isolation, tmp_path):
    retry = {"max_attempts": 8, "initial_delay": 0.2, "jitter": 0}
    with counted(isolation, tmp_path, 1, retry=retry, idempotent=True) as made:
        assert made.manager.get_sync_proxy("it").fetch_or_die(5) == 5
        assert len(notes(tmp_path / "runs")) == 2


# ---- breaker


def test_a_breaker_opens_on_timeouts_and_closes_after_a_probe(isolation, tmp_path):
    breaker = {"consecutive_failures": 2, "open_seconds": 2.0, "probes": 1}
    # A call that hangs inline hangs its caller: there, and there alone, its answer comes too late.
    options = (
        {"circuit_breaker": breaker, "max_concurrency": 4}
        if isolation != "inline"
        else {"circuit_breaker": {**breaker, "failure_errors": ["ConnectionError"]}}
    )
    with counted(isolation, tmp_path, 2, **options) as made:
        proxy = made.manager.get_sync_proxy("it").options(timeout=0.8)
        method = proxy.fetch if isolation == "inline" else proxy.fetch_or_hang
        for _ in range(2):
            with pytest.raises((ServiceTimeoutError, ServiceCallError)):
                method(1)
        with pytest.raises(ServiceUnavailableError, match="circuit breaker is open"):
            method(1)
        assert len(notes(tmp_path / "runs")) == 2, "it has not been sent"
        assert made.env.services.status()["it"]["breaker"] == "open"
        path = made.env.services.path("it")
        eventually(lambda: _lets_in(path), "the breaker lets a probe in")
        patient = proxy.options(timeout=20)
        assert (patient.fetch if isolation == "inline" else patient.fetch_or_hang)(7) == 7
        assert made.env.services.status()["it"]["breaker"] == "closed"


def _lets_in(path):
    """Say whether a probe may go, without being one."""
    try:
        path.breaker.release(path.breaker.try_acquire())
    except ServiceUnavailableError:
        return False
    return True


# ---- limits


def test_calls_above_the_limit_are_refused(isolation, gate):
    with services_of(isolation, ("it", Zoo), max_calls=2, max_concurrency=4) as made:
        proxy = made.manager.get_sync_proxy("it")
        held = [threading.Thread(target=proxy.gate, args=(gate.path,)) for _ in range(2)]
        for thread in held:
            thread.start()
        gate.wait_came(2)
        with pytest.raises(ServiceOverloadedError, match="max_calls is 2"):
            proxy.same(1)
        gate.let_pass(2)
        for thread in held:
            thread.join()
        assert proxy.same(1) == 1


def test_what_was_cancelled_or_given_up_no_longer_counts(isolation, tmp_path):
    if isolation == "inline":
        return  # its calls have ended when their futures are there
    with services_of(isolation, ("it", Zoo), max_calls=1, max_concurrency=4) as made:
        proxy, begin = made.manager.get_sync_proxy("it"), made.manager.get_async_proxy("it")
        future = begin.forever(str(tmp_path / "notes"))
        with pytest.raises(ServiceOverloadedError):
            proxy.same(1)
        assert future.cancel()
        with pytest.raises(ServiceCancelledError):
            future.result()
        assert proxy.same(1) == 1
        with pytest.raises(ServiceTimeoutError):
            proxy.options(timeout=0.05).forever(str(tmp_path / "notes"))
        assert proxy.same(1) == 1


@pytest.mark.parametrize("isolation", ["process", "replicas"])
def test_bytes_above_the_limit_are_refused(isolation):
    with services_of(isolation, ("it", Zoo), max_bytes=10_000) as made:
        proxy = made.manager.get_sync_proxy("it")
        assert proxy.length(b"x" * 5000) == 5000
        with pytest.raises(ServiceOverloadedError, match="max_bytes is 10000"):
            proxy.length(b"x" * 20_000)
        assert proxy.length(b"x" * 5000) == 5000


def test_calls_above_the_rate_are_refused(isolation):
    rate = {"requests_per_minute": 1, "burst": 2}
    with services_of(isolation, ("it", Zoo), rate_limiting=rate) as made:
        proxy = made.manager.get_sync_proxy("it")
        assert [proxy.same(i) for i in range(2)] == [0, 1]
        with pytest.raises(ServiceOverloadedError, match="rate limit"):
            proxy.same(2)


# ---- cache, fallback, hedging


def test_a_result_is_kept_for_a_while(isolation, tmp_path):
    with counted(isolation, tmp_path, methods={"fetch": {"cache_ttl": 60}}) as made:
        proxy = made.manager.get_sync_proxy("it")
        assert [proxy.fetch(1), proxy.fetch(1), proxy.fetch(2), proxy.fetch(True)] == [
            1,
            1,
            2,
            True,
        ]
        assert len(notes(tmp_path / "runs")) == 3
        assert proxy.options(cache_ttl=None).fetch(1) == 1
        assert len(notes(tmp_path / "runs")) == 4
        made.env.services.path("it").cache.invalidate()
        assert proxy.fetch(1) == 1
        assert len(notes(tmp_path / "runs")) == 5


def test_failures_are_not_kept(isolation, tmp_path):
    with counted(isolation, tmp_path, 1, cache_ttl=60) as made:
        proxy = made.manager.get_sync_proxy("it")
        with pytest.raises(ServiceCallError):
            proxy.fetch(1)
        assert proxy.fetch(1) == 1


def test_a_fallback_stands_in_for_a_call_that_failed(isolation):
    with services_of(isolation, ("it", Zoo), ("spare", Zoo)) as made:
        spare = made.manager.get_sync_proxy("spare")
        proxy = made.manager.get_sync_proxy("it").options(
            fallback=lambda error: spare.same(str(error))
        )
        assert "bad" in proxy.fail("value")
        assert proxy.same(3) == 3
        begin = made.manager.get_async_proxy("it").options(fallback=lambda error: 0)
        future = begin.fail("value")
        assert (future.exception(), future.result()) == (None, 0)


def test_a_fallback_that_fails_too_is_the_error(isolation):
    def fall(error):
        raise LookupError("no spare")

    with services_of(isolation, ("it", Zoo)) as made:
        proxy = made.manager.get_sync_proxy("it").options(fallback=fall)
        with pytest.raises(LookupError, match="no spare") as caught:
            proxy.fail("value")
        assert isinstance(caught.value.__context__, ServiceCallError)


@pytest.mark.parametrize("isolation", ["local", "process", "replicas"])
def test_a_second_request_is_sent_when_the_first_takes_long(isolation, tmp_path):
    hedge = {"delay": 0.02, "budget_per_second": 10}
    options = {"hedge": hedge, "idempotent": True, "max_concurrency": 2}
    with counted(isolation, tmp_path, 1, **options) as made:
        assert made.manager.get_sync_proxy("it").fetch_or_hang(5) == 5
        assert len(notes(tmp_path / "runs")) == 2


def test_a_call_that_is_not_idempotent_is_sent_once(isolation, tmp_path):
    with counted(isolation, tmp_path, hedge={"delay": 0}) as made:
        for _ in range(3):
            made.manager.get_sync_proxy("it").fetch()
        assert len(notes(tmp_path / "runs")) == 3


# ---- middleware


class Noting(ServiceMiddleware):
    """Writes down what it sees."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def before_call(self, request):
        self.seen.append(f"{self.name} before {request.method_name}")

    def after_call(self, response):
        self.seen.append(f"{self.name} after {response.result}")

    def on_error(self, request, error):
        self.seen.append(f"{self.name} error {type(error).__name__}")


def test_middlewares_are_around_a_call_like_the_skins_of_an_onion(isolation):
    seen = []
    around = [Noting("b", seen), Noting("c", seen)]
    with services_of(isolation, ("it", Zoo), middleware=around) as made:
        made.env.services.add_middleware(Noting("a", seen))
        proxy = made.manager.get_sync_proxy("it")
        assert proxy.same(1) == 1
        assert seen == [
            "a before same",
            "b before same",
            "c before same",
            "c after 1",
            "b after 1",
            "a after 1",
        ]
        seen.clear()
        with pytest.raises(ServiceCallError):
            proxy.fail("value")
        assert [line.split()[0] for line in seen] == list("abccba")
        assert seen[-1] == "a error ServiceCallError"


class Changing(ServiceMiddleware):
    """Answers some calls itself, and changes others."""

    def before_call(self, request):
        if request.args == (0,):
            return ServiceResponse(True, "nothing")
        if request.args == (13,):
            raise PermissionError("unlucky")
        request.args = (request.args[0] * 10,)
        return request

    def after_call(self, response):
        response.result = f"<{response.result}>"

    def on_error(self, request, error):
        if isinstance(error.__cause__, ValueError):
            return ServiceResponse(True, "mended")
        return None


def test_a_middleware_may_change_what_passes(isolation):
    with services_of(isolation, ("it", Zoo), middleware=[Changing()]) as made:
        proxy = made.manager.get_sync_proxy("it")
        assert proxy.same(2) == "<20>"
        assert proxy.same(0) == "<nothing>"
        with pytest.raises(ServiceCallError, match="PermissionError: unlucky"):
            proxy.same(13)


# ---- figures, and mistakes


def test_every_call_is_counted_once_whatever_became_of_it(isolation, tmp_path):
    if isolation == "inline":
        return  # a call that runs inline cannot be given up
    with services_of(isolation, ("it", Zoo), max_concurrency=4) as made:
        proxy = made.manager.get_sync_proxy("it")
        for i in range(5):
            proxy.same(i)
        with pytest.raises(ServiceCallError):
            proxy.fail("key")
        with pytest.raises(ServiceTimeoutError):
            proxy.options(timeout=0.02).forever(str(tmp_path / "notes"))
        future = made.manager.get_async_proxy("it").forever(str(tmp_path / "notes"))
        future.cancel()
        methods = made.manager.get_statistics("it").methods
        assert (methods["same"].since_start.calls, methods["same"].since_start.failed) == (5, 0)
        assert methods["fail"].since_start.failures == {"KeyError": 1}
        ended = {"ServiceTimeoutError": 1, "ServiceCancelledError": 1}
        assert methods["forever"].since_start.failures == ended
        assert {m.in_flight for m in methods.values()} == {0}


def test_an_unknown_option_is_refused_with_its_near_miss(isolation):
    with services_of(isolation, ("it", Zoo)) as made:
        with pytest.raises(ConfigError, match="Did you mean 'timeout'"):
            made.manager.get_sync_proxy("it").options(timeot=3)
        with pytest.raises(ConfigError, match="Did you mean 'circuit_breaker'"):
            made.env.register_service("other", Zoo).options(circuit_braker=True)
