"""`LoopTraffic`: what one slot sends and receives of the feedback loops that it is a part of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.runtime.exchange.termination import Termination


class LoopTraffic:
    """Counts what can wake another slot's part of a loop: records, and how far event time has come.

    Args:
        graph: The subtasks of the job.
        slot: Whose traffic it is.

    Attributes:
        ends: For each loop that the slot is a part of, by its number, when it has come to rest.
        others: The other slots with which it shares loops.
    """

    def __init__(self, graph: ExecutionGraph, slot: int) -> None:
        mine = [loop for loop in graph.loops if slot in loop.slots]
        # What never leaves its slot comes to rest in each of them alone.
        self.ends = {
            loop.number: Termination(slot, loop.slots if loop.exchanges else (slot,))
            for loop in mine
        }
        shared = {other for loop in mine if loop.exchanges for other in loop.slots}
        self.others = sorted(shared - {slot})
        self._slots = {loop.number: loop.slots for loop in mine}
        self._loop_of = {way: loop.number for loop in mine for way in loop.exchanges}

    def sent(self, exchange: int) -> None:
        """Take note of a batch that has been sent into an exchange."""
        if exchange in self._loop_of:
            self.ends[self._loop_of[exchange]].sent += 1

    def received(self, exchange: int) -> None:
        """Take note of a batch that has come through an exchange."""
        if exchange in self._loop_of:
            self.ends[self._loop_of[exchange]].received += 1

    def sent_times(self, times: Mapping[int, object], receiver: int) -> None:
        """Take note that another slot has been told how far time has come."""
        for end in self._concerned(times, receiver):
            end.sent += 1

    def received_times(self, times: Mapping[int, object], sender: int) -> None:
        """Take note that another slot has told how far time has come."""
        for end in self._concerned(times, sender):
            end.received += 1

    def _concerned(self, times: Mapping[int, object], other: int) -> Iterator[Termination]:
        if self._loop_of:
            for number in {self._loop_of[~way] for way in times if ~way in self._loop_of}:
                if other in self._slots[number]:
                    yield self.ends[number]
