"""What a process function or a flat map needs at run time beside its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sage.dataflow.graph.stream_graph import StreamNode
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.failure import RecordFailure
from sage.kernel.runtime.task.segment import BATCH_LIMIT


class TaskCancelled(BaseException):
    """Unwinds a task that is being cancelled; not an `Exception`, so that no policy takes it."""


class LiveProcessContext:
    """Implements `ProcessContext`.

    Attributes:
        key: The key of the record at hand.
    """

    def __init__(
        self, outputs: dict[str, Callable[[Any], None]], node: int, counters: Counters
    ) -> None:
        self.key: Any = None
        self._outputs = outputs
        self._node = node
        self._counters = counters

    def output(self, tag: str, value: Any) -> None:
        """Put `value` out to the side output `tag`; counted as unrouted if nobody reads it."""
        put = self._outputs.get(tag)
        if put is None:
            self._counters.add(self._node, "unrouted")
        else:
            put(value)


class Expansion:
    """Iterates over what a flat map or process function returned, if that is not a list.

    It counts the items, gives failures on the way to the error policy, and looks now and then
    whether the job was cancelled, since one record may become an endless stream.
    """

    def __init__(
        self,
        node: StreamNode,
        fail: RecordFailure | None,
        *,
        may_be_none: bool,
        counters: Counters,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._node = node
        self._fail = fail
        self._may_be_none = may_be_none
        self._is_cancelled = is_cancelled
        self._counts = counters.values
        self._slot = counters.slot(node.id, "produced")

    def run(self, items: Any, record: Any) -> Iterator[Any]:
        """Yield the items."""
        produced = published = 0
        try:
            for item in self._checked(items):
                produced += 1
                yield item
                if produced - published >= BATCH_LIMIT:
                    self._publish(produced - published)
                    published = produced
        except Exception as error:
            if self._fail is None:
                raise
            self._fail(error, record)
        finally:
            self._counts[self._slot] += produced - published

    def _publish(self, amount: int) -> None:
        self._counts[self._slot] += amount
        if self._is_cancelled():
            raise TaskCancelled

    def _checked(self, items: Any) -> Any:
        if items is not None:
            return items
        if self._may_be_none:
            return ()
        raise TypeError(
            f"the function of {self._node.name} returned None; it must return an iterable of the "
            "records that go on, [] for none"
        )
