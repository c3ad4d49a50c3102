"""Each left record with the right record of its key that is nearest in time.

A left record waits until no right record can come any more that would suit it better. The meaning is
that of `merge_asof` in pandas: backward, the last of several right records with one time counts;
forward, the first; nearest prefers the earlier of two that are equally far.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, ClassVar, Literal

from sage.dataflow.key_group import Share
from sage.dataflow.operator.base import (
    LiveContext,
    Results,
)
from sage.dataflow.operator.joins.entries_by_key import EntriesByKey
from sage.dataflow.operator.joins.pairing import Pair, pair_of
from sage.dataflow.operator.joins.timed_join import TimedJoin, TimedJoinLive
from sage.dataflow.operator.joins.timed_records import TimedRecords
from sage.dataflow.record import LATE_RECORDS
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK

Direction = Literal["backward", "forward", "nearest"]
"""Whether the right record is not later than the left one, not earlier, or either."""

Found = tuple[int | None, int]
"""The position of the best right record so far, and the watermark at which it is the best of all."""


@dataclass(frozen=True)
class AsofRule:
    """Which right record belongs to a left one.

    Attributes:
        direction: Where in time to look.
        tolerance_ms: How far away it is at most; None: however far.
        how: Whether left records without a partner go out (`"left"`) or not (`"inner"`).
    """

    direction: Direction = "backward"
    tolerance_ms: int | None = None
    how: Literal["left", "inner"] = "left"

    def find(self, times: list[int], timestamp: int) -> Found:
        """Find the best of the right records for a left one.

        Args:
            times: The times of the right records, in order.
            timestamp: That of the left record.
        """
        if self.direction == "backward":
            return self._near(times, timestamp, bisect_right(times, timestamp) - 1), timestamp
        return self._forward(times, timestamp)

    def _forward(self, times: list[int], timestamp: int) -> Found:
        best, later = None, bisect_left(times, timestamp)
        if later < len(times):
            best = later
        if self.direction == "nearest":
            earlier = bisect_right(times, timestamp) - 1
            if earlier >= 0 and (
                best is None or timestamp - times[earlier] <= times[later] - timestamp
            ):
                best = earlier
        # A right record that comes after watermark w is at w + 1 at least.
        distances = [] if best is None else [abs(times[best] - timestamp)]
        distances += [] if self.tolerance_ms is None else [self.tolerance_ms + 1]
        final = max(timestamp, timestamp + min(distances) - 1) if distances else MAX_WATERMARK
        return (None if best is None else self._near(times, timestamp, best)), final

    def _near(self, times: list[int], timestamp: int, at: int) -> int | None:
        if at < 0:
            return None
        near = self.tolerance_ms is None or abs(times[at] - timestamp) <= self.tolerance_ms
        return at if near else None


class AsofEntry:
    """One key: the left records that wait, and the right records that may be found."""

    __slots__ = ("look_at", "right", "waiting")

    def __init__(self, plain: tuple[Any, Any] | None = None) -> None:
        waiting, right = plain if plain is not None else (None, None)
        self.waiting, self.right = TimedRecords(waiting), TimedRecords(right)
        self.look_at: int | None = None

    def plain(self) -> tuple[Any, Any]:
        """Return it as plain data."""
        return self.waiting.plain(), self.right.plain()


class AsofJoiner:
    """The logic of the join.

    Args:
        rule: Which right record belongs to a left one.
        pair: Makes the results.
        results: Takes them, and the records that are late.

    Attributes:
        watermark: How far event time has come.
        entries: What is kept.
    """

    def __init__(self, rule: AsofRule, pair: Pair, results: Results) -> None:
        self._rule, self._pair, self._results = rule, pair, results
        self._backward = rule.direction == "backward"
        self.watermark = MIN_WATERMARK
        self.entries: EntriesByKey[AsofEntry] = EntriesByKey(AsofEntry)
        self._overdue: dict[Any, int] = {}  # by key: the first left record that waits on
        self._overdue_heap: list[tuple[int, int, Any]] = []
        self._count = 0

    # ---- records

    def add_left(self, key: Any, value: Any, timestamp: int) -> None:
        """Take a left record; it waits."""
        if timestamp <= self.watermark:
            self._results.side(LATE_RECORDS, value, timestamp)
            return
        entry = self.entries.entry(key)
        entry.waiting.add(timestamp, value)
        self.entries.look(key, entry, timestamp)

    def add_right(self, key: Any, value: Any, timestamp: int) -> None:
        """Take a right record."""
        if timestamp <= self.watermark:
            self._results.side(LATE_RECORDS, value, timestamp)
            return
        entry = self.entries.entry(key)
        entry.right.add(timestamp, value)
        if entry.waiting and not self._backward:
            self.entries.look(key, entry, timestamp - 1)
        elif entry.look_at is None:
            self.entries.look(key, entry, timestamp)

    # ---- time

    def advance(self, watermark: int) -> None:
        """Put out the left records whose partner is certain; forget right ones of no more use."""
        self.watermark = watermark
        if watermark < self.entries.next_look:
            return
        done: list[tuple[int, Any, Any]] = []
        for key, entry in self.entries.due(watermark):
            self.entries.touched.add(key)
            looks = self._serve(key, entry, done)
            looks += self._prune(entry)
            if entry.waiting or entry.right:
                if looks:
                    self.entries.look(key, entry, min(looks))
            else:
                self.entries.drop(key)
        done.sort(key=_time)
        for timestamp, left, right in done:
            self._results.emit(self._pair(left, right), timestamp)

    def _serve(self, key: Any, entry: AsofEntry, done: list[tuple[int, Any, Any]]) -> list[int]:
        """Take out the left records whose partner is certain; return when the next may be."""
        waiting, right, count, looks = entry.waiting, entry.right, 0, list[int]()
        for timestamp, value in zip(waiting.times, waiting.values, strict=True):
            at, final = self._rule.find(right.times, timestamp)
            # What is certain of a left record is certain of all before it.
            if final > self.watermark:
                looks.append(final if timestamp <= self.watermark else timestamp)
                break
            count += 1
            if at is not None or self._rule.how == "left":
                done.append((timestamp, value, None if at is None else right.values[at]))
        waiting.cut(count)
        self._note_overdue(key, waiting)
        return looks

    def _prune(self, entry: AsofEntry) -> list[int]:
        """Forget right records; return when to look for more."""
        right, tolerance = entry.right, self._rule.tolerance_ms
        past = bisect_right(right.times, self.watermark)
        overdue = bool(entry.waiting) and entry.waiting.times[0] <= self.watermark
        if self._rule.direction != "forward" and past:
            reach = right.times[past - 1] + tolerance if tolerance is not None else MAX_WATERMARK
            past -= overdue or reach > self.watermark  # the last one is of use
        right.cut(past)
        if not right:
            return []
        if right.times[-1] > self.watermark:
            return [right.times[-1]]
        return [right.times[-1] + tolerance] if tolerance is not None and not overdue else []

    def _note_overdue(self, key: Any, waiting: TimedRecords) -> None:
        if waiting and waiting.times[0] <= self.watermark:
            if self._overdue.get(key) != waiting.times[0]:
                self._overdue[key] = waiting.times[0]
                self._count += 1
                heappush(self._overdue_heap, (waiting.times[0], self._count, key))
        else:
            self._overdue.pop(key, None)

    def load(self, parts: Sequence[Sequence[Any]], owns: Callable[[Any], bool]) -> None:
        """Take over states, each a full one and what changed since, of those keys that `owns` says."""
        self.watermark = self.entries.load(parts, owns)
        for key, entry in self.entries.table.items():
            self._note_overdue(key, entry.waiting)

    def held_until(self) -> int:
        """Return up to which event time nothing goes out any more."""
        heap = self._overdue_heap
        while heap and self._overdue.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return min(self.watermark, heap[0][0] - 1) if heap else self.watermark


def _time(result: tuple[int, Any, Any]) -> int:
    return result[0]


@dataclass(frozen=True, eq=False)
class AsofJoin(TimedJoin):
    """Joins each left record with the right record of its key that is nearest in time."""

    kind: ClassVar[str] = "asof_join"
    rule: AsofRule = field(default_factory=AsofRule)

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own."""
        return self.rule.direction != "backward"

    def create_live(self, context: LiveContext) -> AsofLive:
        """Make the joiner; event time is held where left records wait beyond their own time."""
        joiner = AsofJoiner(self.rule, pair_of(context.entries), context.results)
        return AsofLive(joiner) if self.rule.direction == "backward" else WaitingAsofLive(joiner)


class AsofLive(TimedJoinLive[AsofJoiner]):
    """The live part of a backward as-of join."""

    def load_joiner(self, parts: Sequence[Sequence[Any]], share: Share) -> None:
        """Let the joiner take over records."""
        self.joiner.load(parts, share.owns)


class WaitingAsofLive(AsofLive):
    """The live part of the others: a left record goes out later than its time."""

    holds_time: ClassVar[bool] = True
