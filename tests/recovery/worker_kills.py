"""Kills workers of a running job, again and again, and compares what it committed.

PYTHONPATH=tests python -m recovery.worker_kills --kills 200
PYTHONPATH=tests python -m recovery.worker_kills --kills 200 --apart   # no record goes between slots
PYTHONPATH=tests python -m recovery.worker_kills --kills 200 --loop    # records go round
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sage import DataStream, LocalEnvironment, Source, SourceReader, count, tumbling_time_window
from sage.kernel.runtime.worker.worker_task import WorkerTask

KEYS = 53
WINDOW_MS = 1000
BATCH_SECONDS = 0.002


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        kills: How many workers were killed.
        gaps: Seconds from each kill until records flowed again.
        missing: Windows that were not committed.
        doubled: Windows that were committed more than once, or with another count.
        left_over: Temporary files that are still there.
        replaced: Workers that were replaced, those that were killed among them.
    """

    kills: int = 0
    gaps: list[float] = field(default_factory=list)
    missing: int = 0
    doubled: int = 0
    left_over: int = 0
    replaced: int = 0


def slowly(number: int) -> int:
    """Hold the source back a little, so that there is something to kill."""
    if number % 1000 == 0:
        time.sleep(BATCH_SECONDS)
    return number


class Dealt(Source[int]):
    """Numbers, dealt out to splits."""

    def __init__(self, records: int, splits: int) -> None:
        self.records, self.splits = records, splits

    def list_splits(self) -> list[str]:
        return [str(number) for number in range(self.splits)]

    def create_reader(self, splits: Any, context: Any) -> SourceReader[int]:
        [(split, position)] = splits.items()
        return _DealtReader(self, split, int(split) if position is None else position)


class _DealtReader(SourceReader[int]):
    def __init__(self, source: Dealt, split: str, position: int) -> None:
        self.source, self.split, self.position = source, split, position

    def read_batch(self, max_records: int) -> list[int] | None:
        step = self.source.splits
        first, self.position = self.position, self.position + max_records * step
        return list(range(first, min(self.position, self.source.records), step)) or None

    def snapshot(self) -> dict[str, int]:
        return {self.split: self.position}


def run_apart(records: int, kills: int, seed: int, directory: Path, workers: int = 2) -> Outcome:
    """Do the same with a job of which each slot is a region."""
    env = LocalEnvironment("apart", {"parallelism": workers, "batch_size": 500})
    env.enable_checkpointing(0.2, directory / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=kills + 10, restart_delay=0)
    env.from_source(Dealt(records, workers)).map(slowly).to_files(directory / "out")
    outcome = _run_and_kill(env, kills, seed)
    parts = (directory / "out").glob("part-*")
    found = Counter(int(line) for path in parts for line in path.read_text().splitlines())
    outcome.missing = sum((Counter(range(records)) - found).values())
    outcome.doubled = sum((found - Counter(range(records))).values())
    outcome.left_over = len(list((directory / "out").glob(".*")))
    return outcome


def loop(env: LocalEnvironment, numbers: DataStream[int]) -> DataStream[Any]:
    """Let each number go round some times, through all slots, and count how often keys are seen."""
    back = env.from_future("back")
    seen = numbers.map(lambda n: (n, rounds(n))).union(back).key_by(lambda r: r[0] % KEYS)
    steps = seen.map(lambda r: (r[0], r[1] - 1))
    steps.filter(lambda r: r[1] > 0).rebalance().fill_future(back)
    visits = steps.key_by(lambda r: r[0] % KEYS).count(emit="final")
    left = steps.filter(lambda r: r[1] == 0).map(lambda r: ["left", r[0]])
    return left.union(visits.map(lambda pair: ["visits", *pair]))


def wanted_loop(records: int) -> Counter[tuple[Any, ...]]:
    """Return what `loop` gives."""
    visits = Counter[int]()
    for n in range(records):
        visits[n % KEYS] += rounds(n)
    left = {("left", n): 1 for n in range(records)}
    return Counter(left | {("visits", *pair): 1 for pair in visits.items()})


def rounds(number: int) -> int:
    """Return how often a number goes round."""
    return number % 7 + 1


