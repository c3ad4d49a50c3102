"""How many requests a service works on at a time."""

from __future__ import annotations

import threading


class NoSlots:
    """Bounds nothing: a thread that works on a request takes no other."""

    def acquire(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def wait_free(self) -> None:
        """Do nothing."""


class Slots(NoSlots):
    """Bounds how many requests are worked on at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Semaphore(count)

    def acquire(self) -> None:
        """Wait for a free slot and take it."""
        self._free.acquire()

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()

    def wait_free(self) -> None:
        """Wait until all slots have been given back."""
        for _ in range(self._count):
            self._free.acquire()
