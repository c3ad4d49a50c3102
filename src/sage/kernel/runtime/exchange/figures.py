"""What a slot does with its time, and what it sends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SlotFigures:
    """The figures of a slot since it was started.

    Attributes:
        seconds: How long ago that was.
        idle: Seconds in which there was nothing to do.
        blocked: Seconds in which it waited for room in the channel to another slot: back-pressure.
        aligning: Seconds in which it waited for what comes before a checkpoint.
        last_alignment: Seconds of that for the last checkpoint.
        frames_sent: Messages to other slots.
        bytes_sent: Their bytes.
        frames_received: Messages from other slots.

    Examples:
        >>> SlotFigures(seconds=10.0, idle=1.0, blocked=2.0, aligning=0.5).busy
        6.5
    """

    seconds: float = 0.0
    idle: float = 0.0
    blocked: float = 0.0
    aligning: float = 0.0
    last_alignment: float = 0.0
    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0

    @property
    def busy(self) -> float:
        """Seconds in which it worked."""
        return max(0.0, self.seconds - self.idle - self.blocked - self.aligning)
