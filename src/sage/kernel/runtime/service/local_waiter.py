"""Waiting for a service in this process: its threads complete the futures themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sage.kernel.runtime.service.service_future import ServiceFuture

_LONGEST_WAIT: Final = 3600.0


class LocalWaiter:
    """Implements `Waiter`.

    Args:
        cancel: Tells the service that nobody waits for a request any more.
    """

    def __init__(self, cancel: Callable[[str, int], None]) -> None:
        self._cancel = cancel

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
        """Cancel the method if it is an `async def` that runs."""
        if cancel:
            self._cancel("", future.request.request_id)
