"""One function that makes a message queue of the kind asked for."""

from __future__ import annotations

from typing import Literal

from sage.kernel.transport.in_process import InProcessQueue
from sage.kernel.transport.queue_contract import DEFAULT_CAPACITY, MessageQueue
from sage.kernel.transport.sage_queue import SageQueue

QueueKind = Literal["sage_queue", "in_process", "ray"]


def create_queue(
    name: str, kind: QueueKind = "sage_queue", capacity: int = DEFAULT_CAPACITY
) -> MessageQueue:
    """Make a new message queue.

    Args:
        name: The name by which other processes open a `sage_queue` or a `ray` queue; an
            `in_process` queue is found through the object alone.
        kind: `"sage_queue"`, between processes, `"in_process"`, between threads, or `"ray"`,
            between the machines of a Ray cluster, a hundred times slower.
        capacity: Bytes to hold, rounded up to a power of two.

    Returns:
        An open queue.

    Raises:
        ValueError: There is no such kind.
        QueueError: As `SageQueue.create`.
        ConfigError: Ray is wanted and not installed.

    Examples:
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
        case "ray":
            # It takes asyncio, which few need.
            from sage.kernel.transport.ray_queue import RayQueue  # noqa: PLC0415

            return RayQueue.create(name, capacity)
        case _:
            raise ValueError(f"unknown kind of queue {kind!r}: 'sage_queue', 'in_process' or 'ray'")
