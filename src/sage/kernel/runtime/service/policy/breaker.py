"""`CircuitBreaker`: calls to a service that keeps failing are refused at once.

After Michael Nygard, "Release It!" (2007). A breaker is closed at first and lets calls through. When
too many fail it opens: calls are refused, and the service gets time to recover. After a while it is
half open: a few calls go through as probes, and it closes if they succeed, or opens again.

                 too many failures                 open_seconds later
      CLOSED ───────────────────────▶ OPEN ───────────────────────────▶ HALF_OPEN
        ▲                              ▲            a probe failed          │ │
        │                              └────────────────────────────────────┘ │
        └──────────────── as many probes as asked for succeeded ──────────────┘
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from sage.common.clock import Clock
from sage.common.errors import (
    ServiceCallError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.policy.checks import DAY, check_count, check_number
from sage.kernel.runtime.service.policy.error_kinds import check_kinds, matches
from sage.kernel.runtime.service.policy.failure_window import FailureWindow


class BreakerState(Enum):
    """Whether calls are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(Enum):
    """What the end of a call says about the health of the service."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a breaker opens and how it closes again.

    Attributes:
        failure_ratio: It opens when this part of the calls in the window has failed …
        min_calls: … and there were at least so many.
        window: How far back calls are counted, in seconds, give or take a tenth.
        consecutive_failures: It also opens after so many failures in a row; `None` for never.
        open_seconds: How long it stays open before it lets a probe through.
        probes: How many calls go through half open, and must succeed for it to close.
        failure_errors: What a method raises and counts as a failure of the service: classes or names.

    Raises:
        ConfigError: a value is out of range.
    """

    failure_ratio: float = 0.5
    min_calls: int = 20
    window: float = 30.0
    consecutive_failures: int | None = None
    open_seconds: float = 5.0
    probes: int = 3
    failure_errors: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        check_number("failure_ratio", self.failure_ratio, 0.001, 1)
        check_count("min_calls", self.min_calls)
        check_number("window", self.window, 0.001, DAY)
        if self.consecutive_failures is not None:
            check_count("consecutive_failures", self.consecutive_failures)
        check_number("open_seconds", self.open_seconds, 0, DAY)
        check_count("probes", self.probes)
        check_kinds("failure_errors", self.failure_errors)

    def verdict(self, error: BaseException) -> Verdict:
        """Say what a failed call tells about the service.

        It has failed if it did not answer in time or could not be reached. It is well if its method
        raised: it did answer. Refusals by a limit, cancelled calls and calls that could never be
        made say nothing.

        Examples:
            >>> BreakerPolicy().verdict(ServiceTimeoutError("no answer"))
            <Verdict.FAILURE: 'failure'>
        """
        if isinstance(error, ServiceTimeoutError | ServiceUnavailableError):
            return Verdict.FAILURE
        if matches(error, self.failure_errors):
            return Verdict.FAILURE
        return Verdict.SUCCESS if isinstance(error, ServiceCallError) else Verdict.NOTHING

    def should_open(self, window: FailureWindow) -> bool:
        """Say whether a closed breaker opens, given what the window has counted."""
        if self.consecutive_failures is not None and window.in_a_row >= self.consecutive_failures:
            return True
        return (
            window.calls >= self.min_calls and window.failures >= self.failure_ratio * window.calls
        )


@dataclass(frozen=True, slots=True)
class BreakerTransition:
    """A change of a breaker's state.

    Attributes:
        number: 1 for the first change of this breaker, then one more each time.
        before: The state that it left.
        after: The state that it is in.
        at: When, on the monotonic clock.
        reason: Why, for an operator's eyes.
    """

    number: int
    before: BreakerState
    after: BreakerState
    at: float
    reason: str


def _ignore(_transition: BreakerTransition) -> None:
    """Observe nothing."""


