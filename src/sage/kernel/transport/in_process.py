"""The message queue within one process: a deque, a lock and two conditions.

Threads share the one object, which is therefore the one handle: closing it closes it for all.
Between processes, use `sage_queue`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition, Lock
from time import monotonic
from typing import NoReturn

from sage.common.errors import MessageTooLargeError, QueueClosedError, QueueHandleClosedError
from sage.kernel.transport.queue_contract import (
    DEFAULT_CAPACITY,
    HEADER_BYTES,
    BytesLike,
    MessageQueue,
    footprint,
    round_capacity,
)


def _deadline(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0.0
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return monotonic() + timeout


class InProcessQueue(MessageQueue):
    """A `MessageQueue` for the threads of one process.

    Args:
        capacity: Bytes to hold, rounded up as for every queue.

    Examples:
        >>> queue = InProcessQueue()
        >>> queue.put_many([b"a", b"b"])
        2
        >>> queue.get_many(10)
        [b'a', b'b']
    """

    __slots__ = ("_capacity", "_closed", "_data", "_lock", "_messages", "_room", "_shut", "_used")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = round_capacity(capacity)
        self._messages: deque[bytes] = deque()
        self._used = 0
        self._shut = False
        self._closed = False
        self._lock = Lock()
        self._data = Condition(self._lock)
        self._room = Condition(self._lock)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an InProcessQueue cannot leave its process; use a SageQueue")

    @property
    def capacity(self) -> int:
        """See `MessageQueue.capacity`."""
        return self._capacity

    @property
    def closed(self) -> bool:
        """See `MessageQueue.closed`."""
        return self._closed

    def put(self, message: BytesLike, /, block: bool = True, timeout: float | None = None) -> None:
        """See `MessageQueue.put`."""
        deadline = _deadline(block, timeout)
        frozen = self._freeze(message)
        with self._lock:
            self._put_locked(frozen, deadline)

    def put_nowait(self, message: BytesLike, /) -> None:
        """See `MessageQueue.put_nowait`."""
        self.put(message, block=False)

    def put_parts(
        self, parts: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> None:
        """See `MessageQueue.put_parts`."""
        self.put(b"".join(parts), block, timeout)

    def put_many(
        self, messages: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> int:
        """See `MessageQueue.put_many`."""
        deadline = _deadline(block, timeout)
        frozen = [self._freeze(message) for message in messages]
        with self._lock:
            self._check_handle()
            for done, message in enumerate(frozen):
                try:
                    self._put_locked(message, deadline)
                except (queue.Full, QueueClosedError):
                    if done:
                        return done
                    raise
        return len(frozen)

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """See `MessageQueue.get`."""
        return self.get_many(1, block, timeout)[0]

    def get_nowait(self) -> bytes:
        """See `MessageQueue.get_nowait`."""
        return self.get(block=False)

    def get_many(
        self, most: int, /, block: bool = True, timeout: float | None = None
    ) -> list[bytes]:
        """See `MessageQueue.get_many`."""
        if most < 1:
            raise ValueError("the number of messages to get must be at least 1")
        deadline = _deadline(block, timeout)
        with self._lock:
            while not self._has_message():
                self._wait(self._data, deadline, queue.Empty)
            return self._take_locked(most)

    def qsize(self) -> int:
        """See `MessageQueue.qsize`."""
        with self._lock:
            self._check_handle()
            return len(self._messages)

    def empty(self) -> bool:
        """See `MessageQueue.empty`."""
        return self.qsize() == 0

    def full(self) -> bool:
        """See `MessageQueue.full`."""
        with self._lock:
            self._check_handle()
            return self._used + footprint(0) > self._capacity

    def shutdown(self) -> None:
        """See `MessageQueue.shutdown`."""
        with self._lock:
            self._check_handle()
            self._shut = True
            self._wake_everybody()

    def close(self) -> None:
        """See `MessageQueue.close`."""
        with self._lock:
            self._closed = True
            self._messages.clear()
            self._wake_everybody()

    def _freeze(self, message: BytesLike) -> bytes:
        # bytes(memoryview(…)) refuses what is no buffer, where bytes(3) would make three zeroes.
        frozen = message if type(message) is bytes else bytes(memoryview(message))
        most = self._capacity - HEADER_BYTES
        if len(frozen) > most:
            raise MessageTooLargeError(
                f"a message of {len(frozen)} bytes does not fit this queue: {most} at most"
            )
        return frozen

    def _put_locked(self, message: bytes, deadline: float | None) -> None:
        need = footprint(len(message))
        while not self._has_room(need):
            self._wait(self._room, deadline, queue.Full)
        self._messages.append(message)
        self._used += need
        self._data.notify()

    def _take_locked(self, most: int) -> list[bytes]:
        count = min(most, len(self._messages))
        taken = [self._messages.popleft() for _ in range(count)]
        self._used -= sum(footprint(len(message)) for message in taken)
        # All: the one that notify() picked might need more room than there is, another not.
        self._room.notify_all()
        if self._messages:
            self._data.notify()
        return taken

    def _has_room(self, need: int) -> bool:
        self._check_handle()
        if self._shut:
            raise QueueClosedError("the queue has been shut down")
        return self._used + need <= self._capacity

    def _has_message(self) -> bool:
        self._check_handle()
        if self._shut and not self._messages:
            raise QueueClosedError("the queue has been shut down")
        return bool(self._messages)

    def _check_handle(self) -> None:
        if self._closed:
            raise QueueHandleClosedError("this handle of the queue has been closed")

    def _wait(
        self, condition: Condition, deadline: float | None, give_up: Callable[[], Exception]
    ) -> None:
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            raise give_up()
        try:
            condition.wait(left)
        except BaseException:
            condition.notify()  # a wake-up meant for us must not be lost with us
            raise

    def _wake_everybody(self) -> None:
        self._data.notify_all()
        self._room.notify_all()
