"""Memory while 50 M records of a generator stream through."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from benchmarks import workloads
from benchmarks.engines import sage_chain
from benchmarks.measure import seconds, table

RECORDS = 50_000_000


def memory() -> str:
    """Map → filter → map → sink; the resident memory's peak before and after."""
    sink = workloads.new_sink()
    sage_chain(_numbers(100_000), sink)
    before = _peak_mib()
    taken = seconds(lambda: sage_chain(_numbers(RECORDS), sink))
    grown = _peak_mib() - before
    row = [
        f"{RECORDS / 1e6:.0f} M records",
        f"{taken:.1f} s",
        f"{before:.1f} MiB",
        f"{grown:+.1f} MiB",
    ]
    return table("Memory", ["", "time", "peak after 0.1 M", "growth of the peak"], [row])


def _numbers(count: int) -> Iterator[int]:
    yield from range(count)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
