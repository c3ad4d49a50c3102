"""Event time: its limits, how durations and timestamps become milliseconds, and watermarks.

Time inside the engine is a whole number of milliseconds since the Unix epoch, and may be negative.
A watermark `w` says that no record with a timestamp of `w` or less is expected any more.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

MAX_WATERMARK: Final = 2**63 - 1
"""The watermark of an input that has ended: it closes every window."""
MIN_WATERMARK: Final = -(2**63)
"""The watermark of an input that has not said anything yet."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(duration: timedelta | float, *, name: str = "duration") -> int:
    """Return a duration as whole milliseconds, rounded to the nearest.

    Args:
        duration: A `timedelta`, or a number of seconds.
        name: What the duration is for, for messages.

    Raises:
        TypeError: it is neither.
        ValueError: it is not finite.

    Examples:
        >>> to_ms(timedelta(minutes=5)), to_ms(0.25)
        (300000, 250)
    """
    if isinstance(duration, timedelta):
        whole, rest = divmod(duration, _MILLISECOND)
        return whole + (rest * 2 >= _MILLISECOND)
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        raise TypeError(f"{name} must be a timedelta or a number of seconds, not {duration!r}")
    if not math.isfinite(duration):
        raise ValueError(f"{name} must be finite, not {duration!r}")
    return round(duration * 1000)


def timestamp_ms(timestamp: datetime | int) -> int:
    """Return a point in time as milliseconds since the Unix epoch; parts of one are cut off downwards.

    Args:
        timestamp: A `datetime`, taken as UTC when it has no zone, or the milliseconds themselves.

    Raises:
        TypeError: it is neither. A `float` is refused because it may be meant as seconds.

    Examples:
        >>> timestamp_ms(datetime(1970, 1, 1, 0, 0, 2)), timestamp_ms(-5)
        (2000, -5)
    """
    if isinstance(timestamp, datetime):
        aware = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MILLISECOND
    return _whole_ms(timestamp)


def _whole_ms(timestamp: object) -> int:
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        return timestamp
    raise TypeError(
        "a timestamp is a datetime, or an int of milliseconds since 1970-01-01 UTC, not "
        f"{timestamp!r} ({type(timestamp).__name__})"
    )


def utc_datetime(ms: int) -> datetime:
    """Return milliseconds since the Unix epoch as a `datetime` in UTC.

    What lies outside of the years 1 to 9999 becomes the earliest or latest `datetime` there is.

    Examples:
        >>> utc_datetime(1500).isoformat()
        '1970-01-01T00:00:01.500000+00:00'
    """
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return (datetime.min if ms < 0 else datetime.max).replace(tzinfo=UTC)


class WatermarkGenerator(ABC):
    """Derives watermarks from the records of one input; it has state, so each input has its own.

    The runtime calls `on_event` (or `on_batch`) for what it reads, in order, and `on_periodic`
    between batches, all from one thread. It drops watermarks that would go back.
    """

    @abstractmethod
    def on_event(self, value: Any, timestamp: int) -> int | None:
        """Note a record; return a watermark that is to go out right after it, or `None`."""
        raise NotImplementedError

    @abstractmethod
    def on_periodic(self) -> int | None:
        """Return the watermark as of now, or `None` when there is nothing to say."""
        raise NotImplementedError

    def on_batch(self, values: Sequence[Any], timestamps: Sequence[int]) -> int | None:
        """Note the records of a batch; return the highest watermark that is to go out after it."""
        said = [self.on_event(v, t) for v, t in zip(values, timestamps, strict=True)]
        return max((mark for mark in said if mark is not None), default=None)


class BoundedOutOfOrderness(WatermarkGenerator):
    """Records come at most `out_of_orderness_ms` after a younger one; 0 means in order.

    The watermark is Flink's: the highest timestamp so far, less the bound, less one, because a
    record with the highest timestamp may come again.

    Examples:
        >>> marks = BoundedOutOfOrderness(100)
        >>> marks.on_event("a", 1000); marks.on_event("b", 950); marks.on_periodic()
        899
    """

    def __init__(self, out_of_orderness_ms: int) -> None:
        if out_of_orderness_ms < 0:
            raise ValueError(f"out-of-orderness must not be negative: {out_of_orderness_ms} ms")
        self.out_of_orderness_ms = out_of_orderness_ms
        self.max_timestamp: int | None = None

    def on_event(self, value: Any, timestamp: int) -> int | None:
        """Note the timestamp; the watermark waits for `on_periodic`."""
        if self.max_timestamp is None or timestamp > self.max_timestamp:
            self.max_timestamp = timestamp
        return None

    def on_batch(self, values: Sequence[Any], timestamps: Sequence[int]) -> int | None:
        """Note the highest timestamp of the batch."""
        return self.on_event(None, max(timestamps)) if timestamps else None

    def on_periodic(self) -> int | None:
        """Return the highest timestamp less the bound less one, or `None` before any record."""
        if self.max_timestamp is None:
            return None
        return self.max_timestamp - self.out_of_orderness_ms - 1


class PunctuatedWatermarks(WatermarkGenerator):
    """Some records say themselves how far time has come.

    Args:
        watermark_of: Returns the watermark that a record carries, given `(value, timestamp)`: ms or
            a `datetime`, or `None`.
    """

    def __init__(self, watermark_of: Callable[[Any, int], datetime | int | None]) -> None:
        self._watermark_of = watermark_of

    def on_event(self, value: Any, timestamp: int) -> int | None:
        """Return what the record says."""
        mark = self._watermark_of(value, timestamp)
        return None if mark is None else timestamp_ms(mark)

    def on_periodic(self) -> int | None:
        """Return `None`: records alone move the time."""
        return None


@dataclass(frozen=True)
class WatermarkStrategy:
    """How each input of a source gets its own watermark generator.

    Attributes:
        create: Makes a generator; a class, or another function that can be pickled.
    """

    create: Callable[[], WatermarkGenerator]


def monotonic_timestamps() -> WatermarkStrategy:
    """Timestamps of an input never go back.

    Examples:
        >>> marks = monotonic_timestamps().create()
        >>> marks.on_event("a", 1000); marks.on_periodic()
        999
    """
    return WatermarkStrategy(partial(BoundedOutOfOrderness, 0))


def bounded_out_of_orderness(bound: timedelta | float) -> WatermarkStrategy:
    """Records come at most `bound` (a `timedelta`, or seconds) after a younger one.

    Raises:
        ValueError: the bound is negative.

    Examples:
        >>> bounded_out_of_orderness(timedelta(seconds=5)).create().out_of_orderness_ms
        5000
    """
    ms = to_ms(bound, name="bound")
    if ms < 0:
        raise ValueError(f"bound must not be negative: {bound!r}")
    return WatermarkStrategy(partial(BoundedOutOfOrderness, ms))


def punctuated(watermark_of: Callable[[Any, int], datetime | int | None]) -> WatermarkStrategy:
    """Take watermarks from the records: `watermark_of(value, timestamp)` says one or `None`.

    Examples:
        >>> marks = punctuated(lambda value, timestamp: value.get("until")).create()
        >>> marks.on_event({"until": 70}, 100)
        70
    """
    return WatermarkStrategy(partial(PunctuatedWatermarks, watermark_of))
