"""Batched methods, called as every other one: one item, one result."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sage import (
    ConfigError,
    ServiceCallError,
    ServiceCancelledError,
    ServiceCycleError,
    ServiceTimeoutError,
)
from sage.kernel.runtime.service.batching import batch
from sage.kernel.runtime.service.channel.service_message import ServiceRequest
from sage.kernel.runtime.service.hosting.service_executor import CURRENT_REQUEST
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions
from sage.kernel.runtime.service.local_service_task import LocalServiceTask
from service.calls.call_services import note, notes, pass_gate
from service.calls.conftest import eventually, services_of

EVERYWHERE = pytest.mark.parametrize("isolation", ["local", "process"])
FOR_EVER = 600


class Model:
    """Notes the items of each batch, and how many calls are worked on at a time."""

    ctx = None

    def __init__(self, gate="", diary=""):
        self.gate_directory, self.diary = gate, diary
        self.batches = []
        self.inside = self.peak = 0
        self.lock = threading.Lock()

    def enter(self):
        with self.lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)

    def leave(self):
        with self.lock:
            self.inside -= 1

    def seen(self):
        """Return the batches so far, and how many calls were worked on at a time at most."""
        return self.batches, self.peak

    def plain(self, item):
        self.enter()
        time.sleep(0)
        self.leave()
        return ("plain", item)

    async def plain_later(self, item):
        self.enter()
        await asyncio.sleep(0)
        self.leave()
        return ("later", item)

    @batch(max_size=4, max_wait=0.002)
    def square(self, items):
        self.enter()
        self.batches.append(items)
        time.sleep(0)
        self.leave()
        return [item * item for item in items]

    @batch(max_size=4, max_wait=0.002)
    async def square_later(self, items):
        self.enter()
        self.batches.append(items)
        await asyncio.sleep(0)
        self.leave()
        return [item * item for item in items]

    @batch(max_size=8, max_wait=0.05)
    def unhurried(self, items):
        return items

    @batch(max_size=8, max_wait=FOR_EVER)
    def patient(self, items):
        self.batches.append(items)
        return [("done", item) for item in items]

    @batch(max_size=3, max_wait=FOR_EVER)
    def threes(self, items):
        """Do with three items what the first one says."""
        return getattr(self, f"_{items[0]}")(items)

    def _fail(self, items):
        raise KeyError("all of them")

    def _too_few(self, items):
        return items[1:]

    def _no_list(self, items):
        return dict.fromkeys(range(3))

    def _tuple(self, items):
        return tuple(items)

    def _one_fails(self, items):
        return [items[0], ValueError("only me"), items[2]]

    @batch(max_size=3, max_wait=FOR_EVER)
    async def threes_later(self, items):
        return getattr(self, f"_{items[0]}")(items)

    @batch(max_size=4, max_wait=0)
    def gated(self, items):
        self.batches.append(items)
        pass_gate(self.gate_directory)
        return items

    @batch(max_size=2, max_wait=FOR_EVER)
    async def for_ever(self, items):
        note(self.diary, "begun")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            note(self.diary, "cancelled")
            raise

    @batch(max_size=2, max_wait=FOR_EVER)
    def deadline(self, items):
        return [CURRENT_REQUEST.get().deadline] * 2

    @batch(max_size=2, max_wait=FOR_EVER)
    async def deadline_later(self, items):
        return [CURRENT_REQUEST.get().deadline] * 2

    @batch(max_size=2, max_wait=0)
    def ask(self, names):
        return [self.ctx.call_service[name].ask("model") for name in names]

    @batch(max_size=9, max_wait=FOR_EVER, max_bytes=10)
    def small(self, texts):
        return [len(texts)] * len(texts)

    @batch(max_size=9, max_wait=FOR_EVER, max_cost=3, cost=len)
    def cheap(self, lists):
        return [len(lists)] * len(lists)


class Front:
    ctx = None

    def ask(self, name):
        return self.ctx.call_service[name].ask("front")


def storm(services, *methods, threads=8, calls=200):
    """Let threads call the methods by turns; each checks its own answers."""
    proxy = services.manager.get_sync_proxy("model")

    def call(thread):
        numbers = range(thread * calls, (thread + 1) * calls)
        return [getattr(proxy, methods[n % len(methods)])(n) for n in numbers]

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(call, range(threads)))
    return [answer for mine in answers for answer in mine]


@EVERYWHERE
@pytest.mark.parametrize("method", ["square", "square_later"])
@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_in_a_storm_each_caller_gets_its_own_answer(isolation, method, max_concurrency):
    with services_of(isolation, ("model", Model), max_concurrency=max_concurrency) as services:
        assert storm(services, method) == [n * n for n in range(1600)]
        batches, peak = services.manager.call_service_sync("model", "seen")
        assert sorted(n for items in batches for n in items) == [*range(1600)]
        assert max(map(len, batches)) <= 4
        assert sum(len(items) > 1 for items in batches) > 100, "batches are formed"
        assert peak <= max_concurrency


@EVERYWHERE
@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_batches_and_other_methods_share_what_is_worked_on_at_a_time(isolation, max_concurrency):
    with services_of(isolation, ("model", Model), max_concurrency=max_concurrency) as services:
        answers = storm(services, "square", "plain", "square_later", "plain_later", calls=100)
        for n, answer in enumerate(answers):
            assert answer == (n * n, ("plain", n), n * n, ("later", n))[n % 4]
        _, peak = services.manager.call_service_sync("model", "seen")
        assert 1 <= peak <= max_concurrency


@EVERYWHERE
def test_many_futures_of_one_caller_make_full_batches(isolation):
    with services_of(isolation, ("model", Model)) as services:
        begin = services.manager.get_async_proxy("model")
        futures = [begin.square(n) for n in range(400)]
        assert [future.result() for future in futures] == [n * n for n in range(400)]
        batches, _ = services.manager.call_service_sync("model", "seen")
        assert sum(len(items) == 4 for items in batches) > 20


@EVERYWHERE
def test_a_lone_call_waits_no_longer_than_it_should(isolation):
    with services_of(isolation, ("model", Model)) as services:
        taken = []
        for n in range(6):
            begun = time.monotonic()
            assert services.manager.call_service_sync("model", "unhurried", n) == n
            taken.append(time.monotonic() - begun)
        assert 0.05 <= min(taken) < 0.5


@EVERYWHERE
@pytest.mark.parametrize("method", ["threes", "threes_later"])
def test_an_error_of_the_method_fails_all_calls_of_the_batch(isolation, method):
    with services_of(isolation, ("model", Model)) as services:
        begin = getattr(services.manager.get_async_proxy("model"), method)
        for what, kind, text in (
            ("fail", KeyError, "all of them"),
            ("too_few", ValueError, rf"Model\.{method} .* list of 3 results, and has returned 2"),
            ("no_list", TypeError, rf"Model\.{method} .* list of 3 results, not \{{0: None"),
        ):
            for future in [begin(what) for _ in range(3)]:
                with pytest.raises(ServiceCallError, match=text) as caught:
                    future.result()
                assert type(caught.value.__cause__) is kind
        future, *_ = [begin("fail") for _ in range(3)]
        assert "in _fail\n" in future.exception().error_traceback


@EVERYWHERE
@pytest.mark.parametrize("method", ["threes", "threes_later"])
def test_an_error_among_the_results_fails_one_call(isolation, method):
    with services_of(isolation, ("model", Model)) as services:
        begin = getattr(services.manager.get_async_proxy("model"), method)
        first, second, third = [begin(item) for item in ("one_fails", 2, 3)]
        assert (first.result(), third.result()) == ("one_fails", 3)
        with pytest.raises(ServiceCallError, match="ValueError: only me"):
            second.result()
        assert [f.result() for f in [begin(item) for item in ("tuple", 2, 3)]] == ["tuple", 2, 3]


@EVERYWHERE
def test_what_is_given_is_one_item_by_position(isolation):
    with services_of(isolation, ("model", Model)) as services:
        call = services.manager.get_sync_proxy("model")
        for wrong, given in (
            (call.square, "given: 0 by position"),
            (lambda: call.square(1, 2), "given: 2 by position"),
            (lambda: call.square(1, k=2), "given: 1 by position, 'k'"),
            (lambda: call.cheap(5), "has no len"),
        ):
            with pytest.raises(ServiceCallError, match=given) as caught:
                wrong()
            assert type(caught.value.__cause__) is TypeError


@EVERYWHERE
def test_bytes_and_costs_are_limited(isolation):
    with services_of(isolation, ("model", Model)) as services:
        begin = services.manager.get_async_proxy("model")
        futures = [begin.small(b"x" * size) for size in (4, 6, 20, 9, 2, 8)]
        assert [future.result() for future in futures] == [2, 2, 1, 1, 2, 2]
        futures = [begin.cheap([0] * size) for size in (1, 2, 0, 9, 4)]
        assert [future.result() for future in futures[:4]] == [3, 3, 3, 1]
        futures[4].cancel()


@EVERYWHERE
def test_who_gave_up_before_the_batch_is_left_out_of_it(isolation, gate):
    with services_of(isolation, ("model", Model, gate.path)) as services:
        begin = services.manager.get_async_proxy("model")
        first = begin.gated("first")
        gate.wait_came()
        late = services.manager.get_async_proxy("model").options(timeout=0.01).gated("late")
        last = begin.gated("last")
        with pytest.raises(ServiceTimeoutError):
            late.result()
        gate.let_pass(2)
        assert (first.result(), last.result()) == ("first", "last")
        assert services.manager.call_service_sync("model", "seen")[0] == [["first"], ["last"]]


def test_a_cancelled_call_is_left_out_of_the_batch(gate):
    with services_of("local", ("model", Model, gate.path)) as services:
        begin = services.manager.get_async_proxy("model")
        first = begin.gated("first")
        gate.wait_came()
        cancelled, last = begin.gated("cancelled"), begin.gated("last")
        assert cancelled.cancel()
        gate.let_pass(2)
        assert (first.result(), last.result()) == ("first", "last")
        with pytest.raises(ServiceCancelledError):
            cancelled.result()
        assert services.manager.call_service_sync("model", "seen")[0] == [["first"], ["last"]]


@EVERYWHERE
def test_an_async_batch_is_cancelled_when_all_its_callers_have_given_up(isolation, tmp_path):
    diary = tmp_path / "diary"
    with services_of(isolation, ("model", Model, "", str(diary)), timeout=None) as services:
        begin = services.manager.get_async_proxy("model")
        futures = [begin.for_ever(1), begin.for_ever(2)]
        eventually(lambda: notes(diary) == ["begun"], "it has begun")
        futures[0].cancel()
        again = [begin.for_ever(3), begin.for_ever(4)]
        assert notes(diary) == ["begun"], "one caller still waits, and keeps the turn"
        futures[1].cancel()
        eventually(
            lambda: notes(diary) == ["begun", "cancelled", "begun"], "the next one has begun"
        )
        for future in again:
            future.cancel()
        eventually(lambda: notes(diary)[3:] == ["cancelled"], "it is cancelled")


@EVERYWHERE
@pytest.mark.parametrize("method", ["deadline", "deadline_later"])
def test_a_batch_may_last_as_long_as_any_caller_waits(isolation, method):
    with services_of(isolation, ("model", Model)) as services:
        proxy = services.manager.get_async_proxy("model")
        futures = [getattr(proxy.options(timeout=t), method)(t) for t in (20, 40)]
        expected = max(future.request.deadline for future in futures)
        assert [future.result() for future in futures] == [expected, expected]


@EVERYWHERE
def test_a_batch_that_would_wait_for_itself_is_told(isolation):
    with services_of(isolation, ("model", Model), ("front", Front)) as services:
        with pytest.raises((ServiceCycleError, ServiceCallError), match="waits for this very call"):
            services.manager.call_service_sync("front", "ask", "model", timeout=5)


@EVERYWHERE
def test_what_gathers_when_the_service_stops_is_finished(isolation):
    begun = time.monotonic()
    with services_of(isolation, ("model", Model), timeout=FOR_EVER) as services:
        begin = services.manager.get_async_proxy("model")
        futures = [begin.patient(n) for n in range(3)]
        for future in futures:
            future.add_done_callback(lambda _: None)
    assert [future.result(0) for future in futures] == [("done", n) for n in range(3)]
    assert time.monotonic() - begun < FOR_EVER / 10


def test_a_batched_method_cannot_run_on_the_callers_thread():
    task = LocalServiceTask(ServiceFactory("model", Model, options=ServiceOptions(inline=True)))
    with pytest.raises(ConfigError, match="'model' has batched methods and cannot be inline"):
        task.start_service()


class Polite(LocalServiceTask):
    def handle_request(self, request):
        response = super().handle_request(request)
        response.result = ("please", response.result)
        return response


class Own(LocalServiceTask):
    def custom_handle_request(self, request):
        return ("own", request.args)


@pytest.mark.parametrize(
    ("task_class", "expected"), [(Polite, ("please", 9)), (Own, ("own", (3,)))]
)
def test_a_task_with_a_way_of_its_own_still_answers(task_class, expected):
    task = task_class(ServiceFactory("model", Model))
    task.start_service()
    try:
        answered = threading.Event()
        answers = []
        request = ServiceRequest(1, "model", "square", (3,))
        task.run_request(request, lambda response: (answers.append(response), answered.set()))
        assert answered.wait(10)
        assert answers[0].result == expected
    finally:
        task.stop_service()
