"""The operator at which records come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from sage.dataflow.function.source import Source
from sage.dataflow.operator.base import Operator


@dataclass(frozen=True, eq=False)
class ReadSource(Operator):
    """Reads a `Source`."""

    kind: ClassVar[str] = "source"
    source: Source[Any] | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """The name of the operator unless the user gives another."""
        return self.name or f"{self.kind}({type(self.source).__name__})"

    @property
    def can_fail(self) -> bool:
        """Whether there may be records that cannot be decoded and go to the error policy."""
        return self.source is not None and self.source.reports_bad_records

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records were read."""
        return count("produced")
