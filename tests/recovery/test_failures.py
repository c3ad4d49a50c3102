"""Restarts, damage, full disks, and how much a checkpoint writes."""

import itertools
import logging
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from patience import PATIENCE
from recovery.ledger import Ledger
from recovery.running import checkpoint_of, recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import JobStatus, LocalEnvironment, OperatorError
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.store import FileCheckpointStore
from sage.testing import ManualClock


def scripted(env, script, ledger=None):
    source = ScriptedSource(script, checkpoint_of(env))
    ledger = ledger or Ledger()
    env.from_source(source, uid="numbers").key_by(lambda n: 0, uid="k").sum(uid="sum").sink(
        ledger, uid="out"
    )
    return ledger


def failing(tmp_path, clock=None, **strategy):
    env = LocalEnvironment("failing", clock=clock)
    env.enable_checkpointing(3600, tmp_path)
    if strategy:
        env.set_restart_strategy(**strategy)
    return env


def test_fixed_delays_pass_on_the_clock_of_the_job(tmp_path):
    clock = ManualClock()
    env = failing(tmp_path, clock, strategy="fixed-delay", max_attempts=2, restart_delay=30)
    ledger = scripted(env, [1, Checkpoint(), Fail(9), 2])
    env.submit()
    for restarts in range(2):
        wait_restarting(env, clock)
        clock.advance(seconds=29)
        assert env.job.status is JobStatus.RESTARTING
        assert env.job.metrics.restarts == restarts
        clock.advance(seconds=1)
        # Not for another status: it may be restarting again before anybody looks.
        wait_for(lambda: env.job.metrics.restarts > restarts)  # noqa: B023 - called at once
    with pytest.raises(OperatorError, match="the fault at index 2"):
        env.job.result(10)
    assert env.job.status is JobStatus.FAILED
    assert ledger.committed == [(0, 1)]


def wait_restarting(env, clock):
    """Return once the job waits for its delay to pass."""
    wait_for(lambda: env.job.status is JobStatus.RESTARTING)
    clock.wait_waiting(2)  # the thread of the checkpoints, and the one that is to start again


def wait_for(condition):
    """Return once a condition holds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        os.sched_yield()


def test_a_job_can_be_cancelled_while_it_waits_to_be_restarted(tmp_path):
    clock = ManualClock()
    env = failing(tmp_path, clock, strategy="fixed-delay", max_attempts=2, restart_delay=30)
    scripted(env, [1, Fail(9)])
    env.submit()
    wait_restarting(env, clock)
    assert env.job.cancel(10)["status"] == "success"
    assert env.job.status is JobStatus.CANCELED


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, caplog):
    env = failing(tmp_path, strategy="none")
    ledger = scripted(env, [1, Checkpoint(), 2, Checkpoint(), Fail(), 3])
    with pytest.raises(OperatorError):
        env.execute(progress=False)
    assert ledger.committed == [(0, 1), (0, 3)]
    [chunk, *_] = (tmp_path / "failing" / "chk-2").glob("*.chunk")
    chunk.write_bytes(b"damaged")
    again = failing(tmp_path, strategy="none")
    ledger = scripted(again, [1, Checkpoint(), 2, Checkpoint(), 4])
    with caplog.at_level(logging.WARNING):
        again.execute(progress=False)
    assert "checkpoint 2 cannot be used" in caplog.text
    assert ledger.committed[-2:] == [(0, 3), (0, 7)]


@pytest.fixture
def full_disk(monkeypatch):
    """Let no checkpoint be begun as long as the list holds something."""
    full = [True]
    begin = FileCheckpointStore.begin

    def refuse(self, number):
        if full:
            raise CheckpointError(f"cannot write checkpoint {number}: No space left on device")
        begin(self, number)

    monkeypatch.setattr(FileCheckpointStore, "begin", refuse)
    return full


def test_too_many_failed_checkpoints_fail_the_job_with_the_reason(tmp_path, full_disk):
    env = LocalEnvironment("full")
    env.enable_checkpointing(0.01, tmp_path, checkpoint_tolerated_failures=2)
    env.set_restart_strategy("none")
    env.from_source(_forever).sink(Ledger())
    with pytest.raises(Exception, match=r"3 checkpoints in a row have failed.*No space left"):
        env.execute(20, progress=False)
    assert env.job.status is JobStatus.FAILED


@pytest.fixture
def small_files():
    """Let no file grow beyond 100 kB, until the value is called."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_is_told_and_counted_and_the_job_goes_on(
    tmp_path, caplog, small_files
):
    env = LocalEnvironment("full")
    env.enable_checkpointing(0.01, tmp_path, checkpoint_tolerated_failures=10**6)
    ledger = Ledger()
    counts = env.from_batch(lambda: itertools.cycle(range(60_000))).key_by(lambda n: n)
    counts.count().filter(lambda pair: pair[0] == 0).sink(ledger)
    env.submit()
    try:
        with caplog.at_level(logging.WARNING):
            wait_for(lambda: env.job.checkpoints.failed >= 1)
            completed = env.job.checkpoints.completed  # while there was little state yet
            wait_for(lambda: env.job.checkpoints.failed >= 3)
        assert "cannot write a chunk of" in caplog.text
        assert "File too large" in caplog.text
        assert (env.job.status, env.job.checkpoints.completed) == (JobStatus.RUNNING, completed)
        small_files()
        wait_for(lambda: env.job.checkpoints.completed >= completed + 2 and ledger.committed)
    finally:
        env.cancel()
    assert not list(tmp_path.rglob("*.tmp"))
    assert ledger.committed == [(0, n + 1) for n in range(len(ledger.committed))]


