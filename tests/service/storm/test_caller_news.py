"""What callers learn of the death of a process: all of it, in order, however late they look."""

from __future__ import annotations

import os
import queue
import time
from contextlib import contextmanager, suppress

from sage.kernel.runtime.service.call.caller_news import CallerNews
from sage.kernel.runtime.service.channel.service_address import lane_name
from sage.kernel.runtime.service.channel.service_message import Kind, read_header
from sage.kernel.transport.queue_files import queue_names
from sage.kernel.transport.sage_queue import SageQueue, remove_queue
from transport.processes import Child, eventually

TOKEN = "sage-test"
PLACE = (3, 1)


@contextmanager
def lane_of(number=1, capacity=1 << 16):
    """A lane of this process."""
    name = lane_name(TOKEN, number)
    with SageQueue.create(name, capacity) as lane:
        yield lane
    remove_queue(name)


def heard(lane):
    """Return what has come: kind, service, replica."""
    found = []
    while not lane.empty():
        header = read_header(lane.get_nowait())
        found.append((Kind(header.kind).name, header.service, header.replica))
    return found


def look_later(news):
    """Let the next look come."""
    time.sleep(news.wait_seconds())
    news.look_again()


def fill(lane):
    """Leave no room."""
    for length in (lane.capacity // 4, 1):
        with suppress(queue.Full):
            while True:
                lane.put_nowait(b"x" * length)


def test_each_change_is_told_once():
    news = CallerNews(TOKEN)
    with lane_of() as lane:
        news.tell(PLACE, up=True)
        assert heard(lane) == []
        for _ in range(2):
            news.tell(PLACE, up=False)
        news.tell(PLACE, up=True)
        news.look_again()
        assert heard(lane) == [("DOWN", 3, 1), ("UP", 3, 1)]
        assert news.wait_seconds() is None


def test_a_caller_that_comes_while_a_replica_is_down_is_told():
    news = CallerNews(TOKEN)
    news.tell(PLACE, up=False)
    with lane_of() as lane:
        look_later(news)
        assert heard(lane) == [("DOWN", 3, 1)]
        look_later(news)
        assert heard(lane) == []
        news.tell(PLACE, up=True)
        assert heard(lane) == [("UP", 3, 1)]


def test_a_caller_whose_lane_is_full_is_told_when_there_is_room():
    news = CallerNews(TOKEN)
    with lane_of() as lane, lane_of(2) as other:
        fill(lane)
        began = time.monotonic()
        news.tell(PLACE, up=False)
        news.tell(PLACE, up=True)
        assert time.monotonic() - began < 5, "nobody waits for a full lane"
        assert heard(other) == [("DOWN", 3, 1), ("UP", 3, 1)]
        while not lane.empty():
            lane.get_nowait()
        look_later(news)
        # The death is told although it is over: it fails the calls that were under way.
        assert heard(lane) == [("DOWN", 3, 1), ("UP", 3, 1)]
        assert news.wait_seconds() is None


def test_the_lanes_of_a_dead_caller_are_removed_once_no_service_has_them_open():
    news = CallerNews(TOKEN)

    def call():
        SageQueue.create(lane_name(TOKEN, 1), 1 << 12)

    child = Child(call)
    assert child.wait() == 0
    name = lane_name(TOKEN, 1).replace(str(os.getpid()), str(child.pid))
    with SageQueue.open(name):
        news.caller_died(child.pid)
        assert queue_names() == [name]
    eventually(lambda: news.look_again() or queue_names() == [])
    assert news.wait_seconds() is None
