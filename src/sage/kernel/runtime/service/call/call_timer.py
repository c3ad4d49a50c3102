"""`CallTimer`: does things later, for retries and hedged calls."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from sage.common.clock import Doorbell
from sage.common.log import get_logger


class CallTimer:
    """One thread that runs what is due; it begins with the first use. Thread-safe."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._bell = Doorbell()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_at(self, when: float, action: Callable[[], object]) -> bool:
        """Run `action` at `when` on the monotonic clock, or when the timer is closed before.

        Returns:
            Whether it will be run: not if the timer has been closed.
        """
        with self._lock:
            if self._closed:
                return False
            entry = (when, next(self._numbers), action)
            heapq.heappush(self._due, entry)
            first = self._due[0] is entry
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="sage-service-timer", daemon=True
                )
                self._thread.start()
        if first:
            self._bell.ring()
        return True

    def close(self) -> None:
        """Run what is left at once: a call waits for it. May be called twice."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            left, self._due = self._due, []
        self._bell.ring()
        if thread is not None:
            thread.join()
        for _, _, action in sorted(left):
            _run_logged(action)

    def _run(self) -> None:
        while not self._closed:
            action = self._next()
            if action is not None:
                _run_logged(action)

    def _next(self) -> Callable[[], object] | None:
        """Return what is due; else wait a while and return None."""
        with self._lock:
            wait = self._due[0][0] - time.monotonic() if self._due else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._due)[2]
        self._bell.wait(wait)
        return None


def _run_logged(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:  # noqa: BLE001 - logged: others depend on this thread
        get_logger("service").exception("a retry of a call failed unexpectedly")
