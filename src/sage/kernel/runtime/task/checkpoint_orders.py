"""What a task is told about checkpoints, and what it answers; the same in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sage.kernel.runtime.task.operator_state import StatePart


@dataclass(frozen=True)
class TakeState:
    """An order to take the state of all operators for a checkpoint.

    Attributes:
        checkpoint_id: The number of the checkpoint.
        increments: The uids of those operators of which only what has changed is wanted.
        hold: Whether to put nothing more out afterwards, before something else is said.
    """

    checkpoint_id: int
    increments: frozenset[str] = frozenset()
    hold: bool = False


@dataclass(frozen=True)
class SnapshotFigures:
    """What it took a task to take its state for a checkpoint.

    Attributes:
        alignment: Seconds from when the checkpoint began there until all that comes before it had
            come from other slots, and had been processed; 0 without other slots.
        in_flight_bytes: Bytes of the records that came meanwhile.
        taking: Seconds for which it stood still to take its state.
    """

    alignment: float = 0.0
    in_flight_bytes: int = 0
    taking: float = 0.0


class CheckpointReports(Protocol):
    """Who a task answers to. The methods may be called from any thread."""

    def state_taken(
        self, checkpoint_id: int, parts: Mapping[str, StatePart], figures: SnapshotFigures
    ) -> None:
        """The state has been taken."""
        ...

    def state_refused(self, checkpoint_id: int, reason: str) -> None:
        """It could not be; the task goes on."""
        ...

    def input_ended(self, last_checkpoint: int, parts: Mapping[str, StatePart]) -> None:
        """The input has ended, with this state; the last checkpoint before has this number."""
        ...

    def committed(self, checkpoint_id: int) -> None:
        """The sinks have committed what belongs to the checkpoint."""
        ...


class CheckpointedTask(Protocol):
    """A task as the coordinator of checkpoints sees it. The methods may be called from any thread.

    Attributes:
        last_checkpoint: The number of the last checkpoint that it knows of; to be set before it runs.
    """

    last_checkpoint: int

    @property
    def input_ended(self) -> bool:
        """Whether its input has ended, which it has reported before."""
        ...

    def take_checkpoint(self, order: TakeState) -> None:
        """Take the state when all that comes before the checkpoint has been processed."""
        ...

    def abort_checkpoint(self, checkpoint_id: int) -> None:
        """Go on: the checkpoint will not be."""
        ...

    def commit_checkpoint(self, checkpoint_id: int, *, leave: bool = False) -> None:
        """Let sinks commit what belongs to checkpoints up to this one; with `leave`, end after it."""
        ...

    def leave_now(self) -> None:
        """Read no more and put nothing more out."""
        ...
