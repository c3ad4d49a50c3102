"""The way to a service in this process: its threads complete the futures themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final

from sage.kernel.runtime.service.base_service_task import BaseServiceTask, RequestQueue
from sage.kernel.runtime.service.call.call_timer import CallTimer
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter

_LONGEST_WAIT: Final = 3600.0


class LocalChannel:
    """Implements `Channel`.

    Args:
        task: The service.
        timer: Ends the calls whose deadline passes while nobody waits.

    Attributes:
        send: Gives a call to the service.
    """

    def __init__(self, task: BaseServiceTask, timer: CallTimer) -> None:
        self.send = task.send
        self._task = task
        self._waiter = LocalWaiter(task.cancel_request, timer)

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self._waiter

    def request_queue(self) -> RequestQueue | None:
        """Return where requests wait for a thread of the service."""
        return self._task.request_queue


class LocalWaiter:
    """Implements `Waiter`.

    Args:
        cancel: Tells the service that nobody waits for a request any more.
        timer: Ends the calls whose deadline passes while nobody waits.
    """

    def __init__(self, cancel: Callable[[str, int], None], timer: CallTimer) -> None:
        self._cancel = cancel
        self._timer = timer

    def wait(self, future: ServiceFuture, until: float) -> None:
        """Return when `future` is done or `until` has come."""
        if future.settled():
            return
        bell = future.bell()
        while not future.settled() and (left := until - time.monotonic()) > 0:
            bell.wait(min(left, _LONGEST_WAIT))
        if future.settled():
            bell.ring()  # other threads may wait for the same call

    def poll(self) -> None:
        """Do nothing: answers come of themselves."""

    def listen(self, future: ServiceFuture) -> None:
        """Let somebody look when the deadline of `future` passes; answers come of themselves."""
        if future.request.deadline < inf:
            self._timer.call_at(future.request.deadline, future.done)

    def forget(self, future: ServiceFuture, *, cancel: bool) -> None:
        """Cancel the method if it is an `async def` that runs."""
        if cancel:
            self._cancel("", future.request.request_id)
