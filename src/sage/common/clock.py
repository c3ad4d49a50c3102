"""The time of day and the passing of time, as something that can be handed in.

The runtime never asks the operating system for the time directly: it asks its `Clock`. Tests hand
in `sage.testing.ManualClock` and decide themselves what time it is, so nothing sleeps.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from math import inf
from typing import Protocol


class Doorbell:
    """Wakes one waiting thread. Ringing twice before the wait counts once.

    Any thread may `ring`; exactly one thread waits. A ring that comes before the wait is kept, so a
    wake-up is never missed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread, or let its next wait return at once."""
        with suppress(RuntimeError):  # "release unlocked lock": it has been rung already
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until rung, for at most `timeout` seconds; say whether it was rung."""
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))


class Clock(Protocol):
    """Where the runtime takes the time from."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch: what processing time is measured in."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back: what durations are measured with."""
        ...

    def wait(self, doorbell: Doorbell, timeout: float | None) -> None:
        """Wait until `doorbell` rings or `timeout` seconds of this clock have passed."""
        ...

    def wait_until(self, doorbell: Doorbell, deadline: float) -> None:
        """Wait until `doorbell` rings or `monotonic` has come to `deadline`, infinity for never.

        Unlike a timeout, a deadline stays right if time passes between its computing and the wait.
        """
        ...


class SystemClock:
    """The operating system's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some fixed point in the past."""
        return time.monotonic()

    def wait(self, doorbell: Doorbell, timeout: float | None) -> None:
        """Wait until `doorbell` rings or `timeout` seconds have passed."""
        doorbell.wait(timeout)

    def wait_until(self, doorbell: Doorbell, deadline: float) -> None:
        """Wait until `doorbell` rings or `monotonic` has come to `deadline`."""
        doorbell.wait(None if deadline == inf else deadline - time.monotonic())
