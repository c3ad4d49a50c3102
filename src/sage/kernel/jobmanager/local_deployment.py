"""`LocalDeployment`: all tasks of a job run in this process, each a part of it that hangs together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sage.dataflow.graph.job_graph import JobGraph
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.source import ReadSource
from sage.kernel.checkpoint.messages import Subtask
from sage.kernel.jobmanager.deployment import TaskHandle
from sage.kernel.jobmanager.recovery import subtask_name
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.task import Task
from sage.kernel.runtime.task.task_start import TaskStart


class LocalDeployment:
    """Implements `Deployment`: each vertex of the job graph is a task, and a region.

    Args:
        graph: The plan.
    """

    def __init__(self, graph: JobGraph) -> None:
        self._graph = graph

    @property
    def regions(self) -> tuple[tuple[int, ...], ...]:
        """Each task by itself: what hangs together is one."""
        return tuple((number,) for number in range(len(self._graph.vertices)))

    @property
    def layout(self) -> None:
        """There is none: each operator is in one task alone."""
        return

    def subtask(self, task: int) -> Subtask:
        """Return the name under which the state of a task is kept."""
        return subtask_name(self._graph.vertices[task].id, in_slot=False)

    def uids(self, task: int) -> frozenset[str]:
        """Return the uids of the operators of a task."""
        return self._uids(task, Operator)

    def owners(self, uid: str, key: Any) -> Sequence[int]:
        """Return the task that has the operator, with the state of all keys."""
        return [task for task in range(len(self._graph.vertices)) if uid in self.uids(task)]

    def _uids(self, task: int, kind: type[Operator]) -> frozenset[str]:
        nodes = (self._graph.stream_graph.nodes[node] for node in self._graph.vertices[task].nodes)
        return frozenset(node.uid for node in nodes if isinstance(node.operator, kind))

    def make_tasks(
        self,
        tasks: Sequence[int],
        context: JobContext,
        counters: Sequence[Counters],
        restored: RestoredJob,
        reports: Callable[[int], CheckpointReports | None],
    ) -> list[TaskHandle]:
        """Make the tasks; those that had ended have only to commit what was left.

        Args:
            tasks: Which.
            context: What all tasks share.
            counters: Where each counts.
            restored: What the attempt goes on from.
            reports: Returns who a task answers to about checkpoints.
        """
        made: list[TaskHandle] = []
        for number in tasks:
            sources = self._uids(number, ReadSource)
            has_ended = bool(sources) and sources <= restored.final_states.uids
            start = TaskStart(restored.states, has_ended, reports(number))
            vertex = self._graph.vertices[number]
            made.append(Task(self._graph.stream_graph, vertex, context, counters[number], start))
        return made

    def release(self, tasks: Sequence[int]) -> None:
        """Do nothing: tasks of one process are joined by nothing that would be left."""

    def close(self) -> None:
        """Do nothing: a thread is made anew for each attempt."""
