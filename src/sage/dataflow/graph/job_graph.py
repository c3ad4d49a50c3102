"""The job graph: the stream graph cut into tasks.

Operators that are joined by forward edges form one task: records go from one to the next by a
function call. At parallelism 1 every edge is a forward edge, so all that hangs together is one task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage.common.errors import GraphError
from sage.dataflow.graph.stream_graph import Edge, StreamGraph, StreamNode
from sage.dataflow.operator.keyed import KeyBy


@dataclass(frozen=True)
class JobVertex:
    """A task: a chain of operators that runs in one thread.

    Attributes:
        id: Its number in the job graph.
        nodes: The ids of its operators, each after those that it reads from, feedback aside.
        name: The names of its sources, for threads and logs.
    """

    id: int
    nodes: tuple[int, ...]
    name: str


@dataclass(frozen=True)
class JobGraph:
    """The tasks of a job over its stream graph."""

    stream_graph: StreamGraph
    vertices: tuple[JobVertex, ...]


def build_job_graph(graph: StreamGraph) -> JobGraph:
    """Cut a stream graph into tasks."""
    chains = _chains(graph)
    vertices = tuple(
        JobVertex(number, chain, _chain_name([graph.nodes[i] for i in chain]))
        for number, chain in enumerate(chains)
    )
    return JobGraph(graph, vertices)


def _chains(graph: StreamGraph) -> list[tuple[int, ...]]:
    """Return the groups of operators that hang together by chainable edges (union-find)."""
    parent = {node: node for node in graph.nodes}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for edge in graph.edges:
        if _is_chainable(edge, graph):
            low, high = sorted((root(edge.source), root(edge.target)))
            parent[high] = low
    groups: dict[int, list[int]] = {}
    for node in topological_order(graph):
        groups.setdefault(root(node), []).append(node)
    return [tuple(group) for group in groups.values()]


def _is_chainable(edge: Edge, graph: StreamGraph) -> bool:
    source, target = graph.nodes[edge.source], graph.nodes[edge.target]
    if source.parallelism != target.parallelism:
        return False
    forward = edge.upstream.partitioning.kind == "forward"
    return source.parallelism == 1 or (forward and not isinstance(source.operator, KeyBy))


def _chain_name(nodes: list[StreamNode]) -> str:
    first = [node.name for node in nodes if not node.inputs]
    return ", ".join(first or [nodes[0].name])


def topological_order(graph: StreamGraph) -> list[int]:
    """Return the ids of all operators, each after those that it reads from, feedback aside.

    Raises:
        GraphError: there is a cycle that does not go through `from_future`.
    """
    waiting = dict.fromkeys(graph.nodes, 0)
    for edge in graph.edges:
        waiting[edge.target] += not edge.feedback
    ready = [node for node, count in waiting.items() if not count]
    order = []
    while ready:
        node = ready.pop(0)
        order.append(node)
        for edge in graph.outputs(node):
            waiting[edge.target] -= not edge.feedback
            if not edge.feedback and not waiting[edge.target]:
                ready.append(edge.target)
    if len(order) < len(graph.nodes):
        stuck = ", ".join(graph.nodes[n].name for n in graph.nodes if n not in order)
        raise GraphError(f"these operators form a cycle without env.from_future(): {stuck}")
    return order


def end_order(graph: StreamGraph, nodes: Sequence[int]) -> list[int]:
    """Return `nodes` in the order in which their inputs end, feedback counted.

    What flows into a loop from anywhere ends before what is behind the loop. An operator that is
    upstream of another, but not the other way round, has fewer operators upstream of itself.
    """
    upstream: dict[int, set[int]] = {node: set() for node in graph.nodes}
    for edge in graph.edges:
        upstream[edge.target].add(edge.source)
    place = {node: number for number, node in enumerate(topological_order(graph))}
    counts = {node: len(_all_upstream(node, upstream)) for node in nodes}
    return sorted(nodes, key=lambda node: (counts[node], place[node]))


def _all_upstream(node: int, upstream: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    frontier = list(upstream[node])
    while frontier:
        here = frontier.pop()
        if here not in found:
            found.add(here)
            frontier += upstream[here]
    return found
