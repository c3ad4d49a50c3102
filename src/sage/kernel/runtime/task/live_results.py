"""Where the live part of an operator puts what time brings about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage.dataflow.record import LATE_RECORDS
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.segment import Port


class LiveResults:
    """Implements `Results`.

    Args:
        node: The operator.
        port: Takes the main output on.
        counters: Where to count what nobody reads.
        timed: Whether event times go along.
    """

    def __init__(self, node: int, port: Port, counters: Counters, *, timed: bool) -> None:
        self.port = port
        self._node = node
        self._counters = counters
        self._timed = timed
        self._sides: dict[str, list[tuple[Port, bool]]] = {}

    def add_side(self, tag: str, ports: Sequence[Port], timed: Sequence[bool]) -> None:
        """Let the side output `tag` go to `ports`."""
        self._sides[tag] = list(zip(ports, timed, strict=True))

    def emit(self, value: Any, timestamp: int | None) -> None:
        """Put a record out."""
        self.port.put((value, timestamp) if self._timed else value)

    def side(self, tag: str, value: Any, timestamp: int | None) -> None:
        """Put a record out to a side output."""
        if tag == LATE_RECORDS:
            self._counters.add(self._node, "late")
        ports = self._sides.get(tag)
        if ports is None:
            self._counters.add(self._node, "unrouted" if tag != LATE_RECORDS else "dropped_late")
            return
        for port, timed in ports:
            port.put((value, timestamp) if timed else value)

    def schedule(self) -> None:
        """Let what has been put out be delivered when the loop at hand is done."""
        self.port.schedule()
        for ports in self._sides.values():
            for port, _ in ports:
                port.schedule()
