"""What the joins of records by key and event time share: the operator, and its live part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.base import LivePart, OperatorScope, RecordOperator
from sage.dataflow.operator.joins.entries_by_key import EntriesByKey
from sage.dataflow.operator.loop_writer import Flow


class Joiner(Protocol):
    """Keeps the records of both sides, and puts out the pairs.

    Attributes:
        entries: The records by key.
        watermark: How far event time has come.
    """

    entries: EntriesByKey[Any]
    watermark: int

    def advance(self, watermark: int) -> None:
        """Put out what is certain, and let go of what has had its time."""
        ...

    def held_until(self) -> int:
        """Return how far event time may come behind the join."""
        ...


J = TypeVar("J", bound=Joiner)


@dataclass(frozen=True, eq=False)
class TimedJoin(RecordOperator):
    """Hands each record to a joiner, with its key and its event time."""

    @property
    def tells_late(self) -> bool:
        """Records that come too late are told."""
        return True

    @property
    def needs_time(self) -> bool:
        """Both inputs must have an event time."""
        return True

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Hand each record over."""
        joiner = scope.live().joiner
        add = scope.writer.bind("add", joiner.add_right if index else joiner.add_left)
        scope.attempt([f"{add}({flow.key}, {flow.value}, {flow.timestamp})"], flow, phase="key")

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many results went out."""
        return count("produced")


class TimedJoinLive(LivePart, Generic[J]):
    """The live part of such a join."""

    def __init__(self, joiner: J) -> None:
        self.joiner = joiner

    def advance(self, watermark: int) -> None:
        """Put out what is certain, and let go of what has had its time."""
        self.joiner.advance(watermark)
        self.released = self.joiner.held_until()

    def take_changes(self) -> Any:
        """Return the keys whose records changed."""
        return self.joiner.entries.take_changes(self.joiner.watermark)

    def full_state(self) -> Any:
        """Return all records."""
        return self.joiner.entries.full_state(self.joiner.watermark)

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over records."""
        self.load_joiner(parts, share)
        self.released = self.joiner.held_until()

    @abstractmethod
    def load_joiner(self, parts: Sequence[Sequence[Any]], share: Share) -> None:
        """Let the joiner take over records."""
