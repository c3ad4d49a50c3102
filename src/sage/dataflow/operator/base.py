"""What an operator is, and what it is given to write its part of a fused loop with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.spec import FunctionSpec
from sage.dataflow.operator.loop_writer import Flow, LoopWriter


@dataclass(frozen=True, eq=False)
class Operator(ABC):
    """A node of the graph: what is done to records, without the records.

    Attributes:
        functions: The users' functions that it calls.
    """

    kind: ClassVar[str]
    functions: tuple[FunctionSpec, ...] = ()

    @property
    def label(self) -> str:
        """The name of the operator unless the user gives another: `map(parse)`."""
        names = [spec.name for spec in self.functions if spec.name != "<lambda>"]
        return f"{self.kind}({', '.join(names)})" if names else self.kind

    @property
    def final(self) -> bool:
        """Whether the operator puts out something only once its input has ended."""
        return False

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out, from how many came in and what was counted."""
        return received - count("errors")


class OperatorScope(Protocol):
    """One operator's view of the fused loop that is being written."""

    writer: LoopWriter

    def entry(self, index: int) -> str:
        """Return the local that is bound to the `index`-th entry point of the functions."""
        ...

    def table(self, name: str) -> str:
        """Return the local that is bound to the keyed table `name`."""
        ...

    def counter(self, what: str) -> str:
        """Return the local that counts `what` of this operator."""
        ...

    def attempt(self, lines: Sequence[str], flow: Flow, phase: str = "record") -> None:
        """Write `lines` under the operator's error policy; what follows runs if they succeed."""
        ...

    def check(self, condition: str, flow: Flow, otherwise: str, phase: str = "record") -> None:
        """Write a test under the error policy; what follows runs if it holds, else `otherwise`."""
        ...

    def expand(self, items: str, flow: Flow) -> AbstractContextManager[str]:
        """Write the loop over the iterable that `items` holds; gives the name of the item."""
        ...

    def process_context(self) -> str:
        """Return the local that is bound to the operator's `ProcessContext`."""
        ...

    def consumers(self) -> Sequence[str]:
        """Return the tags of the side outputs that somebody reads."""
        ...

    def emit(self, flow: Flow, tag: str | None = None) -> None:
        """Write what the consumers of an output do with the record."""
        ...


class RecordOperator(Operator):
    """An operator that handles one record at a time, as a part of a fused loop."""

    @abstractmethod
    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Write the lines that take the record `flow` from input `index` and emit what becomes."""

    def finish(self, table: Callable[[str], dict[Any, Any]], functions: list[Any]) -> Iterable[Any]:
        """Return what goes out when the input has ended; only called when `final`."""
        return ()


class BatchProcessor(ABC):
    """The live part of a batch operator; one per subtask, called from its one thread."""

    @abstractmethod
    def process_batch(self, values: list[Any]) -> list[Any]:
        """Take a batch, which the callee may keep, and return what goes out."""

    def end(self) -> list[Any]:
        """Return what goes out when the input has ended."""
        return []

    def close(self) -> None:  # noqa: B027 - optional on purpose
        """Let go of what the constructor took; called once, whatever happened."""


class BatchOperator(Operator):
    """An operator that takes whole batches."""

    @abstractmethod
    def create(self, entries: list[Callable[..., Any]], context: RuntimeContext) -> BatchProcessor:
        """Make the live part from the entry points of the functions."""

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced")
