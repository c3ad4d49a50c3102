"""One function that makes a message queue of the kind asked for."""

from __future__ import annotations

from typing import Literal

from sage.kernel.transport.in_process import InProcessQueue
from sage.kernel.transport.queue_contract import DEFAULT_CAPACITY, MessageQueue
from sage.kernel.transport.sage_queue import SageQueue

QueueKind = Literal["sage_queue", "in_process"]


def create_queue(
    name: str, kind: QueueKind = "sage_queue", capacity: int = DEFAULT_CAPACITY
) -> MessageQueue:
    """Make a new message queue.

    Args:
        name: The name by which other processes open a `sage_queue`; an `in_process` queue is
            found through the object alone.
        kind: `"sage_queue"`, between processes, or `"in_process"`, between threads.
        capacity: Bytes to hold, rounded up to a power of two.

    Returns:
        An open queue.

    Raises:
        ValueError: There is no such kind.
        QueueError: As `SageQueue.create`.

    Example:
        >>> with create_queue("letters", kind="in_process") as queue:
        ...     queue.put(b"a")
        ...     queue.qsize()
        1
    """
    match kind:
        case "sage_queue":
            return SageQueue.create(name, capacity)
        case "in_process":
            return InProcessQueue(capacity)
        case _:
            raise ValueError(f"unknown kind of queue {kind!r}: 'sage_queue' or 'in_process'")
