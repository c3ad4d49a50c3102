"""How many requests a service works on at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sage.common.clock import Doorbell


class NoSlots:
    """Bounds nothing: a thread that works on a request takes no other."""

    def acquire(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def wait_free(self) -> None:
        """Do nothing."""


class Slots(NoSlots):
    """Bounds how many requests are worked on at a time.

    Args:
        count: How many.
        hurry: Called before all slots are waited for: whoever keeps one without need gives it back.
    """

    def __init__(self, count: int, hurry: Callable[[], object] | None = None) -> None:
        self._count = count
        self._hurry = hurry
        self._free = threading.Semaphore(count)

    def acquire(self) -> None:
        """Wait for a free slot and take it."""
        self._free.acquire()

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()

    def wait_free(self) -> None:
        """Wait until all slots have been given back."""
        if self._hurry is not None:
            self._hurry()
        for _ in range(self._count):
            self._free.acquire()


class Turns:
    """Lets so many at a time work, in the order in which they came.

    A semaphore gives no order: whoever ends and begins again at once goes before those that wait,
    and batches that follow each other closely would keep a plain method waiting for ever.

    Args:
        count: How many may work at a time.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[Doorbell] = deque()

    def acquire(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = Doorbell()
            self._waiting.append(turn)
        turn.wait()

    def release(self) -> None:
        """End one's turn."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().ring()
            else:
                self._free += 1
