"""Calls back those who asked to be told of the end of a call.

A callback is the user's code and may itself call services. So it does not run in the midst of reading
answers, where the thread that runs it could not get the answer to its own call: a reader collects
what is to be called back, and does so when somebody else may read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sage.common.log import get_logger

if TYPE_CHECKING:
    from sage.kernel.runtime.service.call.service_future import ServiceFuture

Callback = Callable[["ServiceFuture"], object]


Postponed = list[tuple["ServiceFuture", list[Callback]]]


class Reading(threading.local):
    """What a thread that reads answers has yet to call back; None for all other threads.

    Attributes:
        postponed: Set by the thread itself, with an empty list, as long as it reads; what is in it
            afterwards goes to `run_postponed`.
    """

    postponed: Postponed | None = None


READING: Final = Reading()


def run_callbacks(future: ServiceFuture, callbacks: list[Callback]) -> None:
    """Call all of `callbacks` that have not been called yet, now or when this thread has read."""
    if READING.postponed is not None:
        READING.postponed.append((future, callbacks))
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


def run_postponed(postponed: Postponed) -> None:
    """Call what a thread has collected, which reads no more."""
    for future, callbacks in postponed:
        run_callbacks(future, callbacks)
