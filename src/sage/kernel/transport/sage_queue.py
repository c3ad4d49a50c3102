"""SageQueue: the message queue between the processes of one machine.

The ring in shared memory is `_sagequeue` (C; the protocol is explained in `_ring.h`), its file is
`queue_files`' business; here the two become a `MessageQueue` with a name, and the functions with
which one lists, inspects and removes queues.

What a peer's death can do: nothing, at whatever instruction it is killed. Messages whose put had
returned are delivered; the one it was putting appears whole or not at all; what it had taken is
gone with it; nobody waits for it.

After `os.fork` the child may go on using the handles it inherits. A queue must not be used across
pid namespaces, and is refused there.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sage.common.errors import (
    QueueExistsError,
    QueueIncompatibleError,
    QueueInUseError,
    QueueNotFoundError,
    QueueUnsupportedError,
)
from sage.kernel.transport import queue_files
from sage.kernel.transport.queue_contract import DEFAULT_CAPACITY, MessageQueue, round_capacity

if TYPE_CHECKING:
    from sage.kernel.transport._sagequeue import Ring, Statistics, initialise
else:
    try:
        from sage.kernel.transport._sagequeue import Ring, initialise
    except ImportError as error:
        # Importing must work everywhere; only opening a queue needs what is missing.
        _why_missing = str(error)

        class Ring:
            """Stands where the compiled ring could not be built."""

            __slots__ = ()

        def initialise(fd: int, capacity: int, identity: int) -> None:
            """Say what is missing."""
            raise QueueUnsupportedError(
                "SageQueue needs its compiled part, which needs Linux futexes and robust "
                f"process-shared mutexes; it could not be loaded: {_why_missing}. Within one "
                "process, create_queue(kind='in_process') does without."
            )


class SageQueue(Ring, MessageQueue):
    """A `MessageQueue` in shared memory, found by its name.

    Made by `create`, `open` or `open_or_create`. It can be pickled, and opens again where it is
    unpickled. Its file stays until `remove_queue`, so a queue outlives those who use it.

    Examples:
        >>> with SageQueue.create("docs-example", capacity=1 << 16) as queue:
        ...     queue.put(b"hello")
        ...     with SageQueue.open("docs-example") as other:
        ...         other.get(timeout=1.0)
        b'hello'
        >>> remove_queue("docs-example")
    """

    __slots__ = ("__weakref__", "_name")
    _name: str

    @classmethod
    def create(cls, name: str, capacity: int = DEFAULT_CAPACITY) -> Self:
        """Make a new queue.

        Args:
            name: Its name, see `queue_files.check_name`.
            capacity: Bytes to hold, rounded up to a power of two and claimed at once.

        Returns:
            An open handle.

        Raises:
            QueueExistsError: The name is taken.
            QueueNameError: It is not a name.
            QueueUnsupportedError: This platform cannot have such queues.
            OSError: There is no space (ENOSPC), among others.
        """
        queue_files.check_name(name)
        size = round_capacity(capacity)
        fd = _open_nameless()
        try:
            initialise(fd, size, secrets.randbits(63))
            queue_files.publish(fd, name)
            return cls._attached(name, fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open(cls, name: str) -> Self:
        """Open an existing queue.

        Args:
            name: Its name.

        Returns:
            A handle of one's own.

        Raises:
            QueueNotFoundError: There is none of that name.
            QueueIncompatibleError: Another version, machine or container made it.
            QueueUnsafeError: It is another user's.
            QueueUnsupportedError: This platform cannot have such queues.
        """
        fd = _open_shared(name)
        try:
            return cls._attached(name, fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open_or_create(cls, name: str, capacity: int = DEFAULT_CAPACITY) -> Self:
        """Open the queue of that name, or make it: for peers that start in any order.

        Args:
            name: Its name.
            capacity: As for `create`; an existing queue keeps the one it has.

        Returns:
            A handle.

        Raises:
            Exception: As `open` and `create`, except that a missing or existing queue is fine.
        """
        while True:
            try:
                return cls.open(name)
            except QueueNotFoundError:
                pass
            try:
                return cls.create(name, capacity)
            except QueueExistsError:
                pass  # someone was quicker: open theirs

    @classmethod
    def _attached(cls, name: str, fd: int) -> Self:
        try:
            self = cls.__new__(cls, fd)
        except QueueIncompatibleError as error:
            raise QueueIncompatibleError(f"queue {name!r} is refused: {error}") from None
        self._name = name
        return self

    @property
    def name(self) -> str:
        """The name under which other processes open the queue."""
        return self._name

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return _reopen, (self._name, self.identity)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.capacity} bytes"
        return f"<SageQueue {self._name!r}, {state}>"


def _open_nameless() -> int:
    _require_support()
    return queue_files.open_nameless()


def _open_shared(name: str) -> int:
    _require_support()
    return queue_files.open_shared(name)


def _require_support() -> None:
    if Ring.__module__ == __name__:  # the stand-in
        initialise(-1, 0, 0)


def _reopen(name: str, identity: int) -> SageQueue:
    queue = SageQueue.open(name)
    if queue.identity == identity:
        return queue
    queue.close()
    raise QueueNotFoundError(f"the queue {name!r} that was meant is gone; another has its name")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What can be seen of a queue from outside.

    Attributes:
        name: Its name.
        file_bytes: Memory its file takes.
        peers: Process ids that have it open, as far as known.
        in_use: Whether a living process has it open; if not, it is stale and may be removed.
        problem: Why it cannot be opened here, or `None`. If not `None`, the rest is empty.
        capacity: Bytes it holds.
        messages: How many are in it.
        statistics: Counters of the ring: bytes used, deaths survived.
    """

    name: str
    file_bytes: int
    peers: tuple[int, ...]
    in_use: bool
    problem: str | None = None
    capacity: int = 0
    messages: int = 0
    statistics: Statistics | None = None


