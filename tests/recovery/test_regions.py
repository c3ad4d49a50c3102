"""Parts of a job that nothing joins: one fails and is started again, the others do not notice."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel.processes import is_alive, wait_until
from recovery.ledger import Ledger
from recovery.running import checkpoint_of, recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import JobError, JobStatus, LocalEnvironment, OperatorError, Source, SourceReader
from sage.common.errors import ConfigError
from sage.kernel.runtime.worker.worker_task import WorkerTask

HALF, BATCH = 3_000, 20
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for


class Gated(Source[Any]):
    """Two splits of numbers; their second half comes once the file `gate` is there."""

    def __init__(self, directory: Path) -> None:
        self.gate, self.log = directory / "gate", directory / "log"

    def list_splits(self):
        return ["even", "odd"]

    def create_reader(self, splits, context):
        [(split, position)] = splits.items()
        with self.log.open("a") as log:
            log.write(f"{split} {os.getpid()}\n")  # so a test can tell who began anew, and where
        return _GatedReader(self.gate, split, position or 0)


class _GatedReader(SourceReader[Any]):
    poll_interval = 0.002

    def __init__(self, gate, split, position):
        self.gate, self.split, self.position, self.pause = gate, split, position, False

    def read_batch(self, max_records):
        self.pause = not self.pause  # a little at a time, so that there is something to break off
        end = HALF * 2 if self.gate.exists() else HALF
        if self.position == HALF * 2:
            return None
        if self.pause or self.position == end:
            return []
        first, self.position = self.position, min(self.position + BATCH, end)
        return [2 * n + (self.split == "odd") for n in range(first, self.position)]

    def snapshot(self):
        return {self.split: self.position}


class FailOnce:
    """Raises at one number, unless a file says that it has done so."""

    def __init__(self, number, told):
        self.number, self.told = number, told

    def __call__(self, number):
        if number == self.number and not self.told.exists():
            self.told.touch()
            raise ValueError("once")
        return number


def forward_only(directory: Path, *functions: Any) -> LocalEnvironment:
    """Return a job of two slots between which no record goes."""
    env = LocalEnvironment("slots", {"parallelism": 2})
    env.enable_checkpointing(0.05, directory / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=5, restart_delay=0)
    stream = env.from_source(Gated(directory), uid="numbers")
    for function in functions:
        stream = stream.map(function)
    stream.to_files(directory / "out")
    return env


def workers_of(env: LocalEnvironment) -> list[WorkerTask]:
    assert env._job is not None
    return [task for task in env._job._tasks if isinstance(task, WorkerTask)]


def wait_for_checkpoints(env: LocalEnvironment, count: int) -> None:
    """Wait until so many more checkpoints have completed."""
    assert env.job is not None
    before = env.job.checkpoints.completed
    wait_until(lambda: env.job.checkpoints.completed >= before + count)


def written(directory: Path) -> list[int]:
    """Return what was committed; nothing else is there."""
    assert not list((directory / "out").glob(".*"))
    parts = (directory / "out").glob("part-*")
    return sorted(int(line) for part in parts for line in part.read_text().splitlines())


def processes(directory: Path) -> dict[str, list[int]]:
    """Return in which processes each slot has run, one after the other."""
    found: dict[str, list[int]] = {"even": [], "odd": []}
    for line in (directory / "log").read_text().splitlines():
        split, pid = line.split()
        found[split].append(int(pid))
    return found


def finish(env: LocalEnvironment, directory: Path) -> None:
    """Let the rest come, and look at what is there in the end."""
    (directory / "gate").touch()
    assert env.job is not None
    env.job.result(60)
    assert written(directory) == list(range(4 * HALF))


def test_a_killed_slot_is_replaced_while_the_other_runs_on(tmp_path, caplog):
    with forward_only(tmp_path) as env:
        env.submit_async()
        wait_for_checkpoints(env, 2)
        stays, dies = workers_of(env)
        survivor, victim = stays.pid, dies.pid
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: workers_of(env)[1] is not dies and workers_of(env)[1].has_counted)
        wait_until(lambda: env.job.status is JobStatus.RUNNING)
        assert workers_of(env)[0] is stays
        assert (stays.pid, is_alive(survivor)) == (survivor, True)
        assert workers_of(env)[1].pid != victim
        wait_for_checkpoints(env, 2)  # of both again
        finish(env, tmp_path)
    even, (first, second) = processes(tmp_path).values()
    assert (even, first) == ([survivor], victim)
    assert second != victim
    assert "a part of job 'slots' failed and is started again in 0 s: worker 1 died" in caplog.text


def test_both_slots_may_fail_also_before_the_first_checkpoint(tmp_path):
    fail = [FailOnce(number, tmp_path / f"failed {number}") for number in (0, HALF + 1)]
    with forward_only(tmp_path, *fail) as env:
        env.submit_async()
        finish(env, tmp_path)
    for pids in processes(tmp_path).values():
        assert len(pids) == 2
        assert len(set(pids)) == 1  # a process in which a function has raised goes on


def test_another_failover_strategy_is_refused():
    env = LocalEnvironment("refused")
    with pytest.raises(ConfigError, match=r"failover_strategy is 'ful'.*Did you mean 'full'"):
        env.set_restart_strategy("none", failover_strategy="ful")


# ---- pipelines of one process

SCRIPTS = st.lists(
    st.one_of(st.integers(0, 9), st.just(Checkpoint()), st.builds(Fail, times=st.integers(1, 2))),
    max_size=12,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SCRIPTS, SCRIPTS)
@example([1, Checkpoint(), 2, Fail(2), 3], [4, Checkpoint(), 5])
@example([1, Fail(), Checkpoint(), Fail()], [Fail(), Checkpoint(), 2, Checkpoint(), Fail()])
def test_each_pipeline_fails_for_itself_and_counts_every_record_once(one, other):
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        env = recovering(root)
        sources = [ScriptedSource(script, checkpoint_of(env)) for script in (one, other)]
        ledgers = [Ledger(), Ledger()]
        for source, ledger in zip(sources, ledgers, strict=True):
            env.from_source(source).key_by(lambda n: n % 2).sum().sink(ledger)
        env.execute(60, progress=False)
    for script, source, ledger in zip((one, other), sources, ledgers, strict=True):
        assert ledger.committed == sums(script)
        fails = sum(value.times for value in script if isinstance(value, Fail))
        assert source.attempts == 1 + fails  # those of the other are nothing to it


def sums(script):
    """Return the running sums of even and odd numbers."""
    totals, found = {}, []
    for value in script:
        if isinstance(value, int):
            totals[value % 2] = totals.get(value % 2, 0) + value
            found.append((value % 2, totals[value % 2]))
    return found


class Endless(ScriptedSource):
    """Gives nothing more after its script, and does not end."""

    def create_reader(self, splits, context):
        reader = super().create_reader(splits, context)
        read = reader.read_batch
        reader.read_batch = lambda most: read(most) or []
        return reader


def two_pipelines(root, **restarts):
    """Return a job of which one pipeline fails twice, what it reads, and what the other one does."""
    env = recovering(root)
    env.set_restart_strategy("fixed-delay", restart_delay=0, **restarts)
    failing = ScriptedSource([1, Fail(2), 2], checkpoint_of(env))
    other = Endless([3])
    env.from_source(failing).sink(Ledger())
    env.from_source(other).sink(Ledger())
    return env, failing, other


def test_the_whole_job_is_started_again_if_the_strategy_says_so(tmp_path):
    env, failing, other = two_pipelines(tmp_path, max_attempts=2, failover_strategy="full")
    with env:
        env.submit_async()
        wait_until(lambda: failing.attempts == other.attempts == 3)


def test_a_strategy_that_gives_up_ends_all_parts(tmp_path):
    env, failing, other = two_pipelines(tmp_path, max_attempts=1)
    with pytest.raises(OperatorError, match="the fault at index 1"):
        env.execute(30, progress=False)
    assert (failing.attempts, other.attempts) == (2, 1)


class RefusesOnce(Ledger):
    """Does not commit what the savepoint holds, the first time."""

    refused = False

    def enter(self, name, records):
        if not self.refused:
            self.refused = True
            raise OSError("no commit")
        super().enter(name, records)


def test_what_fails_after_the_savepoint_of_a_stop_does_not_begin_anew(tmp_path):
    """The savepoint is there, and who starts from it finds everything: a restart would double it."""
    env = recovering(tmp_path / "checkpoints")
    one, other = RefusesOnce(), Ledger()
    for ledger in (one, other):
        source = Endless([1, 2])
        env.from_source(source, uid=f"n{ledger is one}").sink(ledger, uid=f"s{ledger is one}")
    env.submit_async()
    wait_until(lambda: env.job.metrics.records_in == 4)
    answer = env.job.stop(30, savepoint=tmp_path / "saved")
    assert env.job.status is JobStatus.FAILED
    assert "no commit" in answer["message"]
    assert other.committed == [1, 2]


def test_a_job_that_is_refused_lets_go_of_its_checkpoints(tmp_path):
    lock = threading.Lock()
    for _ in range(2):
        env = LocalEnvironment("refused", {"parallelism": 2})
        env.enable_checkpointing(10, tmp_path)
        env.from_batch([1]).map(lambda n: (n, lock)).sink(print)
        with pytest.raises(JobError, match="cannot be sent"):
            env.execute(progress=False)
