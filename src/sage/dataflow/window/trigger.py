"""Triggers: when a window gives a result, and when its contents are thrown away.

The semantics are those of Apache Flink's triggers of the same names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, ClassVar, Protocol

from sage.dataflow.time import to_ms
from sage.dataflow.window.window_result import Window


class TriggerResult(Enum):
    """What becomes of a window now: `fire` says to give a result, `purge` to empty it."""

    CONTINUE = (False, False)
    FIRE = (True, False)
    PURGE = (False, True)
    FIRE_AND_PURGE = (True, True)

    @property
    def fire(self) -> bool:
        """Whether a result goes out."""
        return self.value[0]

    @property
    def purge(self) -> bool:
        """Whether the contents are thrown away, after the result went out."""
        return self.value[1]


CONTINUE = TriggerResult.CONTINUE
FIRE = TriggerResult.FIRE
PURGE = TriggerResult.PURGE
FIRE_AND_PURGE = TriggerResult.FIRE_AND_PURGE


class TriggerContext(Protocol):
    """What a trigger sees of one window of one key; it is valid during the call only."""

    @property
    def watermark(self) -> int:
        """How far event time has come."""
        ...

    @property
    def now_ms(self) -> int:
        """The processing time."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """What the trigger keeps for the window: plain data that can be pickled.

        It is emptied after `clear`.
        """
        ...

    @property
    def merged_states(self) -> Sequence[dict[str, Any]]:
        """In `on_merge`: the states of the windows that became one, in order of time."""
        ...

    def register_event_timer(self, timestamp: int) -> None:
        """Have `on_event_time` called once the watermark is there; twice is once."""
        ...

    def delete_event_timer(self, timestamp: int) -> None:
        """Forget a timer, if there is one."""
        ...

    def register_processing_timer(self, timestamp: int) -> None:
        """Have `on_processing_time` called once the clock is there; twice is once."""
        ...

    def delete_processing_timer(self, timestamp: int) -> None:
        """Forget a timer, if there is one."""
        ...


class Trigger(ABC):
    """Decides when a window fires. One object serves all windows: it keeps nothing in itself.

    Examples:
        >>> class AtZero(Trigger):
        ...     def on_element(self, value, timestamp, window, ctx):
        ...         return TriggerResult.FIRE if value == 0 else TriggerResult.CONTINUE
    """

    can_merge: ClassVar[bool] = False
    """Whether `on_merge` is written: session windows need it."""

    @abstractmethod
    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Decide after a record has been added to the window."""
        raise NotImplementedError

    def on_event_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Decide when an event-time timer fires; `time` is the one it was registered for."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Decide when a processing-time timer fires."""
        return CONTINUE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:  # noqa: B027 - optional
        """Make one state out of `ctx.merged_states`; set the timers of the merged window."""

    def clear(self, window: Window, ctx: TriggerContext) -> None:  # noqa: B027 - optional
        """Delete the timers that are still set: the window goes away."""


