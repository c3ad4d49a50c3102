"""Window assigners: which windows a record belongs to.

Frozen specifications that can be pickled and compared; all lengths are whole milliseconds. The
functions of `sage.dataflow.window.windows` are the pleasant way to make them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from sage.dataflow.time import to_ms
from sage.dataflow.window.evictor import CountEvictor, Evictor
from sage.dataflow.window.trigger import (
    CountTrigger,
    EventTimeTrigger,
    NeverTrigger,
    ProcessingTimeTrigger,
    PurgingTrigger,
    Trigger,
    positive_count,
    positive_ms,
)
from sage.dataflow.window.window_result import GLOBAL_WINDOW, Window


class WindowAssigner(ABC):
    """Assigns windows to records, by their timestamp or, for processing time, by the clock."""

    merges: ClassVar[bool] = False
    """Whether windows that touch become one."""
    timed: ClassVar[bool] = True
    """Whether windows end at some time."""

    @property
    @abstractmethod
    def on_event_time(self) -> bool:
        """Whether windows end by event time, and records can be late."""
        raise NotImplementedError

    @abstractmethod
    def assign(self, timestamp: int, value: Any = None) -> list[Window]:
        """Return the windows of a record, the earliest first; there may be none.

        Args:
            timestamp: That of the record, or the processing time.
            value: The record.
        """
        raise NotImplementedError

    @abstractmethod
    def default_trigger(self) -> Trigger:
        """Return the trigger of these windows unless told otherwise."""
        raise NotImplementedError

    def default_evictor(self) -> Evictor | None:
        """Return the evictor that these windows need, if any."""
        return None


@dataclass(frozen=True)
class _TimeWindows(WindowAssigner):
    processing_time: bool = False

    @property
    def on_event_time(self) -> bool:
        """Whether windows end by event time, and records can be late."""
        return not self.processing_time

    def default_trigger(self) -> Trigger:
        """Return a trigger that fires at the end of a window."""
        return ProcessingTimeTrigger() if self.processing_time else EventTimeTrigger()


@dataclass(frozen=True)
class SlidingTimeWindows(_TimeWindows):
    """Windows of `size_ms` that start every `slide_ms`.

    With a slide longer than the size there are gaps, and records in them belong to no window.

    Examples:
        >>> SlidingTimeWindows.of(timedelta(seconds=2), timedelta(seconds=1)).assign(-1)
        [Window(start=-2000, end=0), Window(start=-1000, end=1000)]
    """

    size_ms: int = 1
    slide_ms: int = 1
    offset_ms: int = 0

    def __post_init__(self) -> None:
        if self.size_ms <= 0 or self.slide_ms <= 0:
            raise ValueError(f"size and slide must be at least a millisecond: {self!r}")
        if abs(self.offset_ms) >= self.slide_ms:
            raise ValueError(
                f"offset must be shorter than the {self._period}, forwards or backwards: {self!r}"
            )

    _period: ClassVar[str] = "slide"

    @classmethod
    def of(
        cls,
        size: timedelta | float,
        slide: timedelta | float,
        *,
        offset: timedelta | float = 0,
        processing_time: bool = False,
    ) -> SlidingTimeWindows:
        """Return windows of a size that start every slide.

        Args:
            size: How long a window is: a `timedelta`, or seconds.
            slide: How far apart windows start.
            offset: By how much window starts differ from multiples of the slide since 1970-01-01
                UTC; shorter than the slide, and may be negative.
            processing_time: Whether the clock counts, instead of the records' timestamps.

        Raises:
            TypeError: a length is neither a `timedelta` nor a number.
            ValueError: size or slide is not positive, or the offset is too long.
        """
        size_ms, slide_ms = positive_ms(size, "size"), positive_ms(slide, "slide")
        return SlidingTimeWindows(processing_time, size_ms, slide_ms, to_ms(offset, name="offset"))

    def assign(self, timestamp: int, value: Any = None) -> list[Window]:
        """Return the windows that contain the timestamp, the earliest first."""
        size, slide = self.size_ms, self.slide_ms
        last = timestamp - (timestamp - self.offset_ms) % slide
        first = last - (last + size - timestamp - 1) // slide * slide
        return [Window(start, start + size) for start in range(first, last + 1, slide)]


@dataclass(frozen=True)
class TumblingTimeWindows(SlidingTimeWindows):
    """Windows of one size, end to end.

    Examples:
        >>> TumblingTimeWindows.of(timedelta(minutes=1)).assign(90_000)
        [Window(start=60000, end=120000)]
    """

    _period: ClassVar[str] = "size"

    @classmethod
    def of(  # type: ignore[override]
        cls,
        size: timedelta | float,
        *,
        offset: timedelta | float = 0,
        processing_time: bool = False,
    ) -> TumblingTimeWindows:
        """Return windows of a size.

        Args:
            size: How long a window is: a `timedelta`, or seconds.
            offset: By how much window starts differ from multiples of the size since 1970-01-01 UTC;
                shorter than the size, and may be negative.
            processing_time: Whether the clock counts, instead of the records' timestamps.

        Raises:
            TypeError: a length is neither a `timedelta` nor a number.
            ValueError: the size is not positive, or the offset is too long.
        """
        size_ms = positive_ms(size, "size")
        return TumblingTimeWindows(processing_time, size_ms, size_ms, to_ms(offset, name="offset"))


@dataclass(frozen=True)
class SessionWindows(_TimeWindows):
    """Windows that end when no record has come for a gap; those that touch are merged.

    Attributes:
        gap_ms: The gap.
        gap_of: Returns the gap of a record, a `timedelta` or seconds; then `gap_ms` has no meaning.

    Examples:
        >>> SessionWindows.of(timedelta(seconds=5)).assign(1000)
        [Window(start=1000, end=6000)]
    """

    merges: ClassVar[bool] = True
    gap_ms: int = 1
    gap_of: Callable[[Any], timedelta | float] | None = None

    @classmethod
    def of(
        cls,
        gap: timedelta | float | Callable[[Any], timedelta | float],
        *,
        processing_time: bool = False,
    ) -> SessionWindows:
        """Return sessions with a gap, or with a function that returns the gap of a record.

        Raises:
            TypeError: the gap is neither a `timedelta`, nor a number of seconds, nor a function.
            ValueError: the gap is not positive.
        """
        if callable(gap):
            return SessionWindows(processing_time, gap_of=gap)
        return SessionWindows(processing_time, positive_ms(gap, "gap"))

    def gap_for(self, value: Any) -> int:
        """Return the gap of a record, in ms.

        Raises:
            ValueError: the function of the gap returned one that is not positive.
        """
        return self.gap_ms if self.gap_of is None else positive_ms(self.gap_of(value), "gap")

    def assign(self, timestamp: int, value: Any = None) -> list[Window]:
        """Return the window that the record would have alone."""
        return [Window(timestamp, timestamp + self.gap_for(value))]


@dataclass(frozen=True)
class GlobalWindows(WindowAssigner):
    """One window per key, which never ends; it takes a trigger to get results out of it."""

    timed: ClassVar[bool] = False

    @classmethod
    def of(cls) -> GlobalWindows:
        """Return the global window."""
        return cls()

    @property
    def on_event_time(self) -> bool:
        """No: nothing is ever late."""
        return False

    def assign(self, timestamp: int, value: Any = None) -> list[Window]:
        """Return the one window."""
        return [GLOBAL_WINDOW]

    def default_trigger(self) -> Trigger:
        """Return a trigger that never fires."""
        return NeverTrigger()


@dataclass(frozen=True)
class CountWindows(GlobalWindows):
    """Windows of `size` records of a key; with a `slide`, one of the last `size` at every `slide`.

    As in Flink, records that do not fill a window give no result at the end of input.

    Examples:
        >>> CountWindows.of(100, slide=10).default_evictor()
        CountEvictor(evict_after=False, count=100)
    """

    size: int = 1
    slide: int | None = None

    def __post_init__(self) -> None:
        positive_count(self.size, "size")
        if self.slide is not None:
            positive_count(self.slide, "slide")

    @classmethod
    def of(cls, size: int = 1, slide: int | None = None) -> CountWindows:
        """Return windows of `size` records.

        Raises:
            TypeError: a number is not a whole one.
            ValueError: a number is less than 1.
        """
        return cls(size, slide)

    def default_trigger(self) -> Trigger:
        """Return a trigger that counts."""
        if self.slide is None:
            return PurgingTrigger(CountTrigger(self.size))
        return CountTrigger(self.slide)

    def default_evictor(self) -> Evictor | None:
        """Return what keeps the last `size` records of sliding windows."""
        return None if self.slide is None else CountEvictor(self.size)