def run_loop(records: int, kills: int, seed: int, directory: Path, workers: int = 2) -> Outcome:
    """Do the same with a job whose records go round in a loop."""
    env = LocalEnvironment("kills-in-a-loop", {"parallelism": workers, "batch_size": 500})
    env.enable_checkpointing(0.2, directory / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=kills + 10, restart_delay=0)
    loop(env, env.from_batch(range(records)).map(slowly)).to_files(directory / "out")
    outcome = _run_and_kill(env, kills, seed)
    found = Counter(map(tuple, _committed(directory / "out")))
    wanted = wanted_loop(records)
    outcome.missing = sum((wanted - found).values())
    outcome.doubled = sum((found - wanted).values())
    outcome.left_over = len(list((directory / "out").glob(".*")))
    return outcome


def run(records: int, kills: int, seed: int, directory: Path, workers: int = 2) -> Outcome:
    """Run the job, killing workers, and look at what it committed."""
    env = LocalEnvironment("worker-kills", {"parallelism": workers, "batch_size": 500})
    env.enable_checkpointing(0.2, directory / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=kills + 10, restart_delay=0)
    counted = (
        env.from_batch(range(records))
        .map(slowly)
        .assign_timestamps(lambda n: n // 10, max_out_of_orderness=timedelta(milliseconds=50))
        .key_by(lambda n: n % KEYS)
        .window(tumbling_time_window(milliseconds=WINDOW_MS))
        .aggregate(count())
    )
    counted.map(lambda r: [r.key, r.start, r.value]).to_files(directory / "out")
    outcome = _run_and_kill(env, kills, seed)
    _compare(records, directory / "out", outcome)
    return outcome


def _run_and_kill(env: LocalEnvironment, kills: int, seed: int) -> Outcome:
    outcome = Outcome()
    job = env.submit_async()
    killer = threading.Thread(target=_kill, args=(env, kills, seed, outcome), daemon=True)
    killer.start()
    try:
        job.result()
    finally:
        env.close()
        killer.join()
    return outcome


def _kill(env: LocalEnvironment, kills: int, seed: int, outcome: Outcome) -> None:
    random_ = random.Random(seed)
    job = env._job
    assert job is not None
    while outcome.kills < kills and not job.wait(random_.uniform(0.05, 0.6)):
        tasks = [task for task in job._tasks if isinstance(task, WorkerTask)]
        victim = random_.randrange(len(tasks))
        pid = tasks[victim].pid
        if pid is None or not _flows(env):
            continue
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        outcome.kills += 1
        while not job.wait(0.005):
            if job._tasks[victim] is not tasks[victim] and _flows(env, victim):
                outcome.gaps.append(time.monotonic() - killed_at)
                break
        outcome.replaced += sum(job._tasks[n] is not task for n, task in enumerate(tasks))


def _flows(env: LocalEnvironment, worker: int | None = None) -> bool:
    """Say whether records have been counted, by a worker, since it was started."""
    job = env._job
    assert job is not None
    tasks = job._tasks if worker is None else job._tasks[worker : worker + 1]
    return any(task.has_counted for task in tasks if isinstance(task, WorkerTask))


def _compare(records: int, directory: Path, outcome: Outcome) -> None:
    expected = Counter((n % KEYS, n // 10 // WINDOW_MS * WINDOW_MS) for n in range(records))
    found = Counter((key, start, count) for key, start, count in _committed(directory))
    wanted = Counter({(key, start, count): 1 for (key, start), count in expected.items()})
    outcome.missing = sum((wanted - found).values())
    outcome.doubled = sum((found - wanted).values())
    outcome.left_over = len(list(directory.glob(".*")))


def _committed(directory: Path) -> Iterator[list[Any]]:
    for path in sorted(directory.glob("part-*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def main() -> int:
    """Read the arguments, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--apart", action="store_true", help="no record goes between the slots")
    parser.add_argument("--loop", action="store_true", help="records go round through all slots")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        job = run_apart if options.apart else run_loop if options.loop else run
        done = job(options.records, options.kills, options.seed, Path(directory), options.workers)
    gaps = sorted(done.gaps)
    median = statistics.median(gaps) if gaps else float("nan")
    print(
        f"{done.kills} kills; records flowed again after {median:.2f} s (median), "
        f"{max(gaps, default=0):.2f} s (most); {done.replaced} workers replaced"
    )
    print(f"missing {done.missing}, doubled or wrong {done.doubled}, left over {done.left_over}")
    return 1 if done.missing or done.doubled or done.left_over else 0


if __name__ == "__main__":
    sys.exit(main())
