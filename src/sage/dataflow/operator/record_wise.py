"""The core record operators: map, filter, flat map, process, split, sink, and the head of a loop.

`inspect`, `print` and `collect` are sinks; `connect(...).map(...)` is a map with an entry point per
input; `distinct` is keyed (see `keyed.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from sage.dataflow.operator.at_end import has_end
from sage.dataflow.operator.base import LiveContext, LivePart, OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.operator.process_live import ProcessLive


@dataclass(frozen=True, eq=False)
class Map(RecordOperator):
    """One record in, one out."""

    kind: ClassVar[str] = "map"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the function of the input and emit what it returns."""
        result = scope.writer.fresh("v")
        scope.attempt([f"{result} = {scope.entry(index)}({flow.value})"], flow)
        scope.emit(Flow(result))


@dataclass(frozen=True, eq=False)
class Filter(RecordOperator):
    """Lets the records through for which the function says yes; a key stays with its record."""

    kind: ClassVar[str] = "filter"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Emit the record or count it as dropped."""
        # Counting the records that end here costs the ones that go on nothing.
        count = f"{scope.counter('dropped')} += 1"
        scope.check(f"{scope.entry(index)}({flow.value})", flow, count)
        scope.emit(flow)

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return received - count("errors") - count("dropped")


@dataclass(frozen=True, eq=False)
class FlatMap(RecordOperator):
    """One record in, any number out."""

    kind: ClassVar[str] = "flat_map"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the function and emit each item of what it returns."""
        items = scope.writer.fresh("items")
        scope.attempt([f"{items} = {scope.entry(index)}({flow.value})"], flow)
        with scope.expand(items, flow) as item:
            scope.emit(Flow(item))

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced")


@dataclass(frozen=True, eq=False)
class Process(RecordOperator):
    """One record in, any number out, here and to side outputs."""

    kind: ClassVar[str] = "process"

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own."""
        return any(has_end(spec.function_class) for spec in self.functions)

    def create_live(self, context: LiveContext) -> LivePart:
        """Make the context of the function, and its timers."""
        return ProcessLive(context)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the function with its context and emit each item of what it returns."""
        live, items = scope.live(), scope.writer.fresh("items")
        context = scope.writer.bind("ctx", live.context)
        if self._has_several_inputs():  # some with keys, perhaps, and some without
            scope.writer.line(f"{context}.keyed, {context}.key = {bool(flow.key)}, {flow.key}")
        elif flow.key is not None:
            live.context.keyed = True
            scope.writer.line(f"{context}.key = {flow.key}")
        if flow.key is not None:
            scope.writer.last(f"{scope.writer.bind('live', live)}.look()")
        if flow.timestamp is not None:
            scope.writer.line(f"{context}.timestamp = {flow.timestamp}")
        scope.attempt([f"{items} = {scope.entry(index)}({flow.value}, {context})"], flow)
        with scope.expand(items, flow) as item:
            scope.emit(Flow(item))

    def _has_several_inputs(self) -> bool:
        return sum(len(spec.entries) for spec in self.functions) > 1

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out to the main output."""
        return count("produced")


@dataclass(frozen=True, eq=False)
class Split(RecordOperator):
    """Sends each record to the side output that the function names."""

    kind: ClassVar[str] = "split"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Compare the tag with those that are read; count the records of all others."""
        tag, keyword = scope.writer.fresh("tag"), "if"
        scope.attempt([f"{tag} = {scope.entry(index)}({flow.value})"], flow)
        for name in scope.consumers():
            known = scope.writer.bind("tag", name)
            with scope.writer.block(f"{keyword} {tag} == {known}:"):
                scope.writer.line(f"{scope.counter(f'tag:{name}')} += 1")
                scope.emit(flow, name)
            keyword = "elif"
        unrouted = f"{scope.counter('unrouted')} += 1"
        if keyword == "if":
            scope.writer.line(unrouted)
            return
        with scope.writer.block("else:"):
            scope.writer.line(unrouted)

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records were sent to an output that is read."""
        return received - count("errors") - count("unrouted")


@dataclass(frozen=True, eq=False)
class CallSink(RecordOperator):
    """Calls the function with each record; nothing goes out."""

    kind: ClassVar[str] = "sink"

    @property
    def at_client(self) -> bool:
        """Whether it gives the records back to the program that submits the job."""
        return any(getattr(spec.target, "at_client", False) for spec in self.functions)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the function."""
        scope.attempt([f"{scope.entry(index)}({flow.value})"], flow)

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return 0: a sink has no output."""
        return 0


@dataclass(frozen=True, eq=False)
class Identity(RecordOperator):
    """Passes records on: the head of a feedback loop, and the place where dead letters meet."""

    kind: ClassVar[str] = "pass"
    name: str = ""

    @property
    def label(self) -> str:
        """The name of the operator."""
        return self.name or self.kind

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Emit the record as it is."""
        scope.emit(flow)


@dataclass(frozen=True, eq=False)
class LoopHead(Identity):
    """Where records come back in: `from_future` makes it, `fill_future` gives it its input."""

    kind: ClassVar[str] = "from_future"


@dataclass(frozen=True, eq=False)
class DeadLetterOffice(Identity):
    """Where the dead letters of all operators meet: `env.dead_letters()`."""

    kind: ClassVar[str] = "dead_letters"
