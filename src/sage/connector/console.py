"""Printing to standard output."""

from __future__ import annotations

import sys
from typing import Any

from sage.dataflow.function.sink import SinkFunction


class PrintSink(SinkFunction[Any]):
    """Prints each record on a line of its own, in one write, so that lines are not torn.

    Args:
        prefix: Goes before each record.
        separator: Goes between the prefix and the record.
        colored: Show the prefix in colour; only where standard output is a terminal.
    """

    def __init__(self, prefix: str = "", separator: str = " | ", colored: bool = True) -> None:
        super().__init__()
        self._prefix = f"{prefix}{separator}" if prefix else ""
        self._colored = colored

    def open(self) -> None:
        """Look whether there is a terminal to show colours on."""
        if self._prefix and self._colored and sys.stdout.isatty():
            self._prefix = f"\x1b[36m{self._prefix}\x1b[0m"
        self._colored = False

    def execute(self, data: Any) -> None:
        """Print `data`."""
        sys.stdout.write(f"{self._prefix}{data}\n")
