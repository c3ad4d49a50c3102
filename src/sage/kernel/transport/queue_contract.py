"""What a message queue promises, whatever carries it.

The vocabulary is `queue.Queue`'s. What differs: a message is **bytes**, capacity is counted in
**bytes**, and a queue can be shut down. Objects do not enter here: `object_codec` pickles them
into parts for `put_parts`, so large buffers go into the queue without being joined or copied
first.

The laws, which `sage.testing.queue_conformance.check_queue` tests:

* A message comes out as it went in, once, in the order in which the puts took place.
* A message occupies `footprint(len(message))` bytes. A put succeeds as soon as that is free; a
  get, as soon as there is a message.
* A full queue blocks; it never drops. A message that could never fit is refused at once.
* `shutdown` ends the queue for everybody: puts raise `QueueClosedError` at once, gets deliver what
  is left and then raise it. `close` ends only this handle: its users get
  `QueueHandleClosedError`, blocked ones included; nobody else notices.
* `timeout` is in seconds from the call, `None` is for ever, and matters only if `block`.
* All methods may be called from any thread. Ctrl-C interrupts a wait.

Not promised: fairness between waiters; that the messages of one `put_many` stay together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pickle import PickleBuffer
from types import TracebackType
from typing import Self

BytesLike = bytes | bytearray | memoryview | PickleBuffer
"""What can be put: any C-contiguous buffer; wrap other exporters in a `memoryview`."""

HEADER_BYTES = 16
DEFAULT_CAPACITY = 1 << 20
SMALLEST_CAPACITY = 1 << 12


def footprint(length: int) -> int:
    """Return how many bytes of capacity a message of `length` bytes takes up.

    Examples:
        >>> footprint(0), footprint(1), footprint(64)
        (16, 32, 80)
    """
    return (HEADER_BYTES + length + 15) & ~15


def round_capacity(capacity: int) -> int:
    """Return the capacity a queue gets when `capacity` bytes are asked for: a power of two.

    Args:
        capacity: Bytes wanted, at least 1.

    Raises:
        ValueError: `capacity` is not positive.

    Examples:
        >>> round_capacity(5000), round_capacity(1)
        (8192, 4096)
    """
    if capacity < 1:
        raise ValueError(f"a queue's capacity must be positive, not {capacity} bytes")
    return max(SMALLEST_CAPACITY, 1 << (capacity - 1).bit_length())


class MessageQueue(ABC):
    """A bounded first-in first-out queue of byte strings, for many producers and consumers.

    Examples:
        >>> from sage.kernel.transport.create_queue import create_queue
        >>> with create_queue("numbers", kind="in_process") as queue:
        ...     queue.put(b"one")
        ...     queue.get()
        b'one'
    """

    __slots__ = ()

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Bytes the queue holds; `footprint` says what a message takes of them."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether `close` has been called on this handle."""

    @abstractmethod
    def put(self, message: BytesLike, /, block: bool = True, timeout: float | None = None) -> None:
        """Put one message, waiting for room.

        When it returns, the message is in the queue, whatever happens to this process next.

        Args:
            message: The bytes.
            block: Whether to wait for room.
            timeout: Seconds to wait at most; `None` for ever.

        Raises:
            queue.Full: There was no room in time.
            MessageTooLargeError: There never will be.
            QueueClosedError: The queue has been shut down.
            QueueHandleClosedError: This handle has been closed.
        """

    @abstractmethod
    def put_nowait(self, message: BytesLike, /) -> None:
        """`put` without waiting: raises `queue.Full` when there is no room now."""

    @abstractmethod
    def put_parts(
        self, parts: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> None:
        """Put *one* message: the concatenation of `parts`, without joining them first.

        Args:
            parts: The pieces, in order. Each is copied once, into the queue.
            block: As for `put`.
            timeout: As for `put`.

        Raises:
            Exception: As `put`.
        """

    @abstractmethod
    def put_many(
        self, messages: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> int:
        """Put messages in order, as many as time allows; much cheaper than one by one.

        Args:
            messages: The messages.
            block: As for `put`.
            timeout: For all of them together.

        Returns:
            How many were put: all, unless time ran out or the queue was shut down meanwhile.

        Raises:
            queue.Full: Not even the first found room in time.
            QueueClosedError: The queue was shut down before the first.
            MessageTooLargeError: One can never fit. Messages before it may have been put, as
                also when a signal handler raises: an exception does not say how many.
        """

    @abstractmethod
    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """Remove and return the next message, waiting for one.

        Args:
            block: Whether to wait.
            timeout: Seconds to wait at most; `None` for ever.

        Returns:
            The message.

        Raises:
            queue.Empty: None came in time.
            QueueClosedError: The queue has been shut down and is empty.
            QueueHandleClosedError: This handle has been closed.
        """

    @abstractmethod
    def get_nowait(self) -> bytes:
        """`get` without waiting: raises `queue.Empty` when there is no message now."""

    @abstractmethod
    def get_many(
        self, most: int, /, block: bool = True, timeout: float | None = None
    ) -> list[bytes]:
        """Wait for one message, then take what is there, up to `most`.

        Args:
            most: Messages to return at most, at least 1.
            block: As for `get`.
            timeout: As for `get`; it is for the first message only.

        Returns:
            One message or more, in order.

        Raises:
            Exception: As `get`.
        """

    @abstractmethod
    def qsize(self) -> int:
        """Return how many messages were in the queue a moment ago. May count one by one."""

    @abstractmethod
    def empty(self) -> bool:
        """Return whether the queue held no message a moment ago."""

    @abstractmethod
    def full(self) -> bool:
        """Return whether the queue had no room even for `b""` a moment ago."""

    @abstractmethod
    def shutdown(self) -> None:
        """End the queue for everybody: no more puts; gets, until it is empty. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Give up this handle; threads blocked in it leave with an error. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
