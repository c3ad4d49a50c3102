"""`WorkerDeployment`: lays the slots of a job out over processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.dataflow.graph.job_graph import JobVertex
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.batch_wise import WriteSink
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.exchange.links import Links, Mesh, mesh_token
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
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
    _token: str = field(default_factory=mesh_token)

    @property
    def slots(self) -> int:
        """How many tasks an attempt has."""
        return self.graph.workers + self.graph.has_client_slot

    def make_tasks(
        self,
        context: JobContext,
        counters: Sequence[Counters],
        restored: RestoredJob,
        reports: Callable[[int], CheckpointReports | None],
    ) -> Sequence[Task | WorkerTask]:
        """Make the channels and the tasks of an attempt.

        Args:
            context: What the task in this process shares with the job.
            counters: Where each slot counts.
            restored: What the attempt goes on from.
            reports: Returns who a slot answers to about checkpoints.

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
            states = restored.slots or ({},) * self.slots
            tasks: list[Task | WorkerTask] = []
            for slot in range(self.graph.workers):
                order = WorkerOrder(sent, mesh, slot, settings, states[slot], context.checkpoints)
                tasks.append(WorkerTask(order, counters[slot], reports(slot)))
            if self.graph.has_client_slot:
                timeout, own = settings.buffer_timeout, self.graph.workers
                exchange = self._client_exchange(context, timeout, mesh)
                task = Task(
                    self.graph.stream_graph,
                    JobVertex(own, self.graph.nodes_of(own), "client"),
                    context,
                    counters[own],
                    restored=states[own],
                    reports=reports(own),
                    exchange=exchange,
                )
                tasks.append(task)
        except BaseException:
            self.close()
            raise
        return tasks

    def _client_exchange(
        self, context: JobContext, buffer_timeout: float, mesh: Mesh
    ) -> SlotExchange:
        """Make the end of the exchanges of this process, which gives records back to the program."""
        self._links = Links(mesh, self.graph.workers)
        return SlotExchange(
            self.graph,
            self.graph.workers,
            self._links,
            batch_size=context.batch_size,
            buffer_timeout=buffer_timeout,
            monotonic=context.clock.monotonic,
        )

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
