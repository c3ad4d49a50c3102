"""What became of the checkpoints of a job: how many, and of the last ones how long and how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sage.kernel.checkpoint.messages import CompletedCheckpoint, Subtask, SubtaskSnapshot
from sage.kernel.runtime.task.checkpoint_orders import SnapshotFigures

_MOST_RECENT: Final = 10


@dataclass(frozen=True)
class SubtaskCheckpoint:
    """The part of one slot in a checkpoint.

    Attributes:
        seconds: From when the checkpoint was begun until the state of the slot was written.
        alignment: Seconds of that in which it waited for what comes before the checkpoint from other
            slots, and processed it.
        in_flight_bytes: Bytes of the records that came meanwhile: they were on their way.
        taking: Seconds for which it stood still to take its state.
        bytes: Bytes that were written.
        size: Bytes of state that it stands for.
        sizes: The same by operator: by its `uid`.
    """

    seconds: float = 0.0
    alignment: float = 0.0
    in_flight_bytes: int = 0
    taking: float = 0.0
    bytes: int = 0
    size: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointFigures:
    """A checkpoint or savepoint that completed.

    Attributes:
        checkpoint_id: Its number.
        ended_ms: When it completed, in milliseconds since the Unix epoch.
        seconds: How long it took.
        savepoint: Whether it is a savepoint.
        bytes: How many bytes were written for it.
        size: How many bytes of state it stands for.
        subtasks: The part of each slot, by its name and number.
    """

    checkpoint_id: int
    ended_ms: int
    seconds: float
    savepoint: bool
    bytes: int
    size: int
    subtasks: Mapping[Subtask, SubtaskCheckpoint]

    @property
    def alignment(self) -> float:
        """For how many seconds the slowest slot waited for what comes before the checkpoint."""
        return max((part.alignment for part in self.subtasks.values()), default=0.0)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of records that were on their way between slots, all slots together."""
        return sum(part.in_flight_bytes for part in self.subtasks.values())


@dataclass(frozen=True)
class CheckpointStatistics:
    """What became of the checkpoints of a job so far; savepoints count.

    Attributes:
        completed: How many completed.
        failed: How many did not.
        last_failure: Why the last of those did not; None if none has failed.
        recent: Those that completed, the last ten at most, the latest last.

    Examples:
        >>> CheckpointStatistics(failed=1).last_id is None
        True
    """

    completed: int = 0
    failed: int = 0
    last_failure: str | None = None
    recent: tuple[CheckpointFigures, ...] = ()

    @property
    def last(self) -> CheckpointFigures | None:
        """The last one that completed; None if none has."""
        return self.recent[-1] if self.recent else None

    @property
    def last_id(self) -> int | None:
        """The number of the last one that completed; None if none has."""
        return None if self.last is None else self.last.checkpoint_id

    @property
    def last_seconds(self) -> float:
        """How long the last one that completed took."""
        return 0.0 if self.last is None else self.last.seconds

    @property
    def last_bytes(self) -> int:
        """How many bytes were written for the last one that completed."""
        return 0 if self.last is None else self.last.bytes

    @property
    def last_size(self) -> int:
        """How many bytes of state the last one that completed stands for."""
        return 0 if self.last is None else self.last.size

    @property
    def last_alignment(self) -> float:
        """How long the slowest slot waited, at the last one, for what comes before it."""
        return 0.0 if self.last is None else self.last.alignment

    @property
    def last_in_flight_bytes(self) -> int:
        """Bytes of records that were on their way between slots at the last one that completed."""
        return 0 if self.last is None else self.last.in_flight_bytes


class CheckpointLog:
    """Writes the statistics. For one thread; any may read `statistics`.

    Attributes:
        statistics: What became of the checkpoints so far.
    """

    def __init__(self) -> None:
        self.statistics = CheckpointStatistics()
        self._began = 0.0
        self._parts: dict[Subtask, SubtaskCheckpoint] = {}

    def begin(self, now: float) -> None:
        """Take note that a checkpoint begins."""
        self._began = now
        self._parts = {}

    def taken(
        self, subtask: Subtask, figures: SnapshotFigures, snapshot: SubtaskSnapshot, now: float
    ) -> None:
        """Take note that the state of a subtask has been written."""
        self._parts[subtask] = SubtaskCheckpoint(
            seconds=now - self._began,
            alignment=figures.alignment,
            in_flight_bytes=figures.in_flight_bytes,
            taking=figures.taking,
            bytes=snapshot.written,
            size=snapshot.size,
            sizes=_sizes(snapshot),
        )

    def complete(self, checkpoint: CompletedCheckpoint, now_ms: int) -> None:
        """Take note that a checkpoint has completed, at a time of day."""
        parts = {s: self._part(s, snapshot) for s, snapshot in checkpoint.snapshots.items()}
        figures = CheckpointFigures(
            checkpoint_id=checkpoint.checkpoint_id,
            ended_ms=now_ms,
            seconds=checkpoint.duration,
            savepoint=checkpoint.request is not None and checkpoint.request.target is not None,
            bytes=sum(part.bytes for part in parts.values()),
            size=sum(part.size for part in parts.values()),
            subtasks=parts,
        )
        self.statistics = replace(
            self.statistics,
            completed=self.statistics.completed + 1,
            recent=(*self.statistics.recent, figures)[-_MOST_RECENT:],
        )

    def _part(self, subtask: Subtask, snapshot: SubtaskSnapshot) -> SubtaskCheckpoint:
        """Return the part of a subtask; one that had ended before wrote nothing for it."""
        if snapshot.ended or subtask not in self._parts:
            return SubtaskCheckpoint(size=snapshot.size, sizes=_sizes(snapshot))
        return self._parts[subtask]

    def fail(self, reason: str) -> None:
        """Take note that a checkpoint will not be."""
        failed = self.statistics.failed + 1
        self.statistics = replace(self.statistics, failed=failed, last_failure=reason)


def _sizes(snapshot: SubtaskSnapshot) -> dict[str, int]:
    chains = snapshot.handle
    return {uid: sum(chunk.size for chunk in chain) for uid, chain in chains.items()}
