"""State larger than memory: counts 10 million distinct keys in a `DiskTable`, and what it takes.

`python -m benchmarks.disk_state [KEYS] [UPDATES] [SECONDS]`. The first updates meet each key once,
in a scattered order; those after them are random. It stops early when the seconds are over.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sage.kernel.state.disk_store import DiskKeyedStore
from sage.kernel.state.disk_table import DiskTable

_STEP = 7_368_787  # a prime, so that its multiples meet each key once
_ROUND = 10_000


def memory(field: str) -> int:
    """MiB, from the kernel: `VmRSS` is resident now, `VmHWM` the most there was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024


def keys(count: int, updates: int) -> Iterator[str]:
    chance = random.Random(1)
    for i in range(updates):
        yield f"user-{i * _STEP % count if i < count else chance.randrange(count)}"


def count_keys(table: DiskTable, source: Iterator[str], seconds: float) -> tuple[int, float]:
    """Count until the keys or the seconds are over; give how many updates, and the seconds."""
    start, done = time.perf_counter(), 0
    for key in source:
        table[key] = table.get(key, 0) + 1
        done += 1
        if done % _ROUND == 0 and time.perf_counter() - start > seconds:
            break
    return done, time.perf_counter() - start


def main(count: int, updates: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as root, DiskKeyedStore(Path(root) / "state") as store:
        table = store.table("counts")
        done, took = count_keys(table, keys(count, updates), seconds)
        print(f"{done:,} updates in {took:.0f} s: {done / took:,.0f} updates/s")
        print(
            f"{len(table):,} distinct keys; now {memory('VmRSS')} MiB, peak {memory('VmHWM')} MiB"
        )
        start = time.perf_counter()
        store.snapshot(Path(root) / "snapshot")
        size = sum(f.stat().st_size for f in os.scandir(Path(root) / "snapshot")) / 2**20
        print(f"snapshot: {time.perf_counter() - start:.2f} s, {size:.0f} MiB")
        start = time.perf_counter()
        store.restore(Path(root) / "snapshot")
        print(f"restore: {time.perf_counter() - start:.2f} s, {len(table):,} keys")


if __name__ == "__main__":
    given = [int(text.replace("_", "")) for text in sys.argv[1:]]
    main(*(given + [10_000_000, 20_000_000, 240][len(given) :]))
