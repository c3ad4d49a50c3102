"""Figures of subtasks: event time, what a slot does with its time, checkpoints; in one process."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.processes import wait_until
from sage import LocalEnvironment, count, tumbling_time_window
from sage.dataflow.time import MAX_WATERMARK
from sage.kernel.runtime.exchange.figures import SlotFigures, Stopwatch
from sage.testing import ManualClock, TestSource

PAUSE = TestSource.PAUSE


@pytest.fixture
def clock():
    return ManualClock(start_ms=100_000)


def start(clock, records, **options):
    """Run a job with event time and windows until its source pauses."""
    env = LocalEnvironment("figures", clock=clock)
    if options:
        env.enable_checkpointing(**options)
    stream = env.from_source(TestSource(records), name="source").map(abs, name="before")
    timed = stream.assign_timestamps(lambda at: at, name="time").map(abs, name="after")
    windows = timed.key_by(lambda at: at % 2, name="key").window(tumbling_time_window(seconds=10))
    windows.aggregate(count(), name="window", uid="window-uid").sink(id, name="sink")
    job = env.submit_async()
    clock.wait_waiting(1 + bool(options))
    return env, job


def watermarks(metrics):
    return {name: (o.watermark, o.watermark_lag_ms) for name, o in metrics.operators.items()}


def test_watermarks_and_their_lag_are_those_of_the_clock(clock):
    env, job = start(clock, [90_001, 95_001, PAUSE(5), 98_001, PAUSE(1000)])
    behind = ("time", "after", "key", "window", "sink")
    seen = watermarks(job.metrics)
    assert {seen[name] for name in behind} == {(95_000, 5_000)}
    assert seen["source"] == seen["before"] == (None, None)  # no time before it is assigned
    clock.advance(seconds=5)
    assert wait_until(lambda: watermarks(job.metrics)["window"] == (98_000, 7_000))
    clock.advance(seconds=60)
    assert watermarks(job.metrics)["window"] == (98_000, 67_000)
    env.cancel()
    assert watermarks(job.metrics)["window"] == (98_000, None)  # it is over


def test_at_the_end_there_is_no_lag(clock):
    env = LocalEnvironment("figures", clock=clock)
    env.from_batch([1]).assign_timestamps(lambda at: at, name="time").sink(id, name="sink")
    metrics = env.execute(progress=False).metrics
    assert watermarks(metrics)["sink"] == (MAX_WATERMARK, None)
    assert watermarks(metrics)["from_batch"] == (None, None)


def test_a_job_in_one_process_has_one_subtask_and_a_slot_for_each_part(clock):
    env = LocalEnvironment("figures", clock=clock)
    env.from_batch([1, 2, 3], name="one").filter(lambda n: n > 1, name="some").sink(id)
    env.from_batch([1], name="two").sink(id)
    metrics = env.execute(progress=False).metrics
    for operator in metrics.operators.values():
        (only,) = operator.subtasks
        assert only.subtask == 0
        assert (only.records_in, only.dropped) == (operator.records_in, operator.dropped)
    assert metrics["some"].subtasks[0].records_out == 2
    assert [slot.number for slot in metrics.slots] == [0, 1]
    assert metrics["two"].subtasks[0].slot == metrics.slots[1]


def test_a_slot_that_waits_is_idle_also_while_it_still_waits(clock):
    env, job = start(clock, [1, PAUSE(10), PAUSE(1000)])
    clock.advance(seconds=4)
    (slot,) = job.metrics.slots
    assert (slot.seconds, slot.idle, slot.busy, slot.idle_share) == (4.0, 4.0, 0.0, 1.0)
    clock.advance(seconds=2)
    env.cancel()
    clock.advance(seconds=100)
    (slot,) = job.metrics.slots
    assert (slot.seconds, slot.idle) == (6.0, 6.0)  # it ended then


def test_a_full_async_map_is_back_pressure(clock):
    async def never(record):
        import asyncio

        await asyncio.Event().wait()

    env = LocalEnvironment("figures", clock=clock)
    env.from_batch([1, 2, 3]).async_map(never, capacity=1).sink(id)
    job = env.submit_async()
    clock.wait_waiting(1)
    clock.advance(seconds=3)
    (slot,) = job.metrics.slots
    assert (slot.blocked, slot.blocked_share) == (3.0, 1.0)
    env.cancel()


def test_late_records_are_counted_by_subtask(clock):
    env, job = start(clock, [90_001, 30_000_001, 5, PAUSE(1000)])
    metrics = job.metrics
    assert metrics["window"].late == metrics["window"].subtasks[0].late == 1
    env.cancel()


def test_checkpoints_are_told_by_operator_and_subtask(clock, tmp_path):
    env, job = start(clock, [1, 2, 3, PAUSE(1000)], interval=60, path=tmp_path)
    assert job.metrics["window"].subtasks[0].checkpoint is None
    assert job.metrics.checkpoints.last is None
    clock.advance(seconds=2)
    number = int(job.checkpoint(10))
    metrics = job.metrics
    last = metrics.checkpoints.last
    assert metrics.checkpoints == job.checkpoints
    assert (last.checkpoint_id, last.ended_ms, last.savepoint) == (number, 102_000, False)
    part = metrics["window"].subtasks[0].checkpoint
    assert part == metrics["source"].subtasks[0].checkpoint == next(iter(last.subtasks.values()))
    assert (part.alignment, part.in_flight_bytes, last.alignment) == (0.0, 0, 0.0)
    assert part.size == last.size == sum(o.state_bytes for o in metrics.operators.values())
    assert metrics["window"].state_bytes == part.sizes["window-uid"] > 0
    assert metrics["sink"].state_bytes == 0
    job.savepoint(tmp_path / "kept", 10)
    assert job.checkpoints.last.savepoint
    for _ in range(12):
        job.checkpoint(10)
    assert job.checkpoints.completed == 14
    assert len(job.checkpoints.recent) == 10
    assert job.checkpoints.last_id == job.checkpoints.recent[-1].checkpoint_id
    env.cancel()


def test_restarts_are_counted(clock):
    records = [1, TestSource.ABORT(), 2, PAUSE(1000)]
    env = LocalEnvironment("figures", {"restart_strategy": "fixed-delay"}, clock=clock)
    env.logger.disabled = True
    env.from_source(TestSource(records)).sink(id)
    job = env.submit_async()
    clock.wait_waiting(1)
    assert job.metrics.restarts == 0
    clock.advance(seconds=60)
    assert wait_until(lambda: job.metrics.restarts == 1)
    env.cancel()


def test_a_job_that_is_done_keeps_figures_and_no_records_of_open_windows(clock):
    class Record:
        pass

    seen = []

    def note(at):
        record = Record()
        seen.append(weakref.ref(record))
        return record

    env = LocalEnvironment("figures", clock=clock)
    timed = env.from_source(TestSource([5, PAUSE(1000)])).map(note).assign_timestamps(lambda r: 5)
    timed.window_all(tumbling_time_window(seconds=10)).apply(lambda *a: []).sink(id)
    env.submit()
    clock.wait_waiting(1)
    env.cancel()
    gc.collect()
    assert [ref() for ref in seen] == [None]
    assert env.job.metrics["assign_timestamps"].watermark == 4


@given(st.lists(st.tuples(st.sampled_from(["start", "stop", "none"]), st.integers(0, 5))))
def test_a_stopwatch_adds_up_what_lies_between_start_and_stop(steps):
    now, expected, runs = [0], 0, False
    watch = Stopwatch(lambda: now[0])
    for step, passes in steps:
        if step == "start":
            watch.start()
            runs = True
        elif step == "stop":
            watch.stop()
            runs = False
        now[0] += passes
        expected += passes if runs else 0
        assert watch.read() == expected


def test_a_slot_that_has_not_run_has_no_shares():
    slot = SlotFigures()
    assert (slot.busy_share, slot.idle_share, slot.blocked_share, slot.aligning_share) == (0,) * 4
