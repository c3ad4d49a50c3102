"""`WorkerDeployment`: lays the slots of a job out over processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sage.common.ids import new_uuid
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.dataflow.graph.job_graph import JobVertex
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.batch_wise import WriteSink
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.exchange.links import Links, Mesh
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.task import Task
from sage.kernel.runtime.worker.order import SlotSettings, WorkerOrder
from sage.kernel.runtime.worker.worker_task import WorkerTask

CHANNEL_BYTES: Final = 4 << 20


@dataclass
class WorkerDeployment:
    """The processes of a job, and what joins them; made anew for every attempt.

    Attributes:
        graph: The subtasks of the job.
        settings: Returns what all slots are told; called when services run.
        channel_bytes: How much goes into the channel between two slots.
    """

    graph: ExecutionGraph
    settings: Callable[[], SlotSettings]
    channel_bytes: int = CHANNEL_BYTES
    _attempt: int = 0
    _mesh: Mesh | None = None
    _links: Links | None = None
    _token: str = field(default_factory=lambda: f"sage-x{os.getpid()}-{new_uuid()[:8]}")

    @property
    def slots(self) -> int:
        """How many tasks an attempt has."""
        return self.graph.workers + self.graph.has_client_slot

    def make_tasks(
        self, context: JobContext, counters: Sequence[Counters]
    ) -> Sequence[Task | WorkerTask]:
        """Make the channels and the tasks of an attempt.

        Raises:
            JobError: something of the program cannot be sent to a process.
            QueueError: a channel cannot be made.
            OSError: there is no space for them.
        """
        self.close()
        self._attempt += 1
        mesh = Mesh.of(self.graph, f"{self._token}.{self._attempt}", self.channel_bytes)
        mesh.create()
        self._mesh = mesh
        try:
            sent, settings = _for_workers(self.graph), self.settings()
            tasks: list[Task | WorkerTask] = [
                WorkerTask(WorkerOrder(sent, mesh, slot, settings), counters[slot])
                for slot in range(self.graph.workers)
            ]
            if self.graph.has_client_slot:
                tasks.append(self._client_task(context, settings, mesh, counters[-1]))
        except BaseException:
            self.close()
            raise
        return tasks

    def _client_task(
        self, context: JobContext, settings: SlotSettings, mesh: Mesh, counters: Counters
    ) -> Task:
        """Make the task of this process, which gives records back to the program."""
        slot = self.graph.workers
        self._links = Links(mesh, slot)
        exchange = SlotExchange(
            self.graph,
            slot,
            self._links,
            batch_size=context.batch_size,
            buffer_timeout=settings.buffer_timeout,
            monotonic=context.clock.monotonic,
        )
        vertex = JobVertex(slot, self.graph.nodes_of(slot), "client")
        return Task(self.graph.stream_graph, vertex, context, counters, exchange=exchange)

    def close(self) -> None:
        """Remove the channels. The tasks must have ended."""
        if self._links is not None:
            self._links.close()
            self._links = None
        if self._mesh is not None:
            self._mesh.remove()
            self._mesh = None


def _for_workers(graph: ExecutionGraph) -> ExecutionGraph:
    """Return the graph without what stays in this process: it may not be fit to travel."""
    nodes = {
        number: replace(node, operator=_hollow(node.operator)) if node.operator.at_client else node
        for number, node in graph.stream_graph.nodes.items()
    }
    return replace(graph, stream_graph=replace(graph.stream_graph, nodes=nodes))


def _hollow(operator: Operator) -> Operator:
    if isinstance(operator, WriteSink):
        return replace(operator, sink=None)
    return replace(operator, functions=())
