"""The functions that make windows: `stream.window(tumbling_time_window(minutes=5))`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sage.common.suggest import did_you_mean
from sage.dataflow.window.assigner import (
    CountWindows,
    GlobalWindows,
    SessionWindows,
    SlidingTimeWindows,
    TumblingTimeWindows,
)

_UNITS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


def tumbling_time_window(
    size: timedelta | float | None = None,
    *,
    offset: timedelta | float = 0,
    processing_time: bool = False,
    **length: float,
) -> TumblingTimeWindows:
    """Windows of one size, end to end.

    Args:
        size: How long a window is: a `timedelta`, or seconds. Instead of it, the keywords of a
            `timedelta` may be given.
        offset: By how much window starts differ from multiples of the size since 1970-01-01 UTC:
            `timedelta(hours=-8)` for days that start at midnight in Shanghai.
        processing_time: Whether the clock counts, instead of the records' timestamps.
        **length: `minutes=5`, `hours=1, minutes=30` …

    Raises:
        TypeError: there is no size, or two, or a keyword is not known.
        ValueError: the size is not positive, or the offset is not shorter than it.

    Examples:
        >>> tumbling_time_window(minutes=5) == tumbling_time_window(timedelta(minutes=5))
        True
    """
    size = _one_length("tumbling_time_window", "size", size, length)
    return TumblingTimeWindows.of(size, offset=offset, processing_time=processing_time)


def sliding_time_window(
    size: timedelta | float,
    slide: timedelta | float,
    *,
    offset: timedelta | float = 0,
    processing_time: bool = False,
) -> SlidingTimeWindows:
    """Windows of a size that start every `slide`: a record is in size / slide of them.

    Args:
        size: How long a window is: a `timedelta`, or seconds.
        slide: How far apart windows start. Longer than the size, it leaves gaps.
        offset: By how much window starts differ from multiples of the slide since 1970-01-01 UTC.
        processing_time: Whether the clock counts, instead of the records' timestamps.

    Raises:
        TypeError: a length is neither a `timedelta` nor a number.
        ValueError: size or slide is not positive, or the offset is not shorter than the slide.

    Examples:
        >>> sliding_time_window(timedelta(hours=1), timedelta(minutes=5)).slide_ms
        300000
    """
    return SlidingTimeWindows.of(size, slide, offset=offset, processing_time=processing_time)


def session_window(
    gap: timedelta | float | Callable[[Any], timedelta | float] | None = None,
    *,
    processing_time: bool = False,
    **length: float,
) -> SessionWindows:
    """Windows that end when no record of the key has come for a gap.

    Args:
        gap: A `timedelta`, seconds, or a function that returns either for a record. Instead of it,
            the keywords of a `timedelta` may be given. Records exactly one gap apart share a window.
        processing_time: Whether the clock counts, instead of the records' timestamps.
        **length: `minutes=30` …

    Raises:
        TypeError: there is no gap, or two, or a keyword is not known.
        ValueError: the gap is not positive.

    Examples:
        >>> session_window(minutes=30).gap_ms
        1800000
    """
    gap = gap if callable(gap) and not length else _one_length("session_window", "gap", gap, length)
    return SessionWindows.of(gap, processing_time=processing_time)


def count_window(size: int, slide: int | None = None) -> CountWindows:
    """Windows of `size` records of a key; with a `slide`, one of the last `size` at every `slide`.

    Raises:
        TypeError: a number is not a whole one.
        ValueError: a number is less than 1.

    Examples:
        >>> count_window(100, slide=10)
        CountWindows(size=100, slide=10)
    """
    return CountWindows.of(size, slide)


def global_window() -> GlobalWindows:
    """One window per key, which never ends: give it a trigger.

    Examples:
        >>> global_window().default_trigger()  # doctest: +ELLIPSIS
        <sage.dataflow.window.trigger.NeverTrigger object at 0x...>
    """
    return GlobalWindows.of()


def _one_length(function: str, name: str, given: Any, length: dict[str, float]) -> Any:
    """Return the one length that was given, either way."""
    for unit in length:
        if unit not in _UNITS:
            hint = did_you_mean(unit, (*_UNITS, name, "offset", "processing_time"))
            raise TypeError(f"{function}() got an unexpected keyword {unit!r}.{hint}")
    if given is not None and length:
        raise TypeError(f"{function}(): give a {name} or the keywords {sorted(length)}, not both")
    if given is None and not length:
        raise TypeError(f"{function}() needs a {name}: a timedelta, seconds, or {_UNITS[3]}=5")
    return timedelta(**length) if length else given
