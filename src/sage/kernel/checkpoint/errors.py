"""What can go wrong with checkpoints, split by whose move it is."""

from __future__ import annotations

from sage.common.errors import SageError


class CheckpointError(SageError):
    """A checkpoint cannot be taken, kept or read."""


class CheckpointWriteError(CheckpointError):
    """A checkpoint cannot be written: disk full, no permission. The ones before it are untouched."""


class CheckpointDamagedError(CheckpointError):
    """What was written is not what is there any more: a file is missing, cut short or changed."""


class CheckpointLockedError(CheckpointError):
    """Another process has the checkpoints of this job open."""
