"""Figures of the subtasks of a job over two processes, while it runs and when it is done."""

from parallel.processes import wait_until
from parallel.sources import GatedSource
from sage import LocalEnvironment, MapFunction, count, tumbling_time_window

RECORDS = [(number % 20, number) for number in range(1000)]


def test_subtasks_tell_records_bytes_watermarks_and_checkpoints(tmp_path):
    gate = tmp_path / "gate"
    env = LocalEnvironment("watched", {"parallelism": 2, "buffer_timeout": 0.01})
    env.enable_checkpointing(600, tmp_path / "checkpoints")
    records = env.from_source(GatedSource(RECORDS, str(gate)), name="source")
    timed = records.rebalance().assign_timestamps(lambda r: r[1], name="time")
    windows = timed.key_by(lambda r: r[0], name="key").window(tumbling_time_window(seconds=0.1))
    windows.aggregate(count(), name="window").collect()
    with env:
        job = env.submit_async()
        wait_until(lambda: job.metrics["window"].records_in == len(RECORDS))
        while_it_runs(wait_until(lambda: with_time(job.metrics)))
        number = int(job.checkpoint(20))
        metrics = job.metrics
        last = metrics.checkpoints.last
        assert last.checkpoint_id == number
        assert len(last.subtasks) == 3
        assert last.seconds >= last.alignment > 0
        assert last.alignment == max(part.alignment for part in last.subtasks.values())
        assert all(s.checkpoint in last.subtasks.values() for s in metrics["key"].subtasks)
        assert all(s.state_bytes > 0 for s in metrics["window"].subtasks)
        gate.write_text("open")
        final = job.result(20).metrics
    when_it_is_done(final)


class Asks(MapFunction):
    def execute(self, data):
        try:
            return self.call_service["words"].get(data % 3)
        except Exception:
            return None


def test_calls_of_workers_to_services_count_in_the_program(tmp_path):
    gate = tmp_path / "gate"
    env = LocalEnvironment("watched", {"parallelism": 2, "buffer_timeout": 0.01})
    env.register_service("words", Words)
    records = env.from_source(GatedSource(range(300), str(gate)))
    records.rebalance().map(Asks).sink(id)
    with env:
        job = env.submit_async()
        called = wait_until(lambda: all_calls(env.services.status()["words"], 300))
        gate.write_text("open")
        job.result(20)
    assert (called.last_minute.calls, called.in_flight) == (300, 0)
    assert called.since_start.failures == {"KeyError": 100}
    assert 0 < called.last_minute.p50 <= called.last_minute.p99


class Words:
    def get(self, number):
        return {0: "zero", 1: "one"}[number]


def all_calls(status, count):
    called = status["called"].overall
    return called if called.since_start.calls == count else None


def with_time(metrics):
    window = metrics["window"]
    return (
        metrics if all(s.watermark == 997 or s.watermark == 998 for s in window.subtasks) else None
    )


def while_it_runs(metrics):
    assert [len(metrics[name].subtasks) for name in ("source", "key", "collect")] == [1, 2, 1]
    assert metrics["window"].watermark == 997  # that of the slower slot holds for both
    lags = [s.watermark_lag_ms for s in metrics["window"].subtasks]
    assert metrics["window"].watermark_lag_ms == max(lags)
    assert min(lags) > 1e12  # these records are of 1970
    assert metrics["source"].watermark is None
    assert [slot.number for slot in metrics.slots] == [0, 1, 2]
    for slot in metrics.slots:
        assert 0 <= slot.busy_share + slot.idle_share + slot.blocked_share <= 1.01
    assert metrics.slots[2].idle_share > 0.9  # the program itself has nothing to do


def when_it_is_done(metrics):
    window, collect = metrics["window"], metrics["collect"]
    assert sum(s.records_in for s in window.subtasks) == window.records_in == len(RECORDS)
    assert all(s.records_in > 0 for s in window.subtasks)
    assert [s.subtask for s in window.subtasks] == [0, 1]
    assert all(s.slot == metrics.slots[s.subtask] for s in window.subtasks)
    assert metrics["source"].bytes_out == metrics["time"].bytes_in > 0
    assert metrics["key"].bytes_out == window.bytes_in > 0
    assert window.bytes_out == collect.bytes_in > 0
    assert collect.subtasks[0].slot.number == 2
    assert metrics["time"].bytes_out == 0  # what follows is in the same slot
    assert window.watermark_lag_ms is None
