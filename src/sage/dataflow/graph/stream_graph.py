"""The stream graph: the whole program, checked, with a unique name for every operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sage.common.config import EnvironmentConfig, ErrorPolicy
from sage.common.errors import GraphError
from sage.dataflow.graph.transformation import Input, Pipeline, Upstream
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.batch_wise import WriteSink
from sage.dataflow.operator.record_wise import CallSink, DeadLetterOffice, LoopHead
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.record import DEAD_LETTERS


@dataclass(frozen=True)
class StreamNode:
    """An operator with all its options settled.

    Attributes:
        id: The id of its transformation.
        operator: What it does.
        inputs: What flows into each input.
        name: A name that is unique in the graph.
        uid: The user's identity for it, or its name.
        parallelism: How many subtasks it has.
        on_error: What becomes of records that fail.
    """

    id: int
    operator: Operator
    inputs: tuple[Input, ...]
    name: str
    uid: str
    parallelism: int
    on_error: ErrorPolicy


@dataclass(frozen=True)
class Edge:
    """A way from one operator to an input of another."""

    source: int
    target: int
    index: int
    upstream: Upstream
    feedback: bool = False


@dataclass(frozen=True)
class StreamGraph:
    """Operators and edges; ids are in an order in which every edge but feedback goes up.

    Attributes:
        name: The name of the job.
        nodes: The operators by id.
        edges: All edges.
        warnings: What is odd about the program but does not keep it from running.
    """

    name: str
    nodes: dict[int, StreamNode]
    edges: tuple[Edge, ...]
    warnings: tuple[str, ...] = ()
    _outputs: dict[int, list[Edge]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for edge in self.edges:
            self._outputs.setdefault(edge.source, []).append(edge)

    def outputs(self, node: int) -> list[Edge]:
        """Return the edges that leave `node`, in the order in which they were written."""
        return self._outputs.get(node, [])

    def inputs(self, node: int) -> list[Edge]:
        """Return the edges that enter `node`."""
        return [edge for edge in self.edges if edge.target == node]


def build_stream_graph(name: str, pipeline: Pipeline, config: EnvironmentConfig) -> StreamGraph:
    """Check a pipeline and settle the options of its operators.

    Raises:
        GraphError: the pipeline is empty, a future is not filled, a uid is used twice, dead letters
            have no reader, or a loop holds an operator that waits for its end.
    """
    if not len(pipeline):
        raise GraphError(
            "there is nothing to run: start with env.from_batch(...) or env.from_source(...)"
        )
    nodes = _settle(pipeline, config)
    _deliver_dead_letters(nodes, pipeline)
    _check_futures(nodes.values())
    edges = tuple(_edges(nodes.values()))
    nodes, warnings = _leave_out_unread_sources(nodes, edges)
    edges = tuple(edge for edge in edges if edge.source in nodes and edge.target in nodes)
    graph = StreamGraph(name, nodes, edges, tuple(warnings + _loose_ends(nodes, edges)))
    _check_dead_letters(graph)
    _check_loops(graph)
    return graph


def _settle(pipeline: Pipeline, config: EnvironmentConfig) -> dict[int, StreamNode]:
    names: set[str] = set()
    uids = _given_uids(pipeline)
    nodes = {}
    for step in pipeline:
        name = _unique(step.name or step.operator.label, names)
        uid = step.uid or _unique(name, uids)
        nodes[step.id] = StreamNode(
            id=step.id,
            operator=step.operator,
            inputs=step.inputs,
            name=name,
            uid=uid,
            parallelism=step.parallelism or config.parallelism,
            on_error=step.on_error or config.on_error,
        )
    return nodes


def _given_uids(pipeline: Pipeline) -> set[str]:
    uids: set[str] = set()
    for step in pipeline:
        if step.uid is not None and step.uid in uids:
            second = step.name or step.operator.label
            raise GraphError(f"the uid {step.uid!r} is given to two operators; one is {second}")
        uids |= {step.uid} if step.uid is not None else set()
    return uids


def _unique(name: str, taken: set[str]) -> str:
    """Return `name`, or the first of `name-2`, `name-3` … that is not `taken`; take it."""
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique


def _deliver_dead_letters(nodes: dict[int, StreamNode], pipeline: Pipeline) -> None:
    """Let the dead letters of every operator flow to the offices, if there are any.

    What is done with dead letters does not send any itself, unless it says so: they would go round.
    """
    offices = [i for i, node in nodes.items() if isinstance(node.operator, DeadLetterOffice)]
    for node in _behind_dead_letters(nodes, offices):
        if pipeline[node].on_error is None and nodes[node].on_error == "dead_letter":
            nodes[node] = replace(nodes[node], on_error="fail")
    senders = tuple(
        Upstream(node.id, DEAD_LETTERS) for node in nodes.values() if node.on_error == "dead_letter"
    )
    for office in offices:
        behind = _reachable(office, nodes)
        inputs = tuple(sender for sender in senders if sender.node not in behind)
        nodes[office] = replace(nodes[office], inputs=(inputs,))


def _behind_dead_letters(nodes: dict[int, StreamNode], offices: list[int]) -> set[int]:
    readers = {e.target for e in _edges(nodes.values()) if e.upstream.tag == DEAD_LETTERS}
    return set().union(*(_reachable(reader, nodes) for reader in {*offices, *readers}))


def _reachable(start: int, nodes: dict[int, StreamNode]) -> set[int]:
    edges = list(_edges(nodes.values()))
    found, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        fresh = {edge.target for edge in edges if edge.source == here} - found
        found |= fresh
        frontier += fresh
    return found


def _check_futures(nodes: Iterable[StreamNode]) -> None:
    for node in nodes:
        if isinstance(node.operator, LoopHead) and not node.inputs:
            raise GraphError(
                f"the future {node.name!r} is never filled; close the loop with "
                "stream.fill_future(future)"
            )


def _edges(nodes: Iterable[StreamNode]) -> Iterable[Edge]:
    for node in nodes:
        feedback = isinstance(node.operator, LoopHead)
        for index, upstreams in enumerate(node.inputs):
            for upstream in upstreams:
                yield Edge(upstream.node, node.id, index, upstream, feedback)


def _leave_out_unread_sources(
    nodes: dict[int, StreamNode], edges: tuple[Edge, ...]
) -> tuple[dict[int, StreamNode], list[str]]:
    read = {edge.source for edge in edges}
    unread = [n for n in nodes.values() if isinstance(n.operator, ReadSource) and n.id not in read]
    if len(unread) == len(nodes):
        raise GraphError(
            f"nothing is done with the records of {unread[0].name}: add a step, such as "
            ".map(...), and an end, such as .sink(...), .print() or .collect()"
        )
    warnings = [f"nobody reads {node.name}: the source is left out" for node in unread]
    left_out = {node.id for node in unread}
    return {i: node for i, node in nodes.items() if i not in left_out}, warnings


def _loose_ends(nodes: dict[int, StreamNode], edges: tuple[Edge, ...]) -> list[str]:
    read = {edge.source for edge in edges}
    ends = (CallSink, WriteSink, DeadLetterOffice)
    return [
        f"the output of {node.name} reaches no sink: it runs, but its results go nowhere"
        for node in nodes.values()
        if node.id not in read and not isinstance(node.operator, ends)
    ]


def _check_dead_letters(graph: StreamGraph) -> None:
    for node in graph.nodes.values():
        read = any(edge.upstream.tag == DEAD_LETTERS for edge in graph.outputs(node.id))
        operator = node.operator
        fails = isinstance(operator, ReadSource) and operator.can_fail
        can_fail = fails or not isinstance(operator, (ReadSource, LoopHead, DeadLetterOffice))
        if node.on_error == "dead_letter" and can_fail and not read:
            raise GraphError(
                f"{node.name} sends records that fail to the dead letters, but nobody reads them; "
                "add stream.dead_letters().sink(...), or env.dead_letters().sink(...) for those of "
                'all operators, or choose on_error="skip"'
            )


def _check_loops(graph: StreamGraph) -> None:
    for node in graph.nodes.values():
        if node.operator.final and node.id in _reachable_from_outputs(graph, node.id):
            raise GraphError(
                f"{node.name} gives its results when its input ends, but it is inside of a "
                'feedback loop, whose input ends only after it; use emit="update"'
            )


def _reachable_from_outputs(graph: StreamGraph, start: int) -> set[int]:
    found: set[int] = set()
    frontier = [edge.target for edge in graph.outputs(start)]
    while frontier:
        here = frontier.pop()
        if here not in found:
            found.add(here)
            frontier += [edge.target for edge in graph.outputs(here)]
    return found