def test_tolerated_failures_do_no_harm(tmp_path, full_disk):
    env = LocalEnvironment("full")
    env.enable_checkpointing(3600, tmp_path)
    ledger = Ledger()

    def room():
        full_disk.clear()
        return env.job._job.checkpoint()

    source = ScriptedSource([1, Checkpoint(), 2, Fail(0), 3], room)
    env.from_source(source).sink(ledger)
    env.execute(20, progress=False)
    assert ledger.committed == [1, 2, 3]


def test_a_job_whose_checkpoints_are_all_damaged_does_not_begin_anew_by_itself(tmp_path):
    env = failing(tmp_path, strategy="none")
    scripted(env, [1, Checkpoint(), Fail()])
    with pytest.raises(OperatorError):
        env.execute(progress=False)
    [metadata] = tmp_path.rglob("metadata.json")
    metadata.write_bytes(metadata.read_bytes()[:-1])
    again = failing(tmp_path)
    scripted(again, [1, Checkpoint(), 2])
    with pytest.raises(
        CheckpointError, match=r"none that is whole: .*checksum.*move that directory"
    ):
        again.execute(progress=False)


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    env = failing(blocked)
    scripted(env, [1])
    with pytest.raises(CheckpointError, match="cannot write"):
        env.execute(progress=False)


def _forever():
    while True:
        yield 1


def test_a_checkpoint_writes_what_has_changed(tmp_path):
    env = recovering(tmp_path)
    keys, sizes = 20_000, []

    def take():
        job = env.job
        future = job._job.checkpoint()
        future.add_done_callback(lambda _: sizes.append(job.checkpoints.last_bytes))
        return future

    many, few = list(range(keys)), list(range(keys // 100))
    script = [many, Checkpoint(), few, Checkpoint(), few, Checkpoint(), Fail(), few]
    ledger = Ledger()
    stream = env.from_source(ScriptedSource(script, take)).flat_map(lambda batch: batch)
    stream.key_by(lambda n: n).count(emit="final").sink(ledger)
    env.execute(progress=False)
    assert dict(ledger.committed) == {n: 4 if n < keys // 100 else 1 for n in range(keys)}
    whole, *parts = sizes
    assert all(0 < part < whole / 50 for part in parts)


PROGRAM = """
import itertools, sys
from sage import LocalEnvironment
from sage.testing import TestSource

env = LocalEnvironment("interrupted")
env.enable_checkpointing(3600, sys.argv[1])
endless = sys.argv[2] == "endless"
tail = [TestSource.PAUSE(1e6)] if endless else ["passed"]
numbers = [1, 2, 3, *tail, 4] if endless else [1, 2, 3, 0, 4]
counts = env.from_source(TestSource(numbers), uid="n").key_by(lambda n: 0, uid="k").sum(uid="s")
counts.sink(lambda pair: print(pair, flush=True), uid="out")
env.execute(progress=False)
"""


def test_ctrl_c_takes_a_last_checkpoint_and_the_next_run_goes_on_from_it(tmp_path):
    def start(how):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), how],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip

    with start("endless") as process:
        assert [process.stdout.readline() for _ in range(3)] == ["(0, 1)\n", "(0, 3)\n", "(0, 6)\n"]
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=15)
        assert (out, process.returncode != 0) == ("", True), errors
    with start("on") as process:
        out, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert out.splitlines() in (["(0, 10)"], ["(0, 6)", "(0, 10)"])
