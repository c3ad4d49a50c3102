"""`WorkerDeployment`: lays the slots of a job out over processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.dataflow.graph.job_graph import JobVertex
from sage.dataflow.key_group import key_group, subtask_of
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.batch_wise import WriteSink
from sage.kernel.checkpoint.messages import Subtask
from sage.kernel.jobmanager.deployment import TaskHandle
from sage.kernel.jobmanager.recovery import subtask_name
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.exchange.links import Links, Mesh, mesh_token
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.task import Task
from sage.kernel.runtime.task.task_start import TaskStart
from sage.kernel.runtime.worker.idle_workers import IdleWorkers
from sage.kernel.runtime.worker.order import SlotSettings, WorkerOrder
from sage.kernel.runtime.worker.worker_task import WorkerTask

CHANNEL_BYTES: Final = 4 << 20


@dataclass
class WorkerDeployment:
    """Implements `Deployment`: each slot is a task, and has a process of its own.

    What joins the processes is made anew for each attempt. A process goes on to the next attempt of its
    slot if it has ended the one before in order.

    Attributes:
        graph: The subtasks of the job.
        settings: Returns what all slots are told; called when services run.
        channel_bytes: How much goes into the channel between two slots.
    """

    graph: ExecutionGraph
    settings: Callable[[], SlotSettings]
    channel_bytes: int = CHANNEL_BYTES
    _meshes_made: int = 0
    _meshes: list[Mesh] = field(default_factory=list)
    _links: Links | None = None
    _idle: IdleWorkers = field(default_factory=IdleWorkers)
    _token: str = field(default_factory=mesh_token)

    @property
    def regions(self) -> tuple[tuple[int, ...], ...]:
        """The slots that hang together by exchanges."""
        return self.graph.regions()

    @property
    def layout(self) -> ExecutionGraph:
        """The subtasks of the job."""
        return self.graph

    def subtask(self, task: int) -> Subtask:
        """Return the name under which the state of a slot is kept."""
        return subtask_name(task, in_slot=True)

    def uids(self, task: int) -> frozenset[str]:
        """Return the uids of the operators that a slot runs."""
        nodes = self.graph.stream_graph.nodes
        return frozenset(nodes[node].uid for node in self.graph.nodes_of(task))

    def make_tasks(
        self,
        tasks: Sequence[int],
        context: JobContext,
        counters: Sequence[Counters],
        restored: RestoredJob,
        reports: Callable[[int], CheckpointReports | None],
    ) -> list[TaskHandle]:
        """Make the channels and the tasks of an attempt.

        Args:
            tasks: The slots.
            context: What the task in this process shares with the job.
            counters: Where each slot counts.
            restored: What the attempt goes on from.
            reports: Returns who a slot answers to about checkpoints.

        Raises:
            JobError: something of the program cannot be sent to a process.
            QueueError: a channel cannot be made.
            OSError: there is no space for them.
        """
        self.release(tasks)
        states = restored.slots or ({},) * (self.graph.workers + self.graph.has_client_slot)
        sent, settings, made = _for_workers(self.graph), self.settings(), list[TaskHandle]()
        try:
            meshes = self._join(tasks)
            for slot in tasks:
                if slot == self.graph.workers:
                    start = TaskStart(states[slot], reports=reports(slot))
                    timeout = settings.buffer_timeout
                    made.append(
                        self._client_task(context, counters[slot], start, timeout, meshes[slot])
                    )
                else:
                    mesh, takes = meshes[slot], context.checkpoints
                    order = WorkerOrder(sent, mesh, slot, settings, states[slot], takes)
                    made.append(WorkerTask(order, counters[slot], self._idle, reports(slot)))
        except BaseException:
            self.release(tasks)
            raise
        return made

    def _join(self, tasks: Sequence[int]) -> dict[int, Mesh]:
        """Make the channels between these slots; return to each those of its region."""
        found = dict[int, Mesh]()
        for region in self.regions:
            if region[0] in tasks:
                self._meshes_made += 1
                token = f"{self._token}.{self._meshes_made}"
                mesh = Mesh.of(self.graph, token, self.channel_bytes, region)
                mesh.create()
                self._meshes.append(mesh)
                found |= dict.fromkeys(region, mesh)
        return found

    def _client_task(
        self,
        context: JobContext,
        counters: Counters,
        start: TaskStart,
        buffer_timeout: float,
        mesh: Mesh,
    ) -> Task:
        """Make the task of this process, which gives records back to the program."""
        slot = self.graph.workers
        self._links = Links(mesh, slot)
        exchange = SlotExchange(
            self.graph,
            slot,
            self._links,
            batch_size=context.batch_size,
            buffer_timeout=buffer_timeout,
            monotonic=context.clock.monotonic,
        )
        vertex = JobVertex(slot, self.graph.nodes_of(slot), "client")
        return Task(self.graph.stream_graph, vertex, context, counters, start, exchange=exchange)

    def owners(self, uid: str, key: Any) -> Sequence[int]:
        """Return the slot in which the state of a key is; none if there is no such operator.

        Raises:
            TypeError: it cannot be a key.
        """
        nodes = self.graph.stream_graph.nodes.values()
        node = next((node.id for node in nodes if node.uid == uid), None)
        if node is None:
            return ()
        slots, groups = self.graph.slots[node], self.graph.max_parallelism
        # Where records have no keys, no subtask has more of such state than another.
        place = 0 if len(slots) == 1 else subtask_of(key_group(key, groups), groups, len(slots))
        return (slots[place],)

    def release(self, tasks: Sequence[int]) -> None:
        """Remove the channels of these slots, none of which is running any more."""
        if self._links is not None and self.graph.workers in tasks:
            self._links.close()
            self._links = None
        for mesh in self._meshes[:]:
            if mesh.slots[0] in tasks:
                mesh.remove()
                self._meshes.remove(mesh)

    def close(self) -> None:
        """End the processes that wait for another attempt."""
        self._idle.close()


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
