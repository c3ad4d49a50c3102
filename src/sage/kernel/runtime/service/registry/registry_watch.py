"""The thread that tells callbacks what changes in a registry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from sage.common.clock import Clock, Doorbell
from sage.common.errors import SageError
from sage.common.log import RateLimit, get_logger
from sage.kernel.runtime.service.registry.service_info import (
    ServiceEvent,
    ServiceInfo,
    list_changes,
)

Look = Callable[[], Mapping[str, ServiceInfo]]
Callback = Callable[[ServiceEvent], None]

THREAD_NAME: Final = "sage-registry-watch"


class Watch:
    """One callback that is told of changes.

    Called from the thread of the registry's watches, one event after the other; first with `added`
    for everything that is there. Changes between two looks are merged: what came and went between
    them is not told. An exception of the callback is logged, and the next event is told.
    """

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._seen: dict[str, ServiceInfo] = {}
        self._ended = False

    def end(self) -> None:
        """Begin no further call of the callback. May be called twice, and from the callback."""
        self._ended = True

    @property
    def ended(self) -> bool:
        """Whether it has been ended."""
        return self._ended

    def tell(self, entries: dict[str, ServiceInfo]) -> None:
        """Call the callback with what has changed since the last time."""
        changes, self._seen = list_changes(self._seen, entries), entries
        for event in changes:
            if self._ended:
                return
            try:
                self._callback(event)
            except Exception:  # noqa: BLE001 - the other watches have no part in it
                get_logger("service", "registry").exception("a watch failed on %s", event)


class WatchThread:
    """Looks at a registry at an interval, or when rung, and tells the watches.

    Args:
        look: Returns the present entries.
        clock: What the interval is measured with.
        interval: Seconds between two looks.
    """

    def __init__(self, look: Look, clock: Clock, interval: float) -> None:
        self._look = look
        self._clock = clock
        self._interval = interval
        self._bell = Doorbell()
        self._watches: list[Watch] = []
        self._closed = False
        self._complaints = RateLimit(clock)
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, watch: Watch) -> None:
        """Tell one more watch."""
        self._watches = [*(w for w in self._watches if not w.ended), watch]
        self.ring()

    def ring(self) -> None:
        """Look now."""
        self._bell.ring()

    def close(self) -> None:
        """Stop the thread and wait for it, unless this is it."""
        self._closed = True
        for watch in self._watches:
            watch.end()
        self.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._tell_all()
            self._clock.wait(self._bell, self._interval)

    def _tell_all(self) -> None:
        try:
            entries = dict(self._look())
        except (OSError, SageError) as error:
            if not self._closed and self._complaints.admit() is not None:
                get_logger("service", "registry").error("the registry cannot be read: %s", error)
            return
        for watch in self._watches:
            watch.tell(entries)