class CircuitBreaker:
    """Refuses calls to a service that keeps failing; for use by many threads.

    Every `try_acquire` that returns is followed by exactly one of `record_success`,
    `record_failure` and `release`, with the permit it returned. The permit tells calls of the
    present state from those let through before: a call that began while the breaker was closed, and
    ends when it is half open, says nothing about the probes and is not counted.

    Args:
        policy: When to open and close.
        clock: Where the time comes from.
        subject: What the breaker guards, for error messages: `"service 'cache'"`.
        on_transition: Called after each change, on the thread that caused it and without a lock.
            Two changes close to each other may be told in the wrong order; their numbers tell. It
            must not raise.

    Examples:
        >>> from sage.testing import ManualClock
        >>> clock = ManualClock()
        >>> policy = BreakerPolicy(consecutive_failures=1, open_seconds=5, probes=1)
        >>> breaker = CircuitBreaker(policy, clock)
        >>> breaker.record_failure(breaker.try_acquire())
        >>> breaker.state.value
        'open'
        >>> clock.advance(seconds=5)
        >>> breaker.record_success(breaker.try_acquire())
        >>> breaker.state.value
        'closed'
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Clock,
        subject: str = "the service",
        on_transition: Callable[[BreakerTransition], None] = _ignore,
    ) -> None:
        self._policy = policy
        self._monotonic = clock.monotonic
        self._subject = subject
        self._on_transition = on_transition
        self._lock = threading.Lock()
        self._window = FailureWindow(policy.window)
        self._state = BreakerState.CLOSED
        self._number = 0  # of transitions: the permit that is good in the present state
        # The permit while closed, else None. A single attribute, so that `try_acquire` reads state
        # and permit together without the lock.
        self._closed_permit: int | None = 0
        self._opened_at = 0.0
        self._probes_begun = 0
        self._probes_succeeded = 0

    @property
    def state(self) -> BreakerState:
        """The present state. An open breaker becomes half open only when a call asks."""
        return self._state

    def try_acquire(self) -> int:
        """Let a call through and return its permit.

        Raises:
            ServiceUnavailableError: the breaker is open, or half open with all its probes under way;
                the error says when the next probe can go.
        """
        permit = self._closed_permit
        return self._acquire_probe() if permit is None else permit

    def record_success(self, permit: int) -> None:
        """End a call that says that the service is well."""
        now = self._monotonic()
        with self._lock:
            if permit != self._number:
                return
            if self._state is BreakerState.CLOSED:
                self._window.record(now, failed=False)
                return
            change = self._probe_succeeded(now)
        self._tell(change)

    def record_failure(self, permit: int) -> None:
        """End a call that says that the service is not well."""
        now = self._monotonic()
        with self._lock:
            if permit != self._number:
                return
            change = self._failed(now)
        self._tell(change)

    def release(self, permit: int) -> None:
        """End a call that says nothing about the service; another probe may go in its place."""
        with self._lock:
            if permit == self._number and self._state is BreakerState.HALF_OPEN:
                self._probes_begun -= 1

    def record(self, permit: int, error: BaseException | None) -> None:
        """End a call by what it came to: `None` is a result, else the policy gives the verdict."""
        verdict = Verdict.SUCCESS if error is None else self._policy.verdict(error)
        if verdict is Verdict.SUCCESS:
            self.record_success(permit)
        elif verdict is Verdict.FAILURE:
            self.record_failure(permit)
        else:
            self.release(permit)

    def _acquire_probe(self) -> int:
        now = self._monotonic()
        change = None
        with self._lock:
            if self._state is BreakerState.CLOSED:  # it closed after `try_acquire` looked
                return self._number
            if self._state is BreakerState.OPEN:
                wait = self._opened_at + self._policy.open_seconds - now
                if wait > 0:
                    raise self._refused(f"the next probe can go in {wait:.3g} s")
                change = self._change(BreakerState.HALF_OPEN, now, "time for a probe")
            elif self._probes_begun >= self._policy.probes:
                raise self._refused("probes are under way, the next call waits for their outcome")
            self._probes_begun += 1
            permit = self._number
        self._tell(change)
        return permit

    def _refused(self, until: str) -> ServiceUnavailableError:
        return ServiceUnavailableError(f"{self._subject}: its circuit breaker is open; {until}")

    def _probe_succeeded(self, now: float) -> BreakerTransition | None:
        self._probes_succeeded += 1
        if self._probes_succeeded < self._policy.probes:
            return None
        return self._change(BreakerState.CLOSED, now, f"{self._policy.probes} probes succeeded")

    def _failed(self, now: float) -> BreakerTransition | None:
        if self._state is BreakerState.HALF_OPEN:
            return self._change(BreakerState.OPEN, now, "a probe failed")
        window = self._window
        window.record(now, failed=True)
        if not self._policy.should_open(window):
            return None
        told = f"{window.failures} of {window.calls} calls failed, {window.in_a_row} in a row"
        return self._change(BreakerState.OPEN, now, told)

    def _change(self, after: BreakerState, now: float, reason: str) -> BreakerTransition:
        before, self._state = self._state, after
        self._number += 1
        self._closed_permit = self._number if after is BreakerState.CLOSED else None
        self._opened_at = now
        self._probes_begun = self._probes_succeeded = 0
        self._window.clear()
        return BreakerTransition(self._number, before, after, now, reason)

    def _tell(self, change: BreakerTransition | None) -> None:
        if change is not None:
            self._on_transition(change)
