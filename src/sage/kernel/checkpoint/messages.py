"""What goes in and out of the coordinator of checkpoints: values, all of them immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Subtask(NamedTuple):
    """One parallel instance of a task: the task's name and its number."""

    task: str
    number: int = 0


@dataclass(frozen=True)
class CheckpointRules:
    """When checkpoints are taken and what is forgiven; durations in seconds.

    Attributes:
        interval: From the start of one to the start of the next; `None`: only on request.
        min_pause: At least, from the end of one to the start of the next.
        timeout: After which one that is not acknowledged by all is aborted.
        tolerated_failures: How many in a row do not fail the job. Requested ones do not count.
    """

    interval: float | None = None
    min_pause: float = 0.0
    timeout: float = 600.0
    tolerated_failures: int = 0


@dataclass(frozen=True)
class Request:
    """A checkpoint that somebody asked for, out of turn.

    Attributes:
        request_id: By which the answer is recognised; asking again with the same one is harmless.
        target: Where a savepoint goes; `None` for a checkpoint into the store.
    """

    request_id: str
    target: str | None = None


@dataclass(frozen=True)
class SubtaskSnapshot:
    """What a subtask acknowledged with.

    Attributes:
        handle: Where its state is; the protocol does not look inside.
        size: How many bytes of state it stands for.
        written: How many of them were written anew.
        ended: Whether this is the state it ended with.
    """

    handle: Any
    size: int = 0
    written: int = 0
    ended: bool = False


@dataclass(frozen=True)
class CompletedCheckpoint:
    """A checkpoint that all subtasks have acknowledged: what the store has to write down."""

    checkpoint_id: int
    attempt: int
    request: Request | None
    duration: float
    snapshots: Mapping[Subtask, SubtaskSnapshot]


@dataclass(frozen=True)
class Trigger:
    """Tell these subtasks to emit the barrier of a checkpoint: those without a running input."""

    checkpoint_id: int
    attempt: int
    subtasks: tuple[Subtask, ...]
    request: Request | None = None


@dataclass(frozen=True)
class Complete:
    """Write the checkpoint down, then tell `store_finished` or `store_failed`."""

    checkpoint: CompletedCheckpoint


@dataclass(frozen=True)
class Abort:
    """The checkpoint will not be; what was written for it can go."""

    checkpoint_id: int
    reason: str
    request: Request | None = None


@dataclass(frozen=True)
class NotifyComplete:
    """Tell these subtasks that the checkpoint, and with it all before it, will not be lost."""

    checkpoint_id: int
    attempt: int
    subtasks: tuple[Subtask, ...]


@dataclass(frozen=True)
class NotifyAborted:
    """Tell the subtasks that they need not go on with the checkpoint; may be lost without harm."""

    checkpoint_id: int
    attempt: int
    subtasks: tuple[Subtask, ...]


@dataclass(frozen=True)
class Reject:
    """A request that will never be served."""

    request: Request
    reason: str


@dataclass(frozen=True)
class FailJob:
    """Too many checkpoints in a row have failed."""

    reason: str


Decision = Trigger | Complete | Abort | NotifyComplete | NotifyAborted | Reject | FailJob
