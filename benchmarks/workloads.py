"""The functions that every engine calls, and the loops a person would write by hand around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Sink = Callable[[Any], None]

LINE = "the quick brown fox jumps over the lazy dog again"


def increment(x: int) -> int:
    return x + 1


def is_even(x: int) -> bool:
    return x % 2 == 0


def double(x: int) -> int:
    return x * 2


def split(line: str) -> list[str]:
    return line.split()


def pair(word: str) -> tuple[str, int]:
    return word, 1


def first(record: tuple[str, int]) -> str:
    return record[0]


def add(a: tuple[str, int], b: tuple[str, int]) -> tuple[str, int]:
    return a[0], a[1] + b[1]


def new_sink() -> Sink:
    """Return a sink as a plain function: the cheapest thing to call."""
    last: Any = None

    def sink(value: Any) -> None:
        nonlocal last
        last = value

    return sink


def chain_by_hand(data: Iterable[int], sink: Sink) -> None:
    """Map, filter, map, sink; the functions as locals."""
    f, p, g = increment, is_even, double
    for x in data:
        y = f(x)
        if p(y):
            sink(g(y))


def word_count_by_hand(lines: Iterable[str], sink: Sink) -> None:
    """Split, pair, key, reduce, sink; the functions as locals."""
    to_words, to_pair, key_of, reduce = split, pair, first, add
    counts: dict[str, tuple[str, int]] = {}
    for line in lines:
        for word in to_words(line):
            record = to_pair(word)
            key = key_of(record)
            if key in counts:
                record = reduce(counts[key], record)
            counts[key] = record
            sink(record)
