"""How much may be under way from one slot to another: as much as it takes in about a second.

A barrier comes behind all that is under way, so a checkpoint takes as long as that takes. A channel has
room for many small records, which a slow receiver would need minutes for. Flink calls the same thing
buffer debloating (FLIP-183).
"""

from __future__ import annotations

from typing import Final

SECONDS_IN_FLIGHT: Final = 1.0
FEWEST_FRAMES: Final = 2
FIRST_FRAMES: Final = 4
MOST_FRAMES: Final = 1_000
_WINDOW: Final = 0.25


class InFlightLimit:
    """Bounds the frames that wait in one channel.

    Args:
        now: The present time of a monotonic clock, in seconds.

    Attributes:
        frames: How many may wait.

    Examples:
        >>> limit = InFlightLimit(0.0)
        >>> for _ in range(100):
        ...     limit.sent()
        >>> limit.is_reached(80, 0.5)  # 20 have been taken in half a second
        True
        >>> limit.frames
        40
        >>> limit.is_reached(0, 1.0)  # whoever has taken all can have more
        False
        >>> limit.frames
        160
    """

    def __init__(self, now: float) -> None:
        self.frames = FIRST_FRAMES
        self._since = now
        self._sent = self._taken = 0

    def sent(self) -> None:
        """Take note of a frame that has been put in."""
        self._sent += 1

    def is_reached(self, waiting: int, now: float) -> bool:
        """Say whether nothing more is to be put in for now, as `waiting` frames have not been taken."""
        seconds = now - self._since
        if seconds >= _WINDOW:
            taken = self._sent - waiting
            in_time = round((taken - self._taken) / seconds * SECONDS_IN_FLIGHT)
            wanted = in_time if waiting else max(in_time, 2 * self.frames)
            self.frames = min(max(wanted, FEWEST_FRAMES), MOST_FRAMES)
            self._since, self._taken = now, taken
        return waiting >= self.frames
