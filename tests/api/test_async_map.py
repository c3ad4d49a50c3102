"""`async_map` and `async_flat_map`: all kinds of functions, order, bounds, failures, time, ends."""

import asyncio
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from patience import PATIENCE
from sage import (
    FlatMapFunction,
    FunctionError,
    GraphError,
    LocalEnvironment,
    MapFunction,
    OperatorError,
    tumbling_time_window,
)
from sage.common.event_loop import new_event_loop
from sage.testing import CollectingSink, ManualClock, TestSource


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loops(request, monkeypatch):
    """The loops of uvloop, and those that Python has where that is not installed."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert type(loop).__module__.startswith(request.param)
    loop.close()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def run(records, build, **config):
    env = LocalEnvironment("async", config)
    results = build(env.from_batch(records)).collect()
    metrics = env.execute().metrics
    return list(results), metrics


async def shuffled(number):
    """Take longer for some numbers than for others."""
    for _ in range((number * 7) % 11):
        await asyncio.sleep(0)
    return number * number


class Pool(MapFunction):
    """Returns futures of a thread pool, which lives as long as the function."""

    def open(self):
        self.pool = ThreadPoolExecutor(4)

    def execute(self, data):
        return self.pool.submit(pow, data, 2)

    def close(self):
        self.pool.shutdown()


class Squares:
    """A service."""

    def get(self, number):
        return number * number

    async def slow(self, number):
        await asyncio.sleep(0)
        return number * number


class AskService(MapFunction):
    """Awaits a service."""

    async def execute(self, data):
        return await self.call_service_async["squares"].get(data)


class AskServiceFuture(MapFunction):
    """Returns the future of a call."""

    def execute(self, data):
        return self.call_service_async["squares"].slow(data)


class Awaitable:
    """An object that can be awaited, and is nothing else."""

    def __init__(self, number):
        self.number = number

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.number**2


FUNCTIONS = {
    "async def": (shuffled, {}),
    "lambda that returns a coroutine": (lambda x: shuffled(x + 0), {}),
    "asyncio task": (lambda x: asyncio.ensure_future(shuffled(x)), {}),
    "awaitable": (Awaitable, {}),
    "futures of a pool": (Pool, {}),
    "blocking": (lambda x: x * x, {"blocking": True, "capacity": 8}),
    "service, awaited": (AskService, {}),
    "service, its future": (AskServiceFuture, {}),
}


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_function_gives_every_result_once(name, ordered):
    function, options = FUNCTIONS[name]
    env = LocalEnvironment("async")
    env.register_service("squares", Squares)
    squares = env.from_batch(range(500)).async_map(function, ordered=ordered, **options).collect()
    env.execute()
    wanted = [number * number for number in range(500)]
    assert (list(squares) if ordered else sorted(squares)) == wanted


@pytest.mark.usefixtures("event_loops")
def test_a_future_of_another_event_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def in_other_loop(number):
        future = loop.create_future()
        loop.call_soon_threadsafe(future.set_result, number + 1)
        return future

    try:
        results, _ = run(range(50), lambda s: s.async_map(in_other_loop))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert results == list(range(1, 51))


class Gate:
    """Counts who is inside, and lets nobody out before enough are."""

    def __init__(self, enough):
        self.inside = self.most = 0
        self.enough = enough
        self.event = asyncio.Event()

    async def __call__(self, value):
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self.enough:
            self.event.set()
        await self.event.wait()
        await asyncio.sleep(0)
        self.inside -= 1
        return value


def test_as_many_calls_run_at_a_time_as_the_capacity_says_and_no_more():
    gate = Gate(enough=7)
    results, _ = run(range(300), lambda s: s.async_map(gate, capacity=7))
    assert gate.most == 7
    assert results == list(range(300))


def test_blocking_calls_run_in_as_many_threads_as_the_capacity_says():
    together = threading.Barrier(5, timeout=PATIENCE)

    def meet(value):
        together.wait()
        return value, threading.current_thread().name

    results, _ = run(range(50), lambda s: s.async_map(meet, blocking=True, capacity=5))
    assert [value for value, _ in results] == list(range(50))
    assert len({name for _, name in results}) == 5


def test_unordered_results_go_out_before_the_first_call_has_ended():
    first, seen = asyncio.Event(), []

    async def wait_for_the_others(number):
        if number == 0:
            await first.wait()
        return number

    def look(number):
        seen.append(number)
        if len(seen) == 19:
            loop.append(True)

    loop = []

    async def release(number):
        while not loop:
            await asyncio.sleep(0)
        first.set()
        return number

    async def either(number):
        return await (release(number) if number == 20 else wait_for_the_others(number))

    env = LocalEnvironment("async")
    env.from_batch(range(21)).async_map(either, ordered=False).sink(look)
    env.execute()
    assert sorted(seen) == list(range(21))
    assert seen.index(0) >= 19


# ---- flat


async def countdown(number):
    while number:
        yield number
        await asyncio.sleep(0)
        number -= 1


class Both(FlatMapFunction):
    """Returns a tuple."""

    async def execute(self, data):
        return data, -data


@pytest.mark.usefixtures("event_loops")
def test_async_flat_map_takes_lists_generators_and_async_generators():
    async def listed(number):
        return [number] * number

    assert run([2, 0, 1], lambda s: s.async_flat_map(listed))[0] == [2, 2, 1]
    assert run([2, 0, 3], lambda s: s.async_flat_map(countdown))[0] == [2, 1, 3, 2, 1]
    assert run([1, 2], lambda s: s.async_flat_map(Both))[0] == [1, -1, 2, -2]
    lazily, metrics = run([3], lambda s: s.async_flat_map(lambda n: iter(range(n)), blocking=True))
    assert lazily == [0, 1, 2]
    assert metrics.operators["async_flat_map"].records_out == 3


@pytest.mark.parametrize("wrong", [None, "text", 3])
def test_async_flat_map_refuses_what_is_no_iterable_of_records(wrong):
    async def give(_):
        return wrong

    with pytest.raises(OperatorError, match="must give an iterable"):
        run([1], lambda s: s.async_flat_map(give))


# ---- failures


async def picky(number):
    await asyncio.sleep(0)
    if number % 3 == 0:
        raise ValueError(f"no {number}")
    return number


def test_a_failure_names_the_operator_and_the_record_and_comes_after_the_results_before():
    sink = CollectingSink()
    env = LocalEnvironment("async")
    env.from_batch([1, 2, 3, 4, 6]).async_map(picky).sink(sink)
    with pytest.raises(OperatorError, match="no 3") as caught:
        env.execute()
    assert (caught.value.operator, caught.value.record) == ("async_map(picky)", 3)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "test_async_map.py" in str(caught.value)


def test_failures_are_skipped_and_counted():
    results, metrics = run(range(10), lambda s: s.async_map(picky, on_error="skip"))
    assert results == [1, 2, 4, 5, 7, 8]
    operator = metrics.operators["async_map(picky)"]
    assert (operator.records_in, operator.records_out, operator.errors) == (10, 6, 4)


def test_failures_become_dead_letters():
    env = LocalEnvironment("async")
    stream = env.from_batch(range(7)).async_map(picky, on_error="dead_letter")
    good, letters = stream.collect(), stream.dead_letters().collect()
    env.execute()
    assert list(good) == [1, 2, 4, 5]
    assert [(letter.value, str(letter.error)) for letter in letters] == [
        (0, "no 0"),
        (3, "no 3"),
        (6, "no 6"),
    ]


@pytest.mark.usefixtures("event_loops")
def test_exiting_is_a_failure_as_well_and_leaves_the_loop_alone():
    async def leave(number):
        raise SystemExit(number)

    with pytest.raises(OperatorError, match="SystemExit"):
        run([3], lambda s: s.async_map(leave, on_error="skip"))


@pytest.mark.usefixtures("event_loops")
def test_a_call_that_its_own_code_cancels_has_failed():
    async def cancelled(_):
        raise asyncio.CancelledError

    with pytest.raises(OperatorError, match="cancelled"):
        run([1], lambda s: s.async_map(cancelled))


@pytest.mark.usefixtures("event_loops")
def test_a_stuck_call_is_given_up_in_time_and_the_others_go_on():
    async def stuck(number):
        if number == 2:
            await asyncio.Event().wait()
        return number

    results, metrics = run(
        range(5), lambda s: s.async_map(stuck, timeout=0.02, on_error="skip", capacity=1)
    )
    assert results == [0, 1, 3, 4]
    assert metrics.operators["async_map(stuck)"].errors == 1
    with pytest.raises(OperatorError, match=r"no result within 0\.02 s") as caught:
        run(range(5), lambda s: s.async_map(stuck, timeout=0.02))
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert caught.value.record == 2


def test_futures_and_threads_that_are_stuck_are_given_up_too():
    stuck = [Future() for _ in range(3)]
    results, _ = run(
        range(3),
        lambda s: s.async_map(stuck.__getitem__, timeout=0.01, on_error="skip", capacity=1),
    )
    assert results == []
    assert all(future.cancelled() for future in stuck)

    release = threading.Event()

    def block(number):
        if number % 2:
            release.wait(PATIENCE)
        elif number == 8:
            release.set()
        return number

    results, _ = run(
        range(9),
        lambda s: s.async_map(block, blocking=True, timeout=0.02, on_error="skip", capacity=1),
    )
    assert results == [0, 2, 4, 6, 8]


def test_the_time_that_a_record_waits_for_its_turn_does_not_count():
    async def take_some(number):
        await asyncio.sleep(0.03)
        return number

    results, _ = run(range(8), lambda s: s.async_map(take_some, timeout=0.2, capacity=1))
    assert results == list(range(8))


def test_failed_calls_are_made_again_as_often_as_said():
    tries = {}

    async def flaky(number):
        tries[number] = tries.get(number, 0) + 1
        if tries[number] <= number:
            raise ConnectionError(number)
        return number

    again = {"max_attempts": 3, "initial_delay": 0.001}
    results, metrics = run(range(5), lambda s: s.async_map(flaky, retry=again, on_error="skip"))
    assert results == [0, 1, 2]
    assert tries == {0: 1, 1: 2, 2: 3, 3: 3, 4: 3}
    assert metrics.operators["async_map(flaky)"].errors == 2


def test_only_the_errors_named_are_worth_another_attempt():
    calls = []

    async def fail(number):
        calls.append(number)
        raise ValueError if number else ConnectionError

    again = {"initial_delay": 0, "retry_on": (ConnectionError,)}
    run(range(2), lambda s: s.async_map(fail, retry=again, on_error="skip"))
    assert sorted(calls) == [0, 0, 0, 1]


def test_a_call_that_timed_out_is_made_again():
    calls = []

    async def slow_at_first(number):
        calls.append(number)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return number

    again = {"max_attempts": 2, "initial_delay": 0}
    assert run([7], lambda s: s.async_map(slow_at_first, timeout=0.01, retry=again))[0] == [7]
    assert calls == [7, 7]


# ---- what is refused


def test_a_plain_function_is_told_what_to_say():
    with pytest.raises(OperatorError, match="blocking=True"):
        run([1], lambda s: s.async_map(lambda x: x))
    with pytest.raises(FunctionError, match="leave out blocking=True"):
        run([1], lambda s: s.async_map(shuffled, blocking=True))
    with pytest.raises(FunctionError, match=r"use async_map\(\.\.\.\)"):
        run([1], lambda s: s.map(shuffled))
    with pytest.raises(OperatorError, match=r"use async_flat_map\(\.\.\.\)"):
        run([1], lambda s: s.flat_map(lambda x: countdown(x + 0)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"capacity": 1.5},
        {"timeout": 0},
        {"retry": -1},
        {"retry": "often"},
        {"retry": {"attempts": 3}},
        {"retry": {"max_attempts": 0}},
    ],
)
def test_impossible_options_are_refused_where_they_are_written(wrong):
    with pytest.raises(GraphError):
        run([1], lambda s: s.async_map(shuffled, **wrong))


# ---- the end


@pytest.mark.usefixtures("event_loops")
def test_cancelling_a_job_whose_calls_are_stuck_ends_it_and_its_calls():
    begun, cancelled = [], []

    async def stuck(number):
        begun.append(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    env = LocalEnvironment("async")
    env.from_batch(range(100)).async_map(stuck, capacity=3).collect()
    env.submit_async()
    wait_until(lambda: len(begun) == 3)
    assert env.cancel(PATIENCE)["status"] == "success"
    assert cancelled == begun
    assert env.job.status == "CANCELED"


def test_a_cancelled_job_lets_blocking_calls_return():
    begun, release = threading.Event(), threading.Event()

    def block(number):
        begun.set()
        release.wait(PATIENCE)
        return number

    env = LocalEnvironment("async")
    env.from_batch(range(100)).async_map(block, capacity=2, blocking=True).collect()
    env.submit_async()
    begun.wait(PATIENCE)
    threading.Timer(0.02, release.set).start()
    assert env.cancel(PATIENCE)["status"] == "success"


def test_the_end_of_input_waits_for_what_is_under_way():
    async def late(number):
        await asyncio.sleep(0.02)
        return number

    results, _ = run(range(30), lambda s: s.async_map(late, capacity=50).map(lambda x: -x))
    assert results == [-number for number in range(30)]


def test_records_that_come_at_the_end_of_input_go_through_too():
    def build(stream):
        sums = stream.key_by(lambda x: x % 3).sum(emit="final")
        return sums.async_map(lambda pair: shuffled(pair[0]), capacity=1)

    assert sorted(run(range(9), build)[0]) == [0, 1, 4]


def test_a_feedback_loop_ends_when_nothing_is_under_way_in_it():
    env = LocalEnvironment("async")
    back = env.from_future("again")

    async def halve(number):
        await asyncio.sleep(0.001)
        return number // 2

    halved = env.from_batch([8, 5, 1]).union(back).async_map(halve, capacity=2)
    halved.filter(lambda x: x > 0).fill_future(back)
    results = halved.collect()
    env.execute()
    assert sorted(results) == sorted([4, 2, 1, 0, 2, 1, 0, 0])


def test_two_operators_behind_each_other():
    def build(stream):
        return stream.async_map(shuffled, capacity=3).async_map(shuffled, capacity=5, ordered=False)

    results, _ = run(range(300), build)
    assert sorted(results) == [number**4 for number in range(300)]


def test_results_go_out_while_a_live_source_is_quiet():
    sink, clock = CollectingSink(), ManualClock()
    env = LocalEnvironment("async", clock=clock)
    source = TestSource([1, 2, 3, TestSource.PAUSE(5), 4])
    env.from_source(source).async_map(shuffled).sink(sink)
    env.submit_async()
    wait_until(lambda: sink.records == [1, 4, 9])
    clock.advance(seconds=5)
    env.wait(PATIENCE)
    assert sink.records == [1, 4, 9, 16]


@pytest.mark.usefixtures("event_loops")
def test_what_one_call_sets_in_its_context_no_other_sees():
    variable = ContextVar("variable", default=None)

    async def look_and_set(number):
        before = variable.get()
        variable.set(number)
        await asyncio.sleep(0)
        return before, variable.get() == number

    results, _ = run(range(50), lambda s: s.async_map(look_and_set, capacity=2))
    assert results == [(None, True)] * 50


# ---- event time


@pytest.mark.parametrize("ordered", [True, False])
def test_windows_behind_it_get_every_record_in_time(ordered):
    async def delayed(number):
        await asyncio.sleep(0.005 if number % 10 == 0 else 0)
        return number

    def build(stream):
        timed = stream.assign_timestamps(lambda number: number * 100)
        mapped = timed.async_map(delayed, ordered=ordered, capacity=20)
        return (
            mapped.key_by(lambda number: number % 2).window(tumbling_time_window(seconds=1)).sum()
        )

    results, _ = run(range(400), build, batch_size=7)
    assert len(results) == 80
    for result in results:
        first = result.start // 100
        assert result.value == sum(n for n in range(first, first + 10) if n % 2 == result.key)


@pytest.mark.parametrize("ordered", [True, False])
def test_timestamps_that_are_assigned_behind_it_end_only_with_its_results(ordered):
    async def delayed(number):
        await asyncio.sleep(0.01)
        return number

    def build(stream):
        mapped = stream.async_map(delayed, ordered=ordered)
        timed = mapped.assign_timestamps(lambda n: n * 100, max_out_of_orderness=100)
        return timed.window_all(tumbling_time_window(seconds=1)).count()

    results, _ = run(range(40), build)
    assert [result.value for result in results] == [10, 10, 10, 10]


# ---- state


@pytest.mark.parametrize("ordered", [True, False])
def test_a_savepoint_holds_the_records_under_way(tmp_path, ordered):
    gate = threading.Event()
    begun = []

    async def wait_at_gate(number):
        begun.append(number)
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return number

    def build(clock):
        env = LocalEnvironment("async", clock=clock)
        env.enable_checkpointing(1000, tmp_path / "checkpoints")
        source = TestSource([1, 2, 3, TestSource.PAUSE(5), 4])
        waiting = env.from_source(source).async_map(wait_at_gate, ordered=ordered, uid="gate")
        return env, waiting.collect()

    env, results = build(ManualClock())
    job = env.submit_async()
    wait_until(lambda: len(begun) == 3)
    savepoint = job.savepoint(tmp_path / "savepoints", PATIENCE)
    env.cancel(PATIENCE)
    assert list(results) == []
    gate.set()
    clock = ManualClock()
    env, results = build(clock)
    env.restore_from(savepoint)
    env.submit_async()
    wait_until(lambda: len(begun) == 6)
    # The source may not have come to its pause yet, which lasts from then on.
    wait_until(lambda: clock.advance(seconds=5) or len(begun) == 7)
    env.wait(PATIENCE)
    assert sorted(results) == [1, 2, 3, 4]
