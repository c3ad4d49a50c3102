"""Batches without services: the limits, the window against a model, the threads on a manual clock."""

from __future__ import annotations

import math
import queue
import threading
from functools import partial
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage.common.errors import (
    ConfigError,
    ServiceCancelledError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.batches.batch_window import BatchWindow, WaitingCall
from sage.kernel.runtime.service.batches.batcher import Batcher
from sage.kernel.runtime.service.batching import BatchLimits, batch, batched_methods, byte_size
from sage.kernel.runtime.service.channel.service_message import ServiceRequest
from sage.kernel.runtime.service.channel.slots import Turns
from sage.testing import ManualClock
from service.calls.conftest import PATIENCE, eventually

# ---- the decorator


class Model:
    @batch(max_size=4, max_wait=0)
    def double(self, numbers):
        return [2 * number for number in numbers]

    @batch(8)
    async def later(self, numbers):
        return numbers

    @batch()
    def _hidden(self, numbers):
        return numbers

    def plain(self, number):
        return number


class Changed(Model):
    def double(self, number):
        return number


def test_a_batched_method_is_marked_and_otherwise_what_it_was():
    assert batched_methods(Model()) == {
        "double": BatchLimits(4, 0),
        "later": BatchLimits(8),
    }
    assert Model().double([1, 2, 3, 4, 5]) == [2, 4, 6, 8, 10]
    assert set(batched_methods(Changed())) == {"later"}
    assert batched_methods({}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_size": 0},
        {"max_size": 2.0},
        {"max_wait": -1},
        {"max_wait": math.nan},
        {"max_wait": math.inf},
        {"max_bytes": 0},
        {"max_cost": 3},
        {"max_cost": -1, "cost": len},
        {"cost": len},
        {"cost": "len", "max_cost": 3},
    ],
    ids=str,
)
def test_a_limit_that_is_not_usable_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        batch(**wrong)


def test_the_decorator_without_parentheses_is_told():
    with pytest.raises(ConfigError, match=r"write @batch\(\)"):
        batch(Model.plain)


def test_a_generator_cannot_be_batched():
    def stream(items):
        yield from items

    async def later(items):
        for item in items:
            yield item

    for method in (stream, later):
        with pytest.raises(TypeError, match="is a generator"):
            batch()(method)


def test_bytes_are_counted_where_they_are_known():
    class Array:
        nbytes = 800

    assert byte_size(b"1234") == byte_size(bytearray(4)) == byte_size("1234") == 4
    assert byte_size(memoryview(b"12345678").cast("i")) == 8
    assert byte_size(Array()) == 800
    assert byte_size([]) > 0
    assert BatchLimits().bytes_of(b"1234") == 0
    assert BatchLimits(max_bytes=1).bytes_of(b"1234") == 4


def test_a_cost_is_a_number_from_0_on():
    limits = BatchLimits(max_cost=1, cost=float)
    assert limits.cost_of("2.5") == 2.5
    for wrong in ("nan", "-1"):
        with pytest.raises(ValueError, match="a number from 0 on"):
            limits.cost_of(wrong)
    assert BatchLimits().cost_of("nan") == 0


# ---- the window


def waiting(number, now=0.0, size=0, cost=0, deadline=math.inf, method="double", respond=None):
    request = ServiceRequest(number, "model", method, (number,), deadline=deadline)
    return WaitingCall(request, respond or (lambda _: None), now, size, cost)


