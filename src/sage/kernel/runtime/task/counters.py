"""What a task counts, and how the figures of its operators are read from it.

Fused loops count only where the number of records changes (a filter drops, a flat map produces),
in local variables that are added up once per batch. All else is derived when somebody asks: a map
that received n records and failed on k of them has put out n - k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.stream_graph import Edge, StreamGraph
from sage.dataflow.operator.record_wise import Split
from sage.dataflow.record import DEAD_LETTERS

_COUNTED: Final = ("errors", "dropped", "unrouted", "late", "bytes_in", "bytes_out")


class Counters:
    """Slots of numbers, written by one task and read by anybody.

    Attributes:
        values: One number per slot. Only the task changes them.
    """

    def __init__(self) -> None:
        self.values: list[int] = []
        self._slots: dict[tuple[int, str], int] = {}

    def slot(self, node: int, what: str) -> int:
        """Return the slot in which `what` of an operator is counted."""
        key = (node, what)
        if key not in self._slots:
            self.values.append(0)
            self._slots[key] = len(self.values) - 1
        return self._slots[key]

    def add(self, node: int, what: str, amount: int = 1) -> None:
        """Count `amount` of `what`."""
        self.values[self.slot(node, what)] += amount

    def read(self, node: int, what: str) -> int:
        """Return what has been counted; 0 if nothing was."""
        slot = self._slots.get((node, what))
        return 0 if slot is None else self.values[slot]

    def add_to(self, other: Counters) -> None:
        """Add all counts to those of `other`."""
        for (node, what), slot in list(self._slots.items()):
            other.add(node, what, self.values[slot])

    def snapshot(self) -> dict[tuple[int, str], int]:
        """Return all counts as they are now."""
        return {key: self.values[slot] for key, slot in list(self._slots.items())}

    def replace(self, counts: Mapping[tuple[int, str], int]) -> None:
        """Let the counts be those of a task that counts elsewhere."""
        for (node, what), count in counts.items():
            self.values[self.slot(node, what)] = count

    def reader(self, node: int) -> Callable[[str], int]:
        """Return a function that reads the counts of one operator."""
        return lambda what: self.read(node, what)


@dataclass(frozen=True, kw_only=True)
class RecordCounts:
    """What has become of records so far.

    Records count once they, or the batch they travel in, have been processed. The record at which a
    job failed is not among them.

    Attributes:
        records_in: Records that came in; 0 for a source.
        records_out: Records that went out to the main output, or to the tags of a split.
        errors: Records whose function failed and that were skipped or sent to the dead letters.
        dropped: Records that a filter or `distinct` held back.
        unrouted: Records put out to a side output that nobody reads.
        late: Records that came too late for their windows or their join.
        bytes_in: Bytes that came from other slots, as they travel.
        bytes_out: Bytes that went to other slots.
    """

    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    dropped: int = 0
    unrouted: int = 0
    late: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def record_counts(graph: StreamGraph, counters: Counters) -> dict[int, RecordCounts]:
    """Read the counts of all operators of a graph, sources first, as one task has counted them."""
    received: dict[int, int] = {}
    emitted: dict[int, int] = {}
    counts = {}
    for node in topological_order(graph):
        count = counters.reader(node)
        received[node] = _received(
            graph, node, count, lambda e: _along(e, graph, counters, emitted)
        )
        operator = graph.nodes[node].operator
        # Errors are counted at once, the records they came from when their batch is through.
        emitted[node] = max(0, operator.records_out(received[node], count))
        counts[node] = RecordCounts(
            records_in=received[node],
            records_out=emitted[node],
            **{what: count(what) for what in _COUNTED},
        )
    return counts


def _received(
    graph: StreamGraph, node: int, count: Callable[[str], int], along: Callable[[Edge], int]
) -> int:
    """Return what came in: counted where it came through a port, else what the upstream emitted."""
    total = 0
    for index in range(len(graph.nodes[node].inputs)):
        if count(f"port:{index}"):
            total += count(f"received:{index}")
        else:
            total += sum(along(edge) for edge in graph.inputs(node) if edge.index == index)
    return total


def _along(edge: Edge, graph: StreamGraph, counters: Counters, emitted: dict[int, int]) -> int:
    tag = edge.upstream.tag
    if tag is None:
        return emitted.get(edge.source, 0)
    if tag == DEAD_LETTERS:
        return counters.read(edge.source, "errors")
    if isinstance(graph.nodes[edge.source].operator, Split):
        return counters.read(edge.source, f"tag:{tag}")
    return 0  # side outputs of process functions go through ports, which count for themselves
