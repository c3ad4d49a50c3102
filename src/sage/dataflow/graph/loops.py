"""Feedback loops: through which operators records go round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sage.dataflow.graph.job_graph import end_order
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import BatchOperator, Operator


@dataclass(frozen=True)
class Loop:
    """Operators each of which may be given what comes of what any of them puts out.

    Loops that share an operator are one.

    Attributes:
        number: Its place among the loops of the job; the same in all slots.
        nodes: Its operators, in the order in which they end.
        ending: Those of them that may put something out when their input has ended.
        exchanges: The numbers of the exchanges inside of it.
        entrances: The numbers of the exchanges by which records come into it.
        slots: Where it has subtasks, the first one first.
    """

    number: int
    nodes: tuple[int, ...]
    ending: tuple[int, ...]
    exchanges: frozenset[int]
    entrances: frozenset[int]
    slots: tuple[int, ...]


def find_loops(graph: StreamGraph) -> list[tuple[int, ...]]:
    """Return the operators of each loop, in the order in which they end.

    What is reached by no record of its own is in none, even if records come to it by a future.
    """
    loops: list[set[int]] = []
    for edge in graph.edges:
        if edge.feedback:
            members = _reached(graph, edge.target) & _reaching(graph, edge.source)
            shared = [loop for loop in loops if not members.isdisjoint(loop)]
            loops = [loop for loop in loops if loop not in shared]
            loops += [members.union(*shared)] if members else []
    return sorted(tuple(end_order(graph, sorted(loop))) for loop in loops)


def may_put_out_at_end(operator: Operator) -> bool:
    """Say whether an operator may put something out when its input has ended."""
    has_part = type(operator).create_live is not Operator.create_live
    return has_part or operator.final or isinstance(operator, BatchOperator)


def _reached(graph: StreamGraph, start: int) -> set[int]:
    return _closure(start, lambda node: (edge.target for edge in graph.outputs(node)))


def _reaching(graph: StreamGraph, start: int) -> set[int]:
    return _closure(start, lambda node: (edge.source for edge in graph.inputs(node)))


def _closure(start: int, neighbours: Callable[[int], Iterable[int]]) -> set[int]:
    found, frontier = {start}, [start]
    while frontier:
        fresh = set(neighbours(frontier.pop())) - found
        found |= fresh
        frontier += fresh
    return found
