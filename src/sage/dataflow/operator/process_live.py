"""The live part of a process function: its context, its timers, its side outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sage.common.errors import StateError
from sage.common.suggest import shorten
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.at_end import HeldEnd, has_end
from sage.dataflow.operator.base import LiveContext, LivePart, Results
from sage.dataflow.state.key_table import MISSING, TableChanges
from sage.dataflow.state.live import NO_KEY, Entries
from sage.dataflow.state.timers import HeapTimers, TimerQueue
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK

_TIMER: Any = None
"""The namespace of the timers of a process function: it needs none."""

_NO_CHANGES: Final[dict[str, Any]] = {"event": ((), ()), "processing": ((), ())}


class LiveProcessContext:
    """Implements `ProcessContext`.

    Attributes:
        key: The key of the record, or of the timer, at hand.
        keyed: Whether it has one.
        timestamp: Its event time; None on a stream without.
        watermark: How far event time has come.
    """

    def __init__(
        self, results: Results, timers: HeapTimers, now_ms: Callable[[], int], *, timed: bool
    ) -> None:
        self.key: Any = None
        self.keyed = False
        self.timestamp: int | None = None
        self.watermark = MIN_WATERMARK
        self.now_ms = now_ms
        self._results = results
        self._timers = timers
        self._timed = timed

    def output(self, tag: str, value: Any) -> None:
        """Put `value` out to the side output `tag`; counted as unrouted if nobody reads it."""
        self._results.side(tag, value, self.timestamp)

    def register_event_timer(self, timestamp: int) -> None:
        """Have `on_timer` called for the present key once event time is at `timestamp`."""
        self._check("event")
        self._timers.register_event(timestamp, self.key, _TIMER)

    def delete_event_timer(self, timestamp: int) -> None:
        """Forget a timer of the present key, if there is one."""
        self._check("event")
        self._timers.delete_event(timestamp, self.key, _TIMER)

    def register_processing_timer(self, timestamp: int) -> None:
        """Have `on_timer` called for the present key once the clock is at `timestamp`."""
        self._check("processing")
        self._timers.register_processing(timestamp, self.key, _TIMER)

    def delete_processing_timer(self, timestamp: int) -> None:
        """Forget a timer of the present key, if there is one."""
        self._check("processing")
        self._timers.delete_processing(timestamp, self.key, _TIMER)

    def _check(self, kind: str) -> None:
        if not self.keyed:
            raise StateError("timers belong to keys: use key_by(...) before process(...)")
        if kind == "event" and not self._timed:
            raise StateError(
                "timers on event time need timestamps: use assign_timestamps(...) before, or "
                "register_processing_timer"
            )


class LiveKeylessContext:
    """Implements `KeylessContext`.

    Args:
        results: Where side outputs go.
        of_keys: The context of records and timers, which knows the time.
        set_key: Lets the state of the function be that of a key.

    Attributes:
        timestamp: The event time of what is put out; None on a stream without.
    """

    def __init__(
        self, results: Results, of_keys: LiveProcessContext, set_key: Callable[[Any], None]
    ) -> None:
        self.timestamp: int | None = None
        self.now_ms = of_keys.now_ms
        self._results = results
        self._of_keys = of_keys
        self._set_key = set_key

    @property
    def watermark(self) -> int:
        """How far event time has come."""
        return self._of_keys.watermark

    def output(self, tag: str, value: Any) -> None:
        """Put `value` out to the side output `tag`; counted as unrouted if nobody reads it."""
        self._results.side(tag, value, self.timestamp)

    def apply_to_keyed_state(self, state: Any, function: Callable[[Any, Any], object]) -> None:
        """Call `function(key, state)` for each key that has something in the state."""
        entries = getattr(state, "entries", None)
        if not isinstance(entries, Entries):
            raise StateError(
                "apply_to_keyed_state() needs state of keys that the function declares, such as "
                f"self.waiting, not {shorten(state)}"
            )
        try:
            for key in entries.table.scan():
                self._set_key(key)
                if entries.get() is not MISSING:  # it may have expired
                    function(key, state)
        finally:
            self._set_key(NO_KEY)


class ProcessLive(LivePart):
    """Keeps the timers of a process function, and calls it when they are due and at the end.

    Args:
        context: What it is made with.

    Attributes:
        context: The context of records and timers.
        keyless: The context where there is no key.
    """

    def __init__(self, context: LiveContext) -> None:
        self._timers = HeapTimers()
        self._results = context.results
        now_ms = context.runtime.now_ms
        self.context = LiveProcessContext(
            context.results, self._timers, now_ms, timed=context.timed
        )
        self.keyless = LiveKeylessContext(context.results, self.context, context.set_key)
        self._set_key = context.set_key
        self._runtime = context.runtime
        function = context.functions[0]
        self._on_timer = getattr(function, "on_timer", None)
        self._ending = [f for f in context.functions if has_end(type(f))]
        self.puts_out_at_end = bool(self._ending)
        self._held = HeldEnd(context.timed)

    def resume(self, watermark: int) -> None:
        """Let event time be where it was."""
        self.context.watermark = watermark

    def look(self) -> None:
        """Take note of when the next timer on processing time is due."""
        self.next_due_ms = self._timers.next_processing()

    def advance(self, watermark: int) -> None:
        """Call the function for the timers on event time that are due."""
        self.context.watermark = watermark
        for timestamp, key, _ in self._timers.due_events(watermark):
            self._fire(timestamp, key, timestamp)
        self.look()
        self._held.advance(watermark)
        self.released = self._held.released

    def on_processing_time(self, now_ms: int) -> None:
        """Call the function for the timers on processing time that are due."""
        for timestamp, key, _ in self._timers.due_processing(now_ms):
            self._fire(timestamp, key, None)
        self.look()

    def end(self) -> None:
        """Put out what goes out at the end, and tell of timers for which nobody waits."""
        self._set_key(NO_KEY)
        self.keyless.timestamp = timestamp = self._held.timestamp()
        for function in self._ending:
            for result in function.on_end(self.keyless) or ():
                self._results.emit(result, timestamp)
        self.released = MAX_WATERMARK
        warn_of_pending(self._timers, self._runtime)

    def full_state(self) -> Any:
        """Return the timers; None if there never was one."""
        timers = timers_state(self._timers) if len(self._timers) else None
        return self._with_time(timers, {"event": {}, "processing": {}})

    def take_changes(self) -> Any:
        """Return what changed in the timers; None if nothing did."""
        return self._with_time(timers_changes(self._timers), _NO_CHANGES)

    def _with_time(self, timers: dict[str, Any] | None, none: dict[str, Any]) -> Any:
        """Say how far event time has come behind it too, if that is not as far as here."""
        return {**(timers or none), "released": self.released} if self._ending else timers

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over timers."""
        load_timers(self._timers, parts, share)
        released = min(part[-1].get("released", MIN_WATERMARK) for part in parts)
        self.released = self._held.released = released
        self.look()

    def _fire(self, timestamp: int, key: Any, event_time: int | None) -> None:
        context = self.context
        context.keyed, context.key, context.timestamp = True, key, event_time
        self._set_key(key)
        if self._on_timer is None:
            return
        for result in self._on_timer(timestamp, context) or ():
            self._results.emit(result, event_time)