class WindowMachine(RuleBasedStateMachine):
    """The window must agree with a list that is looked through from the start each time."""

    @initialize(
        max_size=st.integers(1, 5),
        max_wait=st.integers(0, 4),
        max_bytes=st.none() | st.integers(1, 5),
        max_cost=st.none() | st.integers(0, 5),
    )
    def make(self, max_size, max_wait, max_bytes, max_cost):
        cost = None if max_cost is None else int
        self.limits = BatchLimits(max_size, max_wait, max_bytes, max_cost, cost)
        self.window = BatchWindow(self.limits)
        self.clock = ManualClock()
        self.calls = []
        self.number = 0

    @rule(size=st.integers(0, 3), cost=st.integers(0, 3), left=st.none() | st.integers(1, 9))
    def add(self, size, cost, left):
        self.number += 1
        now = self.clock.monotonic()
        deadline = math.inf if left is None else now + left
        call = waiting(self.number, now, size, cost, deadline)
        self.calls.append(call)
        self.window.add(call)

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds):
        self.clock.advance(seconds=seconds)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data):
        call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        assert self.window.remove("", call.request.request_id) is call

    @rule()
    def cancel_what_does_not_wait(self):
        assert self.window.remove("", 0) is None
        assert self.window.remove("another lane", self.number) is None

    @rule()
    def remove_late(self):
        now = self.clock.monotonic()
        late = [call for call in self.calls if call.request.deadline <= now]
        assert self.window.remove_late(now) == late
        self.calls = [call for call in self.calls if call not in late]

    @rule()
    def take(self):
        count = self.fitting()
        assert self.window.take() == self.calls[:count]
        self.calls = self.calls[count:]

    @invariant()
    def it_is_due_when_it_should_be(self):
        assert len(self.window) == len(self.calls)
        if not self.calls:
            assert self.window.due() == self.window.oldest == math.inf
            return
        oldest = self.calls[0].arrived
        assert self.window.oldest == oldest
        assert self.window.due() == (oldest if self.is_full() else oldest + self.limits.max_wait)

    def fitting(self):
        """How many calls the next batch has."""
        counts = [k for k in range(1, len(self.calls) + 1) if self.fits(self.calls[:k])]
        return max(counts, default=0)

    def fits(self, calls):
        limits = self.limits
        return len(calls) <= limits.max_size and (
            len(calls) == 1
            or (
                (limits.max_bytes is None or sum(c.bytes for c in calls) <= limits.max_bytes)
                and (limits.max_cost is None or sum(c.cost for c in calls) <= limits.max_cost)
            )
        )

    def is_full(self):
        """Whether a limit is reached, or the next call would exceed one."""
        count, limits = self.fitting(), self.limits
        size, cost = (sum(getattr(c, of) for c in self.calls[:count]) for of in ("bytes", "cost"))
        return (
            count == limits.max_size
            or count < len(self.calls)
            or (limits.max_bytes is not None and size >= limits.max_bytes)
            or (limits.max_cost is not None and cost >= limits.max_cost)
        )


WindowMachine.TestCase.settings = settings(max_examples=150, deadline=None)
TestWindow = WindowMachine.TestCase


def test_what_has_no_bytes_still_joins_a_batch_that_is_used_up():
    window = BatchWindow(BatchLimits(max_size=3, max_wait=1, max_bytes=2))
    calls = [waiting(number, size=size) for number, size in enumerate([2, 0, 0, 5, 0])]
    window.add(calls[0])
    assert window.due() == 0, "it waits for no other one"
    for call in calls[1:]:
        window.add(call)
    assert window.take() == calls[:3]
    assert window.take() == calls[3:4], "too large, so it goes alone"
    assert (window.take(), len(window)) == (calls[4:], 0)


# ---- the threads


class RecordingClock(ManualClock):
    """Knows for how long it was last asked to wait."""

    asked = 0.0

    def wait_until(self, doorbell, deadline):
        self.asked = deadline - self.monotonic()
        super().wait_until(doorbell, deadline)


class Gathering:
    """A batcher whose batches come out of a queue; with `held`, each waits to be let through."""

    def __init__(self, max_concurrency=1, held=False, **limits):
        self.clock = RecordingClock()
        self.batches = queue.SimpleQueue()
        self.answers = queue.SimpleQueue()
        self.gate = threading.Semaphore(0) if held else None
        self.turns = Turns(max_concurrency)
        self.batcher = Batcher(
            "sage-test",
            {"double": BatchLimits(**limits), "other": BatchLimits(**limits)},
            self.turns,
            max_concurrency=max_concurrency,
            run=self.run,
            clock=self.clock,
        )

    def run(self, calls):
        self.batches.put([call.request.request_id for call in calls])
        if self.gate is not None:
            assert self.gate.acquire(timeout=PATIENCE)
        self.turns.release()

    def add(self, *numbers, method="double", deadline=math.inf):
        now, respond = self.clock.monotonic(), self.answers.put
        for number in numbers:
            call = waiting(number, now, deadline=deadline, method=method, respond=respond)
            self.batcher.add(call)

    def batch(self):
        return self.batches.get(timeout=PATIENCE)

    def answer(self):
        response = self.answers.get(timeout=PATIENCE)
        assert not response.executed
        return response.request_id, type(response.cause)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.gate is not None:
            self.gate.release(100)
        self.batcher.close()


def test_a_batch_that_is_not_full_is_run_when_its_time_has_come():
    with Gathering(max_size=4, max_wait=2) as gathering:
        gathering.add(1)
        gathering.clock.wait_waiting()
        gathering.clock.advance(seconds=1.5)
        gathering.add(2)
        assert gathering.batches.empty()
        gathering.clock.advance(seconds=0.5)
        assert gathering.batch() == [1, 2]


