"""Waiting for a service in this process: its threads complete the futures themselves."""

from __future__ import annotations

import time
from typing import Final

from sage.kernel.runtime.service.service_future import ServiceFuture

_LONGEST_WAIT: Final = 3600.0


class LocalWaiter:
    """Implements `Waiter`."""

    def wait(self, future: ServiceFuture, until: float) -> None:
        """Return when `future` is done or `until` has come."""
        if future.settled():
            return
        bell = future.bell()
        while not future.settled() and (left := until - time.monotonic()) > 0:
            bell.wait(min(left, _LONGEST_WAIT))

    def poll(self) -> None:
        """Do nothing: answers come of themselves."""

    def listen(self) -> None:
        """Do nothing: answers come of themselves."""

    def forget(self, future: ServiceFuture, *, cancel: bool) -> None:
        """Do nothing: a future that is done is not worked on."""
