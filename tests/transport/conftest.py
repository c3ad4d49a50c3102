"""Queues in a directory of the test's own, and a look at what a test leaves behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

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
    files, threads, others = _open_files(), threading.active_count(), _children()
    yield
    assert _open_files() == files, "file descriptors left behind"
    assert threading.active_count() == threads, "threads left behind"
    assert _children() <= others, "processes left behind"


def _children() -> set[str]:
    """Return the processes that belong to this one; also those that have ended and not been awaited."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):  # a thread may end meanwhile
            found.update(Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


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