def warn_of_pending(timers: HeapTimers, runtime: RuntimeContext) -> None:
    """Tell how many timers on processing time are dropped at the end of input, if any are."""
    if pending := len(timers.processing):
        runtime.logger.warning(
            "%s: the input has ended, and %d timers on processing time that were not due are dropped",
            runtime.operator_name,
            pending,
        )


def timers_state(timers: HeapTimers) -> dict[str, Any]:
    """Return all timers, as plain data."""
    return {"event": timers.event.full(), "processing": timers.processing.full()}


def timers_changes(timers: HeapTimers) -> dict[str, Any] | None:
    """Return what changed in timers since the last call, as plain data; None if nothing did."""
    event, processing = timers.event.take_changes(), timers.processing.take_changes()
    if not any((*event, *processing)):
        return None
    return {"event": tuple(event), "processing": tuple(processing)}


def load_timers(
    timers: HeapTimers, parts: Sequence[Sequence[dict[str, Any]]], share: Share
) -> None:
    """Take over all timers that belong here, each part with what changed in it afterwards."""
    for queue, said in ((timers.event, "event"), (timers.processing, "processing")):
        found: dict[Any, Any] = {}
        for part in parts:
            found |= _timers_of(part, said, share)
        queue.load(found)


def _timers_of(part: Sequence[dict[str, Any]], said: str, share: Share) -> dict[Any, Any]:
    queue = TimerQueue(layered=False)
    for state in part:
        if isinstance(state[said], dict):
            queue.load(state[said])
        else:
            queue.apply(TableChanges(*state[said]))
    if share != WHOLE:
        queue.restrict(share.owns)
    return queue.full()
