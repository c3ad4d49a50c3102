"""Which records have an event time, and who needs one."""

from __future__ import annotations

from sage.common.errors import GraphError
from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import RecordOperator
from sage.dataflow.record import DEAD_LETTERS


def timed_nodes(graph: StreamGraph) -> set[int]:
    """Return the operators whose results have an event time.

    It begins where timestamps are assigned, and goes along with what comes of a record. A union has
    it if all of its parts do. Functions over batches and results at the end of input do not.
    """
    timed: set[int] = set()
    seen: set[int] = set()
    for node in topological_order(graph):
        operator, inputs = graph.nodes[node].operator, graph.nodes[node].inputs
        seen.add(node)
        above = [u for group in inputs for u in group if u.node in seen]  # feedback aside
        passes = isinstance(operator, RecordOperator) and not operator.final and bool(above)
        inherits = all(u.node in timed and u.tag != DEAD_LETTERS for u in above)
        if operator.gives_time or (passes and inherits):
            timed.add(node)
    return timed


def check_event_time(graph: StreamGraph) -> None:
    """Check that what works on event time gets records that have one.

    Raises:
        GraphError: one does not; the message says how to add it.
    """
    timed = timed_nodes(graph)
    for node in graph.nodes.values():
        above = [u for group in node.inputs for u in group]
        has_time = all(u.node in timed and u.tag != DEAD_LETTERS for u in above)
        if node.operator.needs_time and not has_time:
            raise GraphError(
                f"{node.name} works on event time, but its records have none: call "
                ".assign_timestamps(lambda record: ...) on the stream before key_by (on every part "
                "of a union), or let the clock count with processing_time=True"
            )
