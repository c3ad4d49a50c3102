"""A source that is being read: how much at a time, and which of its splits event time waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sage.common.errors import OperatorError
from sage.common.suggest import shorten
from sage.dataflow.function.source import SourceReader, SplitBatch
from sage.dataflow.graph.stream_graph import Edge, StreamGraph
from sage.dataflow.operator.base import Operator, RecordOperator
from sage.dataflow.operator.timestamps import Assigner, AssignTimestamps
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.live_operator import LiveOperator
from sage.kernel.runtime.task.segment import Deliver

_QUICK_SECONDS = 0.002
_SLOW_SECONDS = 0.020
FIRST_BATCH = 1


@dataclass(eq=False)
class Inlet:
    """A source that is being read.

    Attributes:
        live: The source operator.
        reader: Gives its records.
        deliver: Takes a batch through what follows.
        assigners: Give its records their time, split by split.
        size: How many records are asked for next. It follows the speed of the pipeline, so that a
            slow function does not hold up cancelling, and a quick one pays little per batch.
        is_silent: Whether it had nothing when it was asked last.
    """

    live: LiveOperator
    reader: SourceReader[object]
    deliver: Deliver
    assigners: Sequence[Assigner] = ()
    size: int = FIRST_BATCH
    is_silent: bool = False
    _splits: frozenset[str] | None = None

    def read(self, size: int) -> Sequence[object] | None:
        """Return up to `size` records; none if there are none at the moment, None at the end.

        Raises:
            OperatorError: the reader failed.
        """
        try:
            self._look_at_splits()
            values = self.reader.read_batch(size)
            self._look_at_splits()
            if values is None or isinstance(values, Sequence):
                return values
            raise TypeError(
                "read_batch() returns a sequence such as a list, an empty one for no records at "
                f"the moment, None at the end; not {shorten(values)} of type "
                f"{type(values).__name__}"
            )
        except OperatorError:  # of a record that cannot be decoded, or of who reads dead letters
            raise
        except USER_ERRORS as error:
            raise operator_error(error, self.live.node, "read") from error

    def stop(self) -> bool:
        """Let the reader take no more; say whether it has records to return which it has taken.

        Raises:
            OperatorError: the reader failed.
        """
        try:
            return self.reader.stop()
        except USER_ERRORS as error:
            raise operator_error(error, self.live.node, "read") from error

    def _look_at_splits(self) -> None:
        splits = self.reader.open_splits
        if splits is not self._splits:
            self._splits = splits
            for assigner in self.assigners:
                assigner.set_splits(splits)

    def send(self, values: Sequence[object]) -> None:
        """Take a batch through what follows."""
        if isinstance(values, SplitBatch):
            for assigner in self.assigners:
                assigner.begin_split(values.split)
        self.deliver(values)

    def pace(self, seconds: float, limit: int) -> None:
        """Adapt the size of batches to how long the last one took."""
        if seconds > _SLOW_SECONDS:
            self.size = max(1, self.size // 2)
        elif seconds < _QUICK_SECONDS and self.size < limit:
            self.size = min(2 * self.size, limit)


def split_assigners(
    graph: StreamGraph,
    source: int,
    live: Mapping[int, LiveOperator],
    crosses: Callable[[Edge], bool],
) -> list[Assigner]:
    """Return what gives the records of a source their time while it is known which split they are of.

    That is so directly behind the source, and behind operators that put out at once what comes of a
    record: in the same slot, and not where other records come in too.

    Args:
        graph: The whole stream graph.
        source: The source.
        live: The operators of the task.
        crosses: Says whether an edge leads into another slot.
    """
    found, frontier = list[Assigner](), [source]
    while frontier:
        for edge in graph.outputs(frontier.pop()):
            node = live.get(edge.target)
            if node is None or crosses(edge) or [len(i) for i in node.node.inputs] != [1]:
                continue
            if isinstance(node.part, Assigner) and isinstance(node.node.operator, AssignTimestamps):
                found.append(node.part)
            elif _is_immediate(node.node.operator):
                frontier.append(edge.target)
    return found


def _is_immediate(operator: Operator) -> bool:
    return (
        isinstance(operator, RecordOperator)
        and type(operator).create_live is Operator.create_live
        and not operator.final
    )


@dataclass
class ReadPositions:
    """Which positions of a source belong to the checkpoints that are not known to be complete."""

    _of: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def note(self, checkpoint_id: int, positions: Mapping[str, Any]) -> None:
        """Take note of the positions of a checkpoint."""
        self._of[checkpoint_id] = positions

    def complete(self, checkpoint_id: int) -> Mapping[str, Any] | None:
        """Return the positions of a checkpoint that is complete, once; forget those before.

        What was taken at the end of the input may belong to a later number than it was taken for.
        """
        done = sorted(number for number in self._of if number <= checkpoint_id)
        return [self._of.pop(number) for number in done][-1] if done else None


def read_gauges(operators: Iterable[LiveOperator]) -> dict[int, Mapping[str, int]]:
    """Ask the readers among operators what they have to say of themselves; from any thread."""
    found: dict[int, Mapping[str, int]] = {}
    for live in operators:
        if live.reader is not None:
            with suppress(*USER_ERRORS):  # it is just being closed: what it said last must do
                found[live.node.id] = live.reader.gauges()
    return found


def total_count(reader: SourceReader[object]) -> int | None:
    """Return how many records a reader will give; None if it does not know."""
    try:
        return reader.total_count()
    except USER_ERRORS:  # the records can be read without knowing their number
        return None
