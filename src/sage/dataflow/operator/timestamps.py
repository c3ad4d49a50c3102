"""Where event time begins: the operators that give records their timestamps, and watermarks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

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

    Behind a source that tells its splits apart, each of them has a generator of its own.

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
        create = self.strategy.create
        if isinstance(create(), BoundedOutOfOrderness):
            return TimestampAssigner(create, self.idleness_ms)
        return PunctualAssigner(create, self.idleness_ms, context.set_watermark)

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


@dataclass(eq=False)
class SplitTime:
    """Event time in one split of a source.

    Attributes:
        generator: Says how far it has come.
        watermark: How far it has come.
        spoken: Whether records have come since it was last looked at.
        quiet_since: When it was last seen to have had any, in seconds of the job's clock.
        idle: Whether it has had none for so long that it holds the others back no more.
    """

    generator: WatermarkGenerator
    watermark: int = MIN_WATERMARK
    spoken: bool = True
    quiet_since: float = 0.0
    idle: bool = False

    def look(self, now: float, idle_seconds: float | None) -> None:
        """Ask the generator, and find out whether the split is idle."""
        if self.spoken:
            self.spoken, self.quiet_since, self.idle = False, now, False
        elif idle_seconds is not None and now - self.quiet_since >= idle_seconds:
            self.idle = True
        self.advance(self.generator.on_periodic())

    def advance(self, mark: datetime | int | None) -> None:
        """Let it come as far as the generator has said."""
        if mark is not None:
            self.watermark = max(self.watermark, timestamp_ms(mark))


class Assigner(LivePart):
    """Where event time comes from: the watermark of one input, or the least of its splits.

    Attributes:
        idleness_ms: After how long without records the input, or a split of it, is idle.
        notes: Changes with every batch that brought a record.
    """

    def __init__(self, create: Callable[[], WatermarkGenerator], idleness_ms: int | None) -> None:
        self.idleness_ms = idleness_ms
        self.notes = 0
        self._create = create
        self._whole = SplitTime(create())
        self._splits: dict[str, SplitTime] | None = None
        self._loaded: dict[str, WatermarkGenerator] = {}
        self._current = self._whole  # that of the records at hand

    def set_splits(self, splits: Collection[str] | None) -> None:
        """Let these be the splits that event time waits for; None: they are not told apart."""
        if splits is None:
            self._splits, self._current = None, self._whole
            return
        before = self._splits or {}
        self._splits = {split: before.get(split) or self._begin(split) for split in splits}

    def _begin(self, split: str) -> SplitTime:
        loaded = split in self._loaded
        return SplitTime(self._loaded.pop(split) if loaded else self._create())

    def begin_split(self, split: str) -> None:
        """Let the records that follow be those of a split."""
        splits = {} if self._splits is None else self._splits
        # One that is not open any more may still have records: nobody waits for its time.
        self._current = splits.get(split) or self._begin(split)
        self._current.spoken = True

    @property
    def is_without_input(self) -> bool:
        """Whether there is no split that records could come from."""
        return self._splits is not None and not self._splits

    def idle_at(self) -> float | None:
        """Return when the next split becomes idle if nothing comes of it; None: never."""
        if self.idleness_ms is None or self._splits is None:
            return None
        since = [split.quiet_since for split in self._splits.values() if not split.idle]
        return min(since) + self.idleness_ms / 1000 if since else None

    def watermark(self, now: float = 0.0) -> int | None:
        """Return how far event time has come; None: the generators have nothing new to say."""
        idle_seconds = None if self.idleness_ms is None else self.idleness_ms / 1000
        if self._splits is None:
            self._whole.look(now, None)
        else:
            for split in self._splits.values():
                split.look(now, idle_seconds)
        return self._least()

    def _least(self) -> int | None:
        splits = (self._whole,) if self._splits is None else self._splits.values()
        active = [split.watermark for split in splits if not split.idle]
        # It is the same whether they have become idle one after the other or at once.
        idle = max((split.watermark for split in splits), default=MIN_WATERMARK)
        least = min(active, default=idle)
        return None if least == MIN_WATERMARK else least

    def full_state(self) -> Any:
        """Return the generator, or those of the splits by their names."""
        if self._splits is None:
            return self._whole.generator
        return {name: split.generator for name, split in self._splits.items()}

    def take_changes(self) -> Any:
        """Return the same: it is small."""
        return self.full_state()

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over the generators of all splits, or the one generator that is furthest behind."""
        for part in reversed(parts):
            state = part[-1]
            if isinstance(state, dict):
                self._loaded |= state
            else:
                self._whole.generator = state


class TimestampAssigner(Assigner):
    """Keeps the highest timestamp, which the loop finds itself."""

    def begin(self) -> int:
        """Return the highest timestamp so far."""
        highest = cast("BoundedOutOfOrderness", self._current.generator).max_timestamp
        return MIN_WATERMARK if highest is None else highest

    def note(self, high: int) -> None:
        """Take note of the highest timestamp after a batch."""
        if high != MIN_WATERMARK:
            cast("BoundedOutOfOrderness", self._current.generator).max_timestamp = high
            self.notes += 1


class PunctualAssigner(Assigner):
    """Asks the generator at each record; what it says goes out right after the record.

    Attributes:
        set_watermark: Lets the watermark out.
    """

    def __init__(
        self,
        create: Callable[[], WatermarkGenerator],
        idleness_ms: int | None,
        set_watermark: Callable[[int], None],
    ) -> None:
        super().__init__(create, idleness_ms)
        self.set_watermark = set_watermark

    def note(self, value: Any, timestamp: int) -> int | None:
        """Take note of a record; return the watermark that is to go out right after it, if any."""
        self.notes += 1
        current = self._current
        mark = current.generator.on_event(value, timestamp)
        if mark is None:
            return None
        current.advance(mark)
        current.idle = False
        return self._least()
