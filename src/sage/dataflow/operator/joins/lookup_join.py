"""A join with a table: a mapping, a function, or a service that is asked for each record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sage.dataflow.function.base import BaseFunction
from sage.dataflow.operator.base import OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow

LookupHow = Literal["inner", "left"]
"""Whether records that are not in the table end here, or go on with `None`."""


class ServiceLookup(BaseFunction):
    """Asks a service.

    Args:
        service: Its name.
        method: Called with the key; returns what belongs to it, or None.
    """

    def __init__(self, service: str, method: str) -> None:
        super().__init__()
        self._service, self._method = service, method
        self._ask: Callable[[Any], Any] | None = None

    def open(self) -> None:
        """Find the service."""
        self._ask = getattr(self.call_service[self._service], self._method)

    def execute(self, key: Any) -> Any:
        """Call the method and wait for its result."""
        assert self._ask is not None
        return self._ask(key)


@dataclass(frozen=True, eq=False)
class LookupJoin(RecordOperator):
    """Looks up what belongs to each record, and makes a result of both.

    The functions are: the key of a record, the look-up, and what makes the result, if anything does.

    Attributes:
        how: What becomes of records for which nothing is found.
    """

    kind: ClassVar[str] = "lookup_join"
    how: LookupHow = "inner"

    @property
    def label(self) -> str:
        """The name of the operator."""
        return self.kind

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Find the key, look up, make the result, in one go."""
        key, row, result = (scope.writer.fresh(hint) for hint in ("k", "row", "v"))
        record = flow.value
        both = f"{scope.entry(2)}({record}, {row})" if len(self.functions) > 2 else ""
        both = both or f"({record}, {row})"
        lines = [f"{key} = {scope.entry(0)}({record})", f"{row} = {scope.entry(1)}({key})"]
        if self.how == "left":
            scope.attempt([*lines, f"{result} = {both}"], flow)
            scope.emit(Flow(result))
            return
        scope.attempt([*lines, f"if {row} is not None: {result} = {both}"], flow)
        with scope.writer.block(f"if {row} is None:"):
            scope.writer.line(f"{scope.counter('dropped')} += 1")
        scope.writer.descend("else:")
        scope.emit(Flow(result))

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return received - count("errors") - count("dropped")
