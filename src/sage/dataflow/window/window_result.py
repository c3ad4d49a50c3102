"""A window as a stretch of time, and a result that says which window and key it is for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK, utc_datetime


class Window(NamedTuple):
    """The stretch of time `[start, end)`, in ms since the Unix epoch.

    Examples:
        >>> Window(0, 1000).max_timestamp
        999
    """

    start: int
    end: int

    @property
    def max_timestamp(self) -> int:
        """The last millisecond of the window, which is also the timestamp of its results."""
        return self.end - 1 if self.end != MAX_WATERMARK else MAX_WATERMARK


GLOBAL_WINDOW: Final = Window(MIN_WATERMARK, MAX_WATERMARK)
"""The one window of count windows and global windows: it never ends."""


class WindowResult(NamedTuple):
    """What a window of a key came to: a tuple with names, cheap to make and to pickle.

    Attributes:
        key: The key; `None` for `window_all`.
        start: The first millisecond of the window, since the Unix epoch.
        end: The first millisecond after it. Results of count and global windows carry the lowest
            and highest timestamp there is.
        value: The result.

    Examples:
        >>> result = WindowResult("a", 0, 300_000, 7)
        >>> key, start, end, value = result
        >>> result.end_time.isoformat()
        '1970-01-01T00:05:00+00:00'
    """

    key: Any
    start: int
    end: int
    value: Any

    @property
    def start_time(self) -> datetime:
        """`start` as a `datetime` in UTC."""
        return utc_datetime(self.start)

    @property
    def end_time(self) -> datetime:
        """`end` as a `datetime` in UTC."""
        return utc_datetime(self.end)
