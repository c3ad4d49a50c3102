"""Follow numbers until they reach 1: a feedback loop.

The rule of Collatz: halve an even number, turn an odd number n into 3n + 1. Nobody has proved that
every number gets to 1 by it.

It shows `from_future` and `fill_future`: a number that has not arrived goes round once more. The
job ends by itself when the input has ended and no number is left in the loop.

    python examples/collatz.py
    python examples/collatz.py 6 27 97
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sage import LocalEnvironment


class Walk(NamedTuple):
    """Where a number has got to: where it began, where it is, how many steps it took."""

    start: int
    at: int
    steps: int = 0


def begin(number: int) -> Walk:
    """Return the walk of a number before its first step."""
    return Walk(number, number)


def step(walk: Walk) -> Walk:
    """Return the walk after one more step."""
    following = 3 * walk.at + 1 if walk.at % 2 else walk.at // 2
    return Walk(walk.start, following, walk.steps + 1)


def place(walk: Walk) -> str:
    """Name the branch that a walk takes: it has arrived, or goes round again."""
    return "arrived" if walk.at == 1 else "under way"


def follow(numbers: Iterable[int]) -> Sequence[Walk]:
    """Run the loop and return the finished walks in the order in which they arrived."""
    env = LocalEnvironment("collatz")
    back = env.from_future("under way")
    walks = env.from_batch(numbers).map(begin).union(back).split(place)
    walks["under way"].map(step).fill_future(back)
    arrived = walks["arrived"].collect()
    env.execute()
    return arrived


def main() -> None:
    """Read the arguments, run, print the walks."""
    parser = argparse.ArgumentParser(description="Follow numbers until they reach 1.")
    parser.add_argument("numbers", nargs="*", type=positive, help="(default: 1 to 10)")
    numbers = parser.parse_args().numbers or range(1, 11)
    for walk in follow(numbers):
        print(f"{walk.start} took {walk.steps} steps")


def positive(text: str) -> int:
    """Read a whole number of at least 1; others never reach 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
