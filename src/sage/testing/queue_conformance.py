"""What every `MessageQueue` must do: run `check_queue` on a factory of yours.

The checks here use a fresh queue each, and threads where blocking is the point; nothing sleeps,
every wait has a deadline. `queue_model` adds a state machine that compares long random histories
with a model; it needs hypothesis, which is imported only when `check_queue` is called.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from sage.common.errors import MessageTooLargeError, QueueClosedError, QueueHandleClosedError
from sage.kernel.transport.queue_contract import HEADER_BYTES, footprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sage.kernel.transport.queue_contract import BytesLike, MessageQueue

QueueFactory = Callable[[int], AbstractContextManager["MessageQueue"]]
"""Given a capacity in bytes (a power of two), makes a new, empty queue. A queue is its own context
manager; a factory whose queues leave something behind returns one that tidies up."""

PATIENCE = 60.0
"""Seconds after which a wait that should have ended counts as a hang."""

_CAPACITY = 1 << 16


def check_queue(factory: QueueFactory, *, examples: int = 60) -> None:
    """Check that the queues a factory makes keep the contract of `MessageQueue`.

    Args:
        factory: Makes a queue of a given capacity.
        examples: How many random histories to compare with the model.

    Raises:
        AssertionError: A law is broken; the message and traceback say which.
        ImportError: hypothesis is not installed.

    Examples:
        >>> from sage.kernel.transport.in_process import InProcessQueue
        >>> check_queue(InProcessQueue, examples=5)
    """
    from sage.testing.queue_model import run_model  # noqa: PLC0415 — needs hypothesis

    for check in CHECKS:
        with factory(_CAPACITY) as fresh:
            assert fresh.capacity == _CAPACITY, "a power of two is kept as capacity"
            check(fresh)
    run_model(factory, examples)


def check_bytes_come_back_unchanged(queue: MessageQueue) -> None:
    """Any buffer goes in; equal bytes come out, also the empty ones."""
    sent: list[BytesLike] = [
        b"",
        b"a",
        bytearray(b"bb"),
        memoryview(b"xccc")[1:],
        bytes(range(256)) * 8,
    ]
    for message in sent:
        queue.put(message)
    for message in sent:
        got = queue.get()
        assert type(got) is bytes
        assert got == bytes(message)
    for wrong in ("text", 3, None):
        _expect(TypeError, lambda wrong=wrong: queue.put(wrong))  # type: ignore[misc]


def check_parts_become_one_message(queue: MessageQueue) -> None:
    """`put_parts` joins; no parts make an empty message."""
    queue.put_parts([b"head", bytearray(b"er"), memoryview(b""), b"body" * 100])
    queue.put_parts([])
    queue.put_parts(part for part in (b"from ", b"a generator"))
    assert queue.get() == b"header" + b"body" * 100
    assert queue.get() == b""
    assert queue.get() == b"from a generator"


def check_batches(queue: MessageQueue) -> None:
    """Batches keep order, report what was put, and take only what is there."""
    messages = [b"%d" % i for i in range(1000)]
    assert queue.put_many(messages) == 1000
    assert queue.put_many([]) == 0
    assert queue.qsize() == 1000
    assert queue.get_many(1) == messages[:1]
    assert queue.get_many(10_000) == messages[1:]
    _expect(ValueError, lambda: queue.get_many(0))


def check_full_and_empty(queue: MessageQueue) -> None:
    """A put succeeds exactly while its footprint is free."""
    assert queue.empty()
    assert not queue.full()
    each = footprint(100)
    fitting = _CAPACITY // each
    assert queue.put_many([b"x" * 100] * (fitting + 5), block=False) == fitting
    _expect(_FULL, lambda: queue.put_nowait(b"x" * 100))
    _expect(_FULL, lambda: queue.put(b"x" * 100, timeout=0.0))
    _expect(_FULL, lambda: queue.put_many([b"x" * 100], timeout=0.001))
    assert queue.full() == (_CAPACITY - fitting * each < HEADER_BYTES)
    queue.get()
    queue.put(b"x" * 100, timeout=PATIENCE)
    assert len(queue.get_many(fitting * 2)) == fitting
    _expect(_EMPTY, queue.get_nowait)
    _expect(_EMPTY, lambda: queue.get(timeout=0.0))
    _expect(_EMPTY, lambda: queue.get_many(3, timeout=0.001))
    _expect(ValueError, lambda: queue.get(timeout=-1.0))
    _expect(ValueError, lambda: queue.put(b"", timeout=-1.0))


def check_too_large(queue: MessageQueue) -> None:
    """The largest message fits the empty queue; one byte more is refused at once."""
    largest = b"y" * (_CAPACITY - HEADER_BYTES)
    queue.put(largest)
    assert queue.full()
    _expect(MessageTooLargeError, lambda: queue.put(largest + b"!"))
    _expect(MessageTooLargeError, lambda: queue.put_parts([largest, b"!"]))
    _expect(MessageTooLargeError, lambda: queue.put_many([largest + b"!"]))
    assert queue.get() == largest


def check_many_threads(queue: MessageQueue) -> None:
    """Everything arrives once, and each producer's messages in its order."""
    producers, most, enough = 3, 2000, 200
    late = time.monotonic() + 1.0  # a slow queue need not take as many as a quick one

    def produce(who: int) -> int:
        for i in range(0, most, 2):
            if i >= enough and time.monotonic() > late:
                return i
            queue.put(b"%d %d" % (who, i), timeout=PATIENCE)
            queue.put_many([b"%d %d" % (who, i + 1)], timeout=PATIENCE)
        return most

    def consume() -> list[bytes]:
        got: list[bytes] = []
        while True:
            try:
                got += queue.get_many(7, timeout=PATIENCE)
            except QueueClosedError:
                return got

    with ThreadPoolExecutor(producers + 2) as pool:
        consumers = [pool.submit(consume) for _ in range(2)]
        producing = [pool.submit(produce, who) for who in range(producers)]
        counts = [future.result(PATIENCE) for future in producing]
        queue.shutdown()
        outputs = [future.result(PATIENCE) for future in consumers]
    assert sorted(outputs[0] + outputs[1]) == sorted(
        b"%d %d" % (who, i) for who in range(producers) for i in range(counts[who])
    )
    for output in outputs:
        for who in range(producers):
            mine = [int(m.split()[1]) for m in output if m.startswith(b"%d " % who)]
            assert mine == sorted(mine), "one producer's messages keep their order"


