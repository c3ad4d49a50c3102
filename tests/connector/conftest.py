"""Every connector lets go of its threads and files: what is left behind fails the test."""

import os
import threading

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    threads, files = set(threading.enumerate()), _open_files()
    yield
    left = [t.name for t in set(threading.enumerate()) - threads]
    assert not left, f"threads left behind: {left}"
    assert _open_files() == files, "file descriptors left behind"


def _open_files():
    return len(os.listdir("/proc/self/fd"))
