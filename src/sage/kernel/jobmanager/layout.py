"""Where the subtasks of a program are, as far as its state is concerned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage.dataflow.graph.execution_graph import ExecutionGraph, is_keyed_input, keyed_nodes
from sage.dataflow.graph.stream_graph import StreamGraph, StreamNode


@dataclass(frozen=True)
class Layout:
    """Where the subtasks of a program are; operators go by their uids.

    Attributes:
        nodes: The operators.
        keyed: Those whose records have keys.
        places: The slots in which each has a subtask, by the index of the subtask.
        slots: How many slots there are; 0: all of it runs in one process.
        splits: The splits of each source that each of its subtasks reads; those in one process say
            themselves what they read.
        max_parallelism: How many key groups there are; None: nobody has said, and nobody asks.
        is_chosen: Whether the user has said how many.
    """

    nodes: Mapping[str, StreamNode]
    keyed: frozenset[str]
    places: Mapping[str, tuple[int, ...]]
    slots: int
    splits: Mapping[str, tuple[tuple[str, ...], ...]]
    max_parallelism: int | None
    is_chosen: bool

    @property
    def largest(self) -> int:
        """How many subtasks the operator has that has the most."""
        return max(map(len, self.places.values()))

    def details(self) -> dict[str, Any]:
        """Return what a checkpoint tells of this; plain data."""
        groups = {"max_parallelism": self.max_parallelism} if self.max_parallelism else {}
        if not self.slots:
            return dict(groups)
        counts = {uid: len(places) for uid, places in self.places.items()}
        return {"slots": self.slots, **groups, "parallelism": counts}


def layout_of(
    graph: StreamGraph, subtasks: ExecutionGraph | None, max_parallelism: int | None
) -> Layout:
    """Describe where the subtasks of a program are.

    Args:
        graph: The program.
        subtasks: Its subtasks; None: it runs in one process.
        max_parallelism: How many key groups the user wants; None: that was left to us.
    """
    nodes = graph.nodes
    chosen = max_parallelism is not None
    keyed = keyed_nodes(graph)
    with_keys = frozenset(
        node.uid
        for node in nodes.values()
        if any(is_keyed_input(graph, keyed, node.id, i) for i in range(len(node.inputs)))
    )
    by_uid = {node.uid: node for node in nodes.values()}
    if subtasks is None:
        return Layout(
            by_uid, with_keys, dict.fromkeys(by_uid, (0,)), 0, {}, max_parallelism, chosen
        )
    return Layout(
        by_uid,
        with_keys,
        {nodes[node].uid: slots for node, slots in subtasks.slots.items()},
        subtasks.workers + subtasks.has_client_slot,
        {nodes[node].uid: splits for node, splits in subtasks.splits.items()},
        subtasks.max_parallelism,
        chosen,
    )
