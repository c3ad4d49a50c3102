"""A join by a function of the user's: `connect(...).key_by(f, g).join(Function)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from sage.dataflow.operator.base import OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow


@dataclass(frozen=True, eq=False)
class KeyedJoin(RecordOperator):
    """Calls the function with each record, its key, and the number of its stream."""

    kind: ClassVar[str] = "join"

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Call the function and emit each item of what it returns."""
        items = scope.writer.fresh("items")
        call = f"{scope.entry(0)}({flow.value}, {flow.key}, {index})"
        scope.attempt([f"{items} = {call}"], flow)
        with scope.expand(items, flow) as item:
            scope.emit(Flow(item))

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced")
