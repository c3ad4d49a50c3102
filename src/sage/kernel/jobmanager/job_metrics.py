"""The figures of a job, and how it ended: what its tasks have counted, put together when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.common.clock import Clock
from sage.common.log import get_logger
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.dataflow.graph.job_graph import JobGraph, topological_order
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.record import DEAD_LETTERS
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointStatistics
from sage.kernel.jobmanager.job_state import JobStatus
from sage.kernel.jobmanager.operator_metrics import OperatorMetrics, SlotReading
from sage.kernel.jobmanager.recovery import subtask_name
from sage.kernel.runtime.exchange.figures import SlotFigures
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.task.counters import Counters, record_counts

if TYPE_CHECKING:
    from sage.kernel.jobmanager.deployment import TaskHandle


@dataclass(frozen=True)
class JobMetrics:
    """The figures of a job at some moment.

    Attributes:
        operators: The figures of every operator by name, sources first.
        seconds: How long the job has been running.
        records_in: Records of its sources that have been processed.
        total_count: How many records its sources will give, if all of them know.
        slots: What each slot does with its time, in the present attempt. A job in one process has
            one for each part that shares nothing with the others. In a job over several processes,
            the last slot may be the program's own.
        restarts: How often it has been started again after a failure.
        checkpoints: What became of its checkpoints.
        calls: What worker processes know of their calls to services: they count in
            `env.services.status()`.
    """

    operators: dict[str, OperatorMetrics]
    seconds: float
    records_in: int
    total_count: int | None = None
    slots: tuple[SlotFigures, ...] = ()
    restarts: int = 0
    checkpoints: CheckpointStatistics = field(default_factory=CheckpointStatistics)
    calls: tuple[Mapping[str, Calls], ...] = field(default=(), repr=False)

    @property
    def records_per_second(self) -> float:
        """Records processed per second of running."""
        return self.records_in / self.seconds if self.seconds > 0 else 0.0

    def __getitem__(self, operator: str) -> OperatorMetrics:
        return self.operators[operator]


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        job_name: The name of the environment.
        env_uuid: The identity of this run.
        status: `FINISHED`, `CANCELED` or `FAILED`.
        metrics: The final figures.
    """

    job_name: str
    env_uuid: str
    status: JobStatus
    metrics: JobMetrics

    def __str__(self) -> str:
        return (
            f"{self.job_name}: {self.status}, {self.metrics.records_in:,} records "
            f"in {self.metrics.seconds:.2f} s ({self.metrics.records_per_second:,.0f}/s)"
        )


class JobMeter:
    """Puts the figures of a job together from what its tasks count.

    Args:
        graph: The plan.
        clock: The job's clock.
        layout: Where its subtasks are; None: all tasks are in this process.

    Attributes:
        counters: What each task counts.
    """

    def __init__(self, graph: JobGraph, clock: Clock, layout: ExecutionGraph | None = None) -> None:
        slots = 0 if layout is None else layout.workers + layout.has_client_slot
        self.counters = [Counters() for _ in range(slots or len(graph.vertices))]
        self._graph = graph.stream_graph
        self._has_layout = layout is not None
        self._places: Mapping[int, Sequence[int]] = (
            {node: (vertex.id,) for vertex in graph.vertices for node in vertex.nodes}
            if layout is None
            else layout.slots
        )
        self._clock = clock
        self._started: float | None = None
        self._ended: float | None = None

    def start(self) -> None:
        """Take note that the job has started."""
        self._started = self._clock.monotonic()

    def end(self) -> None:
        """Take note that the job has ended."""
        self._ended = self._clock.monotonic()

    def read(
        self,
        tasks: Sequence[TaskHandle],
        *,
        restarts: int,
        checkpoints: CheckpointStatistics,
    ) -> JobMetrics:
        """Return the figures of the job; from any thread.

        Args:
            tasks: Those of the present attempt.
            restarts: How often it has been started again after a failure.
            checkpoints: What became of its checkpoints.
        """
        slots = self._read_slots(tasks, checkpoints)
        operators = {
            node: OperatorMetrics.of(
                self._graph.nodes[node].name,
                self._graph.nodes[node].uid,
                [
                    slots[slot].subtask(node, self._graph.nodes[node].uid, index)
                    for index, slot in enumerate(self._places[node])
                ],
            )
            for node in topological_order(self._graph)
        }
        nodes = self._graph.nodes.values()
        sources = [node.id for node in nodes if isinstance(node.operator, ReadSource)]
        return JobMetrics(
            {figures.name: figures for figures in operators.values()},
            self._seconds(),
            sum(operators[node].records_out for node in sources),
            _total_count(tasks),
            tuple(slot.figures for slot in slots),
            restarts,
            checkpoints,
            tuple(task.calls for task in tasks if task.calls),
        )

    def _read_slots(
        self, tasks: Sequence[TaskHandle], checkpoints: CheckpointStatistics
    ) -> list[SlotReading]:
        now_ms = self._clock.now_ms() if self._ended is None else None
        parts = {} if checkpoints.last is None else checkpoints.last.subtasks
        return [
            SlotReading(
                task.figures,
                record_counts(self._graph, counters),
                task.watermarks,
                task.gauges,
                now_ms,
                parts.get(subtask_name(number, in_slot=self._has_layout)),
            )
            for number, (task, counters) in enumerate(zip(tasks, self.counters, strict=True))
        ]

    def _seconds(self) -> float:
        if self._started is None:
            return 0.0
        until = self._clock.monotonic() if self._ended is None else self._ended
        return max(0.0, until - self._started)

    def warn_of_unread(self, job: str) -> None:
        """Say in the log of a job which records nobody has read, now that it has ended."""
        counters, logger = _merge(self.counters), get_logger(job)
        for node in self._graph.nodes.values():
            if late := counters.read(node.id, "dropped_late"):
                logger.warning(
                    "%s dropped %d records that came too late; late_records() gives them, "
                    "allowed_lateness(...) waits for them",
                    node.name,
                    late,
                )
            if count := counters.read(node.id, "unrouted"):
                logger.warning(
                    "%s put out %d records under tags that nobody reads; those read are: %s",
                    node.name,
                    count,
                    self._tags_read(node.id),
                )

    def _tags_read(self, node: int) -> str:
        read = {edge.upstream.tag for edge in self._graph.outputs(node)} - {None, DEAD_LETTERS}
        return ", ".join(sorted(map(repr, read))) or "none"


def _total_count(tasks: Sequence[TaskHandle]) -> int | None:
    counts = [count for task in tasks for count in task.total_counts()]
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None


def _merge(parts: Sequence[Counters]) -> Counters:
    """Return the sum of the counters of all tasks; every operator is counted by one of them."""
    merged = Counters()
    for part in parts:
        part.add_to(merged)
    return merged
