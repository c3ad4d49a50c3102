"""What can be said about windows before it is said what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar

from sage.common.errors import ConfigError, GraphError
from sage.common.suggest import shorten
from sage.core.api.stream_base import part_options
from sage.dataflow.function import aggregators
from sage.dataflow.function.spec import FunctionSpec, function_spec
from sage.dataflow.operator.window import WindowFold, WindowSettings
from sage.dataflow.time import to_ms
from sage.dataflow.window.assigner import WindowAssigner
from sage.dataflow.window.evictor import Evictor
from sage.dataflow.window.trigger import Trigger
from sage.dataflow.window.window_function import ProcessWindowFunction

S = TypeVar("S")

AGGREGATE_ENTRIES = ("create_accumulator", "add", "get_result")


class WindowChoice(Generic[S]):
    """Which windows; `S` is the stream of their results.

    Args:
        then: Appends an operator and returns the stream of its results.
        settings: Which windows.
    """

    def __init__(self, then: Callable[..., S], settings: WindowSettings) -> None:
        self._then = then
        self._settings = settings

    def trigger(self, trigger: Trigger) -> Self:
        """Let `trigger` say when windows fire."""
        if not isinstance(trigger, Trigger):
            raise ConfigError(f"a trigger is an instance of Trigger, not {shorten(trigger)}")
        return self._with(trigger=trigger)

    def evictor(self, evictor: Evictor) -> Self:
        """Let `evictor` thin windows out before or after they fire."""
        if not isinstance(evictor, Evictor):
            raise ConfigError(f"an evictor is an instance of Evictor, not {shorten(evictor)}")
        return self._with(evictor=evictor)

    def allowed_lateness(self, lateness: timedelta | float) -> Self:
        """Keep windows for a while behind the watermark; late records make them fire again.

        Args:
            lateness: A `timedelta`, or seconds.
        """
        lateness_ms = to_ms(lateness, name="allowed lateness")
        if lateness_ms < 0:
            raise ConfigError(f"allowed lateness must not be negative: {lateness!r}")
        return self._with(allowed_lateness_ms=lateness_ms)

    def _with(self, **changes: Any) -> Self:
        return type(self)(self._then, replace(self._settings, **changes))


class WindowOptions(WindowChoice[S]):
    """Windows of a keyed stream, and what is made of them."""

    def reduce(self, function: Any, *args: Any, process: Any = None, **kw: Any) -> S:
        """Join the records of each window with `function(joined_before, record)`.

        Args:
            function: Returns a record of the same type.
            args: Arguments of a function class.
            process: Makes the results of the joined record, with the window at hand: what `process`
                or `apply` of this class take. Without it, results are `WindowResult`s.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        options, rest = part_options(kw)
        spec = function_spec("reduce", function, args, rest)
        return self._fold("reduce", spec, process, options)

    def aggregate(self, function: Any, *args: Any, process: Any = None, **kw: Any) -> S:
        """Fold the records of each window into a result: `WindowResult(key, start, end, value)`.

        Args:
            function: A ready-made aggregator such as `mean("delay")`, or an `AggregateFunction`.
            args: Arguments of a function class.
            process: As for `reduce`.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        options, rest = part_options(kw)
        spec = function_spec("aggregate", function, args, rest, entries=AGGREGATE_ENTRIES)
        return self._fold("aggregate", spec, process, options)

    def apply(self, function: Any, *args: Any, **kw: Any) -> S:
        """Keep the records of each window; `function(key, window, records)` returns its results."""
        options, rest = part_options(kw)
        return self._make((_finishing("apply", function, args, rest),), options)

    def process(self, function: Any, *args: Any, **kw: Any) -> S:
        """Keep the records of each window for a `ProcessWindowFunction`, which has state too."""
        options, rest = part_options(kw)
        return self._make((_finishing("process", function, args, rest),), options)

    def sum(self, field: Any = None, **kw: Any) -> S:
        """Sum up a field, or the records themselves."""
        return self.aggregate(aggregators.sum_of(field), **kw)

    def min(self, field: Any = None, **kw: Any) -> S:
        """Find the smallest of a field, or of the records themselves."""
        return self.aggregate(aggregators.min_of(field), **kw)

    def max(self, field: Any = None, **kw: Any) -> S:
        """Find the largest of a field, or of the records themselves."""
        return self.aggregate(aggregators.max_of(field), **kw)

    def mean(self, field: Any = None, **kw: Any) -> S:
        """Find the mean of a field, or of the records themselves."""
        return self.aggregate(aggregators.mean(field), **kw)

    def count(self, **kw: Any) -> S:
        """Count the records."""
        return self.aggregate(aggregators.count(), **kw)

    def collect_list(self, **kw: Any) -> S:
        """Put out the records of each window as one list, in order of arrival."""
        return self.aggregate(aggregators.collect(), **kw)

    def _fold(self, folding: Any, spec: FunctionSpec, process: Any, options: Any) -> S:
        if process is None:
            return self._make((spec,), options, folding)
        return self._make((spec, _finishing("process", process, (), {})), options, folding)

    def _make(self, specs: tuple[FunctionSpec, ...], options: Any, folding: Any = "none") -> S:
        finishing = folding == "none" or len(specs) > 1
        return self._then(WindowFold(specs, self._settings, folding, finishing), options)


def window_settings(assigner: Any) -> WindowSettings:
    """Check what was given as windows.

    Raises:
        GraphError: it is none.
    """
    if not isinstance(assigner, WindowAssigner):
        raise GraphError(
            "window() needs windows such as tumbling_time_window(minutes=5), sliding_time_window, "
            f"session_window, count_window or global_window, not {shorten(assigner)}"
        )
    return WindowSettings(assigner)


def _finishing(role: str, function: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> FunctionSpec:
    is_process = isinstance(function, ProcessWindowFunction) or (
        isinstance(function, type) and issubclass(function, ProcessWindowFunction)
    )
    entries = ("process",) if is_process else ("apply",)
    return function_spec(role, function, args, kw, entries=entries)
