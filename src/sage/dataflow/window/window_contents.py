"""What a window holds between firings, and how it becomes results: the parts of the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from sage.dataflow.window.copy_policy import independent_copy
from sage.dataflow.window.evictor import Evictor
from sage.dataflow.window.window_function import (
    IncrementalContents,
    ProcessContext,
    ProcessWindowFunction,
    WindowFunction,
)
from sage.dataflow.window.window_result import Window, WindowResult

Finish: TypeAlias = Callable[[Any, ProcessContext, list[Any]], Iterable[Any]]
"""Makes results of a key, a context and values: `process` of a `ProcessWindowFunction`."""


@dataclass(slots=True)
class WindowState:
    """One window of one key.

    Attributes:
        contents: An accumulator, or a list of records and timestamps; meaningless unless `filled`.
        filled: Whether there is anything in it.
        trigger: What the trigger keeps.
        user: What the process function keeps.
    """

    contents: Any = None
    filled: bool = False
    trigger: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)

    @property
    def blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.filled or self.trigger or self.user)

    def empty(self) -> None:
        """Throw the contents away."""
        self.contents, self.filled = None, False


@dataclass(slots=True)
class WindowsOfKey:
    """All that is kept for one key: one entry of the table, plain and picklable.

    Attributes:
        windows: The live windows, in order of creation.
        key_state: What the process function keeps for the key over all windows.
    """

    windows: dict[Window, WindowState] = field(default_factory=dict)
    key_state: dict[str, Any] = field(default_factory=dict)


class Contents(Protocol):
    """Holds the records of windows in some form."""

    def add(self, state: WindowState, value: Any, timestamp: int, shared: bool) -> None:
        """Put a record in; `shared` says that it goes into several windows."""
        ...

    def merge(self, states: list[WindowState]) -> WindowState:
        """Return one state with the contents of all, the earliest first; they are not used again."""
        ...

    def fire(
        self, state: WindowState, window: Window, finish: Callable[[list[Any]], Iterable[Any]]
    ) -> Iterable[Any]:
        """Return what `finish` makes of the contents."""
        ...


@dataclass(frozen=True, eq=False)
class FoldedContents:
    """Contents that are folded as records come."""

    fold: IncrementalContents

    def add(self, state: WindowState, value: Any, timestamp: int, shared: bool) -> None:
        """Fold the record in."""
        if state.filled:
            state.contents = self.fold.add(state.contents, value)
        else:
            # A reduce function starts with the record itself and may change it in place.
            state.contents = self.fold.first(independent_copy(value) if shared else value)
            state.filled = True

    def merge(self, states: list[WindowState]) -> WindowState:
        """Merge the accumulators."""
        assert self.fold.merge is not None, "without merge, records are kept"
        filled = [state.contents for state in states if state.filled]
        if not filled:
            return WindowState()
        merged = filled[0]
        for later in filled[1:]:
            merged = self.fold.merge(merged, later)
        return WindowState(merged, filled=True)

    def fire(
        self, state: WindowState, window: Window, finish: Callable[[list[Any]], Iterable[Any]]
    ) -> Iterable[Any]:
        """Read the accumulator."""
        return finish([self.fold.result(state.contents)])


@dataclass(frozen=True, eq=False)
class KeptContents:
    """Contents that keep every record, for evictors and for functions that want them all.

    Attributes:
        evictor: What thins them out.
        fold: How they are folded at each firing; `None` to hand them over as they are.
    """

    evictor: Evictor | None = None
    fold: IncrementalContents | None = None

    def add(self, state: WindowState, value: Any, timestamp: int, shared: bool) -> None:
        """Append the record."""
        if not state.filled:
            state.contents, state.filled = [], True
        state.contents.append((value, timestamp))

    def merge(self, states: list[WindowState]) -> WindowState:
        """Join the lists."""
        joined = [record for state in states if state.filled for record in state.contents]
        return WindowState(joined, filled=True) if joined else WindowState()

    def fire(
        self, state: WindowState, window: Window, finish: Callable[[list[Any]], Iterable[Any]]
    ) -> Iterable[Any]:
        """Evict, fold if need be, and evict again."""
        if self.evictor is None:
            return finish(self._values(state.contents))
        seen = self.evictor.before(state.contents, window)
        results = list(finish(self._values(seen)))
        state.contents = list(self.evictor.after(seen, window))
        state.filled = bool(state.contents)
        return results

    def _values(self, records: list[tuple[Any, int]]) -> list[Any]:
        values = [value for value, _ in records]
        if self.fold is None or not values:
            return values
        # The records stay for the next firing, so a reduce function must not change the first.
        folded = self.fold.first(independent_copy(values[0]))
        for value in values[1:]:
            folded = self.fold.add(folded, value)
        return [self.fold.result(folded)]


def contents_for(
    fold: IncrementalContents | None, evictor: Evictor | None, *, merges: bool
) -> Contents:
    """Return how contents are held: folded at once where that can be.

    Args:
        fold: How records are folded; `None` when a function wants them all.
        evictor: What thins windows out; it needs every record.
        merges: Whether windows merge: an aggregate without `merge` then needs every record.
    """
    if fold is None or evictor is not None or (merges and fold.merge is None):
        return KeptContents(evictor, fold)
    return FoldedContents(fold)


def applying(function: WindowFunction) -> Finish:
    """Return how a `WindowFunction` makes results."""
    return lambda key, context, values: function.apply(key, context.window, values)


def processing(function: ProcessWindowFunction) -> Finish:
    """Return how a `ProcessWindowFunction` makes results."""
    return function.process


def plain_results(key: Any, context: ProcessContext, values: list[Any]) -> Iterable[Any]:
    """Make a `WindowResult` of each value: what `reduce` and `aggregate` put out."""
    window = context.window
    return [WindowResult(key, window.start, window.end, value) for value in values]


PLAIN: Final[Finish] = plain_results
