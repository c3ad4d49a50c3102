"""The execution graph: which subtasks there are, in which slots they run, and what joins them.

A *slot* runs one subtask of every operator, in one thread: subtask *i* of an operator runs in slot
*i*. Records go from one slot to another only through an *exchange*, which stands where the program
spreads records anew, or where two operators differ in parallelism. What is joined by no exchange is
one fused loop, as at parallelism 1. One more slot, the last, is the program that submitted the job:
it runs the sinks that give records back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sage.common.errors import GraphError
from sage.dataflow.function.source import Source, deal_splits
from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.loops import Loop, find_loops, may_put_out_at_end
from sage.dataflow.graph.stream_graph import Edge, StreamGraph, StreamNode
from sage.dataflow.graph.transformation import Input
from sage.dataflow.key_group import MAX_MAX_PARALLELISM, default_max_parallelism
from sage.dataflow.operator.base import BatchOperator
from sage.dataflow.operator.keyed import KeyBy
from sage.dataflow.operator.record_wise import Filter
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.operator.timestamps import AssignTimestamps

Spread = Literal["hash", "rebalance", "rescale", "broadcast", "custom", "global"]


@dataclass(frozen=True)
class Exchange:
    """A way by which records go from slot to slot.

    Attributes:
        number: Its place among the exchanges of the job; the same in all slots.
        edge: What it stands for.
        spread: `"hash"`: by key; `"rebalance"`: in turn; `"rescale"`: in turn to those
            that belong to the sender; `"broadcast"`: to all; `"custom"`: as the
            function says; `"global"`: to the first.
        function: With `"custom"`: `function(record, parallelism)` returns the subtask's index.
        senders: The slots that send.
        receivers: The slots that receive, by the index of their subtask.
    """

    number: int
    edge: Edge
    spread: Spread
    function: Callable[[Any, int], int] | None
    senders: tuple[int, ...]
    receivers: tuple[int, ...]


@dataclass(frozen=True)
class ExecutionGraph:
    """The subtasks of a job.

    Attributes:
        stream_graph: The program.
        slots: The slots in which each operator has a subtask, by the index of the subtask.
        exchanges: What joins the slots.
        splits: The splits of each source that each of its subtasks reads.
        workers: How many slots there are without that of the submitting program, whose number this is.
        max_parallelism: How many key groups there are.
        loops: The feedback loops.
    """

    stream_graph: StreamGraph
    slots: Mapping[int, tuple[int, ...]]
    exchanges: tuple[Exchange, ...]
    splits: Mapping[int, tuple[tuple[str, ...], ...]]
    workers: int
    max_parallelism: int
    loops: tuple[Loop, ...] = ()

    @property
    def has_client_slot(self) -> bool:
        """Whether the submitting program runs a part of the job."""
        return any(self.workers in slots for slots in self.slots.values())

    def nodes_of(self, slot: int) -> tuple[int, ...]:
        """Return the operators that a slot runs, each after those that it reads from."""
        order = topological_order(self.stream_graph)
        return tuple(node for node in order if slot in self.slots[node])

    def regions(self) -> tuple[tuple[int, ...], ...]:
        """Return the slots that hang together by exchanges, in groups.

        What happens to the slots of one group is nothing to the others: no record goes from one group
        to another. Without exchanges each slot is a group of its own.
        """
        root = list(range(self.workers + self.has_client_slot))
        for exchange in self.exchanges:
            joined = {root[slot] for slot in (*exchange.senders, *exchange.receivers)}
            root = [min(joined) if found in joined else found for found in root]
        groups: dict[int, list[int]] = {}
        for slot, found in enumerate(root):
            groups.setdefault(found, []).append(slot)
        return tuple(tuple(group) for group in groups.values())

    def loop_of(self, node: int) -> Loop | None:
        """Return the feedback loop that an operator is a part of; None: it is in none."""
        return next((loop for loop in self.loops if node in loop.nodes), None)

    def exchange_of(self, edge: Edge) -> Exchange | None:
        """Return the exchange that stands for an edge; None: records go by a function call."""
        return next((e for e in self.exchanges if e.edge is edge or e.edge == edge), None)


def build_execution_graph(
    graph: StreamGraph, splits: Mapping[int, Sequence[str]], max_parallelism: int | None = None
) -> ExecutionGraph:
    """Lay out the subtasks of a program.

    Args:
        graph: The program.
        splits: The splits of each source, by its id: it has no more subtasks than splits.
        max_parallelism: How many key groups there are; None: as many as the parallelism asks for.

    Raises:
        GraphError: an operator asks for more subtasks than there are key groups.
    """
    counts = _parallelism(graph, splits)
    workers = max(counts.values())
    groups = max_parallelism or default_max_parallelism(workers)
    if workers > groups:
        raise GraphError(
            f"parallelism {workers} is more than there are key groups, {groups}; set_max_parallelism "
            f"takes up to {MAX_MAX_PARALLELISM}"
        )
    slots = {
        node: (workers,) if _at_client(graph.nodes[node]) else tuple(range(count))
        for node, count in counts.items()
    }
    dealt = {
        node: deal_splits(_source(graph.nodes[node]), names, counts[node])
        for node, names in splits.items()
    }
    ways = _exchanges(graph, slots)
    return ExecutionGraph(graph, slots, ways, dealt, workers, groups, _loops(graph, slots, ways))


def keyed_nodes(graph: StreamGraph) -> set[int]:
    """Return the operators behind which records have a key: key_by, and what hands it on."""
    keyed: set[int] = set()
    for node in topological_order(graph):
        operator = graph.nodes[node].operator
        if isinstance(operator, KeyBy) or (
            isinstance(operator, (Filter, AssignTimestamps))
            and _have_keys(graph.nodes[node].inputs[0], keyed)
        ):
            keyed.add(node)
    return keyed


def is_keyed_input(graph: StreamGraph, keyed: set[int], node: int, index: int) -> bool:
    """Say whether all records of an input have a key.

    Args:
        graph: The program.
        keyed: What `keyed_nodes` returned for it.
        node: The operator.
        index: Which of its inputs.
    """
    if isinstance(graph.nodes[node].operator, BatchOperator):
        return False
    return _have_keys(graph.nodes[node].inputs[index], keyed)


def _have_keys(upstreams: Input, keyed: set[int]) -> bool:
    """Say whether all these records have a key: what is spread otherwise than by keys has none."""
    return all(
        u.tag is None and u.node in keyed and u.partitioning.kind in ("forward", "hash")
        for u in upstreams
    )


def _at_client(node: StreamNode) -> bool:
    return node.operator.at_client


def _parallelism(graph: StreamGraph, splits: Mapping[int, Sequence[str]]) -> dict[int, int]:
    """Return how many subtasks each operator has."""
    counts = dict[int, int]()
    for number in topological_order(graph):
        node = graph.nodes[number]
        wanted = node.parallelism
        if isinstance(node.operator, ReadSource):
            wanted = min(wanted, max(1, len(splits.get(node.id, ()))))
        elif isinstance(node.operator, KeyBy) or _reads_source(graph, node):
            wanted = _where_records_are(node, counts) or wanted
        counts[number] = wanted
    return counts


def _reads_source(graph: StreamGraph, node: StreamNode) -> bool:
    """Say whether it gives the records of a source their time, which it does split by split."""
    above = [graph.nodes[upstream.node].operator for side in node.inputs for upstream in side]
    return isinstance(node.operator, AssignTimestamps) and all(
        isinstance(operator, ReadSource) for operator in above
    )


def _where_records_are(node: StreamNode, counts: Mapping[int, int]) -> int | None:
    """Return the parallelism of what an operator reads from; None if that is said otherwise.

    Keys are found there, and records dealt out by them alone: so those of a key keep their order.
    """
    inputs = [upstream for side in node.inputs for upstream in side]
    found = {counts.get(upstream.node) for upstream in inputs}
    said = any(upstream.partitioning.kind != "forward" for upstream in inputs)
    return None if said or len(found) != 1 else found.pop()


def _source(node: StreamNode) -> Source[Any]:
    source = node.operator.source if isinstance(node.operator, ReadSource) else None
    if source is None:
        raise GraphError(f"{node.name} has no source to read")
    return source


def _exchanges(graph: StreamGraph, slots: Mapping[int, tuple[int, ...]]) -> tuple[Exchange, ...]:
    keyed, found = keyed_nodes(graph), list[Exchange]()
    for edge in graph.edges:
        senders, receivers = slots[edge.source], slots[edge.target]
        spread = _spread(graph, keyed, edge, senders, receivers)
        if spread is not None:
            function = edge.upstream.partitioning.function if spread == "custom" else None
            found.append(Exchange(len(found), edge, spread, function, senders, receivers))
    return tuple(found)


def _loops(
    graph: StreamGraph, slots: Mapping[int, tuple[int, ...]], ways: Sequence[Exchange]
) -> tuple[Loop, ...]:
    loops = []
    for number, nodes in enumerate(find_loops(graph)):
        into = {way.number: way.edge.source for way in ways if way.edge.target in nodes}
        loop = Loop(
            number,
            nodes,
            ending=tuple(n for n in nodes if may_put_out_at_end(graph.nodes[n].operator)),
            exchanges=frozenset(way for way, source in into.items() if source in nodes),
            entrances=frozenset(way for way, source in into.items() if source not in nodes),
            slots=tuple(sorted({slot for node in nodes for slot in slots[node]})),
        )
        loops.append(loop)
    return tuple(loops)


def _spread(
    graph: StreamGraph,
    keyed: set[int],
    edge: Edge,
    senders: tuple[int, ...],
    receivers: tuple[int, ...],
) -> Spread | None:
    """Return how the records of an edge are spread; None: they stay in their slot."""
    if len(receivers) == 1:
        return None if senders == receivers else "global"
    said = edge.upstream.partitioning.kind
    if said in ("broadcast", "custom", "rebalance"):
        return said
    if said == "rescale":
        return None if senders == receivers else said
    source = graph.nodes[edge.source]
    has_key = is_keyed_input(graph, keyed, edge.target, edge.index)
    if has_key and (isinstance(source.operator, KeyBy) or senders != receivers):
        return "hash"
    return None if senders == receivers else "rebalance"
