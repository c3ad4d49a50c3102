"""Where event time begins: the operators that give records their timestamps, and watermarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar

from sage.common.errors import GraphError
from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.base import LiveContext, LivePart, OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.time import (
    MIN_WATERMARK,
    BoundedOutOfOrderness,
    WatermarkGenerator,
    WatermarkStrategy,
    bounded_out_of_orderness,
    timestamp_ms,
)


def watermark_strategy(
    max_out_of_orderness: timedelta | float, watermarks: WatermarkStrategy | None
) -> WatermarkStrategy:
    """Return how watermarks follow from records, out of the two ways to say so.

    Raises:
        GraphError: both are given, or what is given is no strategy.
    """
    if watermarks is None:
        return bounded_out_of_orderness(max_out_of_orderness)
    if max_out_of_orderness:
        raise GraphError("give either max_out_of_orderness or watermarks, not both")
    if not isinstance(watermarks, WatermarkStrategy):
        raise GraphError(
            "watermarks is a WatermarkStrategy, such as monotonic_timestamps() or "
            f"punctuated(function), not {watermarks!r}"
        )
    return watermarks


@dataclass(frozen=True, eq=False)
class AssignTimestamps(RecordOperator):
    """Asks a function for the timestamp of each record, and moves event time.

    Watermarks go out between batches, after all records of the batch; those that a generator says
    go out right after a record go out there.

    Attributes:
        strategy: How watermarks follow from records.
        idleness_ms: After how long without records the input no longer holds others back.
    """

    kind: ClassVar[str] = "assign_timestamps"
    strategy: WatermarkStrategy = field(default_factory=lambda: bounded_out_of_orderness(0))
    idleness_ms: int | None = None

    @property
    def gives_time(self) -> bool:
        """The results have the timestamps that the function says."""
        return True

    def create_live(self, context: LiveContext) -> LivePart:
        """Make the generator of watermarks."""
        generator = self.strategy.create()
        if isinstance(generator, BoundedOutOfOrderness):
            return TimestampAssigner(generator, self.idleness_ms)
        return PunctualAssigner(generator, self.idleness_ms, context.set_watermark)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Ask for the timestamp; note the highest, or ask the generator."""
        writer, timestamp = scope.writer, scope.writer.fresh("t")
        convert = writer.bind("to_ms", timestamp_ms)
        lines = [
            f"{timestamp} = {scope.entry(0)}({flow.value})",
            f"if {timestamp}.__class__ is not int: {timestamp} = {convert}({timestamp})",
        ]
        live = scope.live()
        assigner = writer.bind("assigner", live)
        if isinstance(live, TimestampAssigner):
            scope.attempt(lines, flow)
            high = writer.fresh("high")
            writer.first(f"{high} = {assigner}.begin()")
            writer.line(f"if {timestamp} > {high}: {high} = {timestamp}")
            writer.last(f"{assigner}.note({high})")
            scope.emit(replace(flow, timestamp=timestamp))
        else:
            mark = writer.fresh("mark")
            scope.attempt([*lines, f"{mark} = {assigner}.note({flow.value}, {timestamp})"], flow)
            scope.emit(replace(flow, timestamp=timestamp))
            writer.line(f"if {mark} is not None: {assigner}.set_watermark({mark})")


class Assigner(LivePart):
    """Where event time comes from: the watermark of one input.

    Attributes:
        idleness_ms: After how long without records the input is idle.
        notes: Changes with every batch that brought a record.
    """

    def __init__(self, generator: WatermarkGenerator, idleness_ms: int | None) -> None:
        self.idleness_ms = idleness_ms
        self.notes = 0
        self._generator = generator

    def watermark(self) -> int | None:
        """Return how far event time has come; None: the generator has nothing new to say."""
        mark = self._generator.on_periodic()
        return None if mark is None else timestamp_ms(mark)

    def full_state(self) -> Any:
        """Return the generator."""
        return self._generator

    def take_changes(self) -> Any:
        """Return the generator: it is small."""
        return self._generator

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over the generator that is furthest behind."""
        self._generator = parts[0][-1]


class TimestampAssigner(Assigner):
    """Keeps the highest timestamp, which the loop finds itself."""

    _generator: BoundedOutOfOrderness

    def begin(self) -> int:
        """Return the highest timestamp so far."""
        highest = self._generator.max_timestamp
        return MIN_WATERMARK if highest is None else highest

    def note(self, high: int) -> None:
        """Take note of the highest timestamp after a batch."""
        if high != MIN_WATERMARK:
            self._generator.max_timestamp = high
            self.notes += 1


class PunctualAssigner(Assigner):
    """Asks the generator at each record; what it says goes out right after the record.

    Attributes:
        set_watermark: Lets the watermark out.
    """

    def __init__(
        self,
        generator: WatermarkGenerator,
        idleness_ms: int | None,
        set_watermark: Callable[[int], None],
    ) -> None:
        super().__init__(generator, idleness_ms)
        self.set_watermark = set_watermark

    def note(self, value: Any, timestamp: int) -> int | None:
        """Take note of a record; return the watermark that is to go out right after it, if any."""
        self.notes += 1
        mark = self._generator.on_event(value, timestamp)
        return None if mark is None else timestamp_ms(mark)
