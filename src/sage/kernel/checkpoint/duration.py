"""Durations as configuration files write them: numbers of seconds, or Flink's `"10 min"`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

from sage.common.errors import ConfigError

_TEXT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_UNITS: Final[dict[float, tuple[str, ...]]] = {
    1e-3: ("ms", "milli", "millis", "millisecond", "milliseconds"),
    1.0: ("", "s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "mins", "minute", "minutes"),
    3600.0: ("h", "hour", "hours"),
    86400.0: ("d", "day", "days"),
}
_SECONDS: Final = {name: seconds for seconds, names in _UNITS.items() for name in names}


def parse_duration(key: str, value: object, *, positive: bool = False) -> float:
    """Return the seconds that a configured value stands for.

    Args:
        key: The key it was given for, for the message.
        value: Seconds, a `timedelta`, or a text such as `"500 ms"`, `"10 s"`, `"1 min"`, `"2 h"`.
        positive: Whether nothing is too short.

    Raises:
        ConfigError: it is not a duration, or negative, or zero where that makes no sense.

    Examples:
        >>> parse_duration("delay", "1 min"), parse_duration("delay", 2)
        (60.0, 2.0)
    """
    seconds = _seconds(value)
    if seconds is None or not math.isfinite(seconds):
        raise ConfigError(
            f"configuration: {key} must be a number of seconds or a text like '10 s' or '1 min', "
            f"not {value!r}"
        )
    if seconds < 0 or (positive and seconds == 0):
        bound = "more than 0" if positive else "at least 0"
        raise ConfigError(f"configuration: {key} must be {bound} seconds, not {value!r}")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _TEXT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None or match.group(2) not in _SECONDS:
        return None
    return float(match.group(1)) * _SECONDS[match.group(2)]
