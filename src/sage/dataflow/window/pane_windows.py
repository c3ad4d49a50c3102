"""The fast path of tumbling and sliding windows on event time, with reduce or aggregate.

A record is added once, to the pane it falls in; panes are the greatest common divisor of size and
slide long (J. Li and others, "No Pane, No Gain", SIGMOD Record 34(1), 2005). Panes come first and
keys second, so that the inner loop of a batch costs about as much as that of a keyed aggregate:

    start = after = 0
    for key, value, timestamp in batch:
        if not start <= timestamp < after:
            start = timestamp - (timestamp - offset_ms) % pane_ms
            after = start + pane_ms
            pane = windows.pane(start)
            if pane is None:
                after = start                            # look again at the next record
                windows.behind(key, value, timestamp)    # late, re-fires something, or in a gap
                continue
        if key in pane:
            pane[key] = add(pane[key], value)
        else:
            windows.pane_miss(start, key, value)

A pane's dict may be kept from record to record, but not past a call to `advance`, `take_changes` or
`load`: that is, not past the batch.

Panes are *open* until the first window that holds them has fired, and *sealed* from then on. Records
for sealed panes are behind the watermark; they take the slow path `behind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain
from math import gcd
from typing import Any, TypeAlias

from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.dataflow.window.assigner import SlidingTimeWindows
from sage.dataflow.window.copy_policy import independent_copy
from sage.dataflow.window.two_stacks import TwoStacks
from sage.dataflow.window.window_function import IncrementalContents
from sage.dataflow.window.window_result import Window, WindowResult

Timed: TypeAlias = tuple[WindowResult, int]
"""A result and its timestamp."""
Pane: TypeAlias = dict[Any, Any]


class PaneWindows:
    """See the module.

    Args:
        assigner: Which windows; on event time.
        fold: How records are folded; sliding windows need its `merge`.
        allowed_lateness_ms: How long windows are kept behind the watermark.
        emit: Takes results that late records bring about, from `behind`.
        late: Takes value, key and timestamp of a record that is too late for all its windows.

    Attributes:
        panes: The open panes by their start; each holds accumulators by key.
        pane_ms: How long a pane is.
        offset_ms: A time at which a pane starts.
        watermark: How far event time has come.
        next_fire: A watermark below this fires and drops nothing: setting `watermark` to it is all
            there is to do. For any other, call `advance` and leave `watermark` to it.

    Raises:
        ValueError: the windows overlap and the fold cannot merge, or they are on processing time.

    Examples:
        >>> from sage.dataflow.function.aggregators import count
        >>> from sage.dataflow.window.window_function import aggregating
        >>> from sage.dataflow.window.windows import tumbling_time_window
        >>> windows = PaneWindows(tumbling_time_window(1), aggregating(count()))
        >>> windows.add("a", "x", 500)
        >>> windows.advance(999)
        [(WindowResult(key='a', start=0, end=1000, value=1), 999)]
    """

    def __init__(
        self,
        assigner: SlidingTimeWindows,
        fold: IncrementalContents,
        allowed_lateness_ms: int = 0,
        emit: Callable[[WindowResult, int], None] = lambda *_: None,
        late: Callable[[Any, Any, int], None] = lambda *_: None,
    ) -> None:
        if assigner.processing_time:
            raise ValueError("pane windows are on event time")
        self._size, self._slide = assigner.size_ms, assigner.slide_ms
        self.offset_ms, self.pane_ms = assigner.offset_ms, gcd(self._size, self._slide)
        self._overlap = self._size > self.pane_ms
        if self._overlap and fold.merge is None:
            raise ValueError("sliding by panes needs an aggregate that can merge")
        self._assigner, self._fold, self._lateness = assigner, fold, allowed_lateness_ms
        self._emit, self._late = emit, late
        self.watermark = MIN_WATERMARK
        self.next_fire = MAX_WATERMARK + 1
        self.panes: dict[int, Pane] = {}
        self._open: list[int] = []
        self._sealed: dict[int, Pane] = {}
        self._drops: list[int] = []
        self._bases: dict[int, Pane] = {}
        self._dropped: list[int] = []
        self._stacks: dict[Any, TwoStacks] = {}
        self._stale: dict[Any, None] = {}
        self._ahead: dict[Any, int] = {}

    # Records

    def pane(self, start: int) -> Pane | None:
        """Return the open pane that starts there, made if need be.

        Args:
            start: The start of a pane.

        Returns:
            The pane's dict, or `None` when it is not open: a window that holds it has fired, or no
            window holds it. Such records go to `behind`.
        """
        pane = self.panes.get(start)
        if pane is not None:
            return pane
        fires = self._end_after(start) - 1
        if fires <= self.watermark or self._in_gap(start):
            return None
        pane = self.panes[start] = {}
        heappush(self._open, start)
        self.next_fire = min(self.next_fire, fires)
        return pane

    def pane_miss(self, start: int, key: Any, value: Any) -> None:
        """Add a record whose key the open pane's dict does not hold."""
        self._put(self.panes[start], start, key, value)

    def _put(self, pane: Pane, start: int, key: Any, value: Any) -> None:
        if key in pane:
            pane[key] = self._fold.add(pane[key], value)
            return
        base = self._bases.get(start)
        if base is not None and key in base:
            pane[key] = self._fold.add(base[key], value)
        else:
            pane[key] = self._fold.first(value)

    def add(self, key: Any, value: Any, timestamp: int) -> None:
        """Add a record: the loop body of the module's docstring as a method."""
        start = timestamp - (timestamp - self.offset_ms) % self.pane_ms
        pane = self.pane(start)
        if pane is None:
            self.behind(key, value, timestamp)
        else:
            self._put(pane, start, key, value)

    def behind(self, key: Any, value: Any, timestamp: int) -> None:
        """Add a record whose pane is not open, if it is not too late.

        Each window that holds it, has fired and is still kept fires again for its key, at once.
        """
        watermark, lateness = self.watermark, self._lateness
        windows = self._assigner.assign(timestamp)
        kept = [w for w in windows if min(w.end - 1 + lateness, MAX_WATERMARK) > watermark]
        if not kept:
            if timestamp + lateness <= watermark:
                self._late(value, key, timestamp)
            return
        start = timestamp - (timestamp - self.offset_ms) % self.pane_ms
        self._put(self._sealed_pane(start), start, key, value)
        if self._overlap:
            self._stale[key] = None
            self.next_fire = min(self.next_fire, self._end_after(watermark + 1) - 1)
        for window in kept:
            if window.end - 1 <= watermark:
                self._emit(self._folded(key, window), window.end - 1)

    def _sealed_pane(self, start: int) -> Pane:
        pane = self._sealed.get(start)
        if pane is None:
            pane = self._sealed[start] = {}
            heappush(self._drops, start)
            self.next_fire = min(self.next_fire, self._drop_time(start))
        return pane

    def _folded(self, key: Any, window: Window) -> WindowResult:
        """Return the result of a window of a key, out of its panes, which all are sealed."""
        parts = list(self._parts(key, window.start, window.end))
        if len(parts) == 1:
            folded = parts[0][1]
        else:
            merge = self._fold.merge
            assert merge is not None
            folded = independent_copy(parts[0][1])
            for _, part in parts[1:]:
                folded = merge(folded, independent_copy(part))
        return WindowResult(key, window.start, window.end, self._fold.result(folded))

    def _parts(self, key: Any, start: int, end: int) -> Iterator[tuple[int, Any]]:
        """Yield the accumulators of a key in sealed panes, with the panes' starts."""
        for at in range(start, end, self.pane_ms):
            for layer in (self._sealed.get(at), self._bases.get(at)):
                if layer is not None and at in self._sealed and key in layer:
                    yield at, layer[key]
                    break

    # Time

    def advance(self, watermark: int) -> list[Timed]:
        """Move the watermark; return the results of all windows that are complete by then.

        Args:
            watermark: The new one; an older one than before changes nothing.

        Returns:
            Results and their timestamps, in order of the windows' ends. Within a tumbling window, in
            order of each key's first arrival; within a sliding one, the order of keys is not
            specified.
        """
        before, self.watermark = self.watermark, max(self.watermark, watermark)
        if self.watermark < self.next_fire:
            return []
        results: list[Timed] = []
        end = self._next_end(before + 1)
        while end is not None and end - 1 <= self.watermark:
            self._fire(end, results)
            end = self._next_end(end)
        self._drop()
        # Only keys that were loaded can be ahead, and not for long.
        if self._ahead and self.watermark >= max(self._ahead.values()):
            self._ahead.clear()
        first_drop = self._drop_time(self._drops[0]) if self._drops else MAX_WATERMARK + 1
        self.next_fire = min(first_drop, MAX_WATERMARK + 1 if end is None else end - 1)
        return results

    def _next_end(self, fired: int) -> int | None:
        """Return the end of the next window with anything in it; those up to `fired` have fired."""
        opened = self._end_after(self._open[0]) if self._open else None
        if not (self._stacks or self._stale):
            return opened
        following = self._end_after(fired)
        return following if opened is None else min(following, opened)

    def _fire(self, end: int, results: list[Timed]) -> None:
        if not self._overlap:
            self._fire_pane(end, results)
            return
        for key in self._stale:
            self._rebuild(key, end)
        self._stale.clear()
        stacks, merge = self._stacks, self._fold.merge
        assert merge is not None
        for start in self._seal(end):
            for key, accumulator in self._whole(start).items():
                stack = stacks.get(key)
                if stack is None:
                    stack = stacks[key] = TwoStacks(merge)
                stack.push(start, accumulator)
        self._read_stacks(end, results)

    def _fire_pane(self, end: int, results: list[Timed]) -> None:
        result, start = self._fold.result, end - self._size
        for sealed in self._seal(end):
            whole = self._whole(sealed).items()
            fired = [(WindowResult(k, start, end, result(acc)), end - 1) for k, acc in whole]
            results += self._not_ahead(fired) if self._ahead else fired

    def _read_stacks(self, end: int, results: list[Timed]) -> None:
        start, result, gone = end - self._size, self._fold.result, []
        fired = []
        for key, stack in self._stacks.items():
            if stack.evict(start):
                gone.append(key)
            else:
                value = result(stack.aggregate())
                fired.append((WindowResult(key, start, end, value), end - 1))
        for key in gone:
            del self._stacks[key]
        results += self._not_ahead(fired) if self._ahead else fired

    def _not_ahead(self, fired: list[Timed]) -> list[Timed]:
        return [one for one in fired if self._ahead.get(one[0].key, MIN_WATERMARK) < one[1]]

    def _rebuild(self, key: Any, end: int) -> None:
        """Make the stacks of a key anew from its sealed panes, which have changed."""
        assert self._fold.merge is not None
        stack = TwoStacks(self._fold.merge)
        for start, accumulator in self._parts(key, end - self._size, end):
            stack.push(start, accumulator)
        if stack.evict(end - self._size):
            self._stacks.pop(key, None)
        else:
            self._stacks[key] = stack

    def _seal(self, end: int) -> list[int]:
        """Seal the open panes before `end` and return their starts, in order."""
        starts = []
        while self._open and self._open[0] < end:
            start = heappop(self._open)
            self._sealed[start] = self.panes.pop(start)
            heappush(self._drops, start)
            starts.append(start)
        return starts

    def _drop(self) -> None:
        while self._drops and self._drop_time(self._drops[0]) <= self.watermark:
            start = heappop(self._drops)
            del self._sealed[start]
            # A pane that came and went between two snapshots is in neither.
            if self._bases.pop(start, None) is not None:
                self._dropped.append(start)

    # The grid of windows

    def _end_after(self, time: int) -> int:
        """Return the first end of a window that is later than `time`."""
        return time + self._slide - (time - self.offset_ms - self._size) % self._slide

    def _in_gap(self, start: int) -> bool:
        return (start - self.offset_ms) % self._slide >= self._size

    def _drop_time(self, start: int) -> int:
        """Return the watermark at which no window needs the pane any more."""
        last_end = start - (start - self.offset_ms) % self._slide + self._size
        return min(last_end - 1 + self._lateness, MAX_WATERMARK)

    def _whole(self, start: int) -> Pane:
        fresh = self._sealed[start] if start in self._sealed else self.panes[start]
        base = self._bases.get(start)
        return {**base, **fresh} if base else fresh

    # Snapshots

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call; it is to be pickled before anything else happens.

        Returns:
            `panes`: accumulators that changed, by pane and key; `dropped`: panes that are gone;
            `watermark`; `ahead`: keys that were loaded with a later watermark than that.
        """
        changed: dict[int, Pane] = {}
        for layer in (self.panes, self._sealed):
            for start, fresh in layer.items():
                if fresh:
                    changed[start] = fresh
                    layer[start] = {}
                    self._bases.setdefault(start, {}).update(fresh)
        dropped, self._dropped = self._dropped, []
        return self._state(changed, dropped)

    def full_state(self) -> dict[str, Any]:
        """Return everything, in the form of `take_changes`; it is to be pickled at once."""
        starts = chain(self.panes, self._sealed)
        panes = {start: whole for start in starts if (whole := self._whole(start))}
        return self._state(panes, [])

    def _state(self, panes: dict[int, Pane], dropped: list[int]) -> dict[str, Any]:
        ahead = dict(self._ahead)
        return {"panes": panes, "dropped": dropped, "watermark": self.watermark, "ahead": ahead}

    def load(
        self, *changes: dict[str, Any], owns: Callable[[Any], bool] = lambda _key: True
    ) -> None:
        """Take over a state: a full one and the changes after it, in their order.

        Before the first record. When the states of several subtasks are to be joined, it is called
        for each; the lowest watermark counts, and no window fires twice for a key.

        Args:
            *changes: What `full_state` and `take_changes` returned.
            owns: Says which keys to take.
        """
        if not changes:
            return
        panes: dict[int, Pane] = {}
        for change in changes:
            for start in change["dropped"]:
                panes.pop(start, None)
            for start, entries in change["panes"].items():
                panes.setdefault(start, {}).update(entries)
        owned = {s: {k: v for k, v in p.items() if owns(k)} for s, p in panes.items()}
        self._note_watermark(changes[-1]["watermark"], owned)
        self._ahead.update({k: at for k, at in changes[-1]["ahead"].items() if owns(k)})
        for start, entries in owned.items():
            if entries:
                self._bases.setdefault(start, {}).update(entries)
        self._settle()

    def _note_watermark(self, watermark: int, owned: dict[int, Pane]) -> None:
        first = not self._bases and self.watermark == MIN_WATERMARK
        if not first and watermark < self.watermark:
            self._ahead.update({k: self.watermark for p in self._bases.values() for k in p})
        elif not first and watermark > self.watermark:
            self._ahead.update({key: watermark for pane in owned.values() for key in pane})
        self.watermark = watermark if first else min(self.watermark, watermark)

    def _settle(self) -> None:
        """Sort the loaded panes into open and sealed ones."""
        sealed = {s: self._end_after(s) - 1 <= self.watermark for s in self._bases}
        self.panes = {start: {} for start in self._bases if not sealed[start]}
        self._sealed = {start: {} for start in self._bases if sealed[start]}
        self._open, self._drops = list(self.panes), list(self._sealed)
        heapify(self._open)
        heapify(self._drops)
        if self._overlap:
            self._stale = {key: None for start in self._sealed for key in self._bases[start]}
        self.next_fire = MIN_WATERMARK  # the next watermark finds out
