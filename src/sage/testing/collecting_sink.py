"""`CollectingSink`: a sink that keeps what it is given, and what was asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, SinkWriter

T = TypeVar("T")


class CollectingSink(Sink[T]):
    """Appends all records to a list of the test's own.

    It is for pipelines that run in the process of the test: a list does not travel.

    Attributes:
        records: The list; shared by all subtasks and attempts.
        events: What was asked of the writers, in order: `"open"`, `"flush"`, `"close"`.

    Args:
        records: The list to append to; a new one by default.

    Examples:
        >>> from sage.testing import StandaloneContext
        >>> sink = CollectingSink()
        >>> writer = sink.create_writer(StandaloneContext(), None)
        >>> writer.write_batch([1, 2])
        >>> writer.flush()
        >>> sink.records, sink.events
        ([1, 2], ['open', 'flush'])
    """

    def __init__(self, records: list[T] | None = None) -> None:
        self.records: list[T] = [] if records is None else records
        self.events: list[str] = []

    def create_writer(self, context: RuntimeContext, state: Any) -> SinkWriter[T]:
        """Open a writer that appends to `records`."""
        self.events.append("open")
        return _Writer(self)


class _Writer(SinkWriter[T]):
    def __init__(self, sink: CollectingSink[T]) -> None:
        self._sink = sink

    def write_batch(self, values: Sequence[T]) -> None:
        """Append `values`."""
        self._sink.records.extend(values)

    def flush(self) -> None:
        """Note the call."""
        self._sink.events.append("flush")

    def close(self) -> None:
        """Note the call."""
        self._sink.events.append("close")
