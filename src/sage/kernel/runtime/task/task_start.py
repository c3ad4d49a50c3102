"""`TaskStart`: with what a task begins an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
from sage.kernel.runtime.task.restored_state import RestoredState


@dataclass(frozen=True)
class TaskStart:
    """With what a task begins an attempt.

    Attributes:
        restored: What its operators find of an earlier attempt, by their uid.
        has_ended: Whether its input had ended by then: only what was not committed is left to do.
        reports: Who is told about checkpoints. When the input has ended, the task goes on obeying
            orders until it is told to leave. None: no checkpoints are taken.
    """

    restored: Mapping[str, RestoredState] = field(default_factory=dict)
    has_ended: bool = False
    reports: CheckpointReports | None = None
