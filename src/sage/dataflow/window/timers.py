"""The timers that the window operator needs, and a plain form of them in memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from typing import Any, Protocol

from sage.dataflow.window.window_result import Window


class Timers(Protocol):
    """Timers of keys: there is at most one for each time, key and namespace."""

    def register_event(self, ts: int, key: Any, namespace: Window) -> None:
        """Have the operator's `on_event_timer` called once the watermark is at `ts`."""
        ...

    def delete_event(self, ts: int, key: Any, namespace: Window) -> None:
        """Forget a timer, if there is one."""
        ...

    def register_processing(self, ts: int, key: Any, namespace: Window) -> None:
        """Have the operator's `on_processing_timer` called once the clock is at `ts`."""
        ...

    def delete_processing(self, ts: int, key: Any, namespace: Window) -> None:
        """Forget a timer, if there is one."""
        ...


class InMemoryTimers:
    """Two heaps, for tests and for trying windows out: no snapshots.

    Examples:
        >>> timers = InMemoryTimers()
        >>> timers.register_event(5, "a", Window(0, 6))
        >>> list(timers.due_events(5))
        [(5, 'a', Window(start=0, end=6))]
    """

    def __init__(self) -> None:
        self._event = _Queue()
        self._processing = _Queue()
        self.register_event, self.delete_event = self._event.register, self._event.delete
        self.register_processing = self._processing.register
        self.delete_processing = self._processing.delete

    def due_events(self, watermark: int) -> Iterator[tuple[int, Any, Window]]:
        """Take out the event timers up to a watermark, also those registered meanwhile."""
        return self._event.due(watermark)

    def due_processing(self, now_ms: int) -> Iterator[tuple[int, Any, Window]]:
        """Take out the processing timers up to a time, also those registered meanwhile."""
        return self._processing.due(now_ms)

    def next_processing(self) -> int | None:
        """Return when the next processing timer is due."""
        return self._processing.next_time()

    def __len__(self) -> int:
        return len(self._event.live) + len(self._processing.live)


class _Queue:
    def __init__(self) -> None:
        self.live: dict[tuple[int, Hashable, Window], int] = {}
        self._heap: list[tuple[int, int, Any, Window]] = []
        self._count = 0

    def register(self, ts: int, key: Any, namespace: Window) -> None:
        if (ts, key, namespace) not in self.live:
            self._count += 1
            self.live[ts, key, namespace] = self._count
            heappush(self._heap, (ts, self._count, key, namespace))

    def delete(self, ts: int, key: Any, namespace: Window) -> None:
        self.live.pop((ts, key, namespace), None)

    def next_time(self) -> int | None:
        while self._heap:
            ts, count, key, namespace = self._heap[0]
            if self.live.get((ts, key, namespace)) == count:
                return ts
            heappop(self._heap)
        return None

    def due(self, time: int) -> Iterator[tuple[int, Any, Window]]:
        while self._heap and self._heap[0][0] <= time:
            ts, count, key, namespace = heappop(self._heap)
            if self.live.get((ts, key, namespace)) == count:
                del self.live[ts, key, namespace]
                yield ts, key, namespace
