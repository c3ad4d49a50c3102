"""Records of one side of a join, in order of time."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any


class TimedRecords:
    """Records in order of time, those of one time in order of arrival.

    Attributes:
        times: The timestamps.
        values: The records.
        marks: A flag for each record, whose meaning is the join's.
    """

    __slots__ = ("marks", "times", "values")

    def __init__(self, plain: tuple[list[int], list[Any], list[bool]] | None = None) -> None:
        self.times, self.values, self.marks = plain if plain is not None else ([], [], [])

    def add(self, timestamp: int, value: Any, mark: bool = False) -> int:
        """Put a record in; return its position."""
        times = self.times
        at = len(times)
        if times and timestamp < times[-1]:
            at = bisect_right(times, timestamp)
        times.insert(at, timestamp)
        self.values.insert(at, value)
        self.marks.insert(at, mark)
        return at

    def cut(self, count: int) -> None:
        """Forget the first `count` records."""
        if count > 0:
            del self.times[:count], self.values[:count], self.marks[:count]

    def plain(self) -> tuple[list[int], list[Any], list[bool]]:
        """Return the records as plain data."""
        return self.times, self.values, self.marks

    def __len__(self) -> int:
        return len(self.times)
