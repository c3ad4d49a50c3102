"""Joins: what the streams of `datastream` inherit, and what can be said about a join.

A join of two streams needs a key on both of them, and appends one operator with two inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, Unpack, get_args

from sage.common.errors import FunctionError, GraphError
from sage.common.suggest import shorten
from sage.core.api.stream_base import Host, Options, part_options
from sage.core.api.window_options import WindowChoice, window_settings
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.join import BaseJoinFunction
from sage.dataflow.function.keyed import FieldKeyByFunction
from sage.dataflow.function.spec import FunctionSpec, function_spec
from sage.dataflow.graph.transformation import Input, Pipeline
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.joins.asof_join import AsofJoin, AsofRule, Direction
from sage.dataflow.operator.joins.interval_join import Interval, IntervalJoin
from sage.dataflow.operator.joins.keyed_join import KeyedJoin
from sage.dataflow.operator.joins.lookup_join import LookupHow, LookupJoin, ServiceLookup
from sage.dataflow.operator.joins.pairing import How
from sage.dataflow.operator.joins.window_join import WindowJoin
from sage.dataflow.operator.keyed import KeyBy
from sage.dataflow.operator.record_wise import Filter
from sage.dataflow.operator.timestamps import AssignTimestamps
from sage.dataflow.time import to_ms
from sage.dataflow.window.assigner import WindowAssigner

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

Then = Callable[[Operator, Options], "DataStream[Any]"]
"""Appends a join and returns the stream of its results."""


class _Stream:
    """What the classes of this module ask of the streams that inherit them."""

    if TYPE_CHECKING:
        _host: Host
        _origins: Input

        def _then(
            self, operator: Operator, options: Options, *inputs: Input
        ) -> DataStream[Any]: ...
        def _beside(self, other: Any, method: str) -> Input: ...


class Joins(_Stream):
    """The joins of a stream: with another one, of which it is the left one, or with a table.

    Both streams need a key: a join of streams without is refused when it is written.
    """

    def join(self, other: DataStream[Any]) -> JoinedStreams:
        """Join records of one key that fall into one window: `.window(...).apply(function)`.

        Raises:
            GraphError: one of the streams has no key.
        """
        return JoinedStreams(self._beside_keyed(other, "join"), "join")

    def cogroup(self, other: DataStream[Any]) -> CoGroupedStreams:
        """Bring the records of one key and window together: `.window(...).apply(function)`.

        Raises:
            GraphError: one of the streams has no key.
        """
        return CoGroupedStreams(self._beside_keyed(other, "cogroup"), "cogroup")

    def interval_join(self, other: DataStream[Any]) -> IntervalJoinedStreams:
        """Join records of one key that are not too far apart in time: `.between(...).apply(...)`.

        Raises:
            GraphError: one of the streams has no key.
        """
        return IntervalJoinedStreams(self._beside_keyed(other, "interval_join"))

    def asof_join(
        self,
        other: DataStream[Any],
        direction: Direction = "backward",
        tolerance: timedelta | float | None = None,
    ) -> AsofJoinedStreams:
        """Give each record of this stream the record of the other that is nearest in time.

        Args:
            other: A keyed stream; the nearest record of the same key is taken.
            direction: `"backward"` for one that is not later, `"forward"` for one that is not
                earlier, `"nearest"` for either.
            tolerance: How far away it is at most, a `timedelta` or seconds; None: however far.

        Raises:
            GraphError: one of the streams has no key, or the rest makes no sense.
        """
        then = self._beside_keyed(other, "asof_join")
        _one_of("asof_join", "direction", direction, Direction)
        tolerance_ms = None if tolerance is None else to_ms(tolerance, name="tolerance")
        if tolerance_ms is not None and tolerance_ms < 0:
            raise GraphError(f"asof_join(): tolerance must not be negative: {tolerance!r}")
        return AsofJoinedStreams(then, AsofRule(direction, tolerance_ms))

    def lookup_join(
        self,
        table: Any,
        *,
        key: Any,
        how: LookupHow = "inner",
        apply: Any = None,
        method: str = "get",
        **options: Unpack[Options],
    ) -> DataStream[Any]:
        """Look up what belongs to each record, as it is when the record comes.

        Args:
            table: A mapping; a function of the key that returns what belongs to it, or None; or the
                name of a service, whose `method` is called with the key.
            key: The key of a record: a field or a function, as in `key_by`.
            how: `"inner"`: a record for which nothing is found ends here, and is counted as dropped.
                `"left"`: it goes on with None.
            apply: Makes the result, `apply(record, found)`; without it results are tuples.
            method: The method of a service.
            options: The options of all operators.

        Raises:
            GraphError: `how` is none of these.
            FunctionError: the table, the key or `apply` will not do.

        Examples:
            >>> from sage import LocalEnvironment
            >>> env = LocalEnvironment("example")
            >>> names = {"AA": "American Airlines", "DL": "Delta"}
            >>> flights = env.from_batch([{"carrier": "DL"}, {"carrier": "??"}])
            >>> named = flights.lookup_join(names, key="carrier", how="left").collect()
            >>> result = env.execute()
            >>> list(named)
            [({'carrier': 'DL'}, 'Delta'), ({'carrier': '??'}, None)]
        """
        _one_of("lookup_join", "how", how, LookupHow)
        shared, rest = part_options(options)
        if rest:
            raise FunctionError(f"lookup_join(): unknown option {next(iter(rest))!r}")
        specs = [function_spec("lookup_join", _key_function(key)), _lookup(table, method)]
        if apply is not None:
            specs.append(function_spec("lookup_join", apply))
        return self._then(LookupJoin(tuple(specs), how), shared, self._origins)

    def _beside_keyed(self, other: Any, method: str) -> Then:
        inputs = (self._origins, self._beside(other, method))
        check_keyed(self._host.pipeline, method, inputs)
        return lambda operator, options: self._then(operator, options, *inputs)


class ConnectedJoins(_Stream):
    """The join of connected streams."""

    _inputs: tuple[Input, ...]

    def join(
        self, function: BaseJoinFunction[Any] | type[BaseJoinFunction[Any]], *args: Any, **kw: Any
    ) -> DataStream[Any]:
        """Join two keyed streams by a `BaseJoinFunction`, which keeps what it needs itself.

        Args:
            function: `execute(record, key, tag)` is called for each record, with the tag 0 for the
                first stream and 1 for the second, and returns a list of what goes on.
            args: Arguments of a function class.
            kw: The options of all operators; or keyword arguments of a function class.

        Raises:
            GraphError: there are not two streams, or one of them has no key.
        """
        if len(self._inputs) != 2:
            raise GraphError(f"join() joins two streams, but {len(self._inputs)} are connected")
        check_keyed(self._host.pipeline, "join", self._inputs)
        options, rest = part_options(kw)
        spec = function_spec("join", function, args, rest)
        return self._then(KeyedJoin((spec,)), options, *self._inputs)


# ---- what can be said about a join


class JoinedStreams:
    """Two keyed streams whose records are to meet in windows.

    Args:
        then: Appends the join.
        method: What it is called.
    """

    def __init__(self, then: Then, method: str) -> None:
        self._then = then
        self._method = method

    def window(self, windows: WindowAssigner) -> JoinedWindows:
        """Say in which windows records meet, such as `tumbling_time_window(minutes=5)`.

        Raises:
            GraphError: it is no such thing.
        """
        return JoinedWindows(self._then, window_settings(windows))


class CoGroupedStreams(JoinedStreams):
    """Two keyed streams whose records are to be grouped by windows."""

    def window(self, windows: WindowAssigner) -> CoGroupedWindows:  # type: ignore[override]
        """Say by which windows records are grouped.

        Raises:
            GraphError: it is no such thing.
        """
        return CoGroupedWindows(self._then, window_settings(windows))


class JoinedWindows(WindowChoice["DataStream[Any]"]):
    """Windows in which the records of two streams meet.

    A trigger or an evictor is given each record as a pair: 0 for the left stream or 1 for the right,
    and the record.

    Examples:
        >>> from sage import LocalEnvironment, tumbling_time_window
        >>> env = LocalEnvironment("example")
        >>> def stream(*records):
        ...     return env.from_batch(records).assign_timestamps(lambda r: r[1]).key_by(0)
        >>> clicks, sales = stream(("a", 1_000), ("b", 2_000)), stream(("a", 59_000), ("a", 61_000))
        >>> minutes = clicks.join(sales).window(tumbling_time_window(minutes=1))
        >>> pairs = minutes.apply(lambda click, sale: (click, sale), how="left").collect()
        >>> result = env.execute()
        >>> sorted(pairs)
        [(('a', 1000), ('a', 59000)), (('b', 2000), None)]
    """

    def apply(
        self, function: Any = None, *args: Any, how: How = "inner", **kw: Any
    ) -> DataStream[Any]:
        """Make a result of each pair of records of one key and window.

        Args:
            function: `function(left, right)`, or a class with that as `execute`; without it results
                are tuples.
            args: Arguments of a function class.
            how: Whose records go out, with None in the place of the other, when their window has none
                of the other stream: `"inner"`: nobody's, `"left"`, `"right"`, `"outer"`: both.
            kw: The options of all operators; or keyword arguments of a function class.

        Returns:
            The stream of results; their timestamp is the last millisecond of the window.
        """
        _one_of("join", "how", how, How)
        specs, options = _pair_function("join", function, args, kw)
        return self._then(WindowJoin(specs, self._settings, how), options)


class CoGroupedWindows(WindowChoice["DataStream[Any]"]):
    """Windows by which the records of two streams are grouped; see `JoinedWindows`."""

    def apply(self, function: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Make results of all records of one key and window, where there is at least one.

        Args:
            function: `function(key, window, lefts, rights)` returns or yields results; the lists are
                in order of arrival, and its own. A class has it as `execute`.
            args: Arguments of a function class.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        options, rest = part_options(kw)
        spec = function_spec("cogroup", function, args, rest)
        return self._then(WindowJoin((spec,), self._settings, making="groups"), options)


@dataclass(frozen=True)
class IntervalJoinedStreams:
    """Two keyed streams whose records are to meet by their distance in time.

    Args:
        then: Appends the join.
        bounds: How much later than the left record the right one may be, in ms, both ends included.

    Examples:
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> def stream(*records):
        ...     return env.from_batch(records).assign_timestamps(lambda r: r[1]).key_by(0)
        >>> orders, payments = stream(("a", 1_000), ("b", 2_000)), stream(("a", 4_000))
        >>> paid = orders.interval_join(payments).between(0, 5).apply(how="left").collect()
        >>> result = env.execute()
        >>> sorted(paid)
        [(('a', 1000), ('a', 4000)), (('b', 2000), None)]
    """

    then: Then
    bounds: tuple[int, int] | None = None

    def between(
        self,
        lower: timedelta | float,
        upper: timedelta | float,
        lower_inclusive: bool = True,
        upper_inclusive: bool = True,
    ) -> Self:
        """Say that `left time + lower <= right time <= left time + upper`.

        Args:
            lower: A `timedelta`, or seconds; may be negative.
            upper: The same.
            lower_inclusive: Whether the distance may be exactly `lower`.
            upper_inclusive: Whether it may be exactly `upper`.

        Raises:
            GraphError: there is nothing between the two.
        """
        first = to_ms(lower, name="lower") + (not lower_inclusive)
        last = to_ms(upper, name="upper") - (not upper_inclusive)
        if first > last:
            raise GraphError(f"between(): there is no time between {lower!r} and {upper!r}")
        return replace(self, bounds=(first, last))

    def apply(
        self, function: Any = None, *args: Any, how: How = "inner", **kw: Any
    ) -> DataStream[Any]:
        """Make a result of each pair of records of one key.

        Args:
            function: `function(left, right)`, or a class with that as `execute`; without it results
                are tuples.
            args: Arguments of a function class.
            how: Whose records go out, with None in the place of the other, once it is certain that
                none will come: `"inner"`: nobody's, `"left"`, `"right"`, `"outer"`: both.
            kw: The options of all operators; or keyword arguments of a function class.

        Returns:
            The stream of results; their timestamp is the later one of the two.

        Raises:
            GraphError: `between` has not been called, or `how` is none of these.
        """
        if self.bounds is None:
            raise GraphError("interval_join() needs .between(lower, upper) before .apply()")
        _one_of("interval_join", "how", how, How)
        specs, options = _pair_function("interval_join", function, args, kw)
        return self.then(IntervalJoin(specs, Interval(*self.bounds, how)), options)


@dataclass(frozen=True)
class AsofJoinedStreams:
    """A keyed stream whose records are to find the nearest ones of another.

    Args:
        then: Appends the join.
        rule: Which ones are the nearest.

    Examples:
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> def stream(*records):
        ...     return env.from_batch(records).assign_timestamps(lambda r: r[1]).key_by(0)
        >>> trades, quotes = stream(("a", 3_000)), stream(("a", 1_000), ("a", 2_000), ("a", 4_000))
        >>> priced = trades.asof_join(quotes).apply().collect()
        >>> result = env.execute()
        >>> list(priced)
        [(('a', 3000), ('a', 2000))]
    """

    then: Then
    rule: AsofRule

    def apply(
        self, function: Any = None, *args: Any, how: LookupHow = "left", **kw: Any
    ) -> DataStream[Any]:
        """Make a result of each left record and the right one that is nearest in time.

        Args:
            function: `function(left, right)`, or a class with that as `execute`; without it results
                are tuples.
            args: Arguments of a function class.
            how: `"left"`: a record that finds none goes on with None; `"inner"`: it ends here.
            kw: The options of all operators; or keyword arguments of a function class.

        Returns:
            The stream of results; their timestamp is that of the left record.

        Raises:
            GraphError: `how` is none of these.
        """
        _one_of("asof_join", "how", how, LookupHow)
        specs, options = _pair_function("asof_join", function, args, kw)
        return self.then(AsofJoin(specs, replace(self.rule, how=how)), options)


# ---- checks


def check_keyed(pipeline: Pipeline, method: str, inputs: tuple[Input, ...]) -> None:
    """Check that the records of all inputs have a key.

    Raises:
        GraphError: those of one of them have none.
    """
    for number, part in enumerate(inputs):
        if not _is_keyed(pipeline, part):
            which = ("first", "second")[number]
            raise GraphError(
                f"{method}() joins records that have the same key, but those of the {which} stream "
                "have none: use key_by(...) before"
            )


def _is_keyed(pipeline: Pipeline, part: Input) -> bool:
    """Say whether records have a key: it comes from key_by, and no step after it lost it."""
    for origin in part:
        step = pipeline[origin.node]
        if origin.tag is not None or origin.partitioning.kind not in ("hash", "forward"):
            return False
        keeps = isinstance(step.operator, (Filter, AssignTimestamps))
        if not isinstance(step.operator, KeyBy) and not (
            keeps and _is_keyed(pipeline, step.inputs[0])
        ):
            return False
    return True


def _one_of(method: str, name: str, given: object, choices: Any) -> None:
    allowed = get_args(choices)
    if given not in allowed:
        told = ", ".join(map(repr, allowed))
        raise GraphError(f"{method}(): {name} is one of {told}, not {shorten(given)}")


def _pair_function(
    role: str, function: Any, args: tuple[Any, ...], kw: dict[str, Any]
) -> tuple[tuple[FunctionSpec, ...], Options]:
    options, rest = part_options(kw)
    if function is not None:
        return (function_spec(role, function, args, rest),), options
    if args or rest:
        extra = ", ".join([*map(shorten, args), *rest])
        raise FunctionError(f"{role}(): arguments without a function: {extra}")
    return (), options


def _key_function(key: Any) -> Any:
    return FieldKeyByFunction(key) if isinstance(key, (str, int)) else key


def _lookup(table: Any, method: str) -> FunctionSpec:
    if isinstance(table, str):
        return FunctionSpec(ServiceLookup(table, method))
    if isinstance(table, Mapping):
        return FunctionSpec(table.get)
    if isinstance(table, BaseFunction) or callable(table):
        return function_spec("lookup_join", table)
    raise FunctionError(
        "lookup_join() looks up in a mapping, a function of the key, or a service by its name, not "
        f"{shorten(table)} of type {type(table).__name__}"
    )
