"""Queues for a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from sage.kernel.transport.sage_queue import SageQueue, remove_queue

_numbers = itertools.count()


@contextmanager
def fresh_queue(capacity: int = 1 << 16) -> Iterator[SageQueue]:
    """Make a queue, and remove it at the end; nobody may have it open by then."""
    name = f"test-{next(_numbers)}"
    with SageQueue.create(name, capacity) as queue:
        yield queue
    remove_queue(name)
