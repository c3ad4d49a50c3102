"""Functions that turn records into records: map, filter, flat map, process, and their two-input kin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sage.dataflow.function.base import BaseFunction

T = TypeVar("T")
T1 = TypeVar("T1")
R = TypeVar("R")
S = TypeVar("S")
T_contra = TypeVar("T_contra", contravariant=True)


class MapFunction(BaseFunction, Generic[T, R]):
    """One record in, one record out.

    Examples:
        >>> class Double(MapFunction[int, int]):
        ...     def execute(self, data: int) -> int:
        ...         return data * 2
    """

    @abstractmethod
    def execute(self, data: T) -> R:
        """Return what `data` becomes; `None` is a value like any other."""
        raise NotImplementedError


class FilterFunction(BaseFunction, Generic[T]):
    """Decides which records go on.

    Examples:
        >>> class Even(FilterFunction[int]):
        ...     def execute(self, data: int) -> bool:
        ...         return data % 2 == 0
    """

    @abstractmethod
    def execute(self, data: T) -> bool:
        """Say whether `data` goes on; any truthy value counts as yes."""
        raise NotImplementedError


class Collector(Protocol[T_contra]):
    """Takes the records that a `FlatMapFunction` puts out, in order."""

    def collect(self, value: T_contra) -> None:
        """Put out `value`."""
        ...


class ListCollector(Generic[T]):
    """A `Collector` that keeps values until `take` fetches them."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self.collect = self._values.append

    def take(self) -> list[T]:
        """Return what has been collected since the last call, and forget it."""
        values = self._values[:]
        self._values.clear()
        return values


class FlatMapFunction(BaseFunction, Generic[T, R]):
    """One record in, any number of records out.

    Return an iterable, or `yield` the records, or hand each to `self.collect`; what was collected
    comes before what was returned. A generator is consumed as it goes: an endless one does not fill
    the memory.

    Examples:
        >>> class Words(FlatMapFunction[str, str]):
        ...     def execute(self, data: str):
        ...         return data.split()
    """

    out: Collector[R]

    @abstractmethod
    def execute(self, data: T) -> Iterable[R] | None:
        """Return the records that `data` becomes; `None` adds nothing to what was collected."""
        raise NotImplementedError

    def on_end(self) -> Iterable[R] | None:
        """Return or yield the records that go out now that the input has ended; or `collect` them.

        Called once, when all sources of the job that hang together with it have ended; also after
        `job.stop()`, but not when the job fails or is cancelled. Event time behind the function ends
        only afterwards: the records are as old as they can be without being late.
        """
        return None

    def collect(self, value: R) -> None:
        """Put out `value`."""
        self.out.collect(value)


class ProcessContext(Protocol):
    """What a process function may know and do about the record at hand."""

    @property
    def key(self) -> Any:
        """The key of the record; `None` on a stream without keys."""
        ...

    def output(self, tag: str, value: Any) -> None:
        """Put `value` out to the side output `tag`; read it with `stream.side_output(tag)`."""
        ...

    @property
    def timestamp(self) -> int | None:
        """The event time of the record, or of the timer, in ms; `None` on a stream without."""
        ...

    @property
    def watermark(self) -> int:
        """How far event time has come, in ms."""
        ...

    def now_ms(self) -> int:
        """Return the processing time."""
        ...

    def register_event_timer(self, timestamp: int) -> None:
        """Have `on_timer` called for the key at hand once event time is at `timestamp`, in ms.

        Timers are coalesced: one for each key and time.

        Raises:
            StateError: the stream has no keys, or no event time.
        """
        ...

    def delete_event_timer(self, timestamp: int) -> None:
        """Forget a timer of the key at hand, if there is one."""
        ...

    def register_processing_timer(self, timestamp: int) -> None:
        """Have `on_timer` called for the key at hand once the clock is at `timestamp`, in ms.

        Raises:
            StateError: the stream has no keys.
        """
        ...

    def delete_processing_timer(self, timestamp: int) -> None:
        """Forget a timer of the key at hand, if there is one."""
        ...


