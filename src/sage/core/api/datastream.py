"""Streams: what the user chains operators on.

A stream is a note of where records come from. Every method appends a transformation to the
environment's pipeline and returns the stream of its results; nothing runs before `env.execute()`.
The classes of this module return one another, so they live together.

All operators take a callable, a function class followed by the arguments of its constructor, or an
instance; and the keyword options `name=`, `uid=`, `parallelism=` and `on_error=`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, get_args, overload

from sage.common.errors import FunctionError, GraphError
from sage.common.suggest import shorten
from sage.connector.console import PrintSink
from sage.connector.file_sink import FileSink, FileSinkOptions
from sage.connector.kafka_settings import KafkaSettings
from sage.connector.kafka_sink import Guarantee, KafkaSink, KafkaSinkOptions
from sage.connector.record_format import Format
from sage.core.api.async_operators import AsyncOperators
from sage.core.api.collected import Collected, ResultChannel, results_of
from sage.core.api.connected_operators import ConnectedOperators
from sage.core.api.joined_streams import ConnectedJoins, Joins
from sage.core.api.stream_arguments import (
    checked_emit,
    function_and_options,
    itself,
    named,
    near_method,
    no_key,
)
from sage.core.api.stream_base import (
    Host,
    Options,
    OptionsButUid,
    StreamBase,
    check_parallelism,
    part_options,
)
from sage.core.api.tags import check_tag
from sage.core.api.window_options import AGGREGATE_ENTRIES, WindowOptions, window_settings
from sage.dataflow.function import aggregators
from sage.dataflow.function.keyed import (
    AggregateFunction,
    FieldKeyByFunction,
    KeyByFunction,
    ReduceFunction,
)
from sage.dataflow.function.sink import Sink, SinkFunction
from sage.dataflow.function.spec import function_spec
from sage.dataflow.function.transform import (
    FilterFunction,
    FlatMapFunction,
    MapFunction,
    ProcessContext,
    ProcessFunction,
)
from sage.dataflow.graph.transformation import Input, Partitioning, Upstream
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.batch_wise import BatchFormat, MapBatch, WriteSink
from sage.dataflow.operator.flat_map_end import flat_map_of
from sage.dataflow.operator.keyed import Aggregate, Distinct, Emit, KeyBy, Reduce
from sage.dataflow.operator.record_wise import CallSink, Filter, Map, Process, Split
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.operator.timestamps import AssignTimestamps, watermark_strategy
from sage.dataflow.operator.window import WindowFold
from sage.dataflow.record import DEAD_LETTERS, LATE_RECORDS, DeadLetter
from sage.dataflow.time import WatermarkStrategy, to_ms
from sage.dataflow.window.assigner import WindowAssigner

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class ToFilesOptions(FileSinkOptions, Options, total=False):
    """The rarer settings of a `FileSink`, and those that every operator takes."""


class DataStream(StreamBase, AsyncOperators[T], Joins, Generic[T]):
    """A stream of records of type `T`.

    Examples:
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> squares = env.from_batch(range(5)).map(lambda x: x * x).filter(lambda x: x > 3).collect()
        >>> result = env.execute()
        >>> list(squares)
        [4, 9, 16]
    """

    # ---- one record at a time

    @overload
    def map(self, function: type[MapFunction[T, R]], *args: Any, **kw: Any) -> DataStream[R]: ...
    @overload
    def map(
        self, function: Callable[[T], R] | MapFunction[T, R], **options: Unpack[Options]
    ) -> DataStream[R]: ...
    def map(self, function: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Turn each record into what `function(record)` returns; `None` is a value like any other."""
        return self._apply(Map, function, args, kw)

    @overload
    def filter(self, function: type[FilterFunction[T]], *args: Any, **kw: Any) -> DataStream[T]: ...
    @overload
    def filter(
        self, function: Callable[[T], object] | FilterFunction[T], **options: Unpack[Options]
    ) -> DataStream[T]: ...
    def filter(self, function: Any, *args: Any, **kw: Any) -> DataStream[T]:
        """Keep the records for which `function(record)` is true."""
        return self._apply(Filter, function, args, kw)

    @overload
    def flat_map(
        self, function: type[FlatMapFunction[T, R]], *args: Any, **kw: Any
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self,
        function: Callable[[T], Iterable[R]] | FlatMapFunction[T, R],
        **options: Unpack[Options],
    ) -> DataStream[R]: ...
    def flat_map(self, function: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Turn each record into the items of the iterable that `function(record)` returns."""
        spec, options = function_and_options("flat_map", function, args, kw)
        return self._then(flat_map_of((spec,)), options)

    flatmap = flat_map

    @overload
    def process(
        self, function: type[ProcessFunction[T, R]], *args: Any, **kw: Any
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: Callable[[T, ProcessContext], Iterable[R] | None] | ProcessFunction[T, R],
        **options: Unpack[Options],
    ) -> DataStream[R]: ...
    def process(self, function: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Turn each record into any number of records, here and to side outputs.

        `function(record, ctx)` returns or yields what goes on; `ctx.output(tag, value)` puts a value
        out to `stream.side_output(tag)`; `ctx.key` is the key of the record on a keyed stream.
        """
        return self._apply(Process, function, args, kw)

    def map_batch(
        self,
        function: Any,
        *args: Any,
        format: BatchFormat = "list",  # noqa: A002 - the word users know from other libraries
        **kw: Any,
    ) -> DataStream[Any]:
        """Turn whole batches into whole batches, of another length if need be.

        Args:
            function: Takes the records that have come together (up to the `batch_size` of the
                configuration, fewer from a slow source) and returns those that go on. A class has
                it as `execute`.
            args: Arguments of a function class.
            format: `"list"`; `"numpy"` for a NumPy array; `"arrow"` for an Arrow array, or a record
                batch when the records are dicts.
            kw: The options of all operators, `on_error` holds for a failing batch as a whole; or
                keyword arguments of a function class.
        """
        if format not in get_args(BatchFormat):
            choices = ", ".join(map(repr, get_args(BatchFormat)))
            raise FunctionError(f"map_batch(): format is one of {choices}, not {format!r}")
        spec, options = function_and_options("map_batch", function, args, kw)
        return self._then(MapBatch((spec,), format), options)

    def inspect(self, function: Callable[[T], Any], **options: Unpack[Options]) -> Self:
        """Call `function` with each record on its way; what it returns is ignored."""
        spec = function_spec("inspect", function)
        return self._sink(CallSink((spec,)), named(options, f"inspect({spec.name})"))

    # ---- keys

    @overload
    def key_by(
        self, function: type[KeyByFunction[T, K]], *args: Any, **kw: Any
    ) -> KeyedStream[T, K]: ...
    @overload
    def key_by(
        self, function: str | int, *fields: str | int, **options: Unpack[Options]
    ) -> KeyedStream[T, Any]: ...
    @overload
    def key_by(
        self, function: Callable[[T], K] | KeyByFunction[T, K], **options: Unpack[Options]
    ) -> KeyedStream[T, K]: ...
    def key_by(self, function: Any, *args: Any, **kw: Any) -> KeyedStream[T, Any]:
        """Group the records by a key.

        Args:
            function: A field name, a dotted path or an index (several make a tuple), or
                `function(record)` that returns a hashable key. Keys compare as in a dict; 0, "" and
                None are keys like any other.
            args: More fields; or the arguments of a function class.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        return KeyedStream(self._host, self._keyed(function, args, kw))

    keyby = key_by

    def assign_timestamps(
        self,
        timestamp: Callable[[T], datetime | int] | None = None,
        *,
        max_out_of_orderness: timedelta | float = 0,
        idleness: timedelta | float | None = None,
        watermarks: WatermarkStrategy | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Give each record its event time: what windows, timers and joins go by.

        Args:
            timestamp: Returns the time of a record: a `datetime`, taken as UTC if it has no zone, or
                an int of milliseconds since 1970-01-01 UTC. Directly behind a source whose records
                bring their time along it may be left out.
            max_out_of_orderness: How much older than the youngest before it a record may be and
                still be in time: a `timedelta`, or seconds.
            idleness: After how long without records this input, or a split of the source, no longer
                holds the others back.
            watermarks: How watermarks follow from records, in place of `max_out_of_orderness`:
                `monotonic_timestamps()`, `bounded_out_of_orderness(...)`, `punctuated(...)`, or a
                `WatermarkStrategy` of your own.
            options: The options of all operators.

        Raises:
            GraphError: both `max_out_of_orderness` and `watermarks` are given, or a time cannot be;
                or there is no function, and the records bring no time along.
        """
        timestamp = self._source_timestamps() if timestamp is None else timestamp
        strategy = watermark_strategy(max_out_of_orderness, watermarks)
        spec, rest = function_and_options("assign_timestamps", timestamp, (), dict(options))
        idle = None if idleness is None else to_ms(idleness, name="idleness")
        return self._then_same(AssignTimestamps((spec,), strategy, idle), rest)

    def _source_timestamps(self) -> Callable[[Any], datetime | int]:
        operators = [self._host.pipeline[origin.node].operator for origin in self._origins]
        sources = [op.source for op in operators if isinstance(op, ReadSource)]
        found = [source.timestamps() for source in sources if source is not None]
        if len(found) != 1 or len(operators) != 1 or found[0] is None:
            raise GraphError(
                "assign_timestamps() needs a function that returns the time of a record, unless it "
                "comes directly behind a source whose records bring their time along"
            )
        return found[0]

    def window_all(self, windows: WindowAssigner) -> WindowedStream[None]:
        """Put all records into windows, as if they had one key; results have the key `None`."""
        return self.key_by(no_key, name="all").window(windows)

    def late_records(self) -> DataStream[Any]:
        """Return the records that came too late for the windows or the join that gave this stream."""
        step = self._step("late_records()")
        if not self._host.pipeline[step].operator.tells_late:
            raise GraphError(
                "late_records() gives what came too late for windows or a join: call it on their result"
            )
        return DataStream(self._host, (Upstream(step, LATE_RECORDS),))

    def distinct(self, key: Any = None, **options: Unpack[Options]) -> DataStream[T]:
        """Let the first record of each key through; without `key` a record is its own.

        Every key seen is kept, so a stream without end needs a bounded set of keys.
        """
        key = itself if key is None else key
        shared = {name: options.get(name) for name in ("parallelism", "on_error")}
        keyed = self._keyed(key, (), {"name": "distinct key", **shared})
        first = DataStream[T](self._host, self._append(Distinct(), options, keyed))
        first._failing = keyed  # a record that has no key is a dead letter of this call too
        return first

    # ---- several streams

    def union(self, *others: DataStream[T]) -> DataStream[T]:
        """Join streams of one type into one; records come in no order between the streams."""
        origins = self._origins
        for other in others:
            origins += self._beside(other, "union")
        return DataStream(self._host, origins)

    def connect(self, *others: DataStream[Any]) -> ConnectedStreams:
        """Bring streams of different types to one operator, each to an input of its own."""
        if not others:
            raise GraphError("connect() needs at least one other stream")
        inputs = (self._origins, *(self._beside(other, "connect") for other in others))
        return ConnectedStreams(self._host, inputs)

    @overload
    def split(
        self, function: type[MapFunction[T, str]], *args: Any, **kw: Any
    ) -> SplitStream[T]: ...
    @overload
    def split(
        self, function: Callable[[T], str] | MapFunction[T, str], **options: Unpack[Options]
    ) -> SplitStream[T]: ...
    def split(self, function: Any, *args: Any, **kw: Any) -> SplitStream[T]:
        """Send each record to the branch that `function(record)` names.

        Records for a branch that nobody selects are counted as `unrouted`.

        Examples:
            >>> from sage import LocalEnvironment
            >>> env = LocalEnvironment("example")
            >>> parts = env.from_batch(range(5)).split(lambda x: "odd" if x % 2 else "even")
            >>> odd, even = parts["odd"].collect(), parts["even"].collect()
            >>> result = env.execute()
            >>> list(odd), list(even)
            ([1, 3], [0, 2, 4])
        """
        return SplitStream(self._host, self._apply(Split, function, args, kw)._origins)

    def side_output(self, tag: str) -> DataStream[Any]:
        """Return the stream of what the process function puts out with `ctx.output(tag, value)`."""
        check_tag("a side output", tag)
        step = self._step("side_output()")
        operator = self._host.pipeline[step].operator
        if not isinstance(operator, (Process, WindowFold)):
            raise GraphError(
                f"side_output() reads what a process function puts out, but the stream is the "
                f"output of {operator.label}"
            )
        return DataStream(self._host, (Upstream(step, tag),))

    def dead_letters(self) -> DataStream[DeadLetter]:
        """Return the stream of records that failed in this operator under `on_error="dead_letter"`."""
        steps = (self._step("dead_letters()"), *(origin.node for origin in self._failing))
        return DataStream(self._host, tuple(Upstream(step, DEAD_LETTERS) for step in steps))

    def fill_future(self, future: DataStream[T]) -> None:
        """Let the records of this stream flow back into the head that `env.from_future` made."""
        heads = self._beside(future, "fill_future")
        self._host.pipeline.fill(heads[0].node, self._origins)

    # ---- how it runs

    def name(self, name: str) -> Self:
        """Name the last operator; sinks take `name=` instead, as they return the stream before."""
        return self._change("name()", name=name)

    def uid(self, uid: str) -> Self:
        """Give the last operator an identity by which its saved state is found again."""
        return self._change("uid()", uid=uid)

    def set_parallelism(self, parallelism: int) -> Self:
        """Set how many subtasks the last operator has."""
        check_parallelism(parallelism)
        return self._change("set_parallelism()", parallelism=parallelism)

    def rebalance(self) -> DataStream[T]:
        """Deal the records out in turn to the subtasks of the next operator."""
        return DataStream(self._host, self._spread(Partitioning("rebalance")))

    def rescale(self) -> DataStream[T]:
        """Deal the records out in turn, each subtask to some of the next operator's, or to one of them.

        With as many subtasks on both sides records stay in their process. With more behind, each of
        them gets from one subtask alone; with fewer, each subtask gives to one of them alone.
        """
        return DataStream(self._host, self._spread(Partitioning("rescale")))

    def broadcast(self) -> DataStream[T]:
        """Send every record to all subtasks of the next operator; see `BroadcastProcessFunction`."""
        return DataStream(self._host, self._spread(Partitioning("broadcast")))

    def partition_custom(self, function: Callable[[T, int], int]) -> DataStream[T]:
        """Send each record to the subtask `function(record, parallelism)` of the next operator."""
        if not callable(function):
            raise FunctionError(f"partition_custom() needs a callable, not {shorten(function)}")
        return DataStream(self._host, self._spread(Partitioning("custom", function)))

    # ---- ends

    @overload
    def sink(self, function: type[SinkFunction[T]], *args: Any, **kw: Any) -> Self: ...
    @overload
    def sink(
        self, function: Callable[[T], Any] | SinkFunction[T] | Sink[T], **options: Unpack[Options]
    ) -> Self: ...
    def sink(self, function: Any, *args: Any, **kw: Any) -> Self:
        """Hand the records to a callable, a `SinkFunction` or a connector's `Sink`.

        Returns the stream itself, so that more can be done with its records.
        """
        if isinstance(function, Sink):
            options, rest = part_options(kw)
            if args or rest:
                extra = ", ".join([*map(shorten, args), *rest])
                raise FunctionError(f"sink(): {type(function).__name__} is made already: {extra}")
            return self._sink(WriteSink((), function), options)
        spec, options = function_and_options("sink", function, args, kw)
        return self._sink(CallSink((spec,)), options)

    add_sink = sink

    def to_files(
        self,
        directory: str | os.PathLike[str],
        format: Format = "jsonl",  # noqa: A002 - the word users know from other libraries
        encoding: str = "utf-8",
        **options: Unpack[ToFilesOptions],
    ) -> Self:
        """Write the records into files of a directory, each record exactly once; see `FileSink`."""
        of_operator, settings = part_options(options)
        sink = FileSink(directory, format, encoding, **settings)
        return self.sink(sink, **named(of_operator, "to_files"))

    def to_kafka(
        self,
        bootstrap_servers: str | Iterable[str] | KafkaSettings,
        topic: str | Callable[[T], str],
        guarantee: Guarantee = "at_least_once",
        **options: Unpack[KafkaSinkOptions],
    ) -> Self:
        """Write the records to topics of Kafka; see `KafkaSink`."""
        sink = KafkaSink(bootstrap_servers, topic, guarantee, **options)
        return self.sink(sink, name="to_kafka")

    sink_to_kafka = to_kafka

    def to_config(self, name: str, **options: Any) -> Self:
        """Write the records to the sink that a file calls `name`; see `env.load_connectors`.

        Args:
            name: What the file calls it; the operator is called so as well.
            options: What the file does not say, such as `key=` or `uid=`.
        """
        sink, of_operator = self._host.configured_sink(name, options)
        return self.sink(sink, **of_operator)

    def print(
        self, prefix: str = "", separator: str = " | ", colored: bool = True
    ) -> DataStream[T]:
        """Print each record on a line of its own, `prefix` and `separator` before it."""
        return self.sink(PrintSink, prefix, separator, colored, name="print")

    def collect(self) -> Collected[T]:
        """Keep the records in memory; the handle is a sequence of them once the job has run."""
        collected: Collected[T] = Collected()
        self.sink(collected, name="collect")
        return collected

    def execute_and_collect(self, limit: int | None = None) -> Iterator[T]:
        """Run the pipeline and iterate over the records of this stream as they come.

        The job waits when nobody takes its results, and is cancelled after `limit` records or when
        the iterator is closed.

        Raises:
            GraphError: `limit` is no whole number of at least 0.
            OperatorError: (while iterating) the job failed.
        """
        if limit is not None and (type(limit) is not int or limit < 0):
            raise GraphError(f"limit is a whole number of at least 0, or None, not {limit!r}")
        channel: ResultChannel[T] = ResultChannel()
        self.sink(channel, name="collect")
        return results_of(channel, self._host.submit_detached, limit)

    if not TYPE_CHECKING:  # a type checker knows which methods there are

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and hasattr(KeyedStream, name):
                raise AttributeError(
                    f"{name}() is for keyed streams: say first what the key is, with "
                    f"stream.key_by(...).{name}(...)"
                )
            raise AttributeError(f"a stream has no method {name!r}.{near_method(self, name)}")

    # ---- how steps are appended

    def _beside(self, other: Any, method: str) -> Input:
        """Return where the records of another stream of the same environment come from."""
        if not isinstance(other, DataStream):
            raise GraphError(f"{method}() needs a stream, not {shorten(other)}")
        if other._host is not self._host:
            raise GraphError(f"{method}() needs a stream of the same environment")
        return other._origins

    def _then(self, operator: Operator, options: Options, *inputs: Input) -> DataStream[Any]:
        inputs = inputs or (self._origins,)
        return DataStream(self._host, self._append(operator, options, *inputs))

    def _then_same(self, operator: Operator, options: Options) -> Self:
        """Append an operator whose results are of the same kind of stream."""
        return type(self)(self._host, self._append(operator, options, self._origins))

    def _sink(self, operator: Operator, options: Options) -> Self:
        self._append(operator, options, self._origins)
        return self

    def _apply(
        self, operator: type[Operator], function: Any, args: Any, kw: Any
    ) -> DataStream[Any]:
        spec, options = function_and_options(operator.kind, function, args, kw)
        return self._then(operator((spec,)), options)

    def _keyed(self, function: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> Input:
        if isinstance(function, (str, int)):
            function, args = FieldKeyByFunction(function, *args), ()
            kw = {"name": f"key_by({', '.join(map(str, function.fields))})", **kw}
        spec, options = function_and_options("key_by", function, args, kw)
        (keyed,) = self._append(KeyBy((spec,)), options, self._origins)
        return (replace(keyed, partitioning=Partitioning("hash")),)


class KeyedStream(DataStream[T], Generic[T, K]):
    """A stream whose records have a key; records of one key keep their order and share state."""

    def filter(self, function: Any, *args: Any, **kw: Any) -> KeyedStream[T, K]:
        """Keep the records for which `function(record)` is true, with their keys."""
        return KeyedStream(self._host, self._apply(Filter, function, args, kw)._origins)

    @overload
    def reduce(self, function: type[ReduceFunction[T]], *args: Any, **kw: Any) -> DataStream[T]: ...
    @overload
    def reduce(
        self,
        function: Callable[[T, T], T] | ReduceFunction[T],
        *,
        emit: Emit = "update",
        **options: Unpack[Options],
    ) -> DataStream[T]: ...
    def reduce(self, function: Any, *args: Any, emit: Emit = "update", **kw: Any) -> DataStream[T]:
        """Join the records of a key with `function(joined_before, record)`.

        Args:
            function: Returns a record of the same type.
            args: Arguments of a function class.
            emit: `"update"` puts the joined record out at every record; `"final"` once per key at
                the end of input.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        spec, options = function_and_options("reduce", function, args, kw)
        return self._then(Reduce((spec,), checked_emit(emit)), options)

    def aggregate(
        self,
        function: AggregateFunction[T, Any, R] | type[AggregateFunction[T, Any, R]],
        *args: Any,
        emit: Emit = "update",
        **kw: Any,
    ) -> DataStream[tuple[K, R]]:
        """Fold the records of a key, and put out pairs `(key, result)`.

        Args:
            function: A ready-made aggregator such as `mean("delay")`, or an `AggregateFunction`.
            args: Arguments of a function class.
            emit: `"update"` puts the pair out at every record; `"final"` once per key at the end of
                input.
            kw: The options of all operators; or keyword arguments of a function class.
        """
        options, rest = part_options(kw)
        spec = function_spec("aggregate", function, args, rest, entries=AGGREGATE_ENTRIES)
        return self._then(Aggregate((spec,), checked_emit(emit)), options)

    def window(self, windows: WindowAssigner) -> WindowedStream[K]:
        """Put the records of each key into windows, such as `tumbling_time_window(minutes=5)`.

        Raises:
            GraphError: it is no such thing.
        """
        return WindowedStream(self._then, window_settings(windows))

    def sum(self, field: Any = None, **kw: Any) -> DataStream[tuple[K, Any]]:
        """Put out `(key, sum so far)` of a field, or of the records themselves."""
        return self._aggregate("sum", aggregators.sum_of(field), kw)

    def min(self, field: Any = None, **kw: Any) -> DataStream[tuple[K, Any]]:
        """Put out `(key, smallest so far)` of a field, or of the records themselves."""
        return self._aggregate("min", aggregators.min_of(field), kw)

    def max(self, field: Any = None, **kw: Any) -> DataStream[tuple[K, Any]]:
        """Put out `(key, largest so far)` of a field, or of the records themselves."""
        return self._aggregate("max", aggregators.max_of(field), kw)

    def count(self, **kw: Any) -> DataStream[tuple[K, int]]:
        """Put out `(key, number of records so far)`."""
        return self._aggregate("count", aggregators.count(), kw)

    def distinct(self, key: Any = None, **options: Unpack[Options]) -> DataStream[T]:
        """Let the first record of each key through."""
        if key is not None:
            return super().distinct(key, **options)
        return self._then(Distinct(), options)

    def _aggregate(
        self, kind: str, function: AggregateFunction[Any, Any, Any], kw: dict[str, Any]
    ) -> DataStream[tuple[K, Any]]:
        return self.aggregate(function, **{"name": kind, **kw})


class WindowedStream(WindowOptions[DataStream[Any]], Generic[K]):
    """Windows of a stream with keys of type `K`; what is made of them is a stream again.

    Examples:
        >>> from sage import LocalEnvironment, tumbling_time_window
        >>> env = LocalEnvironment("example")
        >>> ticks = env.from_batch([("a", 1_000), ("a", 4_000), ("b", 61_000)])
        >>> minutes = ticks.assign_timestamps(lambda tick: tick[1]).key_by(0)
        >>> counts = minutes.window(tumbling_time_window(minutes=1)).count().collect()
        >>> result = env.execute()
        >>> [(c.key, c.start, c.value) for c in counts]
        [('a', 0, 2), ('b', 60000, 1)]
    """


class ConnectedStreams(StreamBase, ConnectedOperators, ConnectedJoins):
    """Streams of different types that go to one operator, each to an input of its own.

    Args:
        host: The environment.
        inputs: What flows into each input.
    """

    def __init__(self, host: Host, inputs: tuple[Input, ...]) -> None:
        super().__init__(host, tuple(origin for part in inputs for origin in part))
        self._inputs = inputs

    def key_by(
        self, function: Any, *more: Any, uid: str | None = None, **options: Unpack[OptionsButUid]
    ) -> ConnectedStreams:
        """Give the records of each stream a key: one key function or field for all, or one each.

        Args:
            function: As in `DataStream.key_by`.
            more: Those of the other streams.
            uid: The identity of the operators, which are one for each stream: `"uid-0"`, `"uid-1"` ….
            options: The other options of all operators, for each of them.
        """
        functions = self._one_each(function, more)
        uids = [None if uid is None else f"{uid}-{index}" for index in range(len(functions))]
        inputs = tuple(
            DataStream[Any](self._host, part).key_by(each, uid=own, **options)._origins
            for part, each, own in zip(self._inputs, functions, uids, strict=True)
        )
        return ConnectedStreams(self._host, inputs)

    keyby = key_by

    def sink(self, function: Any, *args: Any, **kw: Any) -> ConnectedStreams:
        """Hand the records of all streams to one sink."""
        DataStream[Any](self._host, self._origins).sink(function, *args, **kw)
        return self

    add_sink = sink

    def print(
        self, prefix: str = "", separator: str = " | ", colored: bool = True
    ) -> ConnectedStreams:
        """Print the records of all streams."""
        DataStream[Any](self._host, self._origins).print(prefix, separator, colored)
        return self

    def _then(self, operator: Operator, options: Options, *inputs: Input) -> DataStream[Any]:
        return DataStream(self._host, self._append(operator, options, *inputs))


class SplitStream(StreamBase, Generic[T]):
    """The branches of `DataStream.split`."""

    def select(self, tag: str) -> DataStream[T]:
        """Return the stream of the records for which the function named `tag`.

        A branch that the function never names is empty; the records of branches that nobody selects
        are told in a warning at the end of the job.

        Raises:
            GraphError: `tag` is no string, or not among those that the function says it returns,
                by an annotation such as `-> Literal["even", "odd"]`.
        """
        step = self._step("select()")
        check_tag("a branch", tag, self._host.pipeline[step].operator.functions[0])
        return DataStream(self._host, (Upstream(step, tag),))

    __getitem__ = select