class NeverTrigger(Trigger):
    """Never fires: what global windows have unless told otherwise."""

    can_merge: ClassVar[bool] = True

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Do nothing."""
        return CONTINUE


class EventTimeTrigger(Trigger):
    """Fires when the watermark passes the end of the window, and again for each late record."""

    can_merge: ClassVar[bool] = True

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Fire at once if the watermark has passed already."""
        if window.max_timestamp <= ctx.watermark:
            return FIRE
        ctx.register_event_timer(window.max_timestamp)
        return CONTINUE

    def on_event_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Fire at the end of the window."""
        return FIRE if time == window.max_timestamp else CONTINUE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Wait for the end of the merged window, unless that is past."""
        if window.max_timestamp > ctx.watermark:
            ctx.register_event_timer(window.max_timestamp)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Wait no longer."""
        ctx.delete_event_timer(window.max_timestamp)

    def with_early_firings(self, every: timedelta | int) -> EarlyFiringTrigger:
        """Return a trigger that also fires before the end of the window.

        Args:
            every: A `timedelta`: that long, in processing time, after the first record since the
                last firing. An `int`: after that many records.

        Raises:
            TypeError: it is neither.
            ValueError: it is not positive.

        Examples:
            >>> EventTimeTrigger().with_early_firings(every=timedelta(seconds=1))
            EarlyFiringTrigger(every_ms=1000, every_count=None)
        """
        if isinstance(every, timedelta):
            return EarlyFiringTrigger(every_ms=positive_ms(every, "every"))
        return EarlyFiringTrigger(every_count=positive_count(every, "every"))


@dataclass(frozen=True)
class EarlyFiringTrigger(EventTimeTrigger):
    """An `EventTimeTrigger` with firings before the end; see `with_early_firings`."""

    every_ms: int | None = None
    every_count: int | None = None

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Fire if late; otherwise count the record, or start the delay."""
        if super().on_element(value, timestamp, window, ctx).fire:
            return FIRE
        if self.every_count is not None:
            return self._counted(ctx.state, self.every_count)
        if self.every_ms is not None and "next" not in ctx.state:
            ctx.state["next"] = ctx.now_ms + self.every_ms
            ctx.register_processing_timer(ctx.state["next"])
        return CONTINUE

    def _counted(self, state: dict[str, Any], every: int) -> TriggerResult:
        state["count"] = (state.get("count", 0) + 1) % every
        return CONTINUE if state["count"] else FIRE

    def on_processing_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Fire; the next record starts the delay anew."""
        if ctx.state.get("next") != time:
            return CONTINUE
        del ctx.state["next"]
        return FIRE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Add up the counts; keep the nearest firing."""
        super().on_merge(window, ctx)
        if self.every_count is not None:
            ctx.state["count"] = sum(s.get("count", 0) for s in ctx.merged_states)
            ctx.state["count"] %= self.every_count
        nearest = _nearest(ctx)
        if nearest is not None:
            ctx.register_processing_timer(nearest)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Wait no longer."""
        super().clear(window, ctx)
        if "next" in ctx.state:
            ctx.delete_processing_timer(ctx.state["next"])


class ProcessingTimeTrigger(Trigger):
    """Fires when the clock passes the end of the window."""

    can_merge: ClassVar[bool] = True

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Wait for the end of the window."""
        ctx.register_processing_timer(window.max_timestamp)
        return CONTINUE

    def on_processing_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Fire."""
        return FIRE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Wait for the end of the merged window, unless that is past."""
        if window.max_timestamp > ctx.now_ms:
            ctx.register_processing_timer(window.max_timestamp)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Wait no longer."""
        ctx.delete_processing_timer(window.max_timestamp)


@dataclass(frozen=True)
class CountTrigger(Trigger):
    """Fires after every `count` records of a window."""

    count: int
    can_merge: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive_count(self.count, "count")

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Count the record."""
        count = ctx.state.pop("count", 0) + 1
        if count >= self.count:
            return FIRE
        ctx.state["count"] = count
        return CONTINUE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Add up the counts."""
        ctx.state["count"] = sum(s.get("count", 0) for s in ctx.merged_states)


@dataclass(frozen=True)
class DeltaTrigger(Trigger):
    """Fires when a record is further than `threshold` from the one that fired last.

    Attributes:
        threshold: The distance that is not yet enough.
        delta: Returns the distance of two records, `delta(old, new)`.
    """

    threshold: float
    delta: Callable[[Any, Any], float]

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Compare with the record that fired last; the first one only sets the mark."""
        if "last" not in ctx.state:
            ctx.state["last"] = value
        elif self.delta(ctx.state["last"], value) > self.threshold:
            ctx.state["last"] = value
            return FIRE
        return CONTINUE


@dataclass(frozen=True)
class ContinuousEventTimeTrigger(EventTimeTrigger):
    """Fires at each multiple of `interval_ms` that the watermark passes, and at the window's end."""

    interval_ms: int

    @classmethod
    def of(cls, interval: timedelta | float) -> ContinuousEventTimeTrigger:
        """Return a trigger for an interval: a `timedelta`, or seconds."""
        return cls(positive_ms(interval, "interval"))

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Fire if late; the first record sets the first firing."""
        if super().on_element(value, timestamp, window, ctx).fire:
            return FIRE
        if "next" not in ctx.state:
            self._set_next(timestamp - timestamp % self.interval_ms, window, ctx)
        return CONTINUE

    def _set_next(self, time: int, window: Window, ctx: TriggerContext) -> None:
        ctx.state["next"] = min(time + self.interval_ms, window.max_timestamp)
        ctx.register_event_timer(ctx.state["next"])

    def on_event_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Fire and set the next firing."""
        if time == window.max_timestamp:
            return FIRE
        if ctx.state.get("next") != time:
            return CONTINUE
        self._set_next(time, window, ctx)
        return FIRE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Keep the nearest firing."""
        nearest = _nearest(ctx)
        if nearest is not None:
            ctx.register_event_timer(nearest)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Wait no longer."""
        super().clear(window, ctx)
        if "next" in ctx.state:
            ctx.delete_event_timer(ctx.state["next"])


