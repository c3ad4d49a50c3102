"""Two processes against one: a map that takes its time, and a word count whose words all change places.

Starting the processes is not counted: each job runs once over few records and once over many, and the
figures are those of what lies between.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from benchmarks import workloads as w
from benchmarks.engines import BATCH, CallSink
from benchmarks.measure import ratio, table, take_turns
from sage import LocalEnvironment
from sage.dataflow.function.source import Source, SourceReader

NUMBERS = 400_000
"""Numbers for the map: ten seconds of work in one process."""
WORDS = 3_000_000
FEW = 20
"""The short run has a twentieth of the records."""
PER_LINE = 10
LINES = [
    " ".join(f"word-{(line * PER_LINE + place) * 7 % 1000}" for place in range(PER_LINE))
    for line in range(100)
]
"""Lines with 1,000 words in all, each as often as any other: no process has more to do."""
MANY_LINES = LINES * (BATCH // len(LINES))
PARTS = ("first half", "second half")

Times = Mapping[str, list[float]]


def work(number: int) -> int:
    """Compute for some 25 µs, or more on a slow machine."""
    for _ in range(250):
        number = (number * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return number


class Lines(Source[str]):
    """Lines in two splits, so that two processes can read them.

    Args:
        count: How many lines there are in all.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def list_splits(self) -> Sequence[str]:
        """Return the names of the halves."""
        return PARTS

    def create_reader(self, splits: Mapping[str, Any], context: Any) -> SourceReader[str]:
        """Read one half, or both."""
        return _LinesReader(self._count * len(splits) // len(PARTS))


class _LinesReader(SourceReader[str]):
    def __init__(self, count: int) -> None:
        self._left = count

    def read_batch(self, max_records: int) -> Sequence[str] | None:
        """Return the next lines, over and over the same."""
        if not self._left:
            return None
        lines = MANY_LINES[: min(max_records, self._left)]
        self._left -= len(lines)
        return lines

    def snapshot(self) -> dict[str, Any]:
        """Return no position: there is nothing to go on from."""
        return {}


def sage_map(parallelism: int, count: int) -> None:
    """Work on `count` numbers."""
    env = LocalEnvironment("map", {"parallelism": parallelism})
    env.from_batch(range(count)).map(work).sink(w.new_sink())
    env.execute(progress=False)


def sage_words(parallelism: int, count: int) -> None:
    """Count `count` words, every update to the sink."""
    env = LocalEnvironment("words", {"parallelism": parallelism})
    pairs = env.from_source(Lines(count // PER_LINE)).flat_map(w.split).map(w.pair)
    pairs.key_by(w.first).reduce(w.add).sink(w.new_sink())
    env.execute(progress=False)


class BytewaxLines(FixedPartitionedSource[str, None]):
    """The same lines for Bytewax."""

    def __init__(self, count: int) -> None:
        self._count = count

    def list_parts(self) -> list[str]:
        """Return the names of the halves."""
        return list(PARTS)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Any:
        """Read one half."""
        return _BytewaxPart(self._count // len(PARTS))


class _BytewaxPart(StatefulSourcePartition[str, None]):
    def __init__(self, count: int) -> None:
        self._reader = _LinesReader(count)

    def next_batch(self) -> Sequence[str]:
        """Return the next lines.

        Raises:
            StopIteration: there are no more.
        """
        lines = self._reader.read_batch(BATCH)
        if lines is None:
            raise StopIteration
        return lines

    def snapshot(self) -> None:
        """Return no position."""


def bytewax_flow(count: int) -> Dataflow:
    """Count `count` words, every update to the sink; as `engines.bytewax_word_count` does."""

    def add(state: int | None, one: int) -> tuple[int, int]:
        total = (state or 0) + one
        return total, total

    flow = Dataflow("words")
    words = op.flat_map("split", op.input("input", flow, BytewaxLines(count // PER_LINE)), w.split)
    counts = op.stateful_map("count", op.map("pair", words, w.pair), add)
    op.output("output", counts, CallSink(w.new_sink()))
    return flow


def bytewax_words(processes: int, count: int) -> None:
    """Run Bytewax's word count as its command line does: it has no other way to two processes."""
    flow = f"{__name__}:bytewax_flow({count})"
    command = [sys.executable, "-m", "bytewax.testing", flow, "--processes", str(processes)]
    subprocess.run(command, check=True, timeout=600)


def parallel(rounds: int = 3, numbers: int = NUMBERS, words: int = WORDS) -> str:
    """A heavy map and a word count with a shuffle, in one process and in two."""
    maps = {"1 process": partial(sage_map, 1), "2 processes": partial(sage_map, 2)}
    counts = {
        "SAGE, 1 process": partial(sage_words, 1),
        "SAGE, 2 processes": partial(sage_words, 2),
        "Bytewax, 1 process": partial(bytewax_words, 1),
        "Bytewax, 2 processes": partial(bytewax_words, 2),
    }
    heavy = _between(maps, numbers, rounds)
    rows = [
        [name, f"{numbers / median(taken) / 1e3:.1f} k/s", f"{ratio(heavy, '1 process', name):.2f}"]
        for name, taken in heavy.items()
    ]
    one = numbers * 1e-6 / median(heavy["1 process"])
    heading = f"a map of {1 / one:.0f} µs"
    first = table(heading, ["", "records", "of 1 process"], rows)
    return first + "\n" + _words_table(_between(counts, words, rounds), words)


def _words_table(times: Times, words: int) -> str:
    rows = [
        [
            name,
            f"{words / median(taken) / 1e6:.2f} M/s",
            f"{ratio(times, 'SAGE, 1 process', name):.2f}",
            f"{ratio(times, 'Bytewax, 2 processes', name):.2f}",
        ]
        for name, taken in times.items()
    ]
    columns = ["", "words", "of SAGE in 1 process", "of Bytewax in 2"]
    return table("word count, 1,000 words, half of them to the other process", columns, rows)


def _between(jobs: Mapping[str, Callable[[int], None]], size: int, rounds: int) -> Times:
    """Return the seconds that each job takes for `size` records, its start not counted."""
    few = size // FEW
    contestants = {}
    for name, job in jobs.items():
        contestants[f"{name}, few"] = partial(job, few)
        contestants[name] = partial(job, size + few)
    times = take_turns(contestants, rounds)
    return {
        name: [most - least for least, most in zip(times[f"{name}, few"], times[name], strict=True)]
        for name in jobs
    }
