"""`Deadline`: the moment at which somebody stops waiting.

A time-out is given once, by whoever waits, and becomes a deadline at once. What is passed on from
there, through retries, nested calls and other processes, is the deadline: time that has been spent
is spent for everybody.
"""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

from sage.common.clock import Clock


class Deadline(msgspec.Struct, frozen=True, gc=False, order=True):
    """A moment on the machine's monotonic clock. Earlier deadlines are less than later ones.

    All processes of one machine read the same clock (on Linux `CLOCK_MONOTONIC` counts from the
    start of the system), so a deadline keeps its meaning in another process. It has none on another
    machine, nor in a container with a time namespace of its own: send `remaining` there.

    Attributes:
        at: Seconds on the monotonic clock; infinite when there is no deadline.

    Examples:
        >>> from sage.testing import ManualClock
        >>> clock = ManualClock()
        >>> deadline = Deadline.after(clock, 5)
        >>> clock.advance(seconds=3)
        >>> deadline.remaining(clock), deadline.expired(clock)
        (2.0, False)
    """

    at: float = inf

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> Deadline:
        """Return the deadline that is `seconds` from now.

        Args:
            clock: What time it is now.
            seconds: How long to wait; `None` is for ever, nothing or less has passed already.

        Raises:
            ValueError: `seconds` is not a number.
        """
        if seconds is None:
            return NEVER
        if seconds != seconds:  # noqa: PLR0124 - only NaN differs from itself
            raise ValueError("a time-out must be a number of seconds, not NaN")
        return cls(clock.monotonic() + seconds)

    def remaining(self, clock: Clock) -> float:
        """Return how many seconds are left: never less than 0, infinite if there is no deadline."""
        return inf if self.at == inf else max(0.0, self.at - clock.monotonic())

    def timeout(self, clock: Clock) -> float | None:
        """Return `remaining` as waiting functions take it: `None` if there is no deadline."""
        return None if self.at == inf else max(0.0, self.at - clock.monotonic())

    def expired(self, clock: Clock) -> bool:
        """Say whether the moment has come."""
        return self.at != inf and clock.monotonic() >= self.at

    def earliest(self, other: Deadline) -> Deadline:
        """Return the earlier of both: a nested call never outlives the one it serves."""
        return self if self.at <= other.at else other


NEVER: Final = Deadline()
"""The deadline that does not come."""
