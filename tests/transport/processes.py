"""Children that tests fork, wait for and kill. A child runs one function and leaves."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

from patience import PATIENCE


class Child:
    """A forked process that calls `function(*arguments)`.

    Its exit status is 0 if that returns and 1 if it raises. As a context manager it is killed, if
    it still runs, and reaped at the end.
    """

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run_and_leave(function, arguments)
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self, patience: float = PATIENCE) -> int:
        """Return the exit status (negative: killed by that signal); a hang fails the test."""
        if self.status is None:
            assert self.has_ended(patience), f"process {self.pid} hangs"
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            os.close(self.pidfd)
        return self.status

    def has_ended(self, patience: float = 0.0) -> bool:
        """Return whether it has ended, giving it some time for that."""
        if self.status is not None:
            return True
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(patience * 1000))

    def wait_stopped(self) -> None:
        """Wait until it has stopped itself."""
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def send(self, signal_number: int) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self.pidfd, signal_number)

    def kill(self) -> None:
        """Kill and reap it."""
        if self.status is None:
            self.send(signal.SIGKILL)
            self.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _run_and_leave(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    # A child of a failing test must not outlive it, nor run the parent's clean-up.
    try:
        function(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return as soon as `condition()` holds; fail if it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        os.sched_yield()
