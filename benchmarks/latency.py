"""How long a single record takes from source to sink, at 1,000 records a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import workloads as w
from benchmarks.engines import run_bytewax
from benchmarks.measure import table
from sage import LocalEnvironment

COUNT = 3_000
INTERVAL = 0.001

Record = tuple[float, int]


def paced() -> Iterator[Record]:
    """Yield a record every millisecond, stamped when it is made."""
    due = time.perf_counter()
    for number in range(COUNT):
        due += INTERVAL
        time.sleep(max(0.0, due - time.perf_counter()))
        yield time.perf_counter(), number


def latency() -> str:
    """Source → map → filter → map → sink."""
    rows = [
        ["SAGE, live source (a thread of its own)", *_figures(_sage_live)],
        ["SAGE, batch source (read by the task)", *_figures(_sage_batch)],
        ["Bytewax", *_figures(_bytewax)],
    ]
    return table("Latency at 1,000 records/s", ["", "p50", "p99"], rows)


def _figures(run: Callable[[Callable[[Record], None]], None]) -> list[str]:
    taken: list[float] = []
    run(lambda record: taken.append(time.perf_counter() - record[0]))
    taken.sort()
    return [f"{taken[len(taken) * p // 100] * 1e6:.0f} µs" for p in (50, 99)]


def _steps(record: Record) -> Record:
    return record[0], w.increment(record[1])


def _sage_live(sink: Callable[[Record], None]) -> None:
    env = LocalEnvironment("latency")
    env.from_source(paced).map(_steps).filter(bool).map(_steps).sink(sink)
    env.execute(progress=False)


def _sage_batch(sink: Callable[[Record], None]) -> None:
    env = LocalEnvironment("latency")
    env.from_batch(paced).map(_steps).filter(bool).map(_steps).sink(sink)
    env.execute(progress=False)


def _bytewax(sink: Callable[[Record], None]) -> None:
    def build(op: Any, stream: Any) -> Any:
        stream = op.map("a", stream, _steps)
        return op.map("c", op.filter("b", stream, lambda record: True), _steps)

    run_bytewax(paced(), sink, build, batch_size=1)
