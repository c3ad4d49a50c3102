"""Every kind of queue keeps the contract."""

from __future__ import annotations

import pickle

import pytest

from sage.kernel.transport.create_queue import create_queue
from sage.kernel.transport.in_process import InProcessQueue
from sage.kernel.transport.object_codec import decode, encode
from sage.kernel.transport.queue_contract import MessageQueue, round_capacity
from sage.kernel.transport.sage_queue import SageQueue, remove_queue
from sage.testing.queue_conformance import CHECKS, QueueFactory, check_queue
from sage.testing.queue_model import run_model
from transport.queues import fresh_queue

FACTORIES: dict[str, QueueFactory] = {"in_process": InProcessQueue, "sage_queue": fresh_queue}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check(check, factory):
    """Each check holds for each kind."""
    with factory(1 << 16) as queue:
        check(queue)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_model(factory):
    """Each kind agrees with the model over random histories."""
    run_model(factory, examples=150)


def test_check_queue_finds_a_broken_queue():
    """The suite is not satisfied by anything: a queue that reorders fails it."""

    class LastInFirstOut(InProcessQueue):
        def _take_locked(self, most):
            self._messages.reverse()
            return super()._take_locked(most)

    with pytest.raises(AssertionError):
        check_queue(LastInFirstOut, examples=5)


def test_create_queue_by_kind():
    """`create_queue` makes what is asked for, and says what kinds there are."""
    assert isinstance(create_queue("a", kind="in_process"), InProcessQueue)
    with create_queue("a", kind="sage_queue", capacity=5000) as made:
        assert isinstance(made, SageQueue)
        assert made.capacity == 8192
    remove_queue("a")
    with pytest.raises(ValueError, match="in_process"):
        create_queue("a", kind="carrier pigeon")  # type: ignore[arg-type]


def test_in_process_queue_does_not_travel():
    """Pickling one would silently make two."""
    with pytest.raises(TypeError, match="SageQueue"):
        pickle.dumps(InProcessQueue())


def test_capacity_must_be_positive():
    """Nothing fits in nothing."""
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            round_capacity(capacity)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_objects_travel_with_buffers_apart(factory: QueueFactory):
    """Large buffers are put uncopied and come back as views into the message."""
    payload = bytearray(b"p" * 20_000)
    value = {"a": [1, None], "b": pickle.PickleBuffer(payload), "c": pickle.PickleBuffer(b"q")}
    parts = encode(value)
    assert any(isinstance(part, memoryview) and part.obj is payload for part in parts)
    queue: MessageQueue
    with factory(1 << 16) as queue:
        queue.put_parts(parts)
        back = decode(queue.get())
    assert isinstance(back, dict)
    assert (back["a"], bytes(back["b"]), bytes(back["c"])) == ([1, None], bytes(payload), b"q")
