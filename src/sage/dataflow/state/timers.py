"""`TimerQueue` and `HeapTimers`: timers that are part of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, TypeAlias

from sage.dataflow.state.key_table import KeyTable, TableChanges

Due: TypeAlias = tuple[int, Any, Any]
"""What comes out: time in ms, key, namespace."""


class TimerQueue:
    """Timers of one kind of time: at most one for each time, key and namespace.

    Args:
        layered: Whether changes will be asked for, as in `KeyTable`.

    Examples:
        >>> queue = TimerQueue()
        >>> queue.register(20, "a"); queue.register(10, "b"); queue.register(10, "b")
        >>> queue.next_time, list(queue.pop_due(15)), len(queue)
        (10, [(10, 'b', None)], 1)
    """

    def __init__(self, *, layered: bool = True) -> None:
        self._live = KeyTable(layered=layered)
        self._heap: list[tuple[int, int, int, Any, Any]] = []
        self._serial = 0
        self._stale = False

    def register(self, ts: int, key: Any, namespace: Any = None) -> None:
        """Have a timer at `ts` ms, once, however often it is registered."""
        heap = self._ready()
        timer = (ts, key, namespace)
        if timer not in self._live:
            self._serial = serial = self._serial + 1
            self._live[timer] = serial
            heappush(heap, (ts, serial, serial, key, namespace))

    def delete(self, ts: int, key: Any, namespace: Any = None) -> None:
        """Forget a timer, if there is one."""
        self._ready()
        self._live.pop((ts, key, namespace), None)
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._live):
            self._stale = True

    def pop_due(self, time: int) -> Iterator[Due]:
        """Take out the timers up to `time`, by time and then by registration.

        Those that are registered meanwhile and are due come too.
        """
        while (due := self.next_time) is not None and due <= time:
            ts, _, _, key, namespace = heappop(self._heap)
            self._live.pop((ts, key, namespace))
            yield ts, key, namespace

    @property
    def next_time(self) -> int | None:
        """When the next timer is due; `None` without any."""
        heap = self._ready()
        while heap:
            ts, serial, _, key, namespace = heap[0]
            if self._live.get((ts, key, namespace)) == serial:
                return ts
            heappop(heap)  # deleted since
        return None

    def __len__(self) -> int:
        return len(self._live)

    def take_changes(self) -> TableChanges:
        """Return what changed since the last call or `load`: see `KeyTable.take_changes`."""
        return self._live.take_changes()

    def take_full(self) -> dict[Any, Any]:
        """Return all timers, and let changes count from here: see `KeyTable.take_full`."""
        return self._live.take_full()

    def full(self) -> dict[Any, Any]:
        """Return all timers, each with the number of its registration."""
        return self._live.full()

    def load(self, full: Mapping[Any, Any]) -> None:
        """Replace everything by what `full` gave; the numbers may be of several queues."""
        self._live.load(full)
        self._stale = True

    def apply(self, changes: TableChanges) -> None:
        """Do what `take_changes` told, after `load` and in the order of the calls."""
        self._live.apply(changes)
        self._stale = True

    def restrict(self, owns: Callable[[Any], bool]) -> None:
        """Forget the timers of all keys but those that `owns` says yes to."""
        for timer in self._live.scan():
            if not owns(timer[1]):
                del self._live[timer]
        self._stale = True

    def join(self, other: TimerQueue, owns: Callable[[Any], bool]) -> None:
        """Take over the timers of those keys of another queue that `owns` says yes to."""
        for timer, serial in other._live.items():
            if owns(timer[1]):
                self._live[timer] = serial
        self._stale = True

    def _ready(self) -> list[tuple[int, int, int, Any, Any]]:
        if self._stale:
            # The third number keeps keys from being compared when two queues came together.
            items = enumerate(self._live.items())
            heap = [(ts, serial, place, key, ns) for place, ((ts, key, ns), serial) in items]
            heapify(heap)
            self._heap, self._stale = heap, False
            self._serial = max(self._serial, max((entry[1] for entry in heap), default=0))
        return self._heap


class HeapTimers:
    """The timers of a subtask on event time and on processing time.

    Implements the `Timers` that windows ask for.

    Args:
        layered: Whether changes will be asked for.

    Attributes:
        event: Those on event time.
        processing: Those on processing time.

    Examples:
        >>> timers = HeapTimers()
        >>> timers.register_event(5, "a", None)
        >>> list(timers.due_events(5))
        [(5, 'a', None)]
    """

    def __init__(self, *, layered: bool = True) -> None:
        self.event = TimerQueue(layered=layered)
        self.processing = TimerQueue(layered=layered)
        self.register_event, self.delete_event = self.event.register, self.event.delete
        self.register_processing = self.processing.register
        self.delete_processing = self.processing.delete

    def due_events(self, watermark: int) -> Iterator[Due]:
        """Take out the event timers up to a watermark, also those registered meanwhile."""
        return self.event.pop_due(watermark)

    def due_processing(self, now_ms: int) -> Iterator[Due]:
        """Take out the processing timers up to a time, also those registered meanwhile."""
        return self.processing.pop_due(now_ms)

    def next_processing(self) -> int | None:
        """Return when the next processing timer is due."""
        return self.processing.next_time

    def __len__(self) -> int:
        return len(self.event) + len(self.processing)
