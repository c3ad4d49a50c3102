"""Calls of a service in a Ray actor end as those of any other service do."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sage import (
    ServiceCallError,
    ServiceMethodError,
    ServiceNotFoundError,
    ServiceOverloadedError,
    ServiceTimeoutError,
)
from sage.common.errors import ServiceCancelledError, ServiceCycleError
from service.calls.call_services import BadOnArrival, KeptError, notes
from service.ray.conftest import eventually, ray_services


@pytest.mark.parametrize("value", [None, 0, "snow ☃", {"a": [1, (2, {3})]}, ValueError], ids=repr)
def test_a_result_comes_back_as_it_is(zoo, value):
    assert zoo.call.same(value) == value


def test_arguments_arrive(zoo):
    assert zoo.call.echo(1, 2, timeout=3) == ((1, 2), {"timeout": 3})


def test_a_large_value_goes_both_ways(zoo):
    assert zoo.call.length(b"x" * 3_000_000) == 3_000_000
    assert len(zoo.call.bytes(10_000_000)) == 10_000_000


def test_arguments_larger_than_the_bound_are_refused(zoo):
    with pytest.raises(ServiceOverloadedError, match="queue_bytes"):
        zoo.call.length(b"x" * 5_000_000)


def test_it_runs_in_another_process(zoo):
    assert zoo.call.pid() != os.getpid()


def test_an_error_comes_with_cause_and_traceback(zoo):
    with pytest.raises(ServiceCallError) as caught:
        zoo.call.fail("kept")
    assert isinstance(caught.value.__cause__, KeptError)
    assert caught.value.__cause__.code == 7
    assert "call_services.py" in caught.value.__notes__[0]
    with pytest.raises(ServiceCallError, match="second"):
        zoo.call.fail_from()


@pytest.mark.parametrize(
    "kind", ["two", "locked", "wordless", "exit", "interrupt", "stop", "group"]
)
def test_awkward_errors_reach_the_caller(zoo, kind):
    with pytest.raises(ServiceCallError):
        zoo.call.fail(kind)
    with pytest.raises(ServiceCallError):
        zoo.call.fail_later(kind) if kind != "stop" else zoo.call.fail(kind)
    assert zoo.call.same(1) == 1


def test_a_misspelt_method_names_the_near_one(zoo):
    with pytest.raises(ServiceMethodError, match="'same'"):
        zoo.call.sane(1)


def test_what_cannot_travel_says_so(zoo):
    with pytest.raises(TypeError, match="cannot be sent"):
        zoo.call.same(threading.Lock())
    with pytest.raises(ServiceCallError, match="arguments cannot be read"):
        zoo.call.same(BadOnArrival())
    with pytest.raises(ServiceCallError, match="result cannot be sent back"):
        zoo.call.lock_result()
    with pytest.raises(ServiceCallError, match="result cannot be read back"):
        zoo.call.bad_result()


def test_a_deadline_ends_a_call_and_travels(zoo):
    begun = time.monotonic()
    with pytest.raises(ServiceTimeoutError):
        zoo.manager.call_service_sync("zoo", "slow", 2.0, timeout=0.1)
    assert time.monotonic() - begun < 1.9
    left = zoo.manager.call_service_sync("zoo", "left", timeout=20)
    assert 10 < left <= 20


def test_a_cancelled_async_method_is_interrupted(zoo, tmp_path):
    path = str(tmp_path / "notes")
    future = zoo.begin.forever(path)
    eventually(lambda: notes(path) == ["begun"], "the method has begun")
    assert future.cancel()
    with pytest.raises(ServiceCancelledError):
        future.result()
    eventually(lambda: notes(path) == ["begun", "cancelled"], "the method is cancelled")


def test_async_methods_and_await(zoo):
    assert zoo.call.later(0.01, "late") == "late"

    async def gather():
        return await asyncio.gather(*(zoo.begin.later(0.01, n) for n in range(8)))

    assert asyncio.run(gather()) == list(range(8))


def test_a_callback_may_call_again(zoo):
    got, done = [], threading.Event()

    def again(future):
        got.append(zoo.call.same(future.result() + 1))
        done.set()

    zoo.begin.same(1).add_done_callback(again)
    assert done.wait(20)
    assert got == [2]


def test_streams(zoo):
    assert list(zoo.call.count(200)) == list(range(200))
    items = zoo.call.count_then_fail(3)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ServiceCallError, match="midway"):
        next(items)


def test_a_stream_that_is_left_is_closed(zoo, tmp_path):
    path = str(tmp_path / "notes")
    items = zoo.call.count_noting(path, 10_000)
    assert next(items) == 0
    items.close()
    eventually(lambda: notes(path)[-1] == "closed", "the generator is closed")


def test_as_many_calls_at_a_time_as_allowed(zoo):
    def peak():
        for future in [zoo.begin.crowd(0.05) for _ in range(12)]:
            future.result()
        return zoo.call.take_peak()

    # A method whose caller has given up may still occupy a thread at first.
    assert eventually(lambda: (most := peak()) >= 4 and most, "all threads work") == 4


def test_many_threads_call_at_once(zoo):
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(zoo.call.same, range(200))) == list(range(200))


def test_a_service_calls_another(zoo):
    assert zoo.call.call("other", "same", 7) == 7
    assert zoo.call.call("other", "chain") == ("zoo",)
    with pytest.raises(ServiceCycleError, match="waits for this very call"):
        zoo.call.call("other", "call", "zoo", "same", 1)


def test_only_ray_services_can_be_reached_from_ray(zoo):
    with pytest.raises(ServiceCallError, match="only Ray services") as caught:
        zoo.call.call("near", "same", 1)
    assert isinstance(caught.value.__cause__, ServiceNotFoundError)
    with pytest.raises(ServiceCallError, match="there is no service 'nowhere'"):
        zoo.call.call("nowhere", "same", 1)


def test_calls_spread_over_replicas(ray):
    class Counted:
        def pid(self):
            return os.getpid()

        def count(self, n):
            yield from range(n)

    with ray_services(("counted", Counted), replicas=2) as made:
        call = made.manager.get_sync_proxy("counted")
        pids = {call.pid() for _ in range(40)}
        assert len(pids) == 2
        assert all(list(call.count(70)) == list(range(70)) for _ in range(6))
        statistics = made.tasks["counted"].get_statistics()
        assert (statistics["replicas"], statistics["up"]) == (2, 2)
        assert statistics["calls"] >= 46
