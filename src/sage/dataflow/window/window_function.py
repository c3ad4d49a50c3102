"""What a window makes of its records: the contracts of window functions, and incremental folding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sage.dataflow.function.aggregators import Multi
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.keyed import AggregateFunction
from sage.dataflow.window.window_result import Window


class WindowFunction(BaseFunction):
    """Turns the records of a window into results, all at once.

    Examples:
        >>> class Span(WindowFunction):
        ...     def apply(self, key, window, values):
        ...         yield key, max(values) - min(values)
        >>> list(Span().apply("a", Window(0, 10), [3, 5, 4]))
        [('a', 2)]
    """

    @abstractmethod
    def apply(self, key: Any, window: Window, values: list[Any]) -> Iterable[Any]:
        """Return the results of a window, any number of them.

        Args:
            key: The key; `None` for `window_all`.
            window: Start and end.
            values: The records, in order of arrival. It is yours to change.
        """
        raise NotImplementedError


class ProcessContext(Protocol):
    """What a `ProcessWindowFunction` sees besides the records; it is valid during the call only."""

    @property
    def window(self) -> Window:
        """Start and end of the window."""
        ...

    @property
    def watermark(self) -> int:
        """How far event time has come."""
        ...

    @property
    def now_ms(self) -> int:
        """The processing time."""
        ...

    @property
    def window_state(self) -> dict[str, Any]:
        """What the function keeps for this window of this key, until `clear`.

        Raises:
            RuntimeError: the windows are sessions: which window it is changes when they merge.
        """
        ...

    @property
    def key_state(self) -> dict[str, Any]:
        """What the function keeps for this key over all windows; it stays until emptied."""
        ...

    def output(self, tag: str, value: Any) -> None:
        """Send a value to a side output."""
        ...


class ProcessWindowFunction(BaseFunction):
    """Turns the records of a window into results, with state and side outputs.

    Behind `reduce` or `aggregate`, the values are the one result of these.

    Examples:
        >>> class CountFirings(ProcessWindowFunction):
        ...     def process(self, key, context, values):
        ...         n = context.window_state["n"] = context.window_state.get("n", 0) + 1
        ...         yield key, n, list(values)
    """

    @abstractmethod
    def process(self, key: Any, context: ProcessContext, values: list[Any]) -> Iterable[Any]:
        """Return the results of one firing, any number of them.

        Args:
            key: The key; `None` for `window_all`.
            context: The window, its state, side outputs.
            values: The records, in order of arrival. It is yours to change.
        """
        raise NotImplementedError

    def clear(self, key: Any, context: ProcessContext) -> None:
        """Let go of what was kept for a window elsewhere; its `window_state` is emptied anyway."""


@dataclass(frozen=True, eq=False)
class IncrementalContents:
    """How records are folded as they come.

    Attributes:
        first: Returns the accumulator of one record.
        add: Returns an accumulator with one more record in it; may change it in place.
        merge: Returns one accumulator out of two, the earlier first, and may change both in place;
            `None` when the aggregate does not say how.
        result: Reads the result without changing the accumulator.
    """

    first: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    merge: Callable[[Any, Any], Any] | None
    result: Callable[[Any], Any]


def reducing(reduce: Callable[[Any, Any], Any]) -> IncrementalContents:
    """Return the folding of a reduce function: the accumulator is a record.

    Examples:
        >>> contents = reducing(max)
        >>> contents.result(contents.add(contents.first(3), 5))
        5
    """
    return IncrementalContents(_itself, reduce, reduce, _itself)


def aggregating(function: AggregateFunction[Any, Any, Any]) -> IncrementalContents:
    """Return the folding of an aggregate.

    Examples:
        >>> from sage.dataflow.function.aggregators import mean
        >>> contents = aggregating(mean())
        >>> contents.result(contents.add(contents.first(3), 5))
        4.0
    """
    create, add = function.create_accumulator, function.add
    merge = function.merge if can_merge(function) else None
    return IncrementalContents(lambda value: add(create(), value), add, merge, function.get_result)


def can_merge(function: AggregateFunction[Any, Any, Any]) -> bool:
    """Return whether an aggregate says how accumulators are merged.

    Examples:
        >>> from sage.dataflow.function.aggregators import count
        >>> can_merge(count())
        True
    """
    if isinstance(function, Multi):
        return all(can_merge(part) for part in function.parts.values())
    return type(function).merge is not AggregateFunction.merge


def _itself(value: Any) -> Any:
    return value
