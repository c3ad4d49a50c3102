"""Taking turns, taking medians, and printing a table."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median

Contestant = Callable[[], object]


def seconds(run: Contestant) -> float:
    """Return how long one run takes, the collector of garbage set to the same start."""
    gc.collect()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def take_turns(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Run all contestants `rounds` times in turn, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            taken = seconds(run)
            if turn:
                times[name].append(taken)
    return times


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times as fast `fast` is as `slow`: the median over the turns."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def table(heading: str, columns: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"**{heading}**",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(columns) - 1)) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)
