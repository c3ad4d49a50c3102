"""The channels between the slots of a job: one for every pair that has something to say.

Each slot has a doorbell, a queue of its own that wakes it: whoever puts a frame into one of its
channels rings it, and so does whoever wants it to look up from its wait.
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage.common.clock import Doorbell
from sage.common.errors import QueueError
from sage.common.ids import new_uuid
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.runtime.exchange.in_flight import InFlightLimit
from sage.kernel.transport.sage_queue import SageQueue, list_queues, remove_queue

_BELL_BYTES: Final = 4096
_MOST_FRAMES: Final = 2  # what is taken in is under way as well
_LOOK_AGAIN: Final = 0.001
_LONGEST_WAIT: Final = 3600.0
_OWNER: Final = re.compile(r"sage-x(\d+)-")


@dataclass(frozen=True)
class Mesh:
    """The names of the channels of one attempt of those slots of a job that hang together.

    Attributes:
        token: Stands for the attempt.
        slots: The slots that take part.
        pairs: Which slots send to which.
        channel_bytes: How much a channel holds.
    """

    token: str
    slots: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    channel_bytes: int

    @classmethod
    def of(
        cls, graph: ExecutionGraph, token: str, channel_bytes: int, slots: Sequence[int]
    ) -> Mesh:
        """Return the channels that the exchanges between some slots of a job need."""
        pairs = {
            (sender, receiver)
            for exchange in graph.exchanges
            for sender in exchange.senders
            for receiver in exchange.receivers
            if sender != receiver and sender in slots and receiver in slots
        }
        for loop in graph.loops:
            if loop.exchanges and loop.slots[0] in slots:  # all tell each other how they get on
                pairs |= set(itertools.permutations(loop.slots, 2))
        return cls(token, tuple(slots), tuple(sorted(pairs)), channel_bytes)

    def bell(self, slot: int) -> str:
        """Return the name of a slot's doorbell."""
        return f"{self.token}.bell.{slot}"

    def channel(self, sender: int, receiver: int) -> str:
        """Return the name of a channel."""
        return f"{self.token}.{sender}.{receiver}"

    def names(self) -> list[str]:
        """Return the names of all queues."""
        bells = [self.bell(slot) for slot in self.slots]
        return bells + [self.channel(*pair) for pair in self.pairs]

    def create(self) -> None:
        """Make all queues.

        Raises:
            QueueError: One cannot be made; none is left behind.
            OSError: There is no space.
        """
        _sweep()
        try:
            for name in self.names():
                bell = ".bell." in name
                SageQueue.create(name, _BELL_BYTES if bell else self.channel_bytes).close()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove all queues that are there and that nobody uses any more."""
        for name in self.names():
            with suppress(QueueError):
                remove_queue(name)


def mesh_token() -> str:
    """Return a token for the meshes of a job of this process.

    It tells whose they are: those of a process that was killed, with all its workers, can be removed.
    """
    return f"sage-x{os.getpid()}-{new_uuid()[:8]}"


def _sweep() -> None:
    """Remove what jobs have left behind that were killed with all their workers."""
    for name in list_queues():
        owner = _OWNER.match(name)
        if owner is not None and not Path(f"/proc/{owner[1]}").exists():
            with suppress(QueueError):
                remove_queue(name)


class QueueBell(Doorbell):
    """A doorbell that other processes can ring."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._queue = SageQueue.open(name)

    def ring(self) -> None:
        """Wake the waiting thread, or let its next wait return at once."""
        ring_bell(self._queue)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until rung, for at most `timeout` seconds; say whether it was rung."""
        try:
            self._queue.get_many(64, True, _LONGEST_WAIT if timeout is None else max(0.0, timeout))
        except (queue.Empty, QueueError):
            return False
        return True

    def close(self) -> None:
        """Let the queue go."""
        self._queue.close()


def ring_bell(bell: SageQueue) -> None:
    """Ring, unless it rings already."""
    with suppress(queue.Full, QueueError):
        if bell.empty():
            bell.put_nowait(b"!")


class Links:
    """The channels of one slot. For one thread; only `bell.ring` is for all.

    Args:
        mesh: All channels.
        slot: Whose these are.

    Attributes:
        bell: Wakes the slot.
    """

    def __init__(self, mesh: Mesh, slot: int) -> None:
        self.bell = QueueBell(mesh.bell(slot))
        self._inbound = {s: SageQueue.open(mesh.channel(s, r)) for s, r in mesh.pairs if r == slot}
        self._outbound = {
            r: (SageQueue.open(mesh.channel(s, r)), SageQueue.open(mesh.bell(r)))
            for s, r in mesh.pairs
            if s == slot
        }
        self._limits = {r: InFlightLimit(time.monotonic()) for r in self._outbound}

    @property
    def receivers(self) -> tuple[int, ...]:
        """The slots to which this one sends."""
        return tuple(self._outbound)

    def send(self, slot: int, frame: bytes, timeout: float) -> bool:
        """Put a frame into the channel to a slot; false if there was no room within `timeout` seconds.

        There is none either while the slot has to do for a second with what is there.

        Raises:
            MessageTooLargeError: it can never fit.
        """
        channel, bell = self._outbound[slot]
        limit, now = self._limits[slot], time.monotonic()
        until = now + timeout
        while limit.is_reached(channel.qsize(), now):
            if now >= until:
                return False
            time.sleep(_LOOK_AGAIN)
            now = time.monotonic()
        try:
            channel.put(frame, timeout > 0, timeout)
        except queue.Full:
            return False
        limit.sent()
        ring_bell(bell)
        return True

    def is_full(self) -> bool:
        """Say whether there is a slot to which nothing more is to be sent for now."""
        now = time.monotonic()
        return any(
            self._limits[slot].is_reached(channel.qsize(), now)
            for slot, (channel, _) in self._outbound.items()
        )

    def receive(self, leave: Container[int] = ()) -> list[tuple[int, bytes]]:
        """Return what has come, with the slot from which it came.

        Args:
            leave: The slots whose channels are not looked at: they have to wait.
        """
        found: list[tuple[int, bytes]] = []
        for slot, channel in self._inbound.items():
            if slot not in leave and not channel.empty():
                with suppress(queue.Empty):
                    found += [(slot, frame) for frame in channel.get_many(_MOST_FRAMES, False)]
        return found

    def close(self) -> None:
        """Let all queues go."""
        self.bell.close()
        for channel in self._inbound.values():
            channel.close()
        for channel, bell in self._outbound.values():
            channel.close()
            bell.close()
