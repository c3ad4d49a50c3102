"""Queues in a directory of the test's own, and a look at what a test leaves behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest

from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE, queue_names
from sage.kernel.transport.sage_queue import SageQueue
from transport.queues import fresh_queue


@pytest.fixture(autouse=True)
def _queue_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    directory = tempfile.mkdtemp(dir="/dev/shm", prefix="sage-test-")
    monkeypatch.setenv(DIRECTORY_VARIABLE, directory)
    yield
    left = queue_names()
    shutil.rmtree(directory)
    assert left == [], "queues left behind"


@pytest.fixture(autouse=True)
def _nothing_left_behind(_queue_directory: None) -> Iterator[None]:
    files, threads = _open_files(), threading.active_count()
    yield
    assert _open_files() == files, "file descriptors left behind"
    assert threading.active_count() == threads, "threads left behind"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def queue() -> Iterator[SageQueue]:
    """A SageQueue of 65,536 bytes."""
    with fresh_queue() as made:
        yield made


@pytest.fixture
def make_queue() -> Callable[..., object]:
    """The factory of queues that are removed at the end of a `with`."""
    return fresh_queue
