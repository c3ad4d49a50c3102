"""What the master of a job needs of those who run its tasks: two contracts, the same everywhere.

`Deployment` lays a job out and makes the handles of an attempt; a `TaskHandle` stands for one task. The
job runs every handle in a thread of its own and tells its master what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.checkpoint.messages import Subtask
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.exchange.figures import SlotFigures
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.task.checkpoint_orders import CheckpointedTask, CheckpointReports
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.operator_context import JobContext


class TaskHandle(CheckpointedTask, Protocol):
    """One task of one attempt, wherever it runs. All methods may be called from any thread.

    `stop`, `cancel` and the orders about checkpoints return at once. They may come before `run`, and
    are obeyed then; after its end they do nothing. What the task tells about checkpoints goes to the
    `CheckpointReports` that it was made with.
    """

    @property
    def has_ended(self) -> bool:
        """Whether its input had ended in an earlier attempt: it has only to commit what was left."""
        ...

    @property
    def left_early(self) -> bool:
        """Whether it was told to leave before its input had ended."""
        ...

    @property
    def figures(self) -> SlotFigures:
        """What it does with its time, as last heard."""
        ...

    @property
    def watermarks(self) -> Mapping[int, int]:
        """How far the event time of its operators has come, by their ids, as last heard."""
        ...

    @property
    def gauges(self) -> Mapping[int, Mapping[str, int]]:
        """What its sources say of themselves, by their ids, as last heard."""
        ...

    @property
    def calls(self) -> Mapping[str, Calls]:
        """What it knows of its calls to services, by service, as last heard."""
        ...

    def run(self) -> None:
        """Start the task; return when it has ended and nothing of it is left. Called once.

        Raises:
            TaskCancelled: it was cancelled.
            WorkerLostError: what ran it has died, or has not been heard of for too long.
            OperatorError: a function, source or sink failed.
            JobError: something else has failed.
        """
        ...

    def stop(self) -> None:
        """Let the sources end here; what has been read is processed to the end."""
        ...

    def cancel(self) -> None:
        """Leave off after the batch at hand; `run` returns in bounded time whatever it is doing."""
        ...

    def total_counts(self) -> list[int | None]:
        """Return how many records each of its sources will give; None: that source cannot say."""
        ...

    def query_state(self, uid: str, name: str, key: Any, timeout: float) -> Any:
        """Return the present value of a key in a state that an operator declares.

        Raises:
            KeyError: no running operator of this task has that uid.
            JobTimeoutError: the task has not answered within `timeout` seconds.
        """
        ...


class Deployment(Protocol):
    """Lays the tasks of one job out. A task goes by its number, from 0, the same in each attempt."""

    @property
    def regions(self) -> tuple[tuple[int, ...], ...]:
        """All tasks of the job, in groups: no record goes from one group to another."""
        ...

    @property
    def layout(self) -> ExecutionGraph | None:
        """Where the subtasks of the operators are; None: each operator is in one task alone."""
        ...

    def subtask(self, task: int) -> Subtask:
        """Return the name under which the state of a task is kept."""
        ...

    def uids(self, task: int) -> frozenset[str]:
        """Return the uids of the operators of a task."""
        ...

    def owners(self, uid: str, key: Any) -> Sequence[int]:
        """Return the tasks in which the state of a key may be that an operator declares.

        Raises:
            TypeError: it cannot be a key.
        """
        ...

    def make_tasks(
        self,
        tasks: Sequence[int],
        context: JobContext,
        counters: Sequence[Counters],
        restored: RestoredJob,
        reports: Callable[[int], CheckpointReports | None],
    ) -> list[TaskHandle]:
        """Make what an attempt of some whole regions needs, and a handle for each of their tasks.

        Nothing of an earlier attempt of them is left when this is called.

        Args:
            tasks: The tasks.
            context: What tasks share with the job.
            counters: Where each task of the job counts, by its number.
            restored: What the attempt goes on from.
            reports: Returns who a task answers to about checkpoints; None: to nobody.

        Raises:
            JobError: something of the program cannot be sent to where it is to run.
            QueueError: there is no room for what joins the tasks.
            OSError: the same.
        """
        ...

    def release(self, tasks: Sequence[int]) -> None:
        """Remove what has joined these tasks, none of which is running any more; twice is no error."""
        ...

    def close(self) -> None:
        """Let go of what has been kept for further attempts; there will be none."""
        ...
