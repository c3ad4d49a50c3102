"""`Latch`: is set once, and lets go on all who wait for it."""

from __future__ import annotations

import threading
import time
from typing import Final

_LOOK_AGAIN: Final = 0.5


class Latch:
    """Lets any number of threads wait for what happens once.

    Unlike a `threading.Event` it may be waited for in a handler of a signal that has interrupted a
    thread which is about to wait for the very same: there is no lock that the thread may be holding.

    Examples:
        >>> latch = Latch()
        >>> latch.wait(0)
        False
        >>> latch.set()
        >>> latch.wait(), latch.is_set()
        (True, True)
    """

    def __init__(self) -> None:
        self._is_set = False
        self._closed = threading.Lock()  # until it is set; afterwards whoever gets it gives it back
        self._closed.acquire()

    def is_set(self) -> bool:
        """Say whether it has been set."""
        return self._is_set

    def set(self) -> None:
        """Let all who wait go on. Only one thread may do so; once more is no error."""
        if not self._is_set:
            self._is_set = True
            self._closed.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for at most `timeout` seconds; say whether it is."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = _LOOK_AGAIN if until is None else until - time.monotonic()
            if left <= 0:
                break
            # Python sees a signal that comes just before a thread sleeps only when it wakes again.
            if self._closed.acquire(timeout=min(left, _LOOK_AGAIN)):
                self._closed.release()
        return self._is_set
