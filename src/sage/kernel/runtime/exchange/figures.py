"""What a slot does with its time, and what it sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotFigures:
    """The figures of a slot, which is a thread that runs a part of a job, since it was started.

    Attributes:
        number: Which of the slots.
        seconds: How long ago it was started; or how long it ran, if it has ended.
        idle: Seconds in which there was nothing to do.
        blocked: Seconds in which it waited for room in the channel to another slot, or among the
            calls of an `async_map`: back-pressure.
        aligning: Seconds in which it waited for what comes before a checkpoint.
        last_alignment: Seconds of that for the last checkpoint.
        frames_sent: Messages to other slots.
        bytes_sent: Their bytes.
        frames_received: Messages from other slots.

    Examples:
        >>> slot = SlotFigures(seconds=10.0, idle=1.0, blocked=2.0, aligning=0.5)
        >>> slot.busy, slot.busy_share
        (6.5, 0.65)
    """

    number: int = 0
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

    @property
    def busy_share(self) -> float:
        """The part of its time in which it worked, from 0 to 1."""
        return self._share(self.busy)

    @property
    def idle_share(self) -> float:
        """The part of its time in which there was nothing to do, from 0 to 1."""
        return self._share(self.idle)

    @property
    def blocked_share(self) -> float:
        """The part of its time in which it waited for room, from 0 to 1."""
        return self._share(self.blocked)

    @property
    def aligning_share(self) -> float:
        """The part of its time in which it waited for what comes before a checkpoint, from 0 to 1."""
        return self._share(self.aligning)

    def _share(self, seconds: float) -> float:
        return min(1.0, seconds / self.seconds) if self.seconds > 0 else 0.0


class Stopwatch:
    """Adds up stretches of time. Run by one thread, read by any.

    Args:
        now: Returns the seconds on some clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # One tuple, so that a reader never sees a stretch counted twice, or not at all.
        self._state: tuple[float, float | None] = (0.0, None)

    def start(self) -> None:
        """Begin a stretch; one that has been begun goes on."""
        total, since = self._state
        if since is None:
            self._state = (total, self._now())

    def stop(self) -> float:
        """End the stretch, if one has been begun; return how long it was."""
        total, since = self._state
        length = 0.0 if since is None else self._now() - since
        self._state = (total + length, None)
        return length

    def read(self) -> float:
        """Return the sum of all stretches, with the present one."""
        total, since = self._state
        return total if since is None else total + self._now() - since


class SlotMeter:
    """Notes what a slot does with its time. Written by the slot's thread, read by any.

    Args:
        number: Which of the slots.
        monotonic: The job's clock.

    Attributes:
        now: Returns the seconds on that clock.
        idle: Runs while there is nothing to do.
        blocked: Runs while it waits for room.
        aligning: Runs while it waits for what comes before a checkpoint.
        last_alignment: How long it did so for the last checkpoint.
        frames_sent: Messages to other slots.
        bytes_sent: Their bytes.
        frames_received: Messages from other slots.
    """

    def __init__(self, number: int, monotonic: Callable[[], float]) -> None:
        self.now = monotonic
        self.idle, self.blocked = Stopwatch(monotonic), Stopwatch(monotonic)
        self.aligning = Stopwatch(monotonic)
        self.last_alignment = 0.0
        self.frames_sent = self.bytes_sent = self.frames_received = 0
        self._number = number
        self._life = Stopwatch(monotonic)
        self._life.start()

    def end(self) -> None:
        """Take note that the slot has ended."""
        for watch in (self.idle, self.blocked, self.aligning, self._life):
            watch.stop()

    def read(self) -> SlotFigures:
        """Return the figures as they are now."""
        return SlotFigures(
            number=self._number,
            seconds=self._life.read(),
            idle=self.idle.read(),
            blocked=self.blocked.read(),
            aligning=self.aligning.read(),
            last_alignment=self.last_alignment,
            frames_sent=self.frames_sent,
            bytes_sent=self.bytes_sent,
            frames_received=self.frames_received,
        )
