"""What a process function or a flat map needs at run time beside its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sage.dataflow.graph.stream_graph import StreamNode
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.failure import RecordFailure
from sage.kernel.runtime.task.segment import BATCH_LIMIT

_QUICK_SECONDS = 0.001


class TaskCancelled(BaseException):
    """Unwinds a task that is being cancelled; not an `Exception`, so that no policy takes it."""


@dataclass(frozen=True)
class Surroundings:
    """What an expansion needs of its task.

    Attributes:
        counters: Where the items are counted.
        cancelled: Not empty once the task is being cancelled.
        flush: Passes on what is pending behind the loop.
        monotonic: The job's clock.
    """

    counters: Counters
    cancelled: list[bool]
    flush: Callable[[], None]
    monotonic: Callable[[], float]


class Expansion:
    """Iterates over what a flat map or process function returned, if that is not a list.

    It counts the items and gives failures on the way to the error policy. One record may become an
    endless stream, slow or quick: so it looks out for cancelling, and passes on what has come of the
    items when they take their time.
    """

    def __init__(
        self,
        node: StreamNode,
        fail: RecordFailure | None,
        task: Surroundings,
        *,
        may_be_none: bool,
    ) -> None:
        self._node = node
        self._fail = fail
        self._task = task
        self._may_be_none = may_be_none
        self._slot = task.counters.slot(node.id, "produced")
        self._waiting = 0  # how many items may wait behind the loop

    def run(self, items: Any, record: Any) -> Iterator[Any]:
        """Yield the items."""
        counts, cancelled = self._task.counters.values, self._task.cancelled
        produced = published = 0
        look, step, before = 1, 1, self._task.monotonic()
        try:
            for item in self._checked(items):
                yield item
                produced += 1
                if cancelled:
                    raise TaskCancelled  # noqa: TRY301 - it passes by the handler below
                if produced >= look:
                    counts[self._slot] += produced - published
                    self._waiting += produced - published
                    published = produced
                    # The quicker the items come, the more rarely the clock is looked at.
                    now = self._task.monotonic()
                    step = min(2 * step, BATCH_LIMIT) if now - before < _QUICK_SECONDS else 1
                    if step == 1 or self._waiting >= BATCH_LIMIT:
                        self._waiting = 0
                        self._task.flush()
                    look, before = produced + min(step, BATCH_LIMIT - self._waiting), now
        except Exception as error:
            if self._fail is None:
                raise
            self._fail(error, record)
        finally:
            counts[self._slot] += produced - published
            self._waiting += produced - published

    def _checked(self, items: Any) -> Any:
        if items is not None:
            return items
        if self._may_be_none:
            return ()
        raise TypeError(
            f"the function of {self._node.name} returned None; it must return an iterable of the "
            "records that go on, [] for none"
        )
