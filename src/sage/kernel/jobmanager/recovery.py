"""How a job keeps its state and goes on after a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sage.kernel.checkpoint.messages import Subtask
from sage.kernel.checkpoint.restart_strategy import Failover, NoRestart, RestartStrategy
from sage.kernel.jobmanager.checkpointing import Checkpointing
from sage.kernel.jobmanager.restore import RestoredJob


@dataclass
class Recovery:
    """What a job has to go on after a failure; by default nothing.

    Attributes:
        strategy: Whether and when it is started again.
        failover: What is: the `"region"` that has failed, or `"full"`: all of the job.
        checkpoints: Takes its checkpoints; None: none are taken.
        restored: What the first attempt goes on from.
        read_latest: Returns what a further attempt goes on from.
        delete_on_cancel: Whether the checkpoints of a cancelled job are removed.
    """

    strategy: RestartStrategy = field(default_factory=NoRestart)
    failover: Failover = "region"
    checkpoints: Checkpointing | None = None
    restored: RestoredJob = field(default_factory=RestoredJob)
    read_latest: Callable[[], RestoredJob | None] = lambda: None
    delete_on_cancel: bool = False

    def latest(self) -> RestoredJob:
        """Return what the next attempt goes on from: the latest checkpoint, or what the first had."""
        if self.checkpoints is not None:
            self.checkpoints.wait_stored()
        found = self.read_latest()
        if found is None or self._is_older(found):
            found = self.restored.read_again()
        if self.checkpoints is not None:
            self.checkpoints.ended = found.final_states
        return found

    def _is_older(self, found: RestoredJob) -> bool:
        """Say whether a checkpoint is of an earlier run, while this one started from a savepoint."""
        return (
            self.checkpoints is not None
            and self.restored.from_savepoint
            and found.checkpoint_id < self.checkpoints.first_id
        )


SLOT: Final = "slot"
"""The name under which the states of all slots are kept."""


def task_name(vertex: int) -> str:
    """Return the name under which the state of a task is kept."""
    return f"task-{vertex}"


def subtask_name(vertex: int, *, in_slot: bool) -> Subtask:
    """Return the name and number under which the state of a task, or of a slot, is kept."""
    return Subtask(SLOT, vertex) if in_slot else Subtask(task_name(vertex))