def test_a_full_batch_is_run_at_once_and_an_idle_thread_waits_for_ever():
    with Gathering(max_size=2, max_wait=60) as gathering:
        assert not any("sage-test" in thread.name for thread in threading.enumerate())
        gathering.add(1, 2)
        assert gathering.batch() == [1, 2]
        eventually(lambda: gathering.clock.asked == inf, "it waits without an end")


def test_without_a_wait_a_call_is_run_at_once():
    with Gathering(max_size=4, max_wait=0) as gathering:
        gathering.add(1)
        assert gathering.batch() == [1]


def test_calls_gather_while_no_more_batches_may_run():
    with Gathering(max_size=4, max_wait=0, held=True) as gathering:
        gathering.add(1)
        assert gathering.batch() == [1]
        gathering.add(2, 3)
        assert gathering.batches.empty()
        gathering.gate.release()
        assert gathering.batch() == [2, 3]


@pytest.mark.parametrize("max_concurrency", [1, 2, 3])
def test_so_many_batches_run_at_a_time(max_concurrency):
    with Gathering(max_concurrency, max_size=2, max_wait=60, held=True) as gathering:
        gathering.add(*range(2 * max_concurrency + 2))
        batches = [gathering.batch() for _ in range(max_concurrency)]
        assert sorted(batches) == [[2 * i, 2 * i + 1] for i in range(max_concurrency)]
        assert gathering.batches.empty()
        gathering.gate.release()
        assert gathering.batch() == [2 * max_concurrency, 2 * max_concurrency + 1]


def test_what_is_left_over_is_run_by_another_thread_when_its_time_has_come():
    with Gathering(2, max_size=2, max_wait=5, held=True) as gathering:
        gathering.add(1, 2, 3)
        assert gathering.batch() == [1, 2]
        gathering.clock.wait_waiting()
        gathering.clock.advance(seconds=5)
        assert gathering.batch() == [3]


def test_of_two_methods_the_one_that_waits_longer_goes_first():
    with Gathering(max_size=3, max_wait=1, held=True) as gathering:
        gathering.add(1, 2, 3)
        assert gathering.batch() == [1, 2, 3]
        gathering.add(4, method="other")
        gathering.clock.advance(seconds=1)
        gathering.add(5)
        gathering.clock.advance(seconds=1)
        gathering.gate.release()
        assert gathering.batch() == [4]
        gathering.gate.release()
        assert gathering.batch() == [5]


def test_when_no_other_call_can_come_nobody_waits_for_one():
    with Gathering(max_size=3, max_wait=60) as gathering:
        assert gathering.batcher.room == 3
        gathering.add(1, 2)
        gathering.add(3, method="other")
        assert gathering.batch() == [1, 2]


def test_a_call_past_its_deadline_is_left_out():
    with Gathering(max_size=4, max_wait=2) as gathering:
        gathering.add(1, deadline=1.0)
        gathering.add(2)
        gathering.clock.wait_waiting()
        gathering.clock.advance(seconds=2)
        assert gathering.batch() == [2]
        assert gathering.answer() == (1, ServiceTimeoutError)


def test_a_cancelled_call_is_left_out():
    with Gathering(max_size=3, max_wait=60) as gathering:
        gathering.add(1, 2)
        assert gathering.batcher.cancel("", 1)
        assert not gathering.batcher.cancel("", 1)
        assert gathering.answer() == (1, ServiceCancelledError)
        gathering.add(3, 4)
        assert gathering.batch() == [2, 3, 4]


@pytest.mark.parametrize("end", ["drain", "close"])
def test_what_gathers_is_run_at_the_end(end):
    with Gathering(max_size=5, max_wait=60) as gathering:
        gathering.add(1, 2)
        gathering.add(3, method="other")
        getattr(gathering.batcher, end)()
        assert [gathering.batch(), gathering.batch()] == [[1, 2], [3]]


def test_a_closed_batcher_takes_no_calls():
    with Gathering(max_size=5, max_wait=60) as gathering:
        gathering.batcher.close()
        with pytest.raises(ServiceUnavailableError, match="stopped"):
            gathering.add(1)


def test_turns_come_in_order_and_nobody_goes_before_those_who_wait():
    turns, order = Turns(2), []

    def work(number):
        turns.acquire()
        order.append(number)
        turns.release()

    turns.acquire()
    turns.acquire()
    threads = [threading.Thread(target=partial(work, number)) for number in range(5)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        eventually(lambda count=count: len(turns._waiting) == count, "it waits")
    turns.release()
    turns.acquire()  # after all who waited
    assert order == [0, 1, 2, 3, 4]
    for thread in threads:
        thread.join()
    turns.release()
    turns.release()
    turns.acquire()
    turns.acquire()
