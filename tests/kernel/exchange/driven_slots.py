"""The real ends of exchanges over channels in memory, and a job of such slots, driven step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from kernel.exchange.memory_links import MemoryLinks
from sage.dataflow.graph.execution_graph import ExecutionGraph, build_execution_graph
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.source import ReadSource
from sage.kernel.runtime.exchange.exchange import SlotExchange

State = TypeVar("State")


def laid_out(graph: StreamGraph, splits: int) -> ExecutionGraph:
    """Return the subtasks of a graph whose sources have so many splits."""
    names = [str(number) for number in range(splits)]
    sources = [n.id for n in graph.nodes.values() if isinstance(n.operator, ReadSource)]
    return build_execution_graph(graph, dict.fromkeys(sources, names))


class DrivenSlot(ABC, Generic[State]):
    """One slot: what it has seen, and what it does when it is its turn.

    Attributes:
        exchange: Its ends of the exchanges.
        senders: What takes the batches that go into an exchange.
        orders: What it has been told to do, and has not done yet.
        taken: What it held when its state was taken, by the number of the checkpoint.
    """

    def __init__(self, graph: ExecutionGraph, number: int, links: MemoryLinks) -> None:
        self.exchange = SlotExchange(
            graph, number, links, batch_size=3, buffer_timeout=0.0, monotonic=lambda: 0.0
        )
        self.links = links
        self.number = number
        self.orders: deque[Callable[[], object]] = deque()
        self.taken: dict[int, State] = {}
        self._wanted = 0
        self.senders = {
            way.number: self.exchange.sender(way, self._taker(way.number), packed=False)
            for way in graph.exchanges
            if number in way.senders
        }

    def _taker(self, number: int) -> Callable[[Sequence[Any]], None]:
        return lambda values: self.take_batch(number, values)

    @property
    @abstractmethod
    def state(self) -> State:
        """What a checkpoint would hold."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether all of its operators have ended."""

    @abstractmethod
    def take_batch(self, exchange: int, values: Sequence[Any]) -> None:
        """Take records that have come through an exchange."""

    @abstractmethod
    def work(self) -> None:
        """Give records, or end what has come to its end."""

    def take_times(self, slot: int, times: object) -> None:
        """There are none."""

    def is_full(self) -> bool:
        """Say whether nothing more should come."""
        return False

    def step(self) -> None:
        """Do what a task does in one turn."""
        if self.orders:
            self.orders.popleft()()
        elif not self.is_over:
            self.exchange.receive(self)
            if self.exchange.aligning is None:
                self.work()
                self.exchange.flush()
            elif self.exchange.is_aligned and self._wanted == self.exchange.aligning:
                self.taken[self._wanted] = self.state
                self.exchange.end_checkpoint()

    def trigger(self, checkpoint: int) -> None:
        """Obey the order to take a checkpoint."""
        if not self.is_over:
            self._wanted = checkpoint
            self.exchange.begin_checkpoint(checkpoint)


Slot = TypeVar("Slot", bound=DrivenSlot[Any])


class DrivenJob(Generic[Slot]):
    """All slots, and the one checkpoint that is under way.

    Args:
        graph: Their subtasks.
        make: Makes a slot.
        check: Demands that what all slots held for a checkpoint is consistent.

    Attributes:
        completed: How many checkpoints there have been.
    """

    def __init__(
        self,
        graph: ExecutionGraph,
        make: Callable[[ExecutionGraph, int, MemoryLinks], Slot],
        check: Callable[[list[Any]], None],
    ) -> None:
        numbers = range(graph.workers)
        channels = {(a, b): deque[bytes]() for a in numbers for b in numbers if a != b}
        self.slots = [make(graph, number, MemoryLinks(channels, number)) for number in numbers]
        self.completed = 0
        self._check = check
        self._current = 0
        self._under_way = False

    @property
    def is_over(self) -> bool:
        """Whether all slots have ended, and nothing is under way."""
        ended = all(slot.is_over and not slot.orders for slot in self.slots)
        return ended and not self._under_way

    def trigger(self) -> None:
        """Begin a checkpoint, unless there is one."""
        if not self._under_way:
            self._current, self._under_way = self._current + 1, True
            checkpoint = self._current
            for slot in self.slots:
                slot.orders.append(lambda s=slot: s.trigger(checkpoint))  # type: ignore[misc]

    def abort(self) -> None:
        """Give the checkpoint up."""
        if self._under_way:
            self._under_way = False
            checkpoint = self._current
            for slot in self.slots:
                slot.orders.append(lambda s=slot: s.exchange.abort_checkpoint(checkpoint))  # type: ignore[misc]

    def step(self, slot: int, channel: int) -> None:
        """Let a slot have its turn, reading one of its channels; check what has become complete."""
        self.slots[slot].links.turn = channel
        self.slots[slot].step()
        states = [
            s.taken.get(self._current) or (s.state if s.is_over else None) for s in self.slots
        ]
        if self._under_way and None not in states:
            self._under_way = False
            self.completed += 1
            self._check(states)

    def drive(self, choices: Sequence[int], turns: int) -> None:
        """Do as the choices say, then let all have their turns until the end.

        Args:
            choices: Numbers from 0 to 29: whose turn it is, or a trigger, or an abort.
            turns: How many turns must do, after that.
        """
        for choice in choices:
            if choice == 29:
                self.trigger()
            elif choice == 28 and len(choices) % 3 == 0:
                self.abort()
            else:
                self.step(choice % len(self.slots), choice // len(self.slots))
        for turn in range(turns):
            if turn % 40 == 0:
                self.trigger()
            self.step(turn % len(self.slots), turn // 7)
            if self.is_over:
                return
        raise AssertionError("it never came to an end")
