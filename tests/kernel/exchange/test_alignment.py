"""Checkpoints across slots are consistent, however messages, orders and ends interleave.

The real ends of the exchanges run over channels in memory, driven step by step. Each record has a
number and goes through every stage once. A checkpoint is consistent if what all slots together have
seen at every stage, when their state was taken, is exactly what the source had given by then.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.exchange.memory_links import MemoryLinks
from sage import LocalEnvironment
from sage.dataflow.graph.execution_graph import ExecutionGraph, build_execution_graph
from sage.dataflow.operator.source import ReadSource
from sage.kernel.runtime.exchange.alignment import Alignment
from sage.kernel.runtime.exchange.exchange import SlotExchange

RECORDS = 40
STAGES = 3


def three_stages(*parallelism: int) -> ExecutionGraph:
    """Return a source and three maps, each dealt its records anew, with so many subtasks each."""
    env = LocalEnvironment("alignment")
    stream = env.from_batch([0], parallelism=parallelism[0])
    for subtasks in parallelism[1:]:
        stream = stream.rebalance().map(abs, parallelism=subtasks)
    stream.sink(print, parallelism=parallelism[-1])
    graph = env._plan().stream_graph
    splits = {
        n.id: [str(number) for number in range(parallelism[0])]
        for n in graph.nodes.values()
        if isinstance(n.operator, ReadSource)
    }
    return build_execution_graph(graph, splits)


GRAPHS = {
    subtasks: three_stages(*subtasks)
    for subtasks in ((1, 2, 2, 2), (2, 2, 2, 2), (3, 3, 3, 3), (3, 2, 3, 2), (3, 3, 2, 3))
}


class Slot:
    """One slot: what it has seen at each stage, and what it does when it is its turn."""

    def __init__(self, graph: ExecutionGraph, slot: int, links: MemoryLinks) -> None:
        self.exchange = SlotExchange(
            graph, slot, links, batch_size=3, buffer_timeout=0.0, monotonic=lambda: 0.0
        )
        self.nodes = graph.nodes_of(slot)
        self.seen: list[set[int]] = [set() for _ in range(STAGES)]
        self.number = slot
        self.given = list[int]()
        self.ended = 0  # how many of its operators have ended
        self.orders: deque[Callable[[], object]] = deque()
        self.wanted = 0
        self.taken: dict[int, tuple[list[int], list[set[int]]]] = {}
        self._ways = {way.number: way for way in graph.exchanges}
        self._senders = {
            number: self.exchange.sender(way, self._taker(number), packed=False)
            for number, way in self._ways.items()
            if slot in way.senders
        }

    def _taker(self, number: int) -> Callable[[Sequence[Any]], None]:
        return lambda values: self.take_batch(number, values)

    def take_batch(self, exchange: int, values: Sequence[int]) -> None:
        """See records at the stage behind an exchange, and send them on."""
        assert self.seen[exchange].isdisjoint(values)
        self.seen[exchange].update(values)
        if exchange + 1 in self._senders:
            self._senders[exchange + 1](values)

    def take_times(self, slot: int, times: object) -> None:
        """There are none."""

    def is_full(self) -> bool:
        """There are no loops."""
        return False

    @property
    def state(self) -> tuple[list[int], list[set[int]]]:
        """What a checkpoint would hold."""
        return self.given[:], [set(seen) for seen in self.seen]

    @property
    def is_over(self) -> bool:
        """Whether all of its operators have ended."""
        return self.ended == len(self.nodes)

    def step(self) -> None:
        """Do what a task does in one turn."""
        if self.orders:
            self.orders.popleft()()
            return
        if self.is_over:
            return
        self.exchange.receive(self)
        if self.exchange.aligning is not None:
            if self.exchange.is_aligned and self.wanted == self.exchange.aligning:
                self.taken[self.wanted] = self.state
                self.exchange.end_checkpoint()
            return
        node = self.nodes[self.ended]
        if self.ended == 0 and 0 in self._senders and len(self.given) < RECORDS:  # the source
            batch = [10_000 * self.number + len(self.given) + more for more in range(2)]
            self.given += batch
            self._senders[0](batch)
        elif all(self.exchange.has_ended(number) for number in self.exchange.inputs_of(node)):
            self.exchange.end(node)
            self.ended += 1
        self.exchange.flush()

    def trigger(self, checkpoint: int) -> None:
        """Obey the order to take a checkpoint."""
        if not self.is_over:
            self.wanted = checkpoint
            self.exchange.begin_checkpoint(checkpoint)


class Job:
    """All slots, and the one checkpoint that is under way."""

    def __init__(self, graph: ExecutionGraph) -> None:
        slots = range(graph.workers)
        channels = {(a, b): deque[bytes]() for a in slots for b in slots if a != b}
        self.slots = [Slot(graph, slot, MemoryLinks(channels, slot)) for slot in slots]
        self.current = 0
        self.under_way = False
        self.completed = 0

    def trigger(self) -> None:
        """Begin a checkpoint, unless there is one."""
        if not self.under_way:
            self.current += 1
            self.under_way = True
            for slot in self.slots:
                checkpoint = self.current
                slot.orders.append(lambda s=slot, c=checkpoint: s.trigger(c))  # type: ignore[misc]

    def abort(self) -> None:
        """Give the checkpoint up."""
        if self.under_way:
            self.under_way = False
            checkpoint = self.current
            for slot in self.slots:
                slot.orders.append(
                    lambda s=slot, c=checkpoint: s.exchange.abort_checkpoint(c)  # type: ignore[misc]
                )

    def look(self) -> None:
        """Check the checkpoint if all slots have taken their state, or ended before."""
        states = [s.taken.get(self.current) or (s.state if s.is_over else None) for s in self.slots]
        if self.under_way and all(state is not None for state in states):
            self.under_way = False
            self.completed += 1
            given = sorted(n for state in states if state is not None for n in state[0])
            for stage in range(STAGES):
                parts = [state[1][stage] for state in states if state is not None]
                assert sorted(n for part in parts for n in part) == given

    def step(self, slot: int, channel: int) -> None:
        """Let a slot have its turn, reading one of its channels."""
        links = self.slots[slot].exchange.links
        assert isinstance(links, MemoryLinks)
        links.turn = channel
        self.slots[slot].step()
        self.look()


@pytest.mark.parametrize("subtasks", GRAPHS)
def test_every_checkpoint_is_consistent(subtasks: tuple[int, ...]) -> None:
    """Whatever the order of turns, triggers and aborts."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 29), max_size=500))
    def check(choices: list[int]) -> None:
        job = Job(GRAPHS[subtasks])
        for choice in choices:
            if choice == 29:
                job.trigger()
            elif choice == 28 and len(choices) % 3 == 0:
                job.abort()
            else:
                job.step(choice % len(job.slots), choice // len(job.slots))
        for turn in range(10_000):  # then all have their turns, until the end
            if turn % 50 == 0:
                job.trigger()
            job.step(turn % len(job.slots), turn // 7)
            if all(slot.is_over and not slot.orders for slot in job.slots) and not job.under_way:
                break
        assert all(slot.is_over for slot in job.slots)
        for stage in range(STAGES):
            seen = sorted(n for slot in job.slots for n in slot.seen[stage])
            assert seen == sorted(n for slot in job.slots for n in slot.given)

    check()


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
