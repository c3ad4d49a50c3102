"""The alignment of one slot for a checkpoint: which barriers have come, and which may go out. Pure.

A slot runs several operators one behind the other, joined by exchanges. The barrier of a checkpoint
goes into an exchange once it has come through all exchanges before it, so that what a slot sends
before the barrier is what came of records before the checkpoint. A slot that has had the barriers of
another through all exchanges has had all that is before the checkpoint: what that one sends next comes
after it, and has to wait.

The head of a feedback loop gives nothing out while a checkpoint is under way, as if it were a source:
the barrier is sent on before it has come round to the head. What comes to the head until then is kept
there, and is a part of its state.

After Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sage.dataflow.graph.execution_graph import ExecutionGraph


class Alignment:
    """Says what a slot has to wait for.

    Args:
        graph: The subtasks of the job.
        slot: Which of the slots.

    Attributes:
        checkpoint_id: The number of the checkpoint that is under way; None if none is.
        complete_slots: The other slots from which nothing more comes before it.
    """

    def __init__(self, graph: ExecutionGraph, slot: int) -> None:
        self.checkpoint_id: int | None = None
        self.complete_slots: set[int] = set()
        self._before = {
            e.number: _exchanges_before(graph, e.edge.source, slot)
            for e in graph.exchanges
            if slot in e.senders
        }
        self._last = 0
        self._awaited: dict[int, set[int]] = {}
        self._to_send: list[int] = []

    def is_new(self, checkpoint_id: int) -> bool:
        """Say whether a checkpoint is not over yet, and none after it has begun."""
        return checkpoint_id > self._last and checkpoint_id >= (self.checkpoint_id or 0)

    def begin(
        self, checkpoint_id: int, senders: Mapping[int, Collection[int]], over: Collection[int]
    ) -> None:
        """Begin with a checkpoint; one that is under way is given up.

        Args:
            checkpoint_id: Its number.
            senders: The other slots that still send through each exchange by which this one receives.
            over: The exchanges into which this slot sends nothing more.
        """
        self.checkpoint_id = checkpoint_id
        self.complete_slots.clear()
        self._awaited = {number: set(slots) for number, slots in senders.items()}
        self._to_send = [number for number in self._before if number not in over]

    def barrier(self, checkpoint_id: int, exchange: int, slot: int) -> None:
        """Take note of a barrier that has come through an exchange from another slot."""
        if checkpoint_id == self.checkpoint_id:
            self._awaited[exchange].discard(slot)
            if not any(slot in slots for slots in self._awaited.values()):
                self.complete_slots.add(slot)

    def sender_ended(self, exchange: int, slot: int) -> None:
        """Take note that another slot sends nothing more through an exchange."""
        if self.checkpoint_id is not None:
            self._awaited[exchange].discard(slot)

    def take_due(self) -> list[int]:
        """Return the exchanges into which the barrier is to be sent now."""
        due = [
            number
            for number in self._to_send
            if not any(self._awaited.get(before) for before in self._before[number])
        ]
        self._to_send = [number for number in self._to_send if number not in due]
        return due

    @property
    def is_complete(self) -> bool:
        """Whether all barriers have come and gone out."""
        return not self._to_send and not any(self._awaited.values())

    def end(self) -> None:
        """The checkpoint is taken: go on."""
        self._finish(self.checkpoint_id or self._last)

    def skip(self, checkpoint_id: int) -> None:
        """A checkpoint will not be: go on, and ignore what still comes for it."""
        self._finish(checkpoint_id)

    def _finish(self, checkpoint_id: int) -> None:
        self._last = checkpoint_id
        self.checkpoint_id = None
        self.complete_slots.clear()
        self._awaited.clear()
        self._to_send.clear()


def _exchanges_before(graph: ExecutionGraph, node: int, slot: int) -> frozenset[int]:
    """Return the exchanges by which comes, in a slot, what an operator puts out."""
    ways = {e.edge: e for e in graph.exchanges}
    found, seen, frontier = set[int](), {node}, [node]
    while frontier:
        for edge in graph.stream_graph.inputs(frontier.pop()):
            if edge.feedback:
                continue
            way = ways.get(edge)
            if way is not None:
                found |= {way.number} if slot in way.receivers else set()
            stays = way is None or slot in way.senders  # some of it never leaves the slot
            if stays and edge.source not in seen:
                seen.add(edge.source)
                frontier.append(edge.source)
    return frozenset(found)
