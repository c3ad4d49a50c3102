"""Sources from what users write: source functions, generator functions, iterables.

A *batch* source is read on the task's own thread: its data is at hand. A *live* source may block and
runs on a thread of its own (`function_source`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sage.common.errors import FunctionError
from sage.common.suggest import shorten
from sage.connector.collection import IteratorReader
from sage.connector.function_source import Feed, FunctionSource, do_nothing
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import (
    BatchFunction,
    Source,
    SourceFunction,
    SourceReader,
    call_until_stop,
)
from sage.dataflow.function.spec import FunctionSpec


def gives_records(target: object) -> bool:
    """Say whether `target` is a source function: a class or an instance that gives records."""
    cls = target if isinstance(target, type) else type(target)
    return hasattr(cls, "get_data_iterator") or (
        issubclass(cls, BaseFunction) and hasattr(cls, "execute")
    )


def check_source_class(role: str, target: object) -> None:
    """Check that a source function defines one of the two methods that give records.

    Raises:
        FunctionError: it defines neither.
    """
    cls = target if isinstance(target, type) else type(target)
    inherited = getattr(cls, "get_data_iterator", None) is SourceFunction.get_data_iterator
    if inherited and getattr(cls, "execute", None) is SourceFunction.execute:
        raise FunctionError(
            f"{role}(): {cls.__name__} defines neither get_data_iterator() nor execute()"
        )


@dataclass(frozen=True)
class LiveFunction:
    """Opens a user's function as a live source; can be pickled if the function can."""

    spec: FunctionSpec

    def __call__(self, context: SourceContext) -> Feed[Any]:
        """Make the function, open it, and start its iterator."""
        function = self.spec.create()
        if not isinstance(function, BaseFunction):
            records = iter_records(function)
            return Feed(records, getattr(function, "close", do_nothing))
        function.ctx = context
        try:
            function.open()
            records, count = iter_records(function), count_records(function, context)
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

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[Any]:
        """Make the function, open it, and read on from the position of the only split."""
        function = self.spec.create()
        if not isinstance(function, BaseFunction):
            return _BatchFunctionReader(function, splits[""] or 0, context)
        function.ctx = context
        try:
            function.open()
            return _BatchFunctionReader(function, splits[""] or 0, context)
        except BaseException:
            function.close()
            raise


class _BatchFunctionReader(IteratorReader[Any]):
    def __init__(self, function: Any, position: int, context: SourceContext) -> None:
        self._function = function
        super().__init__(iter_records(function), position, count_records(function, context))

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
    return FunctionSource(LiveFunction(spec), bounded=bounded, replayable=False)
