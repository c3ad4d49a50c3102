"""The core keyed operators. They hold one entry per key in a table of their context.

`sum`, `min`, `max` and `count` of a keyed stream are aggregates; `distinct` keeps the first record
of each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sage.dataflow.operator.base import OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow

Emit = Literal["update", "final"]
"""Whether a running result goes out at every record, or once per key at the end of input."""


@dataclass(frozen=True, eq=False)
class KeyBy(RecordOperator):
    """Finds the key of each record; the record itself goes on unchanged."""

    kind: ClassVar[str] = "key_by"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the key function and send its result along."""
        key = scope.writer.fresh("k")
        lines = [f"{key} = {scope.entry(index)}({flow.value})"]
        if scope.outlives_errors:  # or the next operator would have to answer for the key
            lines.append(f"hash({key})")
        scope.attempt(lines, flow)
        scope.emit(Flow(flow.value, key))


@dataclass(frozen=True, eq=False)
class KeyedFold(RecordOperator):
    """What `Reduce` and `Aggregate` share: when results go out."""

    emit: Emit = "update"

    @property
    def final(self) -> bool:
        """Whether results go out only at the end of input."""
        return self.emit == "final"

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced") if self.final else received - count("errors")


@dataclass(frozen=True, eq=False)
class Reduce(KeyedFold):
    """Joins the records of a key, two at a time; the first of a key goes out as it is."""

    kind: ClassVar[str] = "reduce"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Look the key up, join, store."""
        table, result, key = scope.table("reduced"), scope.writer.fresh("v"), flow.key
        base = scope.base("reduced")
        lines = [
            f"if {key} in {table}:",
            f"    {result} = {scope.entry(0)}({table}[{key}], {flow.value})",
            *([f"elif {key} in {base}:"] if base else []),
            *([f"    {result} = {scope.entry(0)}({base}[{key}], {flow.value})"] if base else []),
            "else:",
            f"    {result} = {flow.value}",
            f"{table}[{key}] = {result}",
        ]
        scope.attempt(lines, flow, phase="key")
        if not self.final:
            scope.emit(Flow(result))

    def finish(self, table: Callable[[str], dict[Any, Any]], functions: list[Any]) -> Iterable[Any]:
        """Return the reduced record of every key."""
        return list(table("reduced").values())


@dataclass(frozen=True, eq=False)
class Aggregate(KeyedFold):
    """Folds the records of a key into an accumulator and puts out `(key, result)`."""

    kind: ClassVar[str] = "aggregate"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Look the accumulator up, or make it, add the record, read the result."""
        create, add, read = (scope.entry(i) for i in range(3))
        table, key = scope.table("accumulators"), flow.key
        folded, result = scope.writer.fresh("acc"), scope.writer.fresh("v")
        base = scope.base("accumulators")
        older = f"{base}[{key}] if {key} in {base} else " if base else ""
        lines = [
            f"{folded} = {table}[{key}] if {key} in {table} else {older}{create}()",
            f"{table}[{key}] = {folded} = {add}({folded}, {flow.value})",
        ]
        if not self.final:
            lines.append(f"{result} = ({key}, {read}({folded}))")
        scope.attempt(lines, flow, phase="key")
        if not self.final:
            scope.emit(Flow(result))

    def finish(self, table: Callable[[str], dict[Any, Any]], functions: list[Any]) -> Iterable[Any]:
        """Return the key and the result of every key."""
        read = functions[0].get_result
        return [(key, read(folded)) for key, folded in table("accumulators").items()]


@dataclass(frozen=True, eq=False)
class Distinct(RecordOperator):
    """Lets the first record of each key through."""

    kind: ClassVar[str] = "distinct"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Look the key up; emit the record if it is new."""
        table, count = scope.table("seen"), f"{scope.counter('dropped')} += 1"
        base = scope.base("seen")
        older = f" and {flow.key} not in {base}" if base else ""
        scope.check(f"{flow.key} not in {table}{older}", flow, count, phase="key")
        scope.writer.line(f"{table}[{flow.key}] = True")
        scope.emit(Flow(flow.value))

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return received - count("errors") - count("dropped")
