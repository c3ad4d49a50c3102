"""Which calls make a batch, and when. Pure: time comes in as a number, nothing waits or runs here."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from sage.kernel.runtime.service.batching import BatchLimits
from sage.kernel.runtime.service.channel.service_message import ServiceRequest

if TYPE_CHECKING:
    from sage.kernel.runtime.service.hosting.service_executor import Respond


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call that waits for its batch.

    Attributes:
        request: The call; its item is the only positional argument.
        respond: Takes the answer.
        arrived: When it came, on the monotonic clock.
        bytes: How many bytes its item counts.
        cost: What its item costs.
    """

    request: ServiceRequest
    respond: Respond
    arrived: float
    bytes: int = 0
    cost: float = 0.0


class BatchWindow:
    """The calls of one method that wait, the oldest first.

    The next batch is the longest beginning of them within the limits, though never less than one
    call.

    Args:
        limits: When a batch is full, and how long it gathers.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[WaitingCall] = []
        # The next batch so far: how many calls, their bytes and cost.
        self._count, self._bytes, self._cost = 0, 0, 0.0
        self._full = False  # a limit is reached: it waits for no other call
        self._closed = False  # no call can join it, not even one without bytes and cost

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """When the oldest of the calls came; infinite if there are none."""
        return self._waiting[0].arrived if self._waiting else inf

    def due(self) -> float:
        """Return when the next batch is to run: at once if it is full; infinite if there is none."""
        return self.oldest if self._full else self.oldest + self._limits.max_wait

    def add(self, call: WaitingCall) -> None:
        """Let a call wait."""
        self._waiting.append(call)
        self._extend(call)

    def remove(self, lane: str, number: int) -> WaitingCall | None:
        """Take out the call that a caller has given up; None if it does not wait here."""
        for index, call in enumerate(self._waiting):
            if call.request.request_id == number and call.request.response_queue_name == lane:
                del self._waiting[index]
                self._measure()
                return call
        return None

    def remove_late(self, now: float) -> list[WaitingCall]:
        """Take out the calls whose deadline has passed."""
        late = [call for call in self._waiting if call.request.deadline <= now]
        if late:
            self._waiting = [call for call in self._waiting if call.request.deadline > now]
            self._measure()
        return late

    def take(self) -> list[WaitingCall]:
        """Take out the next batch, due or not."""
        taken, self._waiting = self._waiting[: self._count], self._waiting[self._count :]
        self._measure()
        return taken

    def _measure(self) -> None:
        self._count, self._bytes, self._cost = 0, 0, 0.0
        self._full = self._closed = False
        for call in self._waiting:
            if self._closed:
                return
            self._extend(call)

    def _extend(self, call: WaitingCall) -> None:
        """Let the next batch have this call, the first one it does not have, if it fits."""
        if self._closed:
            return
        limits, size, cost = self._limits, self._bytes + call.bytes, self._cost + call.cost
        most_bytes = inf if limits.max_bytes is None else limits.max_bytes
        most_cost = inf if limits.max_cost is None else limits.max_cost
        if self._count and (size > most_bytes or cost > most_cost):
            self._full = self._closed = True
            return
        self._count, self._bytes, self._cost = self._count + 1, size, cost
        self._closed = self._count >= limits.max_size
        self._full = self._closed or size >= most_bytes or cost >= most_cost
