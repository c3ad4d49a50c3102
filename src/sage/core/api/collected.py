"""Sinks that give the records back to the program: collected in a list, or as an iterator."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

from sage.common.errors import JobError
from sage.core.api.job_handle import JobHandle
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, SinkFunction, SinkWriter

T = TypeVar("T")

_LOOK_SECONDS = 0.05  # how often a writer that waits looks whether its job is being cancelled


class Collected(SinkFunction[T], Sequence[T]):
    """What `stream.collect()` returns: a sequence of the records, once the job has run.

    Each run starts it anew.

    Raises:
        JobError: (on any access) no job has run yet.
    """

    at_client: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._values: list[T] = []
        self._opened = False
        # An attribute shadows the method, so that a fused loop calls `append` itself.
        self.execute = self._values.append  # type: ignore[method-assign, assignment]

    def open(self) -> None:
        """Forget the records of an earlier run."""
        self._values.clear()
        self._opened = True

    def execute(self, data: T) -> None:
        """Keep `data`."""
        self._values.append(data)

    @property
    def values(self) -> list[T]:
        """The records, in the order in which they came."""
        if not self._opened:
            raise JobError("nothing has been collected: run the job first, with env.execute()")
        return self._values

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[T]:
        return iter(self.values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Collected):
            return self.values == other.values
        return self.values == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Collected({self._values!r})" if self._opened else "<Collected: the job has not run>"
        )


class ResultChannel(Sink[T], Generic[T]):
    """Carries batches from a running job to the thread that iterates over its results.

    The job waits while `capacity` batches have not been taken: results do not pile up. While nobody
    iterates, before `open` and after `close`, they are let go.
    """

    at_client: ClassVar[bool] = True

    def __init__(self, capacity: int = 16) -> None:
        self._capacity = capacity
        self._batches: deque[list[T]] = deque()
        self._changed = threading.Condition()
        self._is_open = False

    def create_writer(self, context: RuntimeContext, state: Any) -> SinkWriter[T]:
        """Return the writing end."""
        return _ChannelWriter(self, context)

    def open(self) -> None:
        """Say that somebody iterates."""
        self._is_open = True

    def put(self, values: list[T], context: RuntimeContext) -> None:
        """Add a batch, waiting for room as long as there is somebody to take it."""
        with self._changed:
            while self._is_open and len(self._batches) >= self._capacity:
                self._changed.wait(_LOOK_SECONDS)
                if context.is_cancelled:
                    return
            if self._is_open:
                self._batches.append(values)
                self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing more will be put, or taken."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def take(self) -> list[T]:
        """Wait for a batch; an empty one means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_open or bool(self._batches))
            values = self._batches.popleft() if self._batches else []
            self._changed.notify_all()
            return values


class _ChannelWriter(SinkWriter[T]):
    def __init__(self, channel: ResultChannel[T], context: RuntimeContext) -> None:
        self._channel = channel
        self._context = context

    def write_batch(self, values: Sequence[T]) -> None:
        """Put the batch into the channel."""
        self._channel.put(list(values), self._context)


def results_of(
    channel: ResultChannel[T], submit: Callable[[], JobHandle], limit: int | None
) -> Iterator[T]:
    """Start the job and yield what comes through the channel; end the job when that is enough."""
    left = limit if limit is not None else sys.maxsize
    channel.open()
    job = submit()
    job.add_done_callback(channel.close)
    try:
        while left > 0 and (values := channel.take()):
            yield from values[:left]
            left -= len(values)
        if left > 0:
            job.result()
    finally:
        channel.close()
        job.cancel()