class KeylessContext(Protocol):
    """What a function may know and do where there is no key: at the end, or about a broadcast rule."""

    def output(self, tag: str, value: Any) -> None:
        """Put `value` out to the side output `tag`; read it with `stream.side_output(tag)`."""
        ...

    @property
    def timestamp(self) -> int | None:
        """The event time of what is put out now, in ms; `None` on streams without."""
        ...

    @property
    def watermark(self) -> int:
        """How far event time has come, in ms."""
        ...

    def now_ms(self) -> int:
        """Return the processing time."""
        ...

    def apply_to_keyed_state(self, state: S, function: Callable[[Any, S], object]) -> None:
        """Call `function(key, state)` for each key that has something in a state of the function.

        Within the call all state is that of `key`, and may be changed and cleared. Keys are met in
        no order.

        Args:
            state: One of the function's own, such as `self.waiting`.
            function: What it returns is ignored.

        Raises:
            StateError: `state` is no state of keys.
        """
        ...


class ProcessFunction(BaseFunction, Generic[T, R]):
    """Any number of records out, here and to side outputs.

    Examples:
        >>> class Route(ProcessFunction[dict, dict]):
        ...     def execute(self, data: dict, ctx: ProcessContext):
        ...         if data["delay"] is None:
        ...             ctx.output("cancelled", data)
        ...         else:
        ...             yield data
    """

    @abstractmethod
    def execute(self, data: T, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield the records for the main output; `None` stands for none."""
        raise NotImplementedError

    def on_timer(self, timestamp: int, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield records for the main output, now that a timer is due.

        Args:
            timestamp: The time for which the timer was registered, in ms.
            ctx: As for `execute`; its key is that of the timer.
        """
        return None

    def on_end(self, ctx: KeylessContext) -> Iterable[R] | None:
        """Return or yield records for the main output, now that the input has ended.

        Called once, when all sources of the job that hang together with it have ended, and after the
        last timer on event time; also after `job.stop()`, but not when the job fails or is cancelled.
        Event time behind the function ends only afterwards: the records are as old as they can be
        without being late.

        Args:
            ctx: There is no key; `ctx.apply_to_keyed_state` goes through the keys.
        """
        return None


KeyedProcessFunction = ProcessFunction
"""The name by which Flink's users know a process function behind `key_by`; it is the same class."""


class BaseCoMapFunction(BaseFunction, Generic[T, T1, R]):
    """One record in, one out, by a method per input: `map0` for the first stream, `map1`, `map2` ….

    One instance serves all inputs, so what it learns from one stream it can use on the other.

    Examples:
        >>> class Tag(BaseCoMapFunction):
        ...     def map0(self, data): return ("order", data)
        ...     def map1(self, data): return ("payment", data)
    """

    entry_points: ClassVar[tuple[str, ...]] = ("map0", "map1")

    @abstractmethod
    def map0(self, data: T) -> R:
        """Return what a record of the first stream becomes."""
        raise NotImplementedError

    @abstractmethod
    def map1(self, data: T1) -> R:
        """Return what a record of the second stream becomes."""
        raise NotImplementedError


CoMapFunction = BaseCoMapFunction


class CoFlatMapFunction(BaseFunction, Generic[T, T1, R]):
    """Any number of records out, by a method per input: `flat_map0`, `flat_map1` …."""

    entry_points: ClassVar[tuple[str, ...]] = ("flat_map0", "flat_map1")

    @abstractmethod
    def flat_map0(self, data: T) -> Iterable[R] | None:
        """Return or yield what a record of the first stream becomes."""
        raise NotImplementedError

    @abstractmethod
    def flat_map1(self, data: T1) -> Iterable[R] | None:
        """Return or yield what a record of the second stream becomes."""
        raise NotImplementedError

    def on_end(self) -> Iterable[R] | None:
        """Return or yield the records that go out once all inputs have ended; see `FlatMapFunction`."""
        return None


class CoProcessFunction(BaseFunction, Generic[T, T1, R]):
    """A `ProcessFunction` with a method per input: `process0`, `process1` …."""

    entry_points: ClassVar[tuple[str, ...]] = ("process0", "process1")

    @abstractmethod
    def process0(self, data: T, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield what a record of the first stream becomes."""
        raise NotImplementedError

    @abstractmethod
    def process1(self, data: T1, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield what a record of the second stream becomes."""
        raise NotImplementedError

    def on_end(self, ctx: KeylessContext) -> Iterable[R] | None:
        """Return or yield records for the main output, now that all inputs have ended.

        Called once, when all sources of the job that hang together with it have ended, and after the
        last timer on event time; also after `job.stop()`, but not when the job fails or is cancelled.
        Event time behind the function ends only afterwards: the records are as old as they can be
        without being late.

        Args:
            ctx: There is no key; `ctx.apply_to_keyed_state` goes through the keys.
        """
        return None
