"""Ctrl-C for jobs of this process.

A submitted job keeps the process alive after the main program has ended. Python's own handler would
then only interrupt the shutdown of the interpreter and leave the job running. That of `asyncio.run`
only cancels the main coroutine, at its next `await`. While jobs run, this module's handler cancels
them first.

The handler of a signal belongs to the process, so this is one of the few places with state of its
own.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, TypeGuard

from sage.kernel.jobmanager.job import Job

_Handler = Callable[[int, FrameType | None], Any]

_watched: set[Job] = set()


def watch(job: Job) -> None:
    """Let Ctrl-C cancel `job`. Only the main thread may set handlers; elsewhere this does nothing.

    A program that has set a handler of its own keeps it; that of `asyncio.run` is called afterwards.
    """
    _watched.add(job)
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _cancel_all)
    elif _is_asyncios(handler):
        signal.signal(signal.SIGINT, partial(_cancel_all, following=handler))


def unwatch(job: Job) -> None:
    """Forget a job that is done."""
    _watched.discard(job)


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` here, also where a coroutine blocks its event loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    if not (_is_asyncios(handler) or _is_ours(handler)):
        yield
        return
    signal.signal(signal.SIGINT, _cancel_all)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def announce_cancel(job: Job) -> None:
    """Say on standard error, where there is one to write to, that Ctrl-C cancels `job`."""
    done = job.metrics.records_in
    with suppress(OSError, ValueError, AttributeError):
        print(f"\nCtrl-C: cancelling job {job.name!r} after {done:,} records", file=sys.stderr)  # noqa: T201


def _is_asyncios(handler: Any) -> TypeGuard[_Handler]:
    """Say whether `asyncio.run` has set `handler`; without asyncio nobody has."""
    runners: Any = sys.modules.get("asyncio.runners")
    set_by = getattr(getattr(handler, "func", None), "__self__", None)
    return runners is not None and isinstance(set_by, runners.Runner)


def _is_ours(handler: Any) -> bool:
    return isinstance(handler, partial) and handler.func is _cancel_all


def _cancel_all(
    signum: int,
    frame: FrameType | None,
    following: _Handler | None = None,
) -> None:
    for job in list(_watched):
        job.cancel()
        announce_cancel(job)
    if following is not None and _is_running(following):
        signal.signal(signal.SIGINT, following)
        following(signum, frame)
        return
    # The next Ctrl-C is Python's own, and after the end of the main program the system's: it ends
    # a process whose functions take their time.
    alive = threading.main_thread().is_alive()
    signal.signal(signal.SIGINT, signal.default_int_handler if alive else signal.SIG_DFL)
    # After the end of the main program there is nobody left whom an exception could reach.
    if alive:
        signal.default_int_handler(signum, frame)


def _is_running(handler: Any) -> bool:
    """Say whether the main coroutine that asyncio's handler would cancel is still there."""
    main_task = handler.keywords.get("main_task")
    return main_task is not None and not main_task.done()
