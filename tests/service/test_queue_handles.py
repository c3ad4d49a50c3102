"""The queues that a process has open: found by name, and let go when nobody uses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sage import LocalEnvironment
from sage.common.errors import QueueNotFoundError
from sage.kernel.runtime.service.channel.queue_handles import QueueHandles
from sage.kernel.transport.sage_queue import SageQueue, remove_queue

NAME = "test-queue-handles"


class Echo:
    """Says what it is told."""

    def say(self, word: str) -> str:
        """Return `word`."""
        return word


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a queue that exists."""
    SageQueue.create(NAME, 1 << 12).close()
    yield NAME
    remove_queue(NAME)


def test_a_queue_is_opened_once(name: str) -> None:
    """The second look gives the same handle."""
    handles = QueueHandles()
    first = handles[name]
    assert handles[name] is first
    handles.close()
    assert first.closed
    assert not handles


def test_what_is_used_stays_open(name: str) -> None:
    """A handle is closed when a whole turn has gone by without its use."""
    handles = QueueHandles()
    handles.touch(name)
    handle = handles[name]
    handles.close_idle()
    assert not handle.closed
    handles.touch(name)
    handles.close_idle()
    assert not handle.closed
    handles.close_idle()
    assert handle.closed
    assert not handles[name].closed  # opened anew
    handles.close()


def test_what_nobody_reads_is_closed(name: str) -> None:
    """Its memory would stay taken as long as it is open."""
    readers = {name}
    handles = QueueHandles(readers.__contains__)
    handles.touch(name)
    handle = handles[name]
    readers.clear()
    handles.close_idle()
    assert handle.closed
    handles.drop(name)  # it is not open: nothing to do


def test_a_queue_that_is_not_there_is_an_error() -> None:
    """The error is that of opening it."""
    with pytest.raises(QueueNotFoundError):
        QueueHandles()["test-no-such-queue"]


def test_calls_go_on_when_their_queue_was_let_go() -> None:
    """The queue to the service is opened again."""
    with LocalEnvironment("idle") as env:
        env.register_service("echo", Echo).options(isolation="process")
        say = env.service_manager.get_sync_proxy("echo").say
        assert say("once") == "once"
        env.services.close_idle()
        env.services.close_idle()
        assert say("twice") == "twice"


def test_a_queue_that_is_let_go_in_the_midst_of_a_call_is_opened_again() -> None:
    """Whoever has looked a handle up may find it closed."""
    with LocalEnvironment("idle") as env:
        env.register_service("echo", Echo).options(isolation="process")
        say = env.service_manager.get_sync_proxy("echo").say
        assert say("once") == "once"
        path = env.services.path_if_running("echo")
        assert path is not None
        requests = path.channel.request_queue()
        assert isinstance(requests, SageQueue)
        requests.close()
        assert say("twice") == "twice"
