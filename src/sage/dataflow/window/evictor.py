"""Evictors: which records leave a window before or after its function sees them.

A window with an evictor keeps every record, and folds them anew at each firing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from sage.dataflow.window.trigger import positive_count, positive_ms
from sage.dataflow.window.window_result import Window

Timed: TypeAlias = tuple[Any, int]
"""A record and its timestamp."""


class Evictor:
    """Thins out a window at each firing; what a method returns is what stays.

    Examples:
        >>> class NoNegatives(Evictor):
        ...     def before(self, records, window):
        ...         return [(value, at) for value, at in records if value >= 0]
    """

    def before(self, records: list[Timed], window: Window) -> list[Timed]:
        """Return the records that the function sees, in order of arrival."""
        return records

    def after(self, records: list[Timed], window: Window) -> list[Timed]:
        """Return the records that stay after the function saw `records`."""
        return records


@dataclass(frozen=True)
class _BuiltIn(Evictor):
    evict_after: bool = False

    def before(self, records: list[Timed], window: Window) -> list[Timed]:
        """Keep what is to be kept, unless that is to be done afterwards."""
        return records if self.evict_after or not records else self.kept(records)

    def after(self, records: list[Timed], window: Window) -> list[Timed]:
        """Keep what is to be kept, if that is to be done afterwards."""
        return self.kept(records) if self.evict_after and records else records

    def kept(self, records: list[Timed]) -> list[Timed]:
        """Return what stays of at least one record."""
        raise NotImplementedError


@dataclass(frozen=True)
class CountEvictor(_BuiltIn):
    """Keeps the last `count` records to arrive.

    Examples:
        >>> CountEvictor(2).kept([("a", 0), ("b", 0), ("c", 0)])
        [('b', 0), ('c', 0)]
    """

    count: int = 1

    def __init__(self, count: int, *, evict_after: bool = False) -> None:
        object.__setattr__(self, "count", positive_count(count, "count"))
        object.__setattr__(self, "evict_after", evict_after)

    def kept(self, records: list[Timed]) -> list[Timed]:
        """Return the last ones."""
        return records[-self.count :]


@dataclass(frozen=True)
class TimeEvictor(_BuiltIn):
    """Keeps records that are less than `window` older than the youngest one.

    Examples:
        >>> TimeEvictor(timedelta(seconds=1)).kept([("a", 0), ("b", 1), ("c", 1000)])
        [('b', 1), ('c', 1000)]
    """

    window_ms: int = 1

    def __init__(self, window: timedelta | float, *, evict_after: bool = False) -> None:
        object.__setattr__(self, "window_ms", positive_ms(window, "window"))
        object.__setattr__(self, "evict_after", evict_after)

    def kept(self, records: list[Timed]) -> list[Timed]:
        """Return the young ones."""
        cutoff = max(timestamp for _, timestamp in records) - self.window_ms
        return [record for record in records if record[1] > cutoff]


@dataclass(frozen=True)
class DeltaEvictor(_BuiltIn):
    """Keeps records that are less than `threshold` from the last one, by `delta(record, last)`.

    Examples:
        >>> DeltaEvictor(5, lambda a, b: abs(a - b)).kept([(1, 0), (6, 0), (8, 0)])
        [(6, 0), (8, 0)]
    """

    threshold: float = 0
    delta: Callable[[Any, Any], float] | None = None

    def __init__(
        self, threshold: float, delta: Callable[[Any, Any], float], *, evict_after: bool = False
    ) -> None:
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "delta", delta)
        object.__setattr__(self, "evict_after", evict_after)

    def kept(self, records: list[Timed]) -> list[Timed]:
        """Return the near ones."""
        assert self.delta is not None
        last, delta = records[-1][0], self.delta
        return [record for record in records if delta(record[0], last) < self.threshold]
