"""Queues in a directory of the test's own, and a look at what a test leaves behind."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE, queue_names


@pytest.fixture(autouse=True)
def _queue_directory(monkeypatch):
    directory = tempfile.mkdtemp(dir="/dev/shm", prefix="sage-test-")
    monkeypatch.setenv(DIRECTORY_VARIABLE, directory)
    yield
    left = queue_names()
    shutil.rmtree(directory)
    assert left == [], "queues left behind"
