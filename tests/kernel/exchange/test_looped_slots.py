"""Checkpoints of loops over several slots are consistent, and loops end with nothing in flight.

The real ends of the exchanges run over channels in memory, driven step by step. A record goes round a
number of times. A checkpoint is consistent if every record that the source has given by then has gone
round some times, is at one head of the loop for the next, or has gone round as often as it has to.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.exchange.driven_slots import DrivenJob, DrivenSlot, laid_out
from kernel.exchange.memory_links import MemoryLinks
from sage import LocalEnvironment
from sage.dataflow.graph.execution_graph import ExecutionGraph

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
    return laid_out(env._plan().stream_graph, source)


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


class Slot(DrivenSlot[State]):
    """Takes records round a loop."""

    def __init__(self, graph: ExecutionGraph, number: int, links: MemoryLinks) -> None:
        super().__init__(graph, number, links)
        self.held = State()
        self.backlog: deque[Sequence[Record]] = deque()
        self._over = self._has_ended = self._source_ended = False
        self._names = {node.id: node.name for node in graph.stream_graph.nodes.values()}
        self._nodes = {node.name: node.id for node in graph.stream_graph.nodes.values()}
        self._graph = graph
        (self._loop,) = graph.loops
        self._targets = {way.number: way.edge.target for way in graph.exchanges}

    def take_batch(self, exchange: int, values: Sequence[Record]) -> None:
        """Take records that have come through an exchange."""
        self._arrive(self._targets[exchange], values)

    def is_full(self) -> bool:
        """Say whether the loop holds much."""
        return sum(map(len, self.backlog)) > 3

    def _arrive(self, node: int, values: Sequence[Record]) -> None:
        name = self._names[node]
        if name == "back":
            self.backlog.append(values)
        elif name == "body":
            assert self.held.body.isdisjoint(values)
            self.held.body.update(values)
            self._put_out(node, values)
        else:
            assert self.held.tail.isdisjoint(values)
            self.held.tail.update(values)
            self._put_out(node, [(n, times + 1) for n, times in values if times + 1 < ROUNDS])

    def _put_out(self, node: int, values: Sequence[Record]) -> None:
        for edge in self._graph.stream_graph.outputs(node):
            way = self._graph.exchange_of(edge)
            if way is None:
                self._arrive(edge.target, values)
            elif values:
                self.senders[way.number](values)

    @property
    def is_over(self) -> bool:
        """Whether the loop has ended, and all that comes from others."""
        return self._over

    @property
    def state(self) -> State:
        """What has gone round, and what is at the head of the loop."""
        log = [record for values in self.backlog for record in values]
        return State(self.held.given[:], set(self.held.body), set(self.held.tail), log)

    def work(self) -> None:
        """Let a batch go round, or the source give, or the loop end."""
        source, graph = self._nodes["source"], self._graph
        if self.backlog:
            self._put_out(self._nodes["back"], self.backlog.popleft())
        elif self.number in graph.slots[source] and len(self.held.given) < RECORDS:
            batch = [10_000 * self.number + len(self.held.given) + more for more in range(2)]
            self.held.given.extend(batch)
            self._put_out(source, [(n, 0) for n in batch])
        elif not self._source_ended:
            self._source_ended = True
            self.exchange.end(source)
        elif all(map(self.exchange.has_ended, self.exchange.inputs & self._loop.entrances)):
            self._end_loop()

    def _end_loop(self) -> None:
        if not self.exchange.rests_of(self._loop.number):
            self.exchange.tell_rest(self._loop.number)
        elif not self._has_ended:
            self._has_ended = True
            for node in self._loop.nodes:
                self.exchange.end(node)
        elif all(map(self.exchange.has_ended, self.exchange.inputs)):
            self._over = True


def check(states: list[State]) -> None:
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


class Job(DrivenJob[Slot]):
    """Looks at the loop when it first comes to rest: then every record has gone all of its rounds."""

    def __init__(self, graph: ExecutionGraph) -> None:
        super().__init__(graph, Slot, check)
        self.has_rested = False
        self._loop = graph.loops[0].number

    def step(self, slot: int, channel: int) -> None:
        """Let a slot have its turn."""
        super().step(slot, channel)
        if not self.has_rested and any(s.exchange.rests_of(self._loop) for s in self.slots):
            self.has_rested = True
            check([s.state for s in self.slots])
            rounds = Counter(number for s in self.slots for number, _ in s.held.tail)
            assert all(times == ROUNDS for times in rounds.values())


@pytest.mark.parametrize("shape", GRAPHS)
def test_every_checkpoint_of_a_loop_is_consistent(shape: tuple[int, ...]) -> None:
    """Whatever the order of turns, triggers and aborts; and the loop ends."""

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 29), max_size=300))
    def drive(choices: list[int]) -> None:
        job = Job(GRAPHS[shape])
        job.drive(choices, turns=20_000)
        assert job.has_rested
        assert job.completed

    drive()
