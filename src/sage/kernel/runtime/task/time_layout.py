"""Where event time comes from, for every operator of a program."""

from __future__ import annotations

from collections.abc import Sequence

from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.stream_graph import StreamGraph

Origin = tuple[int, int | None]
"""Where event time comes from: an operator, in this slot (None) or in another one."""


class TimeLayout:
    """Where event time comes from, and by which sources the end does, for every operator.

    An exchange stands for the sources above it: what they have given may be on its way still.

    Args:
        graph: The program.
        subtasks: Where its subtasks are; None: all in one slot.
        slot: The slot that asks.

    Attributes:
        order: The operators, each after those that it reads from.
        crossing: Those whose time is looked at from behind an exchange.
    """

    def __init__(
        self, graph: StreamGraph, subtasks: ExecutionGraph | None = None, slot: int = 0
    ) -> None:
        self.order = topological_order(graph)
        self.crossing: set[int] = set()
        self._graph = graph
        self._slot = slot
        self._slots = {} if subtasks is None else subtasks.slots
        self._ways = {} if subtasks is None else {e.edge: e.number for e in subtasks.exchanges}
        self._above: dict[int, list[Origin]] = {}
        self._sources: dict[int, set[int]] = {}

    def look_above(self, node: int) -> tuple[Sequence[Origin], set[int]]:
        """Return where the time of an operator comes from, and by which sources its end does.

        A number below zero stands for an exchange.
        """
        above: dict[Origin, None] = {}
        sources: set[int] = set()
        for edge in self._graph.inputs(node):
            way, origins = self._ways.get(edge), self._above.get(edge.source, ())
            if way is None:
                above |= dict.fromkeys(origins)
                sources |= self._sources.get(edge.source, set())
            else:
                above |= dict.fromkeys(o for origin in origins for o in self._everywhere(origin))
                self.crossing.update(origin for origin, slot in origins if slot is None)
                sources.add(~way)
        self._above[node], self._sources[node] = list(above), sources or {node}
        return self._above[node], self._sources[node]

    def _everywhere(self, origin: Origin) -> list[Origin]:
        """Return an origin in all slots; in this one it is called None."""
        node, slot = origin
        slots = self._slots[node] if slot is None else (slot,)
        return [(node, None if s == self._slot else s) for s in slots]

    def note(self, node: int, *, begins: bool, goes_on: bool) -> None:
        """Take note that time begins with an operator, or that its end is its own."""
        if begins:
            self._above[node] = [(node, None)]
        if goes_on:
            self._sources[node] = {node}
