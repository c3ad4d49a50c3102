"""Savepoints: a program that was changed goes on from one, and nothing comes out twice."""

import pytest

from recovery.ledger import Ledger
from recovery.running import recovering
from recovery.scripted_source import Checkpoint, ScriptedSource
from sage import ConfigError, LocalEnvironment, tumbling_time_window


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
