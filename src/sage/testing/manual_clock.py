"""`ManualClock`: a clock that stands still until the test moves it."""

from __future__ import annotations

import threading
from math import ceil, inf

from sage.common.clock import Doorbell

_NEVER = 1 << 63  # microseconds


class ManualClock:
    """A `Clock` whose time passes only by `advance`. May be used from several threads.

    Args:
        start_ms: The time of day at first, in milliseconds since the Unix epoch.

    Examples:
        >>> clock = ManualClock(start_ms=1_000)
        >>> clock.advance(seconds=2)
        >>> clock.now_ms(), clock.monotonic()
        (3000, 2.0)
    """

    def __init__(self, start_ms: int = 0) -> None:
        self._start_ms = start_ms
        self._micros = 0  # a whole number: adding up fractions of seconds would drift
        self._changed = threading.Condition()
        self._waiters: list[tuple[int, Doorbell]] = []

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._start_ms + self._micros // 1000

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._micros / 1_000_000

    def advance(self, *, seconds: float = 0, ms: int = 0) -> None:
        """Let time pass, and wake every thread whose waiting time is over by then.

        Raises:
            ValueError: time would go backwards.
        """
        micros = round(seconds * 1_000_000) + ms * 1000
        if micros < 0:
            raise ValueError(f"time does not go backwards: seconds={seconds}, ms={ms}")
        with self._changed:
            self._micros += micros
            due = [bell for deadline, bell in self._waiters if deadline <= self._micros]
        for doorbell in due:
            doorbell.ring()

    def wait(self, doorbell: Doorbell, timeout: float | None) -> None:
        """Wait until `doorbell` rings or `timeout` seconds of this clock have passed."""
        if timeout is not None and timeout <= 0:
            doorbell.wait(0)
            return
        with self._changed:
            due = _NEVER if timeout is None else self._micros + max(1, round(timeout * 1e6))
            waiter = self._register(due, doorbell)
        self._wait(waiter)

    def wait_until(self, doorbell: Doorbell, deadline: float) -> None:
        """Wait until `doorbell` rings or this clock has come to `deadline` of `monotonic`."""
        # Not before it: who asks `monotonic` afterwards would find that it is not time yet.
        due = _NEVER if deadline == inf else ceil(deadline * 1e6)
        with self._changed:
            waiter = self._register(due, doorbell) if due > self._micros else None
        if waiter is None:
            doorbell.wait(0)
        else:
            self._wait(waiter)

    def _register(self, due: int, doorbell: Doorbell) -> tuple[int, Doorbell]:
        waiter = (due, doorbell)
        self._waiters.append(waiter)
        self._changed.notify_all()
        return waiter

    def _wait(self, waiter: tuple[int, Doorbell]) -> None:
        try:
            waiter[1].wait()
        finally:
            with self._changed:
                self._waiters.remove(waiter)

    def wait_waiting(self, threads: int = 1, *, timeout: float = 10.0) -> None:
        """Return once at least `threads` threads wait on this clock.

        A test calls it before `advance`: a thread that begins to `wait` later counts from the later
        time, and would not be woken. (One that uses `wait_until` returns at once.)

        Args:
            threads: How many threads must be waiting.
            timeout: For how many real seconds to wait for them.

        Raises:
            TimeoutError: fewer threads wait by then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiters) >= threads, timeout):
                raise TimeoutError(
                    f"{len(self._waiters)} of {threads} threads wait after {timeout:g} s"
                )
