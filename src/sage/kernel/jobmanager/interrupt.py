"""Ctrl-C for jobs in the background.

A submitted job keeps the process alive after the main program has ended. Python's own handler would
then only interrupt the shutdown of the interpreter and leave the job running. While such jobs exist,
this module's handler cancels them first.

The handler of a signal belongs to the process, so this is one of the few places with state of its
own.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from sage.kernel.jobmanager.job import Job

_watched: set[Job] = set()


def watch(job: Job) -> None:
    """Let Ctrl-C cancel `job`. Only the main thread may set handlers; elsewhere this does nothing.

    A program that has set a handler of its own keeps it.
    """
    _watched.add(job)
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _cancel_all)


def unwatch(job: Job) -> None:
    """Forget a job that is done."""
    _watched.discard(job)


def announce_cancel(job: Job) -> None:
    """Say on standard error, where there is one to write to, that Ctrl-C cancels `job`."""
    read = job.metrics.records_in
    with suppress(OSError, ValueError, AttributeError):
        print(f"\nCtrl-C: cancelling job {job.name!r} after {read:,} records", file=sys.stderr)  # noqa: T201


def _cancel_all(signum: int, frame: FrameType | None) -> None:
    for job in list(_watched):
        job.cancel()
        announce_cancel(job)
    # The next Ctrl-C is Python's own, and after the end of the main program the system's: it ends
    # a process whose functions take their time.
    alive = threading.main_thread().is_alive()
    signal.signal(signal.SIGINT, signal.default_int_handler if alive else signal.SIG_DFL)
    # After the end of the main program there is nobody left whom an exception could reach.
    if alive:
        signal.default_int_handler(signum, frame)
