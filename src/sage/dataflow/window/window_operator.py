"""The general window operator: any assigner, trigger, evictor and function, on keyed records.

It follows Apache Flink's `WindowOperator` and `EvictingWindowOperator` step by step. It holds no
state of its own but the watermark and the time: the windows of a key are one entry of a table from
outside, and its timers are kept outside too. It does nothing by itself: its caller sets `watermark`,
brings records and due timers, and takes results.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.dataflow.window.assigner import WindowAssigner
from sage.dataflow.window.evictor import Evictor
from sage.dataflow.window.timers import Timers
from sage.dataflow.window.trigger import Trigger, TriggerResult
from sage.dataflow.window.window_contents import (
    PLAIN,
    Finish,
    WindowsOfKey,
    WindowState,
    contents_for,
)
from sage.dataflow.window.window_function import IncrementalContents, ProcessContext
from sage.dataflow.window.window_result import Window

_NOT_MERGED: Final[Sequence[dict[str, Any]]] = ()


def _ignore(*_: Any) -> None:
    return None


@dataclass(frozen=True, eq=False)
class WindowSpec:
    """What kind of windows, and what is made of them.

    Attributes:
        assigner: Which windows a record belongs to.
        fold: How records are folded as they come; `None` to keep them for `finish`.
        finish: Makes results of the values; by default one `WindowResult` of the folded value.
        clear: Called with key and context when a window goes away.
        trigger: When windows fire; `None` for the assigner's own.
        evictor: What thins windows out; `None` for the assigner's own, if it has one.
        allowed_lateness_ms: How long windows are kept behind the watermark.
    """

    assigner: WindowAssigner
    fold: IncrementalContents | None = None
    finish: Finish = PLAIN
    clear: Callable[[Any, ProcessContext], None] = _ignore
    trigger: Trigger | None = None
    evictor: Evictor | None = None
    allowed_lateness_ms: int = 0

    def __post_init__(self) -> None:
        if self.allowed_lateness_ms < 0:
            raise ValueError(f"allowed lateness must not be negative: {self.allowed_lateness_ms}")
        if self.assigner.merges and not self.chosen_trigger().can_merge:
            raise ValueError(
                f"session windows merge, and {self.trigger!r} does not say how its state does "
                "(can_merge, on_merge)"
            )

    def chosen_trigger(self) -> Trigger:
        """Return the trigger in force."""
        return self.trigger if self.trigger is not None else self.assigner.default_trigger()

    def chosen_evictor(self) -> Evictor | None:
        """Return the evictor in force."""
        return self.evictor if self.evictor is not None else self.assigner.default_evictor()


@dataclass(frozen=True, eq=False)
class WindowOutputs:
    """Where the operator puts things.

    Attributes:
        emit: Takes a result and its timestamp, the last millisecond of the window.
        late: Takes value, key and timestamp of a record that no window took because it was late.
        side: Takes tag, value and timestamp of what a process function sent to a side output.
    """

    emit: Callable[[Any, int], None]
    late: Callable[[Any, Any, int], None] = _ignore
    side: Callable[[str, Any, int], None] = _ignore


class WindowOperator:
    """See the module.

    Args:
        spec: What kind of windows.
        table: The windows of each key. An entry is assigned anew after each change, and deleted when
            nothing is left of it, so that the table can keep track of what changed.
        timers: Where timers are registered. Whoever holds them calls `on_event_timer` and
            `on_processing_timer` when they are due, in order of time.
        outputs: Where results go.

    Attributes:
        watermark: How far event time has come; set by the caller before it brings due timers.
        now_ms: The processing time; taken from `add` and processing timers.

    Examples:
        >>> from sage.dataflow.function.aggregators import count
        >>> from sage.dataflow.window.timers import InMemoryTimers
        >>> from sage.dataflow.window.window_function import aggregating
        >>> from sage.dataflow.window.windows import tumbling_time_window
        >>> timers, spec = InMemoryTimers(), WindowSpec(tumbling_time_window(1), aggregating(count()))
        >>> operator = WindowOperator(spec, {}, timers, WindowOutputs(lambda r, at: print(r, at)))
        >>> operator.add("a", "x", 500, now_ms=0)
        >>> operator.watermark = 999
        >>> for due in timers.due_events(999): operator.on_event_timer(*due)
        WindowResult(key='a', start=0, end=1000, value=1) 999
    """

    def __init__(
        self,
        spec: WindowSpec,
        table: MutableMapping[Any, WindowsOfKey],
        timers: Timers,
        outputs: WindowOutputs,
    ) -> None:
        self.spec, self.table, self.timers, self.outputs = spec, table, timers, outputs
        self.watermark, self.now_ms = MIN_WATERMARK, 0
        self._assigner, self._lateness = spec.assigner, spec.allowed_lateness_ms
        self._trigger, evictor = spec.chosen_trigger(), spec.chosen_evictor()
        self._contents = contents_for(spec.fold, evictor, merges=spec.assigner.merges)
        self._event_time = spec.assigner.on_event_time

    def add(self, key: Any, value: Any, timestamp: int, now_ms: int) -> None:
        """Put a record into its windows.

        Args:
            key: Its key.
            value: The record.
            timestamp: Its event time in ms; without meaning for windows on processing time.
            now_ms: The processing time.
        """
        self.now_ms = now_ms
        at = timestamp if self._event_time or not self._assigner.timed else now_ms
        windows = self._assigner.assign(at, value)
        entry, taken = self._entry(key), False
        try:
            for window in windows:
                taken |= self._add_to(entry, key, window, (value, timestamp, len(windows) > 1))
        finally:  # a function that fails may have got part of the way
            self._store(key, entry)
        if not taken and self._event_time and timestamp + self._lateness <= self.watermark:
            self.outputs.late(value, key, timestamp)

    def _add_to(
        self, entry: WindowsOfKey, key: Any, window: Window, record: tuple[Any, int, bool]
    ) -> bool:
        """Put a record into one window; return whether it was not too late for that."""
        if self._assigner.merges:
            window = self._merged(entry, key, window)
        if self._event_time and self._cleanup_time(window) <= self.watermark:
            return False
        state = entry.windows.get(window) or WindowState()
        value, timestamp, shared = record
        self._contents.add(state, value, timestamp, shared)
        entry.windows[window] = state
        self._register_cleanup(key, window)
        ctx = _Context(self, entry, key, window, state)
        try:
            self._obey(self._trigger.on_element(value, timestamp, window, ctx), ctx)
        finally:
            self._drop_if_blank(ctx)
        return True

    def on_event_timer(self, ts: int, key: Any, namespace: Window) -> None:
        """React to an event timer that is due."""
        ctx = self._context_of(key, namespace)
        if ctx is None:
            return
        ends = self._event_time and self._cleanup_time(namespace) == ts
        try:
            self._obey(self._trigger.on_event_time(ts, namespace, ctx), ctx)
        finally:  # a function that fails must not keep the window for ever
            self._after_timer(ctx, ends)

    def on_processing_timer(self, ts: int, key: Any, namespace: Window) -> None:
        """React to a processing timer that is due."""
        self.now_ms = max(self.now_ms, ts)
        ctx = self._context_of(key, namespace)
        if ctx is None:
            return
        ends = not self._event_time and self._cleanup_time(namespace) == ts
        try:
            self._obey(self._trigger.on_processing_time(ts, namespace, ctx), ctx)
        finally:
            self._after_timer(ctx, ends)

    def _context_of(self, key: Any, window: Window) -> _Context | None:
        """Return the context of a window; `None` for a session that is gone."""
        entry = self._entry(key)
        state = entry.windows.get(window)
        if state is None and self._assigner.merges:
            return None
        return _Context(self, entry, key, window, state or WindowState())

    def _after_timer(self, ctx: _Context, ends: bool) -> None:
        if ends:
            self._trigger.clear(ctx.window, ctx)
            self.spec.clear(ctx.key, ctx)
            ctx.entry.windows.pop(ctx.window, None)
        elif ctx.window in ctx.entry.windows or not ctx.raw.blank:
            ctx.entry.windows[ctx.window] = ctx.raw
            self._drop_if_blank(ctx)
        self._store(ctx.key, ctx.entry)

    def _obey(self, what: TriggerResult, ctx: _Context) -> None:
        """Give results and empty the window, as the trigger said."""
        try:
            if what.fire and ctx.raw.filled:
                self._fire(ctx)
        finally:
            if what.purge:
                ctx.raw.empty()

    def _fire(self, ctx: _Context) -> None:
        finish, window = self.spec.finish, ctx.window
        results = self._contents.fire(ctx.raw, window, lambda values: finish(ctx.key, ctx, values))
        for result in results:
            self.outputs.emit(result, window.max_timestamp)

    def _merged(self, entry: WindowsOfKey, key: Any, new: Window) -> Window:
        """Merge the windows that a new one touches with it; return the window that holds it."""
        touching = sorted(w for w in entry.windows if w.start <= new.end and new.start <= w.end)
        if not touching:
            return new
        union = Window(min(new.start, touching[0].start), max(new.end, touching[-1].end))
        if touching == [union]:
            return union
        states = [entry.windows.pop(window) for window in touching]
        state = entry.windows[union] = self._contents.merge(states)
        ctx = _Context(self, entry, key, union, state)
        ctx.merged_states = [old.trigger for old in states]
        self._trigger.on_merge(union, ctx)
        self._register_cleanup(key, union)
        for window, old in zip(touching, states, strict=True):
            self._trigger.clear(window, _Context(self, entry, key, window, old))
            self._delete_cleanup(key, window)
        return union

    def _cleanup_time(self, window: Window) -> int:
        lateness = self._lateness if self._event_time else 0
        return min(window.max_timestamp + lateness, MAX_WATERMARK)

    def _register_cleanup(self, key: Any, window: Window) -> None:
        time = self._cleanup_time(window)
        if time == MAX_WATERMARK:
            return  # it would only be cleaned at the end of time
        if self._event_time:
            self.timers.register_event(time, key, window)
        else:
            self.timers.register_processing(time, key, window)

    def _delete_cleanup(self, key: Any, window: Window) -> None:
        if self._event_time:
            self.timers.delete_event(self._cleanup_time(window), key, window)
        else:
            self.timers.delete_processing(self._cleanup_time(window), key, window)

    def _drop_if_blank(self, ctx: _Context) -> None:
        # A session that was purged must stay, so that records near it still belong to it.
        if ctx.raw.blank and not self._assigner.merges:
            ctx.entry.windows.pop(ctx.window, None)

    def _entry(self, key: Any) -> WindowsOfKey:
        entry = self.table.get(key)
        return entry if entry is not None else WindowsOfKey()

    def _store(self, key: Any, entry: WindowsOfKey) -> None:
        if entry.windows or entry.key_state:
            self.table[key] = entry
        elif key in self.table:
            del self.table[key]


class _Context:
    """One window of one key, as triggers and process functions see it."""

    __slots__ = ("_operator", "entry", "key", "merged_states", "raw", "window")

    def __init__(
        self,
        operator: WindowOperator,
        entry: WindowsOfKey,
        key: Any,
        window: Window,
        state: WindowState,
    ) -> None:
        self._operator, self.entry, self.key, self.window = operator, entry, key, window
        self.raw, self.merged_states = state, _NOT_MERGED

    @property
    def watermark(self) -> int:
        return self._operator.watermark

    @property
    def now_ms(self) -> int:
        return self._operator.now_ms

    @property
    def state(self) -> dict[str, Any]:
        return self.raw.trigger

    @property
    def window_state(self) -> dict[str, Any]:
        if self._operator.spec.assigner.merges:
            raise RuntimeError(
                "session windows have no window_state: which window it is changes when they "
                "merge; use key_state"
            )
        return self.raw.user

    @property
    def key_state(self) -> dict[str, Any]:
        return self.entry.key_state

    def output(self, tag: str, value: Any) -> None:
        self._operator.outputs.side(tag, value, self.window.max_timestamp)

    def register_event_timer(self, timestamp: int) -> None:
        self._operator.timers.register_event(timestamp, self.key, self.window)

    def delete_event_timer(self, timestamp: int) -> None:
        self._operator.timers.delete_event(timestamp, self.key, self.window)

    def register_processing_timer(self, timestamp: int) -> None:
        self._operator.timers.register_processing(timestamp, self.key, self.window)

    def delete_processing_timer(self, timestamp: int) -> None:
        self._operator.timers.delete_processing(timestamp, self.key, self.window)
