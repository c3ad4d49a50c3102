"""A message queue against a model: long random histories, single-threaded, exact.

The model is a list and a sum. Since the contract says how much room a message takes, each step
has one right outcome, and full, empty and shut-down queues are met often.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sage.common.errors import MessageTooLargeError, QueueClosedError
from sage.kernel.transport.queue_contract import HEADER_BYTES, BytesLike, MessageQueue, footprint

CAPACITIES = (1 << 12, 1 << 17)

# Small ones by the dozen, some around a page, some long enough to be copied outside a lock.
_LENGTHS = st.one_of(
    st.integers(0, 80),
    st.integers(0, 80),
    st.integers(900, 4096 - HEADER_BYTES + 1),
    st.integers(30_000, 70_000),
)
_MESSAGES = st.builds(lambda length, byte: bytes([byte]) * length, _LENGTHS, st.integers(0, 255))


class QueueModel(RuleBasedStateMachine):
    """One history of one queue; subclasses say which queue."""

    factory: Callable[[int], AbstractContextManager[MessageQueue]]

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.messages: list[bytes] = []
        self.is_shut = False

    @initialize(capacity=st.sampled_from(CAPACITIES))
    def make(self, capacity: int) -> None:
        """Start with an empty queue."""
        self.queue = self.resources.enter_context(type(self).factory(capacity))
        self.capacity = capacity

    def room_for(self, message: bytes) -> bool:
        """Return whether the model has room."""
        used = sum(footprint(len(held)) for held in self.messages)
        return used + footprint(len(message)) <= self.capacity

    def refusal_of(self, message: bytes) -> type[Exception] | None:
        """Return what a non-blocking put of it must raise."""
        if len(message) > self.capacity - HEADER_BYTES:
            return MessageTooLargeError
        if self.is_shut:
            return QueueClosedError
        return None if self.room_for(message) else queue.Full

    def put(self, message: bytes, call: Callable[[], object]) -> None:
        """Make a put and demand the model's outcome."""
        expected = self.refusal_of(message)
        assert outcome(call) == (None if expected is None else expected)
        if expected is None:
            self.messages.append(message)

    @rule(message=_MESSAGES)
    def put_one(self, message: bytes) -> None:
        """Put without waiting."""
        self.put(message, lambda: self.queue.put_nowait(message))

    @rule(message=_MESSAGES, cut=st.integers(0, 4096))
    def put_parts(self, message: bytes, cut: int) -> None:
        """Put in two parts."""
        parts: list[BytesLike] = [message[:cut], memoryview(message)[cut:]]
        self.put(message, lambda: self.queue.put_parts(parts, block=False))

    @rule(messages=st.lists(_MESSAGES.filter(lambda m: len(m) < 4000), min_size=1, max_size=30))
    def put_many(self, messages: list[bytes]) -> None:
        """Put a batch: the longest prefix that fits goes in."""
        first_refusal = self.refusal_of(messages[0])
        if first_refusal is not None:
            assert outcome(lambda: self.queue.put_many(messages, block=False)) == first_refusal
            return
        done = self.queue.put_many(messages, block=False)
        for message in messages[:done]:
            assert self.refusal_of(message) is None
            self.messages.append(message)
        assert done == len(messages) or self.refusal_of(messages[done]) is queue.Full

    @rule()
    def get_one(self) -> None:
        """Get without waiting."""
        if self.messages:
            assert self.queue.get_nowait() == self.messages.pop(0)
        else:
            assert outcome(self.queue.get_nowait) is self.emptiness

    @rule(most=st.integers(1, 200))
    def get_many(self, most: int) -> None:
        """Get a batch: all that is there, up to the limit."""
        if not self.messages:
            assert outcome(lambda: self.queue.get_many(most, block=False)) is self.emptiness
            return
        assert self.queue.get_many(most, block=False) == self.messages[:most]
        del self.messages[:most]

    @property
    def emptiness(self) -> type[Exception]:
        """What an empty queue answers."""
        return QueueClosedError if self.is_shut else queue.Empty

    @precondition(lambda self: len(self.messages) > 5)
    @rule()
    def shutdown(self) -> None:
        """End the queue; only once there is something left to drain, to get there at all."""
        self.queue.shutdown()
        self.is_shut = True

    @invariant()
    def sizes_agree(self) -> None:
        """Sizes are exact when nobody else is at it."""
        if not hasattr(self, "queue"):
            return
        assert self.queue.qsize() == len(self.messages)
        assert self.queue.empty() == (not self.messages)
        assert self.queue.full() == (not self.room_for(b""))

    def teardown(self) -> None:
        """Close the queue."""
        self.resources.close()


def outcome(call: Callable[[], object]) -> type[Exception] | None:
    """Return the type of what a call raises, of the errors queues raise, or `None`."""
    try:
        call()
    except (queue.Full, queue.Empty, QueueClosedError, MessageTooLargeError) as error:
        return type(error)
    return None


def run_model(
    factory: Callable[[int], AbstractContextManager[MessageQueue]], examples: int
) -> None:
    """Compare `examples` random histories of the factory's queues with the model.

    Args:
        factory: Makes an empty queue of a given capacity.
        examples: How many histories.

    Raises:
        AssertionError: They disagree; hypothesis reports the shortest history it found.
    """

    class Machine(QueueModel):
        """The model, bound to the factory."""

    Machine.factory = staticmethod(factory)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
