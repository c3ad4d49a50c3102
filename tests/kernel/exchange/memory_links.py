"""Channels between slots in memory, so that a test says who reads what, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container
from types import SimpleNamespace


class MemoryLinks:
    """The channels of one slot, in memory."""

    def __init__(self, channels: dict[tuple[int, int], deque[bytes]], slot: int) -> None:
        self._channels = channels
        self._slot = slot
        self.turn = 0  # which channel is read next
        self.bell = SimpleNamespace(ring=lambda: None)

    @property
    def receivers(self) -> Collection[int]:
        """Return the slots to which this one sends."""
        return [receiver for sender, receiver in self._channels if sender == self._slot]

    def send(self, slot: int, frame: bytes, timeout: float) -> bool:
        """Put a frame into a channel."""
        self._channels[self._slot, slot].append(frame)
        return True

    def receive(self, leave: Container[int] = ()) -> list[tuple[int, bytes]]:
        """Take one frame out of one of the channels that may be read."""
        mine = [
            (s, c) for (s, r), c in self._channels.items() if r == self._slot and s not in leave
        ]
        full = [(sender, channel) for sender, channel in mine if channel]
        if not full:
            return []
        sender, channel = full[self.turn % len(full)]
        return [(sender, channel.popleft())]