@dataclass(frozen=True)
class ContinuousProcessingTimeTrigger(Trigger):
    """Fires at each multiple of `interval_ms` that the clock passes, while the window is there."""

    interval_ms: int
    can_merge: ClassVar[bool] = True

    @classmethod
    def of(cls, interval: timedelta | float) -> ContinuousProcessingTimeTrigger:
        """Return a trigger for an interval: a `timedelta`, or seconds."""
        return cls(positive_ms(interval, "interval"))

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Let the first record set the first firing."""
        if "next" not in ctx.state:
            self._set_next(ctx.now_ms - ctx.now_ms % self.interval_ms, window, ctx)
        return CONTINUE

    def _set_next(self, time: int, window: Window, ctx: TriggerContext) -> None:
        following, end = time + self.interval_ms, window.max_timestamp
        # The end of an event-time window may lie before the clock's time: waiting for it would
        # fire without end, so it only counts when it is ahead.
        ctx.state["next"] = end if ctx.now_ms < end < following and time < end else following
        ctx.register_processing_timer(ctx.state["next"])

    def on_processing_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Fire and set the next firing."""
        if ctx.state.get("next") != time:
            return CONTINUE
        self._set_next(time, window, ctx)
        return FIRE

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Keep the nearest firing."""
        nearest = _nearest(ctx)
        if nearest is not None:
            ctx.register_processing_timer(nearest)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Wait no longer."""
        if "next" in ctx.state:
            ctx.delete_processing_timer(ctx.state["next"])


@dataclass(frozen=True)
class PurgingTrigger(Trigger):
    """Does what another trigger does, and empties the window at each firing."""

    inner: Trigger

    @property
    def can_merge(self) -> bool:  # type: ignore[override]
        """Whether the inner trigger can."""
        return self.inner.can_merge

    def on_element(
        self, value: Any, timestamp: int, window: Window, ctx: TriggerContext
    ) -> TriggerResult:
        """Ask the inner trigger."""
        return _purging(self.inner.on_element(value, timestamp, window, ctx))

    def on_event_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Ask the inner trigger."""
        return _purging(self.inner.on_event_time(time, window, ctx))

    def on_processing_time(self, time: int, window: Window, ctx: TriggerContext) -> TriggerResult:
        """Ask the inner trigger."""
        return _purging(self.inner.on_processing_time(time, window, ctx))

    def on_merge(self, window: Window, ctx: TriggerContext) -> None:
        """Tell the inner trigger."""
        self.inner.on_merge(window, ctx)

    def clear(self, window: Window, ctx: TriggerContext) -> None:
        """Tell the inner trigger."""
        self.inner.clear(window, ctx)


def _purging(result: TriggerResult) -> TriggerResult:
    return FIRE_AND_PURGE if result.fire else result


def _nearest(ctx: TriggerContext) -> int | None:
    """Keep the nearest firing of the merged windows as that of the new one, and return it."""
    nearest: int | None = min((s["next"] for s in ctx.merged_states if "next" in s), default=None)
    if nearest is not None:
        ctx.state["next"] = nearest
    return nearest


def positive_ms(duration: timedelta | float, name: str) -> int:
    """Return a duration as milliseconds, at least 1.

    Raises:
        TypeError: it is neither a `timedelta` nor a number of seconds.
        ValueError: it is less than a millisecond.

    Examples:
        >>> positive_ms(timedelta(0), "size")
        Traceback (most recent call last):
        ValueError: size must be at least a millisecond, not datetime.timedelta(0)
    """
    ms = to_ms(duration, name=name)
    if ms <= 0:
        raise ValueError(f"{name} must be at least a millisecond, not {duration!r}")
    return ms


def positive_count(count: object, name: str) -> int:
    """Return `count` when it is a whole number of at least 1.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is less than 1.

    Examples:
        >>> positive_count(0, "size")
        Traceback (most recent call last):
        ValueError: size must be at least 1, not 0
    """
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} must be a whole number of records, not {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count!r}")
    return count
