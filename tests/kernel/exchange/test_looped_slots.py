"""Checkpoints of loops over several slots are consistent, and loops end with nothing in flight.

The real ends of the exchanges run over channels in memory, driven step by step. A record goes round a
number of times. A checkpoint is consistent if every record that the source has given by then has gone
round some times, is at one head of the loop for the next, or has gone round as often as it has to.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.exchange.memory_links import MemoryLinks
from sage import LocalEnvironment
from sage.dataflow.graph.execution_graph import ExecutionGraph, build_execution_graph
from sage.dataflow.operator.source import ReadSource
from sage.kernel.runtime.exchange.exchange import SlotExchange

RECORDS = 12
ROUNDS = 4

Record = tuple[int, int]
"""The number of a record, and how often it has gone round."""


def loop(source: int, body: int, tail: int, head: int, *, deals_back: bool) -> ExecutionGraph:
    """Return a source and a loop of two maps, with so many subtasks each."""
    env = LocalEnvironment("looped")
    back = env.from_future("back").set_parallelism(head)
    stream = env.from_batch([0], parallelism=source, name="source").union(back)
    steps = stream.map(abs, parallelism=body, name="body").rebalance()
    last = steps.map(abs, parallelism=tail, name="tail")
    (last.rebalance() if deals_back else last).fill_future(back)
    graph = env._plan().stream_graph
    splits = {
        n.id: [str(number) for number in range(source)]
        for n in graph.nodes.values()
        if isinstance(n.operator, ReadSource)
    }
    return build_execution_graph(graph, splits)


GRAPHS = {
    (*counts, deals_back): loop(*counts, deals_back=deals_back)
    for counts in ((1, 2, 2, 2), (2, 2, 1, 2), (3, 3, 3, 3), (1, 3, 2, 3))
    for deals_back in (True, False)
}


@dataclass(frozen=True)
class State:
    """What a checkpoint holds of one slot."""

    given: list[int] = field(default_factory=list)
    body: set[Record] = field(default_factory=set)
    tail: set[Record] = field(default_factory=set)
    log: list[Record] = field(default_factory=list)


class Slot:
    """One slot: what it has seen, and what it does when it is its turn."""

    def __init__(self, graph: ExecutionGraph, slot: int, links: MemoryLinks) -> None:
        self.exchange = SlotExchange(
            graph, slot, links, batch_size=3, buffer_timeout=0.0, monotonic=lambda: 0.0
        )
        self.number = slot
        self.state = State()
        self.backlog: deque[Sequence[Record]] = deque()
        self.orders: deque[Callable[[], object]] = deque()
        self.wanted = 0
        self.taken: dict[int, State] = {}
        self.is_over = self._has_ended = self._source_ended = False
        self._names = {node.id: node.name for node in graph.stream_graph.nodes.values()}
        self._nodes = {node.name: node.id for node in graph.stream_graph.nodes.values()}
        self._graph = graph
        (self._loop,) = graph.loops
        self._targets = {way.number: way.edge.target for way in graph.exchanges}
        self._senders = {
            way.number: self.exchange.sender(way, self._taker(way.number), packed=False)
            for way in graph.exchanges
            if slot in way.senders
        }

    def _taker(self, number: int) -> Callable[[Sequence[Any]], None]:
        return lambda values: self.take_batch(number, values)

    def take_batch(self, exchange: int, values: Sequence[Record]) -> None:
        """Take records that have come through an exchange."""
        self._arrive(self._targets[exchange], values)

    def take_times(self, slot: int, times: object) -> None:
        """There are none."""

    def is_full(self) -> bool:
        """Say whether the loop holds much."""
        return sum(map(len, self.backlog)) > 3

    def _arrive(self, node: int, values: Sequence[Record]) -> None:
        name = self._names[node]
        if name == "back":
            self.backlog.append(values)
        elif name == "body":
            assert self.state.body.isdisjoint(values)
            self.state.body.update(values)
            self._put_out(node, values)
        else:
            assert self.state.tail.isdisjoint(values)
            self.state.tail.update(values)
            self._put_out(node, [(n, times + 1) for n, times in values if times + 1 < ROUNDS])

    def _put_out(self, node: int, values: Sequence[Record]) -> None:
        for edge in self._graph.stream_graph.outputs(node):
            way = self._graph.exchange_of(edge)
            if way is None:
                self._arrive(edge.target, values)
            elif values:
                self._senders[way.number](values)

    def now(self) -> State:
        """Return what a checkpoint would hold."""
        log = [record for values in self.backlog for record in values]
        return State(self.state.given[:], set(self.state.body), set(self.state.tail), log)

    def step(self) -> None:
        """Do what a task does in one turn."""
        if self.orders:
            self.orders.popleft()()
        elif not self.is_over:
            self.exchange.receive(self)
            if self.exchange.aligning is None:
                self._move()
            elif self.exchange.is_aligned and self.wanted == self.exchange.aligning:
                self.taken[self.wanted] = self.now()
                self.exchange.end_checkpoint()

    def _move(self) -> None:
        source, graph = self._nodes["source"], self._graph
        if self.backlog:
            self._put_out(self._nodes["back"], self.backlog.popleft())
        elif self.number in graph.slots[source] and len(self.state.given) < RECORDS:
            batch = [10_000 * self.number + len(self.state.given) + more for more in range(2)]
            self.state.given.extend(batch)
            self._put_out(source, [(n, 0) for n in batch])
        elif not self._source_ended:
            self._source_ended = True
            self.exchange.end(source)
        elif all(map(self.exchange.has_ended, self.exchange.inputs & self._loop.entrances)):
            self._end_loop()
        self.exchange.flush()

    def _end_loop(self) -> None:
        if not self.exchange.rests_of(self._loop.number):
            self.exchange.tell_rest(self._loop.number)
        elif not self._has_ended:
            self._has_ended = True
            for node in self._loop.nodes:
                self.exchange.end(node)
        elif all(map(self.exchange.has_ended, self.exchange.inputs)):
            self.is_over = True

    def trigger(self, checkpoint: int) -> None:
        """Obey the order to take a checkpoint."""
        if not self.is_over:
            self.wanted = checkpoint
            self.exchange.begin_checkpoint(checkpoint)


class Job:
    """All slots, and the one checkpoint that is under way."""

    def __init__(self, graph: ExecutionGraph) -> None:
        slots = range(graph.workers)
        self._channels = {(a, b): deque[bytes]() for a in slots for b in slots if a != b}
        self.slots = [Slot(graph, slot, MemoryLinks(self._channels, slot)) for slot in slots]
        self.loop = graph.loops[0].number
        self.current = self.completed = 0
        self.under_way = self.has_rested = False

    def trigger(self) -> None:
        """Begin a checkpoint, unless there is one."""
        if not self.under_way:
            self.current, self.under_way = self.current + 1, True
            for slot in self.slots:
                checkpoint = self.current
                slot.orders.append(lambda s=slot, c=checkpoint: s.trigger(c))  # type: ignore[misc]

    def abort(self) -> None:
        """Give the checkpoint up."""
        if self.under_way:
            self.under_way = False
            for slot in self.slots:
                checkpoint = self.current
                slot.orders.append(
                    lambda s=slot, c=checkpoint: s.exchange.abort_checkpoint(c)  # type: ignore[misc]
                )

    def step(self, slot: int, channel: int) -> None:
        """Let a slot have its turn, reading one of its channels."""
        links = self.slots[slot].exchange.links
        assert isinstance(links, MemoryLinks)
        links.turn = channel
        self.slots[slot].step()
        if not self.has_rested and any(s.exchange.rests_of(self.loop) for s in self.slots):
            self.has_rested = True
            self.check([s.now() for s in self.slots])
            assert all(n_rounds == ROUNDS for n_rounds in self.rounds().values())
        states = [s.taken.get(self.current) or (s.now() if s.is_over else None) for s in self.slots]
        taken = [state for state in states if state is not None]
        if self.under_way and len(taken) == len(states):
            self.under_way = False
            self.completed += 1
            self.check(taken)

    def check(self, states: list[State]) -> None:
        """Demand that every record is in one place."""
        given = [n for state in states for n in state.given]
        body = Counter(record for state in states for record in state.body)
        tail = Counter(record for state in states for record in state.tail)
        log = Counter(record for state in states for record in state.log)
        assert body == tail
        for number in given:
            times = sum(tail[number, time] for time in range(ROUNDS))
            assert all(tail[number, time] == 1 for time in range(times))
            assert log[number, times] == (times < ROUNDS)
            assert (number, 0) not in log
        assert log.total() <= len(given)
        assert tail.total() <= len(given) * ROUNDS

    def rounds(self) -> Counter[int]:
        """Return how often each record has gone round."""
        return Counter(number for slot in self.slots for number, _ in slot.state.tail)


@pytest.mark.parametrize("shape", GRAPHS)
def test_every_checkpoint_of_a_loop_is_consistent(shape: tuple[int, ...]) -> None:
    """Whatever the order of turns, triggers and aborts; and the loop ends."""

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 29), max_size=300))
    def check(choices: list[int]) -> None:
        job = Job(GRAPHS[shape])
        for choice in choices:
            if choice == 29:
                job.trigger()
            elif choice == 28 and len(choices) % 3 == 0:
                job.abort()
            else:
                job.step(choice % len(job.slots), choice // len(job.slots))
        for turn in range(20_000):  # then all have their turns, until the end
            if turn % 40 == 0:
                job.trigger()
            job.step(turn % len(job.slots), turn // 7)
            if all(slot.is_over and not slot.orders for slot in job.slots) and not job.under_way:
                break
        assert all(slot.is_over for slot in job.slots)
        assert job.has_rested
        assert job.completed

    check()
