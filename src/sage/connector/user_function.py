"""Sources from what users write: source functions, generator functions, iterables.

A *batch* source is read on the task's own thread: its data is at hand. A *live* source may block and
runs on a thread of its own (`function_source`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sage.common.suggest import shorten
from sage.connector.collection import IteratorReader
from sage.connector.function_source import Feed, FunctionSource, do_nothing
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import (
    BatchFunction,
    Source,
    SourceReader,
    call_until_stop,
)
from sage.dataflow.function.spec import FunctionSpec

T_co = TypeVar("T_co", covariant=True)


class GivesRecords(Protocol[T_co]):
    """Any class with this method is a source function."""

    def get_data_iterator(self) -> Iterable[T_co]:
        """Return an iterator over the records."""
        ...


class Runs:
    """Begins the runs of a source function, and tells an instance that has nothing left to give.

    Each run of a class makes an instance of its own. One that the user made may be used up.

    Args:
        spec: The function.
    """

    def __init__(self, spec: FunctionSpec) -> None:
        self._spec = spec
        self._has_run = False

    def begin(self, function: Any, context: SourceContext) -> Iterator[Any]:
        """Return an iterator over the records of `function`, which `spec.create` has made."""
        records = iter_records(function)
        keeps_state = isinstance(function, BaseFunction) or hasattr(function, "get_data_iterator")
        again = self._has_run and keeps_state and function is self._spec.target
        self._has_run = True
        return _warn_if_empty(records, context) if again else records


def _warn_if_empty(records: Iterator[Any], context: SourceContext) -> Iterator[Any]:
    try:
        for first in records:
            yield first
            yield from records
            return
    finally:
        if isinstance(records, Generator):
            records.close()
    context.logger.warning(
        "the source of %r is an instance that was run before, and gave no record this time; give "
        "the class instead, so that each run makes an instance of its own",
        context.operator_name,
    )


@dataclass(frozen=True)
class LiveFunction:
    """Opens a user's function as a live source; can be pickled if the function can."""

    spec: FunctionSpec
    runs: Runs

    def __call__(self, context: SourceContext) -> Feed[Any]:
        """Make the function, open it, and start its iterator."""
        function = self.spec.create()
        if not isinstance(function, BaseFunction):
            records = self.runs.begin(function, context)
            return Feed(records, getattr(function, "close", do_nothing))
        function.ctx = context
        try:
            function.open()
            records, count = self.runs.begin(function, context), count_records(function, context)
            return Feed(records, function.close, count=count)
        except BaseException:
            function.close()
            raise


class BatchFunctionSource(Source[Any]):
    """Reads a function with an end on the task's own thread.

    Args:
        spec: The function.
    """

    bounded = True

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self._runs = Runs(spec)

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[Any]:
        """Make the function, open it, and read on from the position of the only split."""
        function = self.spec.create()
        if not isinstance(function, BaseFunction):
            return self._read(function, splits[""], context)
        function.ctx = context
        try:
            function.open()
            return self._read(function, splits[""], context)
        except BaseException:
            function.close()
            raise

    def _read(self, function: Any, position: int | None, context: SourceContext) -> _FunctionReader:
        records = self._runs.begin(function, context)
        count = count_records(function, context)
        return _FunctionReader(function, records, position or 0, count)


class _FunctionReader(IteratorReader[Any]):
    def __init__(
        self, function: Any, records: Iterator[Any], position: int, count: int | None
    ) -> None:
        self._function = function
        super().__init__(records, position, count)

    def close(self) -> None:
        """Close the function, after the generator that it may have made."""
        super().close()
        if isinstance(self._function, BaseFunction):
            self._function.close()


def count_records(function: Any, context: SourceContext) -> int | None:
    """Ask an opened function how many records it will give; a failure to know is only logged."""
    if not hasattr(function, "get_total_count"):
        return None
    try:
        count = function.get_total_count()
        return None if count is None else int(count)
    except Exception as error:  # noqa: BLE001 - the records can be read without knowing their number
        context.logger.warning("get_total_count() of %s failed: %r", context.operator_name, error)
        return None


def iter_records(function: Any) -> Iterator[Any]:
    """Return an iterator over what a source function, a callable or an iterable gives.

    Raises:
        TypeError: it gives nothing that can be iterated over.
    """
    if hasattr(function, "get_data_iterator"):
        return _checked_iter(function.get_data_iterator(), "get_data_iterator()")
    if isinstance(function, BaseFunction):
        return call_until_stop(function.execute)  # type: ignore[attr-defined]
    if isinstance(function, Iterable):
        return iter(function)
    return _checked_iter(function(), getattr(function, "__name__", "the source"))


def _checked_iter(records: object, giver: str) -> Iterator[Any]:
    if not isinstance(records, Iterable):
        raise TypeError(
            f"{giver} must return an iterator over the records, not {shorten(records)}; a source "
            "that is called once per record is a SourceFunction with execute()"
        )
    return iter(records)


def live_source(spec: FunctionSpec) -> FunctionSource[Any]:
    """Return a source that runs a user's function on a thread of its own."""
    target = spec.target
    cls = target if isinstance(target, type) else type(target)
    bounded = issubclass(cls, BatchFunction)
    return FunctionSource(LiveFunction(spec, Runs(spec)), bounded=bounded, replayable=False)
