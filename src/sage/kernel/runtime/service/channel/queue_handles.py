"""`QueueHandles`: the queues that a process has open, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sage.kernel.transport.sage_queue import SageQueue


class QueueHandles(dict[str, SageQueue]):
    """Opens a queue when it is first asked for; lets go those that nobody uses or reads any more.

    An open queue keeps its memory taken, even after the process at its other end has died.
    All methods may be called from any thread.

    Args:
        has_reader: Says of a name whether somebody still reads that queue.

    Attributes:
        touch: To be called with a name at each use, so that the queue stays open.
    """

    def __init__(self, has_reader: Callable[[str], bool] = lambda _: True) -> None:
        super().__init__()
        self._has_reader = has_reader
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self.touch = self._used.add

    def __missing__(self, name: str) -> SageQueue:
        """Open a queue.

        Raises:
            QueueError: there is none, or it cannot be opened.
        """
        with self._lock:
            handle = self.get(name)
            if handle is None:
                self._let_go([other for other in self if not self._has_reader(other)])
                handle = self[name] = SageQueue.open(name)
            return handle

    def drop(self, name: str) -> None:
        """Close a queue, if it is open."""
        with self._lock:
            self._let_go([name])

    def close_idle(self) -> None:
        """Close those that have not been used since this was last called, and those without reader.

        A thread that has just looked one up may find it closed, and is to look again.
        """
        with self._lock:
            used = self._used.copy()
            self._used.difference_update(used)
            self._let_go([name for name in self if name not in used or not self._has_reader(name)])

    def close(self) -> None:
        """Close all."""
        with self._lock:
            self._let_go(list(self))

    def _let_go(self, names: list[str]) -> None:
        for name in names:
            handle = self.pop(name, None)
            if handle is not None:
                handle.close()
