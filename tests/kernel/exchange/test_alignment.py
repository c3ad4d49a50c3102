"""Checkpoints across slots are consistent, however messages, orders and ends interleave.

The real ends of the exchanges run over channels in memory, driven step by step. Each record has a
number and goes through every stage once. A checkpoint is consistent if what all slots together have
seen at every stage, when their state was taken, is exactly what the source had given by then.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.exchange.driven_slots import DrivenJob, DrivenSlot, laid_out
from kernel.exchange.memory_links import MemoryLinks
from sage import LocalEnvironment
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.runtime.exchange.alignment import Alignment

RECORDS = 40
STAGES = 3

Seen = tuple[list[int], list[set[int]]]
"""What the source has given, and what each stage has seen."""


def three_stages(*parallelism: int) -> ExecutionGraph:
    """Return a source and three maps, each dealt its records anew, with so many subtasks each."""
    env = LocalEnvironment("alignment")
    stream = env.from_batch([0], parallelism=parallelism[0])
    for subtasks in parallelism[1:]:
        stream = stream.rebalance().map(abs, parallelism=subtasks)
    stream.sink(print, parallelism=parallelism[-1])
    return laid_out(env._plan().stream_graph, parallelism[0])


GRAPHS = {
    subtasks: three_stages(*subtasks)
    for subtasks in ((1, 2, 2, 2), (2, 2, 2, 2), (3, 3, 3, 3), (3, 2, 3, 2), (3, 3, 2, 3))
}


class Slot(DrivenSlot[Seen]):
    """Sees records at each stage."""

    def __init__(self, graph: ExecutionGraph, number: int, links: MemoryLinks) -> None:
        super().__init__(graph, number, links)
        self.nodes = graph.nodes_of(number)
        self.seen: list[set[int]] = [set() for _ in range(STAGES)]
        self.given = list[int]()
        self.ended = 0  # how many of its operators have ended

    def take_batch(self, exchange: int, values: Sequence[int]) -> None:
        """See records at the stage behind an exchange, and send them on."""
        assert self.seen[exchange].isdisjoint(values)
        self.seen[exchange].update(values)
        if exchange + 1 in self.senders:
            self.senders[exchange + 1](values)

    @property
    def state(self) -> Seen:
        """What it has given and seen."""
        return self.given[:], [set(seen) for seen in self.seen]

    @property
    def is_over(self) -> bool:
        """Whether all of its operators have ended."""
        return self.ended == len(self.nodes)

    def work(self) -> None:
        """Let the source give, and the operators end one after the other."""
        node = self.nodes[self.ended]
        if self.ended == 0 and 0 in self.senders and len(self.given) < RECORDS:  # the source
            batch = [10_000 * self.number + len(self.given) + more for more in range(2)]
            self.given += batch
            self.senders[0](batch)
        elif all(self.exchange.has_ended(number) for number in self.exchange.inputs_of(node)):
            self.exchange.end(node)
            self.ended += 1


def check(states: list[Seen]) -> None:
    """Demand that every stage has seen what the source had given."""
    given = sorted(n for state in states for n in state[0])
    for stage in range(STAGES):
        assert sorted(n for state in states for n in state[1][stage]) == given


@pytest.mark.parametrize("subtasks", GRAPHS)
def test_every_checkpoint_is_consistent(subtasks: tuple[int, ...]) -> None:
    """Whatever the order of turns, triggers and aborts."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 29), max_size=500))
    def drive(choices: list[int]) -> None:
        job = DrivenJob(GRAPHS[subtasks], Slot, check)
        job.drive(choices, turns=10_000)
        check([slot.state for slot in job.slots])

    drive()


def test_what_never_leaves_the_slot_is_waited_for_too() -> None:
    """The barrier goes out behind those records that stay in the slot on their way."""
    alignment = Alignment(GRAPHS[3, 2, 3, 2], slot=0)
    alignment.begin(1, senders={0: {1, 2}, 1: {1}, 2: {1, 2}}, over=())
    assert alignment.take_due() == [0]
    alignment.barrier(1, exchange=0, slot=1)
    alignment.barrier(1, exchange=1, slot=1)
    assert alignment.take_due() == []  # slot 2 may still send what goes through both
    alignment.barrier(1, exchange=0, slot=2)
    assert alignment.take_due() == [1, 2]
    assert not alignment.is_complete
    alignment.barrier(1, exchange=2, slot=2)
    alignment.barrier(1, exchange=2, slot=1)
    assert alignment.is_complete
    assert alignment.complete_slots == {1, 2}


def test_what_comes_while_a_slot_aligns_was_in_flight() -> None:
    channels = {pair: deque[bytes]() for pair in ((0, 1), (1, 0))}
    one, two = (Slot(GRAPHS[1, 2, 2, 2], n, MemoryLinks(channels, n)) for n in (0, 1))
    counted = Counter[str]()
    for slot in (one, two):
        slot.exchange.count = lambda node, what, size: counted.update({what: size})
    for _ in range(2):
        one.step()
    first, *others = (len(frame) for frame in channels[0, 1])
    two.step()
    two.trigger(1)
    assert two.exchange.alignment_figures() == (0.0, 0)
    for _ in others:
        two.step()
    assert two.exchange.alignment_figures() == (0.0, sum(others))
    assert counted["bytes_in"] == first + sum(others)
    one_sent = counted["bytes_out"] - sum(len(frame) for frame in channels[1, 0])
    assert one_sent == counted["bytes_in"]
