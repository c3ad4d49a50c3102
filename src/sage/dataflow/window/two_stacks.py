"""The running aggregate of a sliding window over panes, for one key.

Two stacks make a queue whose aggregate is always at hand: the back takes new panes and keeps their
running aggregate; the front holds, for each of its panes, the aggregate from there to its end. When
the front runs out, the back is turned over into it. Each pane is merged at most twice, plus once for
each result. See K. Tangwongsan, M. Hirzel and S. Schneider, "Low-Latency Sliding-Window Aggregation
in Worst-Case Constant Time" (DEBS 2017), section 2, which describes it as the known "Two-Stacks".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage.dataflow.window.copy_policy import independent_copy


class TwoStacks:
    """Panes of one key, pushed in order of time and evicted from the oldest on.

    The accumulators given to `push` are never changed.

    Args:
        merge: Joins two accumulators, the earlier first; may change both in place.

    Examples:
        >>> window = TwoStacks(lambda a, b: a + b)
        >>> for start in (0, 10, 20): window.push(start, start + 1)
        >>> window.evict(10), window.aggregate()
        (False, 32)
    """

    __slots__ = ("_back", "_front", "_merge", "_total")

    def __init__(self, merge: Callable[[Any, Any], Any]) -> None:
        self._merge = merge
        self._front: list[tuple[int, Any]] = []
        self._back: list[tuple[int, Any]] = []
        self._total: Any = None

    def push(self, start: int, accumulator: Any) -> None:
        """Add a pane that starts later than all before it."""
        own = independent_copy(accumulator)
        self._total = self._merge(self._total, own) if self._back else own
        self._back.append((start, accumulator))

    def evict(self, before: int) -> bool:
        """Drop the panes that start before a time; return whether none is left."""
        front = self._front
        while front and front[-1][0] < before:
            front.pop()
        if front:
            return False
        if self._back and self._back[0][0] < before:
            self._turn_over(before)
        return not (front or self._back)

    def _turn_over(self, before: int) -> None:
        front, merge = self._front, self._merge
        for start, accumulator in reversed(self._back):
            if start < before:
                break
            own = independent_copy(accumulator)
            front.append((start, merge(own, independent_copy(front[-1][1])) if front else own))
        self._back, self._total = [], None

    def aggregate(self) -> Any:
        """Return the aggregate of the panes, of which there must be one; it must not be changed."""
        if not self._back:
            return self._front[-1][1]
        if not self._front:
            return self._total
        return self._merge(independent_copy(self._front[-1][1]), independent_copy(self._total))
