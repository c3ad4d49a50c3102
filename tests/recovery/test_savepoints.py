"""Savepoints: a program that was changed goes on from one, and nothing comes out twice."""

import os
import shutil
import time

import pytest

from recovery.ledger import Ledger
from recovery.running import checkpoint_of, recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import ConfigError, LocalEnvironment, OperatorError, tumbling_time_window
from sage.kernel.checkpoint.errors import CheckpointError


class Gate(ScriptedSource):
    """Stands still at a `Checkpoint` for good: the job has to be stopped there."""

    def __init__(self, script):
        super().__init__(script, lambda: self)

    def add_done_callback(self, callback):
        return None

    def done(self):
        return False


VALUES = [3, 1, 4, 1, 5, 9, 2, 6]


def summed(env, script, ledger, uid="sums", extra=False):
    stream = env.from_source(script, uid="numbers")
    if extra:
        stream.distinct(uid="seen").sink(extra, uid="to seen")
    stream.key_by(lambda n: n % 2, uid="parity").sum(uid=uid).sink(ledger, uid="out")


def stopped(tmp_path, build=summed):
    """Run the first half, stop with a savepoint; return its path and what was committed."""
    env = recovering(tmp_path / "checkpoints")
    ledger = Ledger()
    build(env, Gate([*VALUES[:4], Checkpoint(), *VALUES[4:]]), ledger)
    env.submit()
    wait_for(env, lambda: env.job.metrics.records_in == 4)
    answer = env.job.stop(10, savepoint=tmp_path / "savepoints")
    assert answer["status"] == "success"
    return answer["message"], ledger


def wait_for(env, condition):
    """Return once a condition holds; a checkpoint takes its time, so asking is not idle."""
    for _ in range(1000):
        if condition():
            return
        env.job.checkpoint(5)
    raise AssertionError("it never came to that")


def whole(build=summed):
    env, ledger = LocalEnvironment("whole"), Ledger()
    build(env, ScriptedSource(VALUES), ledger)
    env.execute(progress=False)
    return ledger.committed


REST = [*VALUES[:4], "was a gate", *VALUES[4:]]


def test_what_comes_before_and_after_is_what_comes_without(tmp_path):
    savepoint, ledger = stopped(tmp_path)
    env = LocalEnvironment("on")
    env.enable_checkpointing(3600, tmp_path / "others")
    summed(env, ScriptedSource(REST), ledger)
    env.execute(progress=False, from_savepoint=savepoint)
    assert ledger.committed == whole()


def windowed(env, script, ledger):
    stream = env.from_source(script, uid="numbers").assign_timestamps(lambda n: n * 100, uid="time")
    windows = stream.key_by(lambda n: n % 2, uid="parity").window(tumbling_time_window(seconds=1))
    windows.sum(uid="windows").sink(ledger, uid="out")


def test_windows_that_are_open_stay_open(tmp_path):
    savepoint, ledger = stopped(tmp_path, windowed)
    assert ledger.committed == []
    env = LocalEnvironment("on")
    env.enable_checkpointing(3600, tmp_path / "others")
    windowed(env, ScriptedSource(REST), ledger)
    env.execute(progress=False, from_savepoint=savepoint)
    assert ledger.committed == whole(windowed)


def test_a_new_operator_begins_empty(tmp_path):
    savepoint, ledger = stopped(tmp_path)
    env, seen = LocalEnvironment("on"), Ledger()
    env.enable_checkpointing(3600, tmp_path / "others")
    summed(env, ScriptedSource(REST), ledger, extra=seen)
    env.execute(progress=False, from_savepoint=savepoint)
    assert ledger.committed == whole()
    assert seen.committed == VALUES[4:]


def test_a_renamed_operator_is_named_with_its_likely_new_name(tmp_path):
    savepoint, ledger = stopped(tmp_path)
    env = LocalEnvironment("on")
    summed(env, ScriptedSource(REST), ledger, uid="sum")
    with pytest.raises(ConfigError, match=r"'sums', which this program does not have.*'sum'"):
        env.execute(progress=False, from_savepoint=savepoint)


def test_state_nobody_wants_any_more_is_left_out_if_allowed(tmp_path):
    savepoint, _ = stopped(tmp_path)
    env, ledger = LocalEnvironment("on"), Ledger()
    env.enable_checkpointing(3600, tmp_path / "others")
    env.from_source(ScriptedSource(REST), uid="numbers").sink(ledger, uid="other")
    env.execute(progress=False, from_savepoint=savepoint, allow_non_restored_state=True)
    assert ledger.committed == VALUES[4:]


def two_parts(env, ended, running, ledgers, order=(0, 1)):
    """Make two pipelines that do not hang together, in one order or the other."""
    parts = [("ended", ended), ("running", running)]
    for name, source in (parts[number] for number in order):
        stream = env.from_source(source, uid=f"{name} numbers").key_by(lambda n: n % 2)
        stream.sum(emit="final", uid=f"{name} sums").sink(ledgers[name], uid=f"{name} out")


