"""`sage queue`, as somebody types it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE
from sage.kernel.transport.sage_queue import SageQueue, list_queues


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch, tmp_path):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))


def sage(*words):
    command = [sys.executable, "-m", "sage.cli", "queue", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_queues_are_listed_with_their_state():
    with SageQueue.create("busy") as queue:
        queue.put(b"one")
        SageQueue.create("left").close()
        code, out, _ = sage("ls")
    assert code == 0
    busy, left = out.splitlines()
    assert busy.startswith("busy  in use  1 messages")
    assert left.startswith("left  stale  0 messages")


def test_a_queue_can_be_looked_at():
    with SageQueue.create("busy") as queue:
        queue.put(b"one")
        code, out, _ = sage("stat", "busy")
    assert code == 0
    assert "messages  1" in out
    assert "in use" in out


def test_what_is_not_there_is_told():
    code, out, err = sage("stat", "nowhere")
    assert (code, out) == (1, "")
    assert "there is no queue 'nowhere'" in err


def test_a_queue_in_use_is_not_removed():
    with SageQueue.create("busy"):
        code, _, err = sage("rm", "busy")
        assert code == 1
        assert "busy" in err
        assert list_queues() == ["busy"]


def test_stale_queues_are_removed():
    with SageQueue.create("busy"):
        SageQueue.create("left").close()
        assert sage("rm", "--stale") == (0, "removed left\n", "")
        assert list_queues() == ["busy"]
    assert sage("rm", "busy") == (0, "removed busy\n", "")


def test_removing_nothing_in_particular_is_refused():
    code, _, err = sage("rm")
    assert code == 2
    assert "--stale" in err
