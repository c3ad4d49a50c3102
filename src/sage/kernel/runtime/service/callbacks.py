"""Calls back those who asked to be told of the end of a call.

A callback is the user's code and may itself call services. So it does not run in the midst of reading
answers, where the thread that runs it could not get the answer to its own call: a reader collects
what is to be called back, and does so when somebody else may read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sage.common.log import get_logger

if TYPE_CHECKING:
    from sage.kernel.runtime.service.service_future import ServiceFuture

Callback = Callable[["ServiceFuture"], object]


class _Reading(threading.local):
    postponed: list[tuple[ServiceFuture, list[Callback]]] | None = None


_reading = _Reading()


def run_callbacks(future: ServiceFuture, callbacks: list[Callback]) -> None:
    """Call all of `callbacks` that have not been called yet, now or when this thread has read."""
    if _reading.postponed is not None:
        _reading.postponed.append((future, callbacks))
        return
    while callbacks:
        try:
            callback = callbacks.pop(0)
        except IndexError:  # another thread was quicker
            return
        try:
            callback(future)
        except Exception:  # noqa: BLE001 - logged: who brings answers has others to serve
            name = future.request.service_name
            get_logger("service", name).exception("a callback of a call to %r failed", name)


def postpone_callbacks() -> list[tuple[ServiceFuture, list[Callback]]]:
    """Let this thread collect callbacks from now on; returns where."""
    if _reading.postponed is None:
        _reading.postponed = []
    return _reading.postponed


def run_postponed() -> None:
    """Call what this thread has collected, and collect no more."""
    postponed, _reading.postponed = _reading.postponed, None
    for future, callbacks in postponed or ():
        run_callbacks(future, callbacks)
