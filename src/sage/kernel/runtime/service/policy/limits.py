"""How much may be under way at a time, and how many calls may begin in a second.

Both refuse at once, with `ServiceOverloadedError`, and let nobody wait: a queue in front of a service
that is too slow only makes every caller late.
"""

from __future__ import annotations

import threading

from sage.common.clock import Clock
from sage.common.errors import ServiceOverloadedError
from sage.kernel.runtime.service.policy.checks import check_count, check_number


class CallLimit:
    """Bounds the calls and the bytes of requests under way; for use by many threads.

    Args:
        max_calls: How many calls may be under way; `None` for any number.
        max_bytes: How many bytes their requests may have together; `None` for any number.
        subject: What is limited, for error messages: `"service 'cache'"`.

    Raises:
        ConfigError: a limit is not a whole number of at least 1.

    Examples:
        >>> limit = CallLimit(max_calls=1)
        >>> limit.acquire()
        >>> limit.acquire()
        Traceback (most recent call last):
        sage.common.errors.ServiceOverloadedError: the service: 1 calls are under way, max_calls is 1
        >>> limit.release()
    """

    def __init__(
        self,
        max_calls: int | None = None,
        max_bytes: int | None = None,
        subject: str = "the service",
    ) -> None:
        for key, value in (("max_calls", max_calls), ("max_bytes", max_bytes)):
            if value is not None:
                check_count(key, value)
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._subject = subject
        self._calls = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def acquire(self, size: int = 0) -> None:
        """Begin a call whose request has `size` bytes. Follow it by one `release`.

        Raises:
            ServiceOverloadedError: a limit has been reached; nothing is to be released.
        """
        with self._lock:
            calls, total = self._calls + 1, self._bytes + size
            if self._max_calls is not None and calls > self._max_calls:
                raise self._too_many_calls()
            if self._max_bytes is not None and total > self._max_bytes:
                raise self._too_many_bytes(size)
            self._calls, self._bytes = calls, total

    def release(self, size: int = 0) -> None:
        """End a call that was begun with the same `size`.

        Raises:
            RuntimeError: no such call has been begun.
        """
        with self._lock:
            if self._calls < 1 or self._bytes < size:
                raise RuntimeError(f"released without acquire: a call of {size} bytes")
            self._calls -= 1
            self._bytes -= size

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return self._calls

    @property
    def bytes(self) -> int:
        """How many bytes their requests have."""
        return self._bytes

    def _too_many_calls(self) -> ServiceOverloadedError:
        return ServiceOverloadedError(
            f"{self._subject}: {self._calls} calls are under way, max_calls is {self._max_calls}"
        )

    def _too_many_bytes(self, size: int) -> ServiceOverloadedError:
        return ServiceOverloadedError(
            f"{self._subject}: {self._bytes} bytes are under way and the request has {size}, "
            f"max_bytes is {self._max_bytes}"
        )


class CallRateLimit:
    """Bounds how many calls begin per second; for use by many threads.

    This is the generic cell rate algorithm (ITU-T I.371, as a virtual schedule): a token bucket that
    holds `burst` calls and is refilled evenly, kept as one number, the time at which the bucket will
    be full again.

    Args:
        per_second: How many calls may begin per second in the long run.
        burst: How many may begin at once after a quiet time.
        clock: Where the time comes from.
        subject: What is limited, for error messages: `"service 'cache'"`.

    Raises:
        ConfigError: a value is out of range.

    Examples:
        >>> from sage.testing import ManualClock
        >>> clock = ManualClock()
        >>> limit = CallRateLimit(per_second=2, burst=1, clock=clock)
        >>> limit.acquire()
        >>> limit.try_acquire()
        False
        >>> clock.advance(seconds=0.5)
        >>> limit.try_acquire()
        True
    """

    def __init__(
        self, per_second: float, burst: int, clock: Clock, subject: str = "the service"
    ) -> None:
        check_number("per_second", per_second, 1e-6, 1e9)
        check_count("burst", burst)
        self._monotonic = clock.monotonic
        self._per_second = per_second
        self._interval = 1.0 / per_second
        # A call may come this much before the bucket is full again. The slack of a nanosecond takes
        # up the rounding of the clock's floats: callers that keep exactly to the rate are let in.
        self._tolerance = (burst - 1) * self._interval + 1e-9
        self._burst = burst
        self._subject = subject
        self._full_at = float("-inf")
        self._lock = threading.Lock()

    def try_acquire(self) -> bool:
        """Begin a call now if the rate allows it; say whether it does."""
        now = self._monotonic()
        with self._lock:
            full_at = max(now, self._full_at)
            if full_at - now > self._tolerance:
                return False
            self._full_at = full_at + self._interval
            return True

    def acquire(self) -> None:
        """Begin a call now.

        Raises:
            ServiceOverloadedError: the rate does not allow it; the error says when it will.
        """
        if not self.try_acquire():
            raise ServiceOverloadedError(
                f"{self._subject}: the rate limit of {self._per_second:g} calls per second "
                f"(burst {self._burst}) is reached; the next can begin in {self.wait_time():.3g} s"
            )

    def wait_time(self) -> float:
        """Return in how many seconds the next call can begin; 0 if at once."""
        now = self._monotonic()
        with self._lock:
            early = self._full_at - now - self._tolerance
        return max(0.0, early)
