"""What checkpoints cost: a running count with and without them, what one writes, a restore."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks.measure import ratio, table, take_turns
from sage import LocalEnvironment, ProcessFunction, ValueState, count
from sage.dataflow.function.source import Source, SourceReader
from sage.kernel.state.backend import BackendName

KEYS = 1_000_000
INTERVAL = 1.0

Numbers = Sequence[int]
Build = Callable[[Any], Any]


class Count(ProcessFunction[int, int]):
    """Counts the records of a key in declared state."""

    n = ValueState(int, default=0)

    def execute(self, data: int, ctx: Any) -> Iterator[int]:
        """Count, and tell how many there are."""
        self.n.value += 1
        yield self.n.value


def aggregated(numbers: Any) -> Any:
    """Count by key with the ready-made aggregate."""
    return numbers.key_by(_itself, uid="key").aggregate(count(), uid="counts")


def declared(numbers: Any) -> Any:
    """Count by key with a function that declares its state."""
    return numbers.key_by(_itself, uid="key").process(Count, uid="counts")


def _itself(number: int) -> int:
    return number


def drawn(keys: int, records: int) -> Numbers:
    """Return keys drawn at random, the same ones each time."""
    return random.Random(1).choices(range(keys), k=records)


def run(build: Build, numbers: Numbers, backend: BackendName, interval: float | None) -> None:
    """Run a count to its end, with a checkpoint each `interval` seconds, or none."""
    env = LocalEnvironment("checkpoints")
    env.set_state_backend(backend)
    build(env.from_batch(numbers)).sink(_drop)
    with tempfile.TemporaryDirectory() as directory:
        if interval is not None:
            env.enable_checkpointing(interval, directory)
        env.execute(progress=False)


def _drop(_: Any) -> None:
    pass


def checkpoints(rounds: int = 3) -> str:
    """Throughput with and without; the bytes of a checkpoint; seconds to restore."""
    return _throughput(rounds) + "\n" + _sizes()


def _throughput(rounds: int) -> str:
    many, fewer = drawn(KEYS, 12 * KEYS), drawn(KEYS, 5 * KEYS)
    few = drawn(KEYS // 10, KEYS)
    rows = [
        _compare("aggregate(count()), 1 M keys, heap", aggregated, many, "heap", rounds),
        _compare("declared state, 1 M keys, heap", declared, fewer, "heap", rounds),
        _compare("declared state, 100,000 keys, disk", declared, few, "disk", rounds),
    ]
    heading = "running count of random keys, a checkpoint each second"
    return table(heading, ["", "without", "with", "ratio"], rows)


def _compare(
    name: str, build: Build, numbers: Numbers, backend: BackendName, rounds: int
) -> list[str]:
    times = take_turns(
        {
            "without": partial(run, build, numbers, backend, None),
            "with": partial(run, build, numbers, backend, INTERVAL),
        },
        rounds,
    )
    speeds = [f"{len(numbers) / median(taken) / 1e6:.2f} M/s" for taken in times.values()]
    return [name, *speeds, f"{ratio(times, 'without', 'with'):.2f}"]


class Phases(Source[int]):
    """Gives some numbers, waits until told to go on, gives more, and so on; then waits for good."""

    def __init__(self, *phases: Numbers) -> None:
        self.phases = phases
        self.go_on = threading.Semaphore(0)

    def create_reader(self, splits: dict[str, Any], context: Any) -> SourceReader[int]:  # type: ignore[override]
        """Return a reader of all phases, or of none if there was an earlier one."""
        return _PhaseReader(self, list(self.phases) if splits[""] is None else [])


class _PhaseReader(SourceReader[int]):
    def __init__(self, source: Phases, phases: list[Numbers]) -> None:
        self._source = source
        self._phases = phases
        self._at = 0
        self._restored = not phases

    def read_batch(self, max_records: int) -> Numbers | None:
        if self._restored:
            return None
        if not self._phases:
            return []
        batch = self._phases[0][self._at : self._at + max_records]
        self._at += len(batch)
        if not batch and self._source.go_on.acquire(blocking=False):
            self._phases.pop(0)
            self._at = 0
        return batch

    def snapshot(self) -> dict[str, Any]:
        return {"": "read"}


def _sizes() -> str:
    """Write all keys, then touch one in a hundred, then go on from a savepoint elsewhere."""
    rows = [
        _size("aggregate(count()), 1 M keys, heap", aggregated, KEYS, "heap"),
        _size("declared state, 1 M keys, heap", declared, KEYS, "heap"),
        _size("declared state, 100,000 keys, disk", declared, KEYS // 10, "disk"),
    ]
    columns = ["", "first checkpoint", "after touching 1 %", "part", "start from a savepoint"]
    return table("what a checkpoint writes, and how long a restore takes", columns, rows)


def _size(name: str, build: Build, keys: int, backend: BackendName) -> list[str]:
    env = LocalEnvironment("sizes")
    env.set_state_backend(backend)
    touched = range(keys // 100)
    source = Phases(range(keys), touched, touched)
    build(env.from_source(source, uid="numbers")).sink(_drop, uid="out")
    with tempfile.TemporaryDirectory() as directory:
        env.enable_checkpointing(3600, directory)
        env.submit()
        first = _bytes_after(env, keys)
        source.go_on.release()
        second = _bytes_after(env, keys + len(touched))
        savepoint = env.job.stop(savepoint=directory)["message"]
        seconds = _restore(build, backend, savepoint)
    return [name, f"{first:,} B", f"{second:,} B", f"{second / first:.3f}", f"{seconds:.2f} s"]


def _bytes_after(env: LocalEnvironment, records: int) -> int:
    """Return what a checkpoint writes once so many records have been processed."""
    while env.job.metrics.records_in < records:
        time.sleep(0.01)
    env.job.checkpoint()
    return env.job.checkpoints.last_bytes


def _restore(build: Build, backend: BackendName, savepoint: str) -> float:
    """Return the seconds from nothing to the end of a job that only takes over a savepoint."""
    env = LocalEnvironment("restored")
    env.set_state_backend(backend)
    build(env.from_source(Phases(), uid="numbers")).sink(_drop, uid="out")
    began = time.perf_counter()
    env.execute(progress=False, from_savepoint=savepoint)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(checkpoints())
