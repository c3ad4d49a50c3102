"""Which failed calls are tried again, when, and how many of them at most.

`RetryPolicy` decides about one call: whether its failure is worth another attempt, whether another
attempt is safe, and how long to wait before it. `RetryBudget` decides about all calls to a service
together: when it is down, a retry per call would multiply the load just when it must fall.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from sage.common.clock import Clock
from sage.common.errors import (
    ConfigError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.policy.checks import DAY, check_count, check_number
from sage.kernel.runtime.service.policy.error_kinds import check_kinds, matches


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a failed call is tried again.

    The delay before attempt *n* + 1 is drawn from `[(1 - jitter) * b, b]` with the exponential bound
    `b = min(max_delay, initial_delay * multiplier ** (n - 1))`. A jitter of 1 is "full jitter", which
    spreads callers that failed together the widest and finishes with the fewest calls (Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015); 0.5 is its "equal jitter".

    Attributes:
        max_attempts: How often a call is tried at most, the first time included.
        initial_delay: The longest delay before the second attempt, in seconds.
        multiplier: By how much the bound grows with each further attempt.
        max_delay: What the bound never exceeds, in seconds.
        jitter: Which part of the delay is left to chance, from 0 to 1.
        retry_on: The errors worth another attempt: classes or names; see `error_kinds`.

    Raises:
        ConfigError: a value is out of range.

    Examples:
        >>> policy = RetryPolicy(initial_delay=1, max_delay=3, jitter=0.0)
        >>> [policy.delay(attempt, lambda: 0.5) for attempt in (1, 2, 3)]
        [1.0, 2.0, 3.0]
    """

    max_attempts: int = 3
    initial_delay: float = 0.1
    multiplier: float = 2.0
    max_delay: float = 10.0
    jitter: float = 1.0
    retry_on: tuple[Any, ...] = (
        ServiceUnavailableError,
        ServiceOverloadedError,
        ServiceTimeoutError,
    )

    def __post_init__(self) -> None:
        check_count("max_attempts", self.max_attempts)
        check_number("initial_delay", self.initial_delay, 0, DAY)
        check_number("multiplier", self.multiplier, 1, 1000)
        check_number("max_delay", self.max_delay, 0, DAY)
        check_number("jitter", self.jitter, 0, 1)
        check_kinds("retry_on", self.retry_on)

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return how many seconds to wait after attempt number `attempt` has failed.

        Args:
            attempt: How many attempts there have been, at least 1.
            random: Returns a float from 0 up to 1.
        """
        try:
            bound = min(self.max_delay, self.initial_delay * self.multiplier ** (attempt - 1))
        except OverflowError:  # a float power does not become infinite, it raises
            bound = self.max_delay if self.initial_delay else 0.0
        return bound * (1.0 - self.jitter * random())

    def is_retryable(
        self, error: BaseException, *, idempotent: bool, may_have_run: bool = True
    ) -> bool:
        """Say whether another attempt is worth while and can do no harm.

        A call that was refused before it was sent is always safe to send again. One that may have
        been executed is sent again only if executing it twice is the same as once. The error alone
        does not tell which it was: a `ServiceOverloadedError` may come from a limit of the caller,
        and as well from the middle of a method that called another service.

        Args:
            error: What the attempt failed with.
            idempotent: Whether executing the call twice is the same as executing it once.
            may_have_run: Whether the service may have executed this attempt: false if it was not
                sent, or if the service has said that it did not take it.
        """
        return (idempotent or not may_have_run) and matches(error, self.retry_on)

    def next_delay(
        self, attempt: int, remaining: float, random: Callable[[], float]
    ) -> float | None:
        """Return how long to wait for the next attempt, or None to give up.

        It gives up when there have been enough attempts, and when the next one would begin at or
        after the deadline: waiting for a call that cannot succeed only delays the bad news.

        Args:
            attempt: How many attempts there have been, at least 1.
            remaining: The seconds left until the call's deadline.
            random: Returns a float from 0 up to 1.
        """
        if attempt >= self.max_attempts:
            return None
        delay = self.delay(attempt, random)
        return delay if delay < remaining else None


class RetryBudget:
    """Bounds the retries of all calls to a service; for use by many threads.

    Each call deposits `ratio` tokens, each second `min_per_second`; a retry withdraws one. No more
    than `max_tokens` are kept, so quiet times cannot be saved up. In any stretch of `t` seconds with
    `n` calls there are thus at most `max_tokens + ratio * n + min_per_second * t` retries.

    The ratio and the minimum rate are those of Finagle's `RetryBudget` (20 % and 10 per second); the
    cap on tokens in place of deposits that expire is the retry throttling of gRPC (proposal A6).

    Args:
        clock: Where the time comes from.
        ratio: How many retries each call allows, on average.
        min_per_second: How many retries are allowed however few calls there are.
        max_tokens: How many retries can come at once; there are as many at first.

    Raises:
        ConfigError: a value is out of range.

    Examples:
        >>> from sage.testing import ManualClock
        >>> budget = RetryBudget(ManualClock(), ratio=0.5, min_per_second=0, max_tokens=1)
        >>> budget.try_withdraw(), budget.try_withdraw()
        (True, False)
        >>> budget.deposit(); budget.deposit()
        >>> budget.try_withdraw()
        True
    """

    def __init__(
        self,
        clock: Clock,
        ratio: float = 0.2,
        min_per_second: float = 10.0,
        max_tokens: float = 100.0,
    ) -> None:
        check_number("ratio", ratio, 0, 1000)
        check_number("min_per_second", min_per_second, 0, 1e9)
        check_number("max_tokens", max_tokens, 0, 1e9)
        if 0 < max_tokens < 1:
            raise ConfigError(f"max_tokens must be 0 or at least 1, not {max_tokens:g}")
        self._monotonic = clock.monotonic
        self._ratio = ratio
        self._rate = min_per_second
        self._max = max_tokens
        self._tokens = max_tokens
        self._since = clock.monotonic()
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """Count one call. The retries of a call are not calls."""
        # The passing of time is left to `try_withdraw`: a call then reads no clock. The balance is the
        # same: capped additions give `min(max, sum)` in whatever order they come.
        with self._lock:
            tokens = self._tokens + self._ratio
            self._tokens = min(self._max, tokens)

    def try_withdraw(self) -> bool:
        """Take the token for one retry; false if there is none: let the failure stand."""
        now = self._monotonic()
        with self._lock:
            self._refill(now)
            if self._tokens < _WHOLE:
                return False
            self._tokens = max(0.0, self._tokens - 1.0)
            return True

    @property
    def balance(self) -> float:
        """How many tokens there are now."""
        now = self._monotonic()
        with self._lock:
            self._refill(now)
            return self._tokens

    def _refill(self, now: float) -> None:
        if now > self._since:
            self._tokens = min(self._max, self._tokens + (now - self._since) * self._rate)
            self._since = now


_WHOLE = 1.0 - 1e-9
"""What counts as a token: five deposits of 0.2 must make one, although their float sum is less."""
