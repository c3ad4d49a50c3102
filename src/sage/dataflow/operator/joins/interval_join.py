"""Pairs of records of one key whose times are not too far apart.

Each record is kept until the watermark proves that no partner of it can come any more; what has none
by then goes out alone, if it is to.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sage.dataflow.key_group import Share
from sage.dataflow.operator.base import (
    LiveContext,
    Results,
)
from sage.dataflow.operator.joins.entries_by_key import EntriesByKey
from sage.dataflow.operator.joins.pairing import How, Pair, keeps_left, keeps_right, pair_of
from sage.dataflow.operator.joins.timed_join import TimedJoin, TimedJoinLive
from sage.dataflow.operator.joins.timed_records import TimedRecords
from sage.dataflow.record import LATE_RECORDS
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK


@dataclass(frozen=True)
class Interval:
    """Which records belong together: `left + lower_ms <= right <= left + upper_ms`.

    Attributes:
        lower_ms: How much later than the left record the right one is at least; may be negative.
        upper_ms: How much later it is at most.
        how: Whose records go out without a partner too.
    """

    lower_ms: int
    upper_ms: int
    how: How = "inner"


class IntervalEntry:
    """The records of one key that may still find a partner; their marks say whether they have one."""

    __slots__ = ("left", "look_at", "right")

    def __init__(self, plain: tuple[Any, Any] | None = None) -> None:
        left, right = plain if plain is not None else (None, None)
        self.left, self.right = TimedRecords(left), TimedRecords(right)
        self.look_at: int | None = None

    def plain(self) -> tuple[Any, Any]:
        """Return it as plain data."""
        return self.left.plain(), self.right.plain()


class IntervalJoiner:
    """The logic of the join.

    Args:
        interval: Which records belong together.
        pair: Makes the results.
        results: Takes them, and the records that are late.

    Attributes:
        watermark: How far event time has come.
        entries: What is kept.
    """

    def __init__(self, interval: Interval, pair: Pair, results: Results) -> None:
        self._lower, self._upper = interval.lower_ms, interval.upper_ms
        self._keep_left, self._keep_right = keeps_left(interval.how), keeps_right(interval.how)
        self._eager = self._keep_left or self._keep_right
        self._pair, self._results = pair, results
        self.watermark = MIN_WATERMARK
        self.entries: EntriesByKey[IntervalEntry] = EntriesByKey(IntervalEntry)

    # ---- records

    def add_left(self, key: Any, value: Any, timestamp: int) -> None:
        """Take a left record: pair it with what has come, and keep it for what may come."""
        if timestamp <= self.watermark:
            self._results.side(LATE_RECORDS, value, timestamp)
            return
        entry = self.entries.entry(key)
        partners = entry.right
        first = bisect_left(partners.times, timestamp + self._lower)
        last = bisect_right(partners.times, timestamp + self._upper)
        until, found = timestamp + self._upper, last > first
        kept = self._keep(key, entry, entry.left, (timestamp, value, found), until)
        emit, pair = self._results.emit, self._pair
        for i in range(first, last):
            partners.marks[i] = True
            emit(pair(value, partners.values[i]), max(timestamp, partners.times[i]))
        if not kept and not found and self._keep_left:
            emit(pair(value, None), timestamp)

    def add_right(self, key: Any, value: Any, timestamp: int) -> None:
        """Take a right record."""
        if timestamp <= self.watermark:
            self._results.side(LATE_RECORDS, value, timestamp)
            return
        entry = self.entries.entry(key)
        partners = entry.left
        first = bisect_left(partners.times, timestamp - self._upper)
        last = bisect_right(partners.times, timestamp - self._lower)
        until, found = timestamp - self._lower, last > first
        kept = self._keep(key, entry, entry.right, (timestamp, value, found), until)
        emit, pair = self._results.emit, self._pair
        for i in range(first, last):
            partners.marks[i] = True
            emit(pair(partners.values[i], value), max(timestamp, partners.times[i]))
        if not kept and not found and self._keep_right:
            emit(pair(None, value), timestamp)

    def _keep(
        self,
        key: Any,
        entry: IntervalEntry,
        side: TimedRecords,
        record: tuple[int, Any, bool],
        until: int,
    ) -> bool:
        """Keep a record until a watermark, unless that has come; say whether it is kept."""
        if until <= self.watermark:
            if not entry.left and not entry.right:
                self.entries.drop(key)
            return False
        side.add(*record)
        # Without records that go out alone, cleaning up now and then is enough.
        if self._eager or entry.look_at is None:
            self.entries.look(key, entry, until)
        return True

    # ---- time

    def advance(self, watermark: int) -> None:
        """Let go of records that can have no more partners; those that go out alone do so."""
        self.watermark = watermark
        if watermark < self.entries.next_look:
            return
        alone: list[tuple[int, Any, Any]] = []
        for key, entry in self.entries.due(watermark):
            self._clean(key, entry, alone)
        alone.sort(key=_time)
        for timestamp, left, right in alone:
            self._results.emit(self._pair(left, right), timestamp)

    def _clean(self, key: Any, entry: IntervalEntry, alone: list[tuple[int, Any, Any]]) -> None:
        left, right = entry.left, entry.right
        gone_left = bisect_right(left.times, self.watermark - self._upper)
        gone_right = bisect_right(right.times, self.watermark + self._lower)
        if self._keep_left:
            alone += [(t, value, None) for t, value in _unmarked(left, gone_left)]
        if self._keep_right:
            alone += [(t, None, value) for t, value in _unmarked(right, gone_right)]
        left.cut(gone_left)
        right.cut(gone_right)
        if not left and not right:
            self.entries.drop(key)
            return
        if gone_left or gone_right:
            self.entries.touched.add(key)
        at = 0 if self._eager else -1
        ends = [left.times[at] + self._upper] if left else []
        ends += [right.times[at] - self._lower] if right else []
        self.entries.look(key, entry, min(ends) if self._eager else max(ends))

    def held_until(self) -> int:
        """Return up to which event time nothing goes out any more."""
        if self.watermark in (MIN_WATERMARK, MAX_WATERMARK):
            return self.watermark
        behind = max(
            self._upper if self._keep_left else 0, -self._lower if self._keep_right else 0, 0
        )
        return max(self.watermark - behind, MIN_WATERMARK)


def _unmarked(side: TimedRecords, count: int) -> list[tuple[int, Any]]:
    """Return those of the first `count` records that have found no partner."""
    return [(side.times[i], side.values[i]) for i in range(count) if not side.marks[i]]


def _time(result: tuple[int, Any, Any]) -> int:
    return result[0]


@dataclass(frozen=True, eq=False)
class IntervalJoin(TimedJoin):
    """Joins records of one key whose times are in an interval of each other."""

    kind: ClassVar[str] = "interval_join"
    interval: Interval = field(default_factory=lambda: Interval(0, 0))

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own."""
        return self.interval.how != "inner"

    def create_live(self, context: LiveContext) -> IntervalLive:
        """Make the joiner; event time is held where records that come out late keep theirs."""
        joiner = IntervalJoiner(self.interval, pair_of(context.entries), context.results)
        return IntervalLive(joiner) if self.interval.how == "inner" else OuterIntervalLive(joiner)


class IntervalLive(TimedJoinLive[IntervalJoiner]):
    """The live part of an interval join."""

    def load_joiner(self, parts: Sequence[Sequence[Any]], share: Share) -> None:
        """Let the joiner take over records."""
        self.joiner.watermark = self.joiner.entries.load(parts, share.owns)


class OuterIntervalLive(IntervalLive):
    """The live part of an outer one: a record without a partner goes out later than its time."""

    holds_time: ClassVar[bool] = True
