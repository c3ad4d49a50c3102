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

    def call_at(self, when: float, action: Callable[[], object]) -> None:
        """Run `action` at `when` on the monotonic clock; not at all if the timer is closed before."""
        with self._lock:
            if self._closed:
                return
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

    def close(self) -> None:
        """Run nothing more, and wait for what is running. May be called twice."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._bell.ring()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._closed:
            action = self._next()
            if action is not None:
                try:
                    action()
                except Exception:  # noqa: BLE001 - logged: others depend on this thread
                    get_logger("service").exception("a retry of a call failed unexpectedly")

    def _next(self) -> Callable[[], object] | None:
        """Return what is due; else wait a while and return None."""
        with self._lock:
            wait = self._due[0][0] - time.monotonic() if self._due else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._due)[2]
        self._bell.wait(wait)
        return None