def ended(env):
    """Say whether the first of two tasks has ended."""
    return env.job._job._tasks[0].input_ended


def new_ledgers():
    return {"ended": Ledger(), "running": Ledger()}


SUMS = {"ended": [(1, 4), (0, 6)], "running": [(1, 19), (0, 12)]}


def committed(ledgers):
    return {name: ledger.committed for name, ledger in ledgers.items()}


def test_a_savepoint_leaves_alone_what_an_ended_part_has_kept(tmp_path):
    """Its final state is there for the checkpoints that follow."""
    env, ledgers = recovering(tmp_path / "checkpoints"), new_ledgers()
    source = ScriptedSource([*VALUES[:4], Checkpoint(), *VALUES[4:], Fail()])
    source.take_checkpoint = lambda: follow(env, tmp_path)
    two_parts(env, ScriptedSource([1, 2, 3, 4]), source, ledgers)
    env.execute(progress=False)
    assert committed(ledgers) == SUMS
    assert source.attempts == 2
    assert env.job.checkpoints.failed == 0


def follow(env, path):
    """Take two savepoints once the first part has ended, then a checkpoint."""
    job = env.job._job
    deadline = time.monotonic() + 10
    while not ended(env):
        assert time.monotonic() < deadline
        os.sched_yield()
    for number in range(2):
        job.savepoint(str(path / f"savepoints {number}"))
    return job.checkpoint()


def test_a_part_that_has_ended_has_ended_in_a_copy_elsewhere_too(tmp_path):
    """The program has the parts in another order, and the first checkpoints are gone."""
    env, ledgers = recovering(tmp_path / "checkpoints"), new_ledgers()
    gate = Gate([*VALUES[:4], Checkpoint(), *VALUES[4:]])
    two_parts(env, ScriptedSource([1, 2, 3, 4]), gate, ledgers)
    env.submit()
    wait_for(env, lambda: env.job.metrics.records_in == 8 and ended(env))
    savepoint = env.job.stop(10, savepoint=tmp_path / "savepoints")["message"]
    assert committed(ledgers) == {"ended": SUMS["ended"], "running": []}
    moved = shutil.move(savepoint, tmp_path / "moved")
    shutil.rmtree(tmp_path / "checkpoints")

    again, never = recovering(tmp_path / "others"), ScriptedSource([Fail(99)])
    rest = [*REST[:6], Checkpoint(), Fail(), *REST[6:]]
    source = ScriptedSource(rest, checkpoint_of(again))
    two_parts(again, never, source, ledgers, order=(1, 0))
    again.execute(progress=False, from_savepoint=moved)
    assert committed(ledgers) == SUMS
    assert (never.attempts, source.attempts) == (0, 2)
    assert again.job.checkpoints.failed == 0


def test_a_failure_before_the_first_checkpoint_goes_back_to_the_savepoint(tmp_path):
    """Not to a checkpoint that an earlier run of the job has left."""
    savepoint, ledger = stopped(tmp_path)
    env = LocalEnvironment("recovering")
    env.enable_checkpointing(3600, tmp_path / "checkpoints")
    summed(env, ScriptedSource([100, Checkpoint(), Fail()], checkpoint_of(env)), Ledger())
    env.set_restart_strategy("none")
    with pytest.raises(OperatorError):
        env.execute(progress=False)
    assert list((tmp_path / "checkpoints").rglob("metadata.json"))
    again = recovering(tmp_path / "checkpoints")
    source = ScriptedSource([*REST[:6], Fail(), *REST[6:]])
    summed(again, source, ledger)
    again.execute(progress=False, from_savepoint=savepoint)
    assert source.attempts == 2
    assert ledger.committed == whole()


def test_what_is_no_savepoint_is_told_from_one(tmp_path):
    savepoint, _ = stopped(tmp_path)
    env = LocalEnvironment("on")
    summed(env, ScriptedSource(REST), Ledger())
    with pytest.raises(
        CheckpointError, match=rf"there is no savepoint in .*Did you mean {savepoint}"
    ):
        env.execute(progress=False, from_savepoint=tmp_path / "savepoints")
    with pytest.raises(CheckpointError, match=r"json is missing$"):
        env.execute(progress=False, from_savepoint=tmp_path / "nowhere")


def test_a_checkpoint_is_no_savepoint(tmp_path):
    env = recovering(tmp_path)
    summed(env, Gate([*VALUES[:4], Checkpoint()]), Ledger())
    env.submit()
    env.job.checkpoint(5)
    env.cancel()
    [checkpoint] = tmp_path.glob("recovering/chk-*")
    again = LocalEnvironment("on")
    summed(again, ScriptedSource(REST), Ledger())
    with pytest.raises(CheckpointError, match=r"is a checkpoint, .*a job of the name 'recovering'"):
        again.execute(progress=False, from_savepoint=checkpoint)
