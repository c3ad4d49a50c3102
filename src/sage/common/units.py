"""Numbers as people read them."""

from __future__ import annotations

_NOTHING = "-"


def duration(seconds: float | None) -> str:
    """Return how long something has lasted, in two units.

    Examples:
        >>> duration(7), duration(3700), duration(200_000), duration(None)
        ('7s', '1h 1m', '2d 7h', '-')
    """
    if seconds is None:
        return _NOTHING
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def latency(seconds: float | None) -> str:
    """Return how long a call took, to three digits.

    Examples:
        >>> latency(0.0000123), latency(0.0456), latency(12.3), latency(None)
        ('12.3 µs', '45.6 ms', '12.3 s', '-')
    """
    if seconds is None:
        return _NOTHING
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def lag(milliseconds: int | None) -> str:
    """Return how far something is behind; what is ahead has a minus.

    Examples:
        >>> lag(0), lag(1500), lag(-250), lag(3_700_000), lag(None)
        ('0s', '1.5 s', '-250 ms', '1h 1m', '-')
    """
    if milliseconds is None:
        return _NOTHING
    sign, seconds = "-" if milliseconds < 0 else "", abs(milliseconds) / 1000
    return sign + (latency(seconds) if 0 < seconds < 60 else duration(seconds))


def size(count: float | None) -> str:
    """Return a number of bytes, to three digits.

    Examples:
        >>> size(0), size(999), size(12_345), size(2_500_000), size(None)
        ('0 B', '999 B', '12.3 kB', '2.5 MB', '-')
    """
    if count is None:
        return _NOTHING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{_three_digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def rate(per_second: float | None) -> str:
    """Return how often something happens in a second.

    Examples:
        >>> rate(0.25), rate(1234.5), rate(2_500_000), rate(0)
        ('0.25', '1.23k', '2.5M', '0')
    """
    if per_second is None:
        return _NOTHING
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if per_second >= size:
            return f"{_three_digits(per_second / size)}{unit}"
    return _three_digits(per_second)


def share(part: int, whole: int) -> str:
    """Return a part in percent; less than all is never shown as all.

    Examples:
        >>> share(3, 3), share(99_999, 100_000), share(1, 3), share(0, 0)
        ('100%', '99.9%', '33.3%', '-')
    """
    if not whole:
        return _NOTHING
    if part == whole:
        return "100%"
    return f"{min(99.9, 100 * part / whole):.3g}%"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
