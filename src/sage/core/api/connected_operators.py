"""The operators of connected streams: a function, or a method of one, for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from sage.common.errors import FunctionError, GraphError
from sage.common.suggest import shorten
from sage.core.api.stream_arguments import has_methods
from sage.core.api.stream_base import Options, part_options
from sage.dataflow.function.broadcast import BroadcastProcessFunction
from sage.dataflow.function.spec import FunctionSpec, function_spec
from sage.dataflow.function.transform import (
    BaseCoMapFunction,
    CoFlatMapFunction,
    CoProcessFunction,
)
from sage.dataflow.graph.transformation import Input
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.broadcast_process import BroadcastProcess
from sage.dataflow.operator.flat_map_end import flat_map_of
from sage.dataflow.operator.record_wise import Map, Process

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

R = TypeVar("R")

_BROADCAST_ENTRIES: Final = BroadcastProcessFunction.entry_points

_OPERATORS: Final[dict[str, Callable[[tuple[FunctionSpec, ...]], Operator]]] = {
    "map": Map,
    "flat_map": flat_map_of,
    "process": Process,
}


class ConnectedOperators:
    """The operators of connected streams."""

    _inputs: tuple[Input, ...]

    if TYPE_CHECKING:
        _origins: Input

        def _then(
            self, operator: Operator, options: Options, *inputs: Input
        ) -> DataStream[Any]: ...

    @overload
    def map(
        self,
        function: BaseCoMapFunction[Any, Any, R] | type[BaseCoMapFunction[Any, Any, R]],
        *args: Any,
        **kw: Any,
    ) -> DataStream[R]: ...
    @overload
    def map(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]: ...
    def map(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]:
        """Map the records: one callable for all inputs, one for each, or a `CoMapFunction`."""
        return self._per_input("map", BaseCoMapFunction, function, more, kw)

    @overload
    def comap(
        self,
        function: BaseCoMapFunction[Any, Any, R] | type[BaseCoMapFunction[Any, Any, R]],
        *args: Any,
        **kw: Any,
    ) -> DataStream[R]: ...
    @overload
    def comap(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]: ...
    def comap(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]:
        """Map the records of each input in its own way: a `CoMapFunction`, or a callable each."""
        if not has_methods(function, "map", len(self._inputs)) and not more:
            raise FunctionError(
                f"comap() needs a CoMapFunction with {self._methods('map')}, or a callable for "
                f"each of the {len(self._inputs)} streams, not {shorten(function)}"
            )
        return self.map(function, *more, **kw)

    @overload
    def flat_map(
        self,
        function: CoFlatMapFunction[Any, Any, R] | type[CoFlatMapFunction[Any, Any, R]],
        *args: Any,
        **kw: Any,
    ) -> DataStream[R]: ...
    @overload
    def flat_map(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]: ...
    def flat_map(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]:
        """Like `map`, with any number of records out; the class is `CoFlatMapFunction`."""
        return self._per_input("flat_map", CoFlatMapFunction, function, more, kw)

    flatmap = flat_map

    @overload
    def process(
        self,
        function: CoProcessFunction[Any, Any, R] | type[CoProcessFunction[Any, Any, R]],
        *args: Any,
        **kw: Any,
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: BroadcastProcessFunction[Any, Any, R]
        | type[BroadcastProcessFunction[Any, Any, R]],
        *args: Any,
        **kw: Any,
    ) -> DataStream[R]: ...
    @overload
    def process(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]: ...
    def process(self, function: Any, *more: Any, **kw: Any) -> DataStream[Any]:
        """Like `flat_map`, with a context; the class is `CoProcessFunction`.

        If the second of two streams is broadcast, as in `stream.connect(rules.broadcast())`, it may
        also be a `BroadcastProcessFunction`.

        Raises:
            GraphError: it is one, but the second stream is not broadcast, or there are not two.
        """
        if _is_broadcast_process(function):
            return self._with_broadcast(function, more, kw)
        return self._per_input("process", CoProcessFunction, function, more, kw)

    def _per_input(
        self, stem: str, cls: type, function: Any, more: Any, kw: dict[str, Any]
    ) -> DataStream[Any]:
        operator, count = _OPERATORS[stem], len(self._inputs)
        options, rest = part_options(kw)
        if has_methods(function, stem, count):
            entries = tuple(f"{stem}{i}" for i in range(count))
            specs: tuple[FunctionSpec, ...] = (
                function_spec(stem, function, more, rest, entries=entries),
            )
        elif isinstance(function, cls) or (
            isinstance(function, type) and issubclass(function, cls)
        ):
            raise FunctionError(
                f"{stem}(): {shorten(function)} needs {self._methods(stem)} for {count} streams"
            )
        elif more:
            each = self._one_each(function, more)
            specs = tuple(function_spec(stem, one, (), rest) for one in each)
        else:
            spec = function_spec(stem, function, (), rest)
            return self._then(operator((spec,)), options, self._origins)
        return self._then(operator(specs), options, *self._inputs)

    def _with_broadcast(
        self, function: Any, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> DataStream[Any]:
        options, rest = part_options(kw)
        spec = function_spec("process", function, args, rest, entries=_BROADCAST_ENTRIES)
        _check_broadcast(spec, self._inputs)
        return self._then(BroadcastProcess((spec,)), options, *self._inputs)

    def _one_each(self, function: Any, more: tuple[Any, ...]) -> tuple[Any, ...]:
        functions = (function, *more) if more else (function,) * len(self._inputs)
        if len(functions) != len(self._inputs):
            raise GraphError(
                f"{len(functions)} functions for {len(self._inputs)} connected streams"
            )
        return functions

    def _methods(self, stem: str) -> str:
        return ", ".join(f"{stem}{i}()" for i in range(len(self._inputs)))


def _is_broadcast_process(function: Any) -> bool:
    cls = function if isinstance(function, type) else type(function)
    if issubclass(cls, BroadcastProcessFunction):
        return True
    return all(callable(getattr(function, entry, None)) for entry in _BROADCAST_ENTRIES)


def _check_broadcast(spec: FunctionSpec, inputs: tuple[Input, ...]) -> None:
    are = [{origin.partitioning.kind == "broadcast" for origin in part} for part in inputs]
    if are != [{False}, {True}]:
        raise GraphError(
            f"process(): {spec.name} takes the records of one stream, and of a second one that is "
            "broadcast: stream.connect(rules.broadcast()).process(...), with a key_by(...) of the "
            "first before connect()"
        )
