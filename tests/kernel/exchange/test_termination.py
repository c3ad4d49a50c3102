"""A loop is said to have come to rest when it has, and only then, however messages interleave."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.runtime.exchange.termination import AtRest, Termination

Tree = Any
"""A record: what comes of it, as pairs of a slot, counted from its own, and a record."""

RESTS = 3


class Loop:
    """Slots that work on records, and send what comes of them to each other."""

    def __init__(self, slots: int, waking: list[list[list[Tree]]]) -> None:
        numbers = range(slots)
        self.ends = [Termination(slot, numbers) for slot in numbers]
        self.work = [list(waking[0][slot]) for slot in numbers]
        self.woken = [1] * slots  # how often each slot has got work from outside
        self.channels = {(a, b): deque[Any]() for a in numbers for b in numbers if a != b}
        self._waking = waking

    def is_at_rest(self) -> bool:
        """Say whether there is nothing to do: what the slots have to find out."""
        records = [item for c in self.channels.values() for item in c if isinstance(item, list)]
        return not records and not any(self.work) and len(set(self.woken)) == 1

    def step(self, slot: int, choice: int) -> None:
        """Let a slot do one thing: take a message, work on a record, or say that it is at rest."""
        end, full = self.ends[slot], [c for c in self.channels if c[1] == slot and self.channels[c]]
        if full and choice % 3:
            sender = full[choice % len(full)]
            self._take(slot, sender[0], self.channels[sender].popleft())
        elif self.woken[slot] <= min(end.rests, RESTS - 1):
            self.work[slot] += self._waking[self.woken[slot]][slot]
            self.woken[slot] += 1
        elif self.work[slot]:
            self._process(slot, self.work[slot].pop(choice % len(self.work[slot])))
        elif end.rests < RESTS:
            self._rest(slot)

    def _take(self, slot: int, sender: int, item: Any) -> None:
        if isinstance(item, list):
            self.ends[slot].received += 1
            self.work[slot].append(item)
        else:
            self.ends[slot].take(sender, item)

    def _process(self, slot: int, record: Tree) -> None:
        for distance, child in record:
            receiver = (slot + distance) % len(self.ends)
            if receiver == slot:
                self.work[slot].append(child)
            else:
                self.ends[slot].sent += 1
                self.channels[slot, receiver].append(child)

    def _rest(self, slot: int) -> None:
        rests, quiet = self.ends[slot].rests, self.is_at_rest()
        for receiver, message in self.ends[slot].rest():
            assert quiet or not isinstance(message, AtRest)
            self.channels[slot, receiver].append(message)
        assert quiet or self.ends[slot].rests == rests


def tree(random: Random, depth: int) -> Tree:
    """Return a record of which others may come."""
    count = random.choice((0, 1, 1, 2)) if depth else 0
    return [(random.randrange(4), tree(random, depth - 1)) for _ in range(count)]


def run(slots: int, random: Random) -> None:
    """Let all take turns at random until the end."""
    waking = [
        [[tree(random, 6) for _ in range(random.choice((0, 0, 1)))] for _ in range(slots)]
        for _ in range(RESTS)
    ]
    loop = Loop(slots, waking)
    slow = random.randrange(slots)  # one is slower than the others, so that answers become old
    for _ in range(50_000):
        slot = random.randrange(slots)
        if slot != slow or random.random() < 0.2:
            loop.step(slot, random.randrange(100))
        if all(end.rests == RESTS for end in loop.ends) and loop.is_at_rest():
            break
    assert [end.rests for end in loop.ends] == [RESTS] * slots
    assert loop.is_at_rest()
    assert sum(end.sent for end in loop.ends) == sum(end.received for end in loop.ends)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_all_learn_of_the_rest_once_it_is_there(slots: int, seed: int) -> None:
    """Also when it is woken again, by each slot once that has learned of the rest."""
    run(slots, Random(seed))
