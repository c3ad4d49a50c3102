"""Runs a job over two processes at full speed and watches that nothing grows.

PYTHONPATH=tests python -m recovery.soak --seconds 300

The job counts by key and event time, calls a service, takes a checkpoint each second and writes files
in two phases. Memory and open files are those of the program and its workers; latency is that of one
record in a thousand, from the source through the exchange to the keyed operator behind it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sage import LocalEnvironment, MapFunction, ProcessFunction, ValueState, count
from sage import tumbling_time_window as tumbling
from sage.dataflow.function.source import Source, SourceReader

KEYS = 1000
STAMPED = 1000
ASKED = 5000
PER_MS = 1000


class Numbers(Source[int]):
    """All numbers, the even and the odd ones, for ever."""

    bounded = False

    def list_splits(self) -> Sequence[str]:
        return ("0", "1")

    def create_reader(self, splits: Mapping[str, Any], context: Any) -> SourceReader[int]:
        return _NumbersReader({split: splits[split] or int(split) for split in splits})


class _NumbersReader(SourceReader[int]):
    def __init__(self, at: dict[str, int]) -> None:
        self._at = at
        self._stopped = False

    def read_batch(self, max_records: int) -> Sequence[int] | None:
        if self._stopped:
            return None
        split = min(self._at, key=self._at.__getitem__)
        start = self._at[split]
        self._at[split] = start + 2 * max_records
        return range(start, start + 2 * max_records, 2)

    def snapshot(self) -> dict[str, Any]:
        return dict(self._at)

    def stop(self) -> bool:
        self._stopped = True
        return False


class Names:
    """A service."""

    def name(self, number: int) -> str:
        return f"number {number}"


class Ask(MapFunction[Any, Any]):
    """Asks the service about one record in some thousand."""

    def execute(self, data: Any) -> Any:
        if data[0] % ASKED == 0:
            assert self.call_service["names"].name(data[0]) == f"number {data[0]}"
        return data


class Count(ProcessFunction[Any, Any]):
    """Counts by key, and notes how long stamped records took."""

    n = ValueState(int, default=0)

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def open(self) -> None:
        self.file = (self.directory / str(os.getpid())).open("a", buffering=1)

    def execute(self, data: Any, ctx: Any) -> Iterator[Any]:
        self.n.value += 1
        if data[1]:
            self.file.write(f"{time.monotonic() - data[1]:.6f}\n")
        yield data[0]

    def close(self) -> None:
        self.file.close()


def stamp(number: int) -> tuple[int, float]:
    """Note when a record in a thousand was read."""
    return number, time.monotonic() if number % STAMPED == 0 else 0.0


@dataclass
class Sample:
    """What was seen in some seconds.

    Attributes:
        memory: MiB that the program and its workers hold.
        files: How many files they have open.
        threads: How many threads they have.
        shared: MiB of queues.
        latency: The 99th percentile, in ms.
        speed: Thousands of records a second.
    """

    memory: float
    files: float
    threads: float
    shared: float
    latency: float
    speed: float


class Watch:
    """Looks at the processes of a job.

    Args:
        env: Whose.
        latencies: Where the workers write their latencies.
    """

    def __init__(self, env: LocalEnvironment, latencies: Path) -> None:
        self._env = env
        self._latencies = latencies
        self._at: dict[Path, int] = {}
        self._records = 0
        self._since = time.monotonic()

    def sample(self) -> Sample:
        """Return what there is now, and what has been since the last sample."""
        pids = [os.getpid(), *_children(os.getpid())]
        now, records = time.monotonic(), self._env.job.metrics.records_in
        speed = (records - self._records) / (now - self._since) / 1e3
        self._records, self._since = records, now
        latencies = sorted(self._fresh())
        return Sample(
            sum(_status(pid, "Rss", "smaps_rollup") for pid in pids) / 1024,
            sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
            sum(_status(pid, "Threads", "status") for pid in pids),
            sum(f.stat().st_blocks for f in Path("/dev/shm").rglob("*") if f.is_file()) / 2048,
            latencies[len(latencies) * 99 // 100] * 1e3 if latencies else float("nan"),
            speed,
        )

    def _fresh(self) -> Iterator[float]:
        for path in self._latencies.iterdir():
            with path.open() as file:
                file.seek(self._at.get(path, 0))
                text = file.read()
            whole = text[: text.rfind("\n") + 1]
            self._at[path] = self._at.get(path, 0) + len(whole)
            yield from map(float, whole.split())


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found + [grandchild for child in found for grandchild in _children(child)]


def _status(pid: int, name: str, file: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def soak(seconds: float, every: float, directory: Path) -> list[Sample]:
    """Run the job and look at it again and again."""
    latencies = directory / "latencies"
    latencies.mkdir()
    env = LocalEnvironment("soak", {"parallelism": 2})
    env.enable_checkpointing(1.0, directory / "checkpoints")
    env.register_service("names", Names).options(isolation="process")
    counted = (
        env.from_source(Numbers())
        .map(stamp)
        .map(Ask)
        .key_by(lambda record: record[0] // 2 % KEYS)
        .process(Count, latencies)
    )
    timed = counted.assign_timestamps(lambda n: n // PER_MS, max_out_of_orderness=100)
    windows = timed.key_by(lambda n: n % 10).window(tumbling(seconds=1)).aggregate(count())
    windows.map(lambda r: [r.key, r.start, r.value]).to_files(directory / "out")
    env.submit_async()
    samples: list[Sample] = []
    try:
        _await_records(env)
        watch, until = Watch(env, latencies), time.monotonic() + seconds
        while time.monotonic() < until and env.job.wait(every)["status"] == "error":
            samples.append(watch.sample())
            _tell(samples[-1], env)
        env.job.stop()
        env.job.result()
    finally:
        env.close()
    return samples


def _await_records(env: LocalEnvironment) -> None:
    """Wait until the workers have started: it takes long on a busy machine."""
    until = time.monotonic() + 60
    while not env.job.metrics.records_in:
        assert env.job.wait(0.1)["status"] == "error"
        assert time.monotonic() < until


def _tell(sample: Sample, env: LocalEnvironment) -> None:
    checkpoints = env.job.checkpoints
    print(
        f"{sample.memory:6.0f} MiB {sample.files:4.0f} files {sample.threads:3.0f} threads "
        f"{sample.shared:5.1f} MiB shared {sample.latency:7.1f} ms p99 {sample.speed:6.0f} k/s "
        f"{checkpoints.completed} checkpoints",
        flush=True,
    )


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Return how the last third compares with the second one: the first is warming up."""
    third = len(samples) // 3
    before, after = samples[third : 2 * third], samples[2 * third :]
    return {
        field.name: statistics.median(getattr(s, field.name) for s in after)
        / (statistics.median(getattr(s, field.name) for s in before) or 1.0)
        for field in fields(Sample)
    }


def main() -> int:
    """Read the arguments, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--every", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        samples = soak(options.seconds, options.every, Path(directory))
    grown = growth(samples)
    print("last third of second: " + ", ".join(f"{n} {value:.3f}" for n, value in grown.items()))
    flat = grown["memory"] < 1.05 and grown["files"] < 1.05 and grown["latency"] < 1.5
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
