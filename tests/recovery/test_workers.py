"""Checkpoints and recovery of a job over several processes: no record is lost or counted twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from recovery.worker_kills import loop, run, run_loop, wanted_loop
from sage import JobStatus, LocalEnvironment, session_window
from sage.kernel.runtime.worker.worker_task import WorkerTask

RECORDS = 60_000
ROUND_RECORDS = 40_000


def slowly(number: int) -> int:
    """Hold the source back a little."""
    if number % 1000 == 0:
        time.sleep(0.01)
    return number


def program(directory: Path, parallelism: int) -> LocalEnvironment:
    """Return a job with keyed state, sessions, timers of windows, and a sink of files."""
    env = LocalEnvironment("workers", {"parallelism": parallelism, "batch_size": 200})
    env.enable_checkpointing(0.1, directory / "checkpoints", checkpoint_on_cancel="retain")
    numbers = env.from_batch(range(RECORDS), uid="numbers").map(slowly, uid="slowly")
    timed = numbers.assign_timestamps(lambda n: n, max_out_of_orderness=20, uid="times")
    sessions = timed.key_by(lambda n: n % 7).window(session_window(gap=0.02))
    counts = timed.key_by(lambda n: n % 1000).count(uid="counts")
    sessions.reduce(max, uid="sessions").map(lambda r: ["session", r.key, r.value]).to_files(
        directory / "sessions"
    )
    counts.map(list).to_files(directory / "counts")
    return env


def lines(directory: Path) -> Counter[str]:
    """Return what has been committed."""
    return Counter(
        line for path in directory.glob("part-*") for line in path.read_text().splitlines()
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a run in one process."""
    directory = tmp_path_factory.mktemp("undisturbed")
    with program(directory, 1) as env:
        env.execute()
    return directory


def same(found: Path, wanted: Path) -> None:
    """Demand the same output."""
    for part in ("sessions", "counts"):
        assert lines(found / part) == lines(wanted / part)
        assert lines(found / part)
        assert not list((found / part).glob(".*"))


def test_killed_workers_cost_no_record(tmp_path: Path) -> None:
    """The committed windows are those of an undisturbed run."""
    outcome = run(records=200_000, kills=3, seed=7, directory=tmp_path)
    assert outcome.kills >= 1  # how many there is time for depends on the machine
    assert (outcome.missing, outcome.doubled, outcome.left_over) == (0, 0, 0)


def test_killed_workers_cost_no_record_that_goes_round(tmp_path: Path) -> None:
    """What is in flight in a loop over several slots is a part of every checkpoint."""
    outcome = run_loop(records=60_000, kills=2, seed=3, directory=tmp_path)
    assert outcome.kills >= 1
    assert (outcome.missing, outcome.doubled, outcome.left_over) == (0, 0, 0)


def test_a_job_goes_on_from_a_savepoint(tmp_path: Path, undisturbed: Path) -> None:
    """It stops there, with all its slots, and another run goes on."""
    with program(tmp_path, 2) as env:
        env.submit_async()
        job = env.job
        assert job is not None
        wait_for_checkpoints(env, 2)
        answer = job.stop(timeout=60, savepoint=tmp_path / "saved")
        assert answer["status"] == "success"
        where = answer["message"]
    with program(tmp_path, 2) as env:
        env.execute(from_savepoint=where)
    same(tmp_path, undisturbed)


def wait_for_checkpoints(env: LocalEnvironment, count: int) -> None:
    """Wait until so many checkpoints have completed."""
    job = env.job
    assert job is not None
    until = time.monotonic() + 60
    while job.checkpoints.completed < count:
        assert time.monotonic() < until
        assert not job.status.is_terminal
        job.wait(0.01)


def test_state_goes_to_another_parallelism(tmp_path: Path, undisturbed: Path) -> None:
    """A checkpoint is gone on from by three workers, then by one process; files are each there once."""
    for parallelism in (2, 3):
        with program(tmp_path, parallelism) as env:
            env.submit_async()
            wait_for_checkpoints(env, 1)
            assert env.job is not None
            env.job.cancel(60)
            assert env.job.status is JobStatus.CANCELED
    with program(tmp_path, 1) as env:
        env.execute()
    same(tmp_path, undisturbed)


def round_trips(directory: Path, parallelism: int) -> LocalEnvironment:
    """Return a job whose records go round, through all slots."""
    env = LocalEnvironment("round", {"parallelism": parallelism, "batch_size": 200})
    env.enable_checkpointing(0.1, directory / "checkpoints")
    numbers = env.from_batch(range(ROUND_RECORDS), uid="numbers").map(slowly, uid="slowly")
    loop(env, numbers).to_files(directory / "out")
    return env


def test_what_goes_round_goes_on_in_other_slots(tmp_path: Path) -> None:
    """What a savepoint holds of a loop is dealt out to the slots that there are now."""
    with round_trips(tmp_path, 2) as env:
        env.submit_async()
        wait_for_checkpoints(env, 2)
        assert env.job is not None
        answer = env.job.stop(timeout=60, savepoint=tmp_path / "saved")
    with round_trips(tmp_path, 3) as env:
        env.execute(from_savepoint=answer["message"])
    found = Counter(tuple(json.loads(line)) for line in lines(tmp_path / "out").elements())
    assert found == wanted_loop(ROUND_RECORDS)


def test_a_worker_that_is_not_heard_of_is_replaced(tmp_path: Path, undisturbed: Path) -> None:
    """It has not died, but it does nothing any more."""
    with program(tmp_path, 2) as env:
        env.config["heartbeat_timeout"] = 3.0
        env.set_restart_strategy("fixed-delay", max_attempts=3, restart_delay=0)
        env.submit_async()
        wait_for_checkpoints(env, 2)
        job = env._job
        assert job is not None
        worker = job._tasks[1]
        assert isinstance(worker, WorkerTask)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        assert job.wait(120)
        job.result()
    same(tmp_path, undisturbed)