def check_blocked_put_and_get(queue: MessageQueue) -> None:
    """A get waits for a put, and a put for room."""
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(queue.get, timeout=PATIENCE)
        queue.put(b"at last")
        assert getting.result(PATIENCE) == b"at last"
        half = b"h" * (_CAPACITY // 2 - HEADER_BYTES)
        assert queue.put_many([half, half]) == 2
        putting = pool.submit(queue.put, b"squeezed in", timeout=PATIENCE)
        assert queue.get() == half
        putting.result(PATIENCE)
    assert queue.get_many(9) == [half, b"squeezed in"]


def check_shutdown(queue: MessageQueue) -> None:
    """After shutdown nothing goes in, and what is in comes out before the end is told."""
    queue.put(b"left over")
    queue.shutdown()
    queue.shutdown()
    _expect(QueueClosedError, lambda: queue.put(b"late"))
    _expect(QueueClosedError, lambda: queue.put_nowait(b"late"))
    _expect(QueueClosedError, lambda: queue.put_many([b"late"]))
    assert queue.get(timeout=0.0) == b"left over"
    _expect(QueueClosedError, queue.get)
    _expect(QueueClosedError, queue.get_nowait)
    _expect(QueueClosedError, lambda: queue.get_many(3))


def check_shutdown_wakes_getters(queue: MessageQueue) -> None:
    """Blocked gets end with shutdown."""
    with ThreadPoolExecutor(2) as pool:
        getting = [pool.submit(queue.get, timeout=PATIENCE) for _ in range(2)]
        queue.shutdown()
        for future in getting:
            assert isinstance(future.exception(PATIENCE), QueueClosedError)


def check_shutdown_wakes_putters(queue: MessageQueue) -> None:
    """Blocked puts end with shutdown."""
    queue.put(b"x" * (_CAPACITY - HEADER_BYTES))
    with ThreadPoolExecutor(2) as pool:
        putting = [pool.submit(queue.put, b"y", timeout=PATIENCE) for _ in range(2)]
        queue.shutdown()
        for future in putting:
            assert isinstance(future.exception(PATIENCE), QueueClosedError)


def _assert_closed(queue: MessageQueue) -> None:
    assert queue.closed


def check_close(queue: MessageQueue) -> None:
    """A closed handle refuses everything; threads blocked in it leave."""
    assert not queue.closed
    with ThreadPoolExecutor(2) as pool:
        getting = [pool.submit(queue.get, timeout=PATIENCE) for _ in range(2)]
        queue.close()
        for future in getting:
            assert isinstance(future.exception(PATIENCE), QueueHandleClosedError)
    queue.close()
    _assert_closed(queue)
    for call in (queue.get, queue.qsize, queue.empty, queue.full, queue.shutdown):
        _expect(QueueHandleClosedError, call)
    _expect(QueueHandleClosedError, lambda: queue.put(b""))
    _expect(QueueHandleClosedError, lambda: queue.put_many([b""]))
    _expect(QueueHandleClosedError, lambda: queue.get_many(1))
    with _raises(QueueHandleClosedError), queue:
        queue.put_parts([b""])


CHECKS: tuple[Callable[[MessageQueue], None], ...] = (
    check_bytes_come_back_unchanged,
    check_parts_become_one_message,
    check_batches,
    check_full_and_empty,
    check_too_large,
    check_many_threads,
    check_blocked_put_and_get,
    check_shutdown,
    check_shutdown_wakes_getters,
    check_shutdown_wakes_putters,
    check_close,
)
"""The checks, each to be called with a fresh queue of 65,536 bytes."""

_FULL = queue.Full
_EMPTY = queue.Empty


@contextmanager
def _raises(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def _expect(kind: type[Exception], call: Callable[[], object]) -> None:
    with _raises(kind):
        call()
