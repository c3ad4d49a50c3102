"""`CallStatistics`: what became of the calls to a service, per method and over sliding windows.

Time is divided into slots of `SLOT_SECONDS`. A window is the present slot, which has only begun, and
as many full ones before it as make up its length: "the last minute" covers 50 to 60 seconds.

A call costs two appends to a list, which need no lock; a thousand of them are counted in one go, by
whoever records the next call or asks for the figures. What waits to be counted is always of one slot.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from sage.common.clock import Clock
from sage.common.errors import ServiceTimeoutError
from sage.kernel.runtime.service.policy.latency_histogram import count_buckets, quantiles

_T = TypeVar("_T")

SLOT_SECONDS: Final = 10
"""The resolution of the windows."""

WINDOW_SECONDS: Final = (60, 300, 900)
"""The lengths of the windows, ascending."""

OTHER: Final = "(other)"
"""Under which methods and error types are counted when there are too many different ones."""

_MOST_UNCOUNTED: Final = 1000
_MAX_METHODS: Final = 500
_MAX_ERROR_TYPES: Final = 50
_TIMEOUT: Final = ServiceTimeoutError.__name__
_WINDOW_SLOTS: Final = tuple(seconds // SLOT_SECONDS for seconds in WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class CallWindow:
    """What became of the calls that ended in a stretch of time.

    Attributes:
        calls: How many calls ended, in whatever way.
        failures: How many of them failed, by type of error.
        timeouts: How many of the failures were time-outs of the call.
        mean: The mean latency in seconds; `None` without calls, like all that follow.
        p50: Half of the calls took no longer; off by at most 3.2 %, like all quantiles.
        p95: 95 % of the calls took no longer.
        p99: 99 % of the calls took no longer.
        longest: The longest latency, exactly.
    """

    calls: int
    failures: dict[str, int]
    timeouts: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None

    @property
    def failed(self) -> int:
        """How many calls failed, with any error."""
        return sum(self.failures.values())


@dataclass(frozen=True, slots=True)
class MethodStatistics:
    """What became of the calls of one method, or of all methods of a service together.

    Attributes:
        in_flight: How many calls have begun and not ended.
        last_minute: The calls that ended in the last minute.
        last_5_minutes: Those of the last five minutes.
        last_15_minutes: Those of the last fifteen minutes.
        since_start: Those since the statistics were begun.
    """

    in_flight: int
    last_minute: CallWindow
    last_5_minutes: CallWindow
    last_15_minutes: CallWindow
    since_start: CallWindow


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """What became of the calls to a service.

    Attributes:
        service: The name of the service.
        overall: All its methods together.
        methods: Each of the methods that have been called.
    """

    service: str
    overall: MethodStatistics
    methods: dict[str, MethodStatistics]


class _Tally:
    """Counts of calls."""

    __slots__ = ("buckets", "calls", "failures", "longest", "number", "seconds")

    def __init__(self, number: int = -1) -> None:
        self.number = number
        self.calls = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.buckets: dict[int, int] = {}
        self.failures: dict[str, int] = {}

    def fail(self, error_type: str, count: int = 1) -> None:
        failures = self.failures
        if error_type not in failures and len(failures) >= _MAX_ERROR_TYPES:
            error_type = OTHER
        failures[error_type] = failures.get(error_type, 0) + count

    def add(self, other: _Tally) -> None:
        self.calls += other.calls
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        buckets = self.buckets
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        for error_type, count in other.failures.items():
            self.fail(error_type, count)

    def count(self, latencies: list[float], errors: list[str]) -> None:
        self.calls += len(latencies)
        self.seconds += sum(latencies)
        self.longest = max(self.longest, latencies[-1] if latencies else 0.0)
        buckets = self.buckets
        for bucket, count in count_buckets(latencies).items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        for error_type in errors:
            self.fail(error_type)

    def copy(self) -> _Tally:
        copied = _Tally(self.number)
        copied.add(self)
        return copied

    def freeze(self) -> CallWindow:
        if not self.calls:
            return CallWindow(0, {}, 0, None, None, None, None, None)
        p50, p95, p99 = quantiles(self.buckets, (0.5, 0.95, 0.99))
        return CallWindow(
            calls=self.calls,
            failures=dict(self.failures),
            timeouts=self.failures.get(_TIMEOUT, 0),
            mean=self.seconds / self.calls,
            p50=p50,
            p95=p95,
            p99=p99,
            longest=self.longest,
        )


@dataclass(frozen=True, slots=True)
class MethodCalls:
    """What one process knows of the calls of a method, to be put together with what others know.

    Attributes:
        in_flight: How many calls have begun and not ended.
        sums: What ended in each window, the shortest first, and since the statistics were begun.
    """

    in_flight: int
    sums: Sequence[_Tally]


Calls = Mapping[str, MethodCalls]
"""What one process knows of the calls to a service, by method."""


class MethodRecorder:
    """Counts the calls of one method; for use by many threads.

    Attributes:
        begin: Counts a call as under way: `begin(None)`; to be followed by one `record`.
    """

    __slots__ = (
        "_begins",
        "_begun",
        "_ended",
        "_ends",
        "_errors",
        "_latest",
        "_lock",
        "_older",
        "_slot_ends",
        "_slots",
        "begin",
    )

    def __init__(self, now: float) -> None:
        self._begins: list[None] = []
        self.begin = self._begins.append
        self._ends: list[float] = []
        self._errors: list[str] = []
        self._lock = threading.Lock()
        self._latest = _Tally(int(now / SLOT_SECONDS))
        self._slot_ends = (self._latest.number + 1) * SLOT_SECONDS
        self._slots = deque([self._latest])
        self._older = _Tally()  # the sum of all slots that have left the longest window
        self._begun = 0
        self._ended = 0

    def record(self, seconds: float, now: float, error_type: str | None = None) -> None:
        """Count a call that has ended `now`, on the clock of the statistics, after `seconds`."""
        ends = self._ends
        if now >= self._slot_ends or len(ends) >= _MOST_UNCOUNTED:
            with self._lock:
                self._count()
                if now >= self._slot_ends:
                    self._roll(int(now / SLOT_SECONDS))
        if error_type is not None:
            self._errors.append(error_type)
        ends.append(seconds)

    def _count(self) -> None:
        """Count what has been recorded since the last time; the lock is held."""
        begun = _take(self._begins)
        errors = _take(self._errors)  # before the calls that they ended: never more than those
        ended = _take(self._ends)
        self._begun += len(begun)
        self._ended += len(ended)
        self._latest.count(sorted(ended), errors)

    def _roll(self, number: int) -> None:
        """Begin the slot `number`; add those that no window shows any more to the older ones."""
        slots = self._slots
        while slots and slots[0].number <= number - _WINDOW_SLOTS[-1]:
            self._older.add(slots.popleft())
        self._latest = _Tally(number)
        self._slot_ends = (number + 1) * SLOT_SECONDS
        slots.append(self._latest)

    def in_flight(self) -> int:
        """Return how many calls have begun and not ended."""
        with self._lock:
            self._count()
            return max(0, self._begun - self._ended)

    def windows(self, now: float) -> list[_Tally]:
        """Return the sums of the windows, the shortest first, and of all calls."""
        present = int(now / SLOT_SECONDS)
        with self._lock:
            self._count()
            newest_first = [self._latest.copy(), *islice(reversed(self._slots), 1, None)]
            older = self._older.copy()
        total, sums = _Tally(), []
        for length in _WINDOW_SLOTS:
            while newest_first and newest_first[0].number > present - length:
                total.add(newest_first.pop(0))
            sums.append(total.copy())
        for tally in (*newest_first, older):
            total.add(tally)
        return [*sums, total]


def _take(waiting: list[_T]) -> list[_T]:
    """Remove and return what a list holds now; others may append meanwhile."""
    taken = waiting[:]
    del waiting[: len(taken)]
    return taken


class CallStatistics:
    """Counts the calls to one service; for use by many threads.

    Args:
        service: The name of the service.
        clock: Where the time comes from.

    Examples:
        >>> from sage.testing import ManualClock
        >>> statistics = CallStatistics("cache", ManualClock())
        >>> statistics.begin("get")
        >>> statistics.record("get", 0.002)
        >>> window = statistics.snapshot().methods["get"].last_minute
        >>> window.calls, window.failed, window.mean
        (1, 0, 0.002)
    """

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._methods: dict[str, MethodRecorder] = {}
        self._lock = threading.Lock()

    def begin(self, method: str) -> None:
        """Count a call as under way, until `record`. Whoever does it for one call does it for all."""
        self.recorder(method).begin(None)

    def record(self, method: str, seconds: float, error_type: str | None = None) -> None:
        """Count a call that has just ended.

        Args:
            method: The name of the method.
            seconds: How long the caller waited, at least 0.
            error_type: What it failed with, as `error_kinds.error_type_name` says; `None` if it did
                not fail.
        """
        self.recorder(method).record(seconds, self._clock.monotonic(), error_type)

    def quantile(self, method: str, part: float) -> float | None:
        """Return the latency that a part of the method's calls of the last five minutes kept to.

        Takes some hundred microseconds: not for every call.

        Args:
            method: The name of the method.
            part: A number from 0 to 1: 0.95 for p95.
        """
        recorder = self._methods.get(method)
        if recorder is None:
            return None
        counts = recorder.windows(self._clock.monotonic())[1].buckets
        return quantiles(counts, (part,))[0] if counts else None

    def calls(self) -> Calls:
        """Return what is known now, to be sent to where it is put together with others."""
        now, recorders = self._clock.monotonic(), dict(self._methods)
        return {
            method: MethodCalls(recorder.in_flight(), recorder.windows(now))
            for method, recorder in recorders.items()
        }

    def snapshot(self, others: Iterable[Calls] = ()) -> ServiceStatistics:
        """Return the figures as they are now.

        Args:
            others: What other processes know of the calls to the service; they count too.
        """
        overall, methods = _Sum(), dict[str, _Sum]()
        for known in (self.calls(), *others):
            for method, calls in known.items():
                methods.setdefault(method, _Sum()).add(calls)
                overall.add(calls)
        by_method = {method: calls.freeze() for method, calls in methods.items()}
        return ServiceStatistics(self._service, overall.freeze(), by_method)

    def recorder(self, method: str) -> MethodRecorder:
        """Return what counts the calls of a method: for those who make many."""
        known = self._methods.get(method)
        return self._new_recorder(method) if known is None else known

    def _new_recorder(self, method: str) -> MethodRecorder:
        with self._lock:
            if method not in self._methods and len(self._methods) >= _MAX_METHODS:
                method = OTHER  # names come from callers: they must not fill the memory
            return self._methods.setdefault(method, MethodRecorder(self._clock.monotonic()))


class _Sum:
    """Adds up what is known of calls."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._sums = [_Tally() for _ in range(len(_WINDOW_SLOTS) + 1)]

    def add(self, calls: MethodCalls) -> None:
        self._in_flight += calls.in_flight
        for whole, part in zip(self._sums, calls.sums, strict=True):
            whole.add(part)

    def freeze(self) -> MethodStatistics:
        return MethodStatistics(self._in_flight, *(tally.freeze() for tally in self._sums))