def list_queues() -> list[str]:
    """Return the names of this user's queues, sorted, live and stale ones."""
    return queue_files.queue_names()


def stat_queue(name: str) -> QueueStatus:
    """Return what can be seen of a queue without disturbing it.

    Args:
        name: Its name.

    Raises:
        QueueNotFoundError: There is none.

    Examples:
        >>> with SageQueue.create("docs-stat") as queue:
        ...     queue.put(b"one")
        ...     status = stat_queue("docs-stat")
        >>> status.messages, status.in_use
        (1, True)
        >>> remove_queue("docs-stat")
    """
    in_use = queue_files.is_in_use(name)
    try:
        peers = queue_files.peers(name)
        file_bytes = os.stat(queue_files.queue_path(name)).st_size
        queue = SageQueue.open(name)
    except FileNotFoundError:
        raise QueueNotFoundError(f"there is no queue {name!r}") from None
    except QueueIncompatibleError as error:
        return QueueStatus(name, file_bytes, peers, in_use, problem=str(error))
    with queue:
        return QueueStatus(
            name,
            file_bytes,
            peers,
            in_use,
            capacity=queue.capacity,
            messages=queue.qsize(),
            statistics=queue.statistics(),
        )


def remove_queue(name: str) -> None:
    """Remove a queue that no living process has open, with what is in it.

    Args:
        name: Its name.

    Raises:
        QueueInUseError: A process has it open; perhaps this one.
        QueueNotFoundError: There is none.
    """
    queue_files.unlink(name)


def remove_stale_queues() -> list[str]:
    """Remove all queues of this user that no living process has open.

    A queue that was filled by a process which has ended, for one still to come, is stale in this
    sense too.

    Returns:
        The names of those removed.
    """
    removed = []
    for name in list_queues():
        try:
            remove_queue(name)
        except (QueueInUseError, QueueNotFoundError):
            continue  # in use after all, or someone else was quicker
        removed.append(name)
    return removed
