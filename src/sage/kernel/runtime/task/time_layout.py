"""Where event time comes from, for every operator of a program."""

from __future__ import annotations

from collections.abc import Sequence

from sage.dataflow.graph.execution_graph import Exchange, ExecutionGraph
from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.timestamps import AssignTimestamps

Origin = tuple[int, int | None]
"""Where event time comes from: an operator, or an exchange that a slot sends into; in this slot (None)
or in another one. A number below zero stands for an exchange."""


class TimeLayout:
    """Where event time comes from, and by which sources the end does, for every operator.

    An exchange stands for all that is above it. What its senders have put out may be on its way
    still, so time goes the way of the records: behind an exchange it has come as far as each sender
    says that it has, whose word comes after the records.

    Args:
        graph: The program.
        subtasks: Where its subtasks are; None: all in one slot.
        slot: The slot that asks.

    Attributes:
        order: The operators, each after those that it reads from.
        sent: Where the time comes from that this slot sends into exchanges, for each of them.
    """

    def __init__(
        self, graph: StreamGraph, subtasks: ExecutionGraph | None = None, slot: int = 0
    ) -> None:
        self.order = topological_order(graph)
        self._wanted = _who_wants_time(graph, self.order)
        self.sent: dict[int, list[Origin]] = {}
        self._graph = graph
        self._slot = slot
        self._ways = {} if subtasks is None else {e.edge: e for e in subtasks.exchanges}
        self._above: dict[int, list[Origin]] = {}
        self._sources: dict[int, set[int]] = {}

    def look_above(self, node: int) -> tuple[Sequence[Origin], set[int]]:
        """Return where the time of an operator comes from, and by which sources its end does."""
        above: dict[Origin, None] = {}
        sources: set[int] = set()
        for edge in self._graph.inputs(node):
            way, origins = self._ways.get(edge), self._above.get(edge.source, [])
            if way is None:
                above |= dict.fromkeys(origins)
                sources |= self._sources.get(edge.source, set())
            else:
                above |= dict.fromkeys(self._behind(way, origins))
                sources.add(~way.number)
        self._above[node], self._sources[node] = list(above), sources or {node}
        return self._above[node], self._sources[node]

    def _behind(self, way: Exchange, origins: list[Origin]) -> list[Origin]:
        """Return where time comes from behind an exchange; nowhere, if nobody there wants it."""
        if not origins or way.edge.target not in self._wanted:
            return []
        if self._slot in way.senders:
            self.sent[~way.number] = origins
        return [(~way.number, None if s == self._slot else s) for s in way.senders]

    def note(self, node: int, *, begins: bool, goes_on: bool) -> None:
        """Take note that time begins with an operator, or that its end is its own."""
        if begins:
            self._above[node] = [(node, None)]
        if goes_on:
            self._sources[node] = {node}


def _who_wants_time(graph: StreamGraph, order: Sequence[int]) -> set[int]:
    """Return the operators that react to time, and those that have such behind them."""
    wanted: set[int] = set()
    for node in reversed(order):
        operator = graph.nodes[node].operator
        if isinstance(operator, AssignTimestamps):
            continue
        reacts = type(operator).create_live is not Operator.create_live
        if reacts or any(edge.target in wanted for edge in graph.outputs(node)):
            wanted.add(node)
    return wanted
