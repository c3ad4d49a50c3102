"""`FailureWindow`: how many calls there were lately and how many of them failed."""

from __future__ import annotations

from collections import deque

SLOTS = 10
"""Into how many slots a window is divided: what is older leaves it a tenth at a time."""


class _Slot:
    """The counts of one stretch of time."""

    __slots__ = ("calls", "failures", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0
        self.failures = 0


class FailureWindow:
    """Counts calls and failures over a sliding window. One thread at a time.

    Time is divided into slots of `seconds / SLOTS`. What is counted is the slot of the latest call
    and the `SLOTS - 1` before it, so a call is forgotten after nine to ten tenths of the window.

    Args:
        seconds: How far back to count.

    Attributes:
        calls: The calls in the window, as of the latest `record`.
        failures: Those of them that failed.
        in_a_row: The failures since the last success, however long ago.
    """

    def __init__(self, seconds: float) -> None:
        self._slots_per_second = SLOTS / seconds
        self._slots: deque[_Slot] = deque()
        self._latest = _Slot(-1)
        self.clear()

    def clear(self) -> None:
        """Forget all calls."""
        self._slots.clear()
        self._latest = _Slot(-1)
        self.calls = self.failures = self.in_a_row = 0

    def record(self, now: float, *, failed: bool) -> None:
        """Count a call that ended at `now`.

        Args:
            now: Seconds on a monotonic clock. A time before the latest counts as the latest: threads
                may come here in another order than they looked at the clock.
            failed: Whether the call failed.
        """
        number = int(now * self._slots_per_second)
        if number > self._latest.number:
            self._roll(number)
        slot = self._latest
        slot.calls += 1
        self.calls += 1
        if failed:
            slot.failures += 1
            self.failures += 1
            self.in_a_row += 1
        else:
            self.in_a_row = 0

    def _roll(self, number: int) -> None:
        """Begin the slot `number` and drop those that have left the window."""
        slots = self._slots
        while slots and slots[0].number <= number - SLOTS:
            gone = slots.popleft()
            self.calls -= gone.calls
            self.failures -= gone.failures
        self._latest = _Slot(number)
        slots.append(self._latest)
