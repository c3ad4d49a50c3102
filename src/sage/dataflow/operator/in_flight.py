"""Records under way through an asynchronous operator, and the order in which they leave it.

Records and watermarks come in one after the other. *Ordered*, the results leave in that order.
*Unordered*, results leave as soon as they are there, but none overtakes a watermark and none is
overtaken by one: they change places only between two watermarks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sage.dataflow.time import MIN_WATERMARK


@dataclass(slots=True, eq=False)
class Call:
    """A record under way.

    Attributes:
        value: The record.
        key: Its key, if it has one.
        timestamp: Its event time, if it has one.
        attempt: How often the function has been called with it.
        done: Whether it has its result, or has failed for good.
        result: The result.
        error: What it has failed with for good.
    """

    value: Any
    key: Any = None
    timestamp: int | None = None
    attempt: int = 0
    done: bool = False
    result: Any = None
    error: BaseException | None = None


class InFlight(ABC):
    """Records under way and the watermarks between them.

    Attributes:
        released: The last watermark before which every record has left.
    """

    def __init__(self) -> None:
        self.released = MIN_WATERMARK
        self._count = 0

    def __len__(self) -> int:
        """Return how many records are under way; watermarks do not count."""
        return self._count

    @abstractmethod
    def add(self, call: Call) -> None:
        """Take in a record."""

    @abstractmethod
    def add_watermark(self, watermark: int) -> None:
        """Take in a watermark, which is higher than the last."""

    @abstractmethod
    def end(self, call: Call) -> None:
        """Take note that a record is done."""

    @abstractmethod
    def leaving(self) -> Iterator[Call]:
        """Let those records leave that may, and with them the watermarks behind them."""

    @abstractmethod
    def entries(self) -> Iterator[Call | int]:
        """Return what has not left: records, done or not, and watermarks, in order."""


class OrderedInFlight(InFlight):
    """Records leave in the order in which they came.

    Examples:
        >>> records = OrderedInFlight()
        >>> first, second = Call("a"), Call("b")
        >>> records.add(first); records.add(second)
        >>> second.done = True; records.end(second); [c.value for c in records.leaving()]
        []
        >>> first.done = True; records.end(first); [c.value for c in records.leaving()]
        ['a', 'b']
    """

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[Call | int] = deque()

    def add(self, call: Call) -> None:
        """Take in a record."""
        self._queue.append(call)
        self._count += 1

    def add_watermark(self, watermark: int) -> None:
        """Take in a watermark."""
        queue = self._queue
        if not queue:
            self.released = watermark
        elif isinstance(queue[-1], int):
            queue[-1] = watermark  # nothing has come since the last one
        else:
            queue.append(watermark)

    def end(self, call: Call) -> None:
        """Do nothing: `leaving` looks at the records themselves."""

    def leaving(self) -> Iterator[Call]:
        """Yield the records at the head that are done."""
        queue = self._queue
        while queue:
            head = queue[0]
            if isinstance(head, int):
                self.released = head
                queue.popleft()
            elif head.done:
                queue.popleft()
                self._count -= 1
                yield head
            else:
                return

    def entries(self) -> Iterator[Call | int]:
        """Return what has not left."""
        return iter(self._queue)


@dataclass(slots=True)
class _Stretch:
    """The records between two watermarks; a dict for its order, and to take them out of the midst."""

    records: dict[Call, None] = field(default_factory=dict)
    watermark: int | None = None


class UnorderedInFlight(InFlight):
    """Records leave as they are done, between the watermarks between which they came.

    Examples:
        >>> records = UnorderedInFlight()
        >>> first, second = Call("a"), Call("b")
        >>> records.add(first); records.add(second)
        >>> second.done = True; records.end(second); [c.value for c in records.leaving()]
        ['b']
    """

    def __init__(self) -> None:
        super().__init__()
        self._stretches = deque([_Stretch()])
        self._ready: deque[Call] = deque()  # of the first stretch

    def add(self, call: Call) -> None:
        """Take in a record."""
        self._stretches[-1].records[call] = None
        self._count += 1

    def add_watermark(self, watermark: int) -> None:
        """Take in a watermark."""
        last = self._stretches[-1]
        if last.records:
            last.watermark = watermark
            self._stretches.append(_Stretch())
        elif len(self._stretches) > 1:
            self._stretches[-2].watermark = watermark  # nothing has come since the last one
        else:
            self.released = watermark

    def end(self, call: Call) -> None:
        """Let the record be the next to leave if it belongs to the first stretch."""
        if call in self._stretches[0].records:
            self._ready.append(call)

    def leaving(self) -> Iterator[Call]:
        """Yield the records of the first stretch that are done, and so on."""
        while True:
            first = self._stretches[0]
            while self._ready:
                call = self._ready.popleft()
                del first.records[call]
                self._count -= 1
                yield call
            if first.records or first.watermark is None:
                return
            self.released = first.watermark
            self._stretches.popleft()
            self._ready.extend(call for call in self._stretches[0].records if call.done)

    def entries(self) -> Iterator[Call | int]:
        """Return what has not left."""
        for stretch in self._stretches:
            yield from stretch.records
            if stretch.watermark is not None:
                yield stretch.watermark
