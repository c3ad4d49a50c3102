"""What a test leaves behind fails it: threads of jobs, threads that keep the process alive, files."""

import os
import signal
import threading
import time

import pytest

PATIENCE = 10.0


def pytest_configure():
    """Let SIGINT be Ctrl-C, also where the tests were started in the background, ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_thread_or_file_is_left():
    """Threads get a moment to return: a job is done shortly before its thread has ended."""
    threads, files = set(threading.enumerate()), _open_files()
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in _unwanted(threads):
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in _unwanted(threads)]
    assert not left, f"threads left behind: {left}"
    opened = _open_files() - files
    assert not opened, f"files left open: {sorted(opened)}"


def _unwanted(before):
    fresh = set(threading.enumerate()) - before
    return [t for t in fresh if not t.daemon or t.name.startswith("sage-")]


def _open_files():
    """Return what the file descriptors of this process refer to; the listing itself has one too."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            if not target.startswith("/proc/"):  # another thread looks whether a process lives
                found.add((int(number), target))
        except FileNotFoundError:
            continue
    return found
