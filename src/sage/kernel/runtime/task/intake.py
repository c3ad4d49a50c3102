"""`Intake`: the sources of a task, read in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sage.kernel.runtime.task.inlet import Inlet, total_count

if TYPE_CHECKING:
    from sage.kernel.runtime.task.event_time import Timekeeper


class Intake:
    """Reads the sources of a task in turn, a batch at a time. For the task's thread.

    Args:
        batch_size: How many records to ask a source for at most.
        monotonic: The clock.
        drain: Takes what waits in ports to its end.
    """

    def __init__(
        self, batch_size: int, monotonic: Callable[[], float], drain: Callable[[], None]
    ) -> None:
        self._batch_size = batch_size
        self._monotonic = monotonic
        self._drain = drain
        self._inlets: list[Inlet] = []
        self._all: list[Inlet] = []
        self._totals: list[int | None] = []

    def __bool__(self) -> bool:
        return bool(self._inlets)

    def add(self, inlet: Inlet) -> None:
        """Read one more source, until it ends."""
        self._inlets.append(inlet)
        self._all.append(inlet)

    def stop(self) -> None:
        """Keep those readers that have records to return which they have taken already."""
        self._inlets = [inlet for inlet in self._inlets if inlet.stop()]

    def read(self, time: Timekeeper) -> bool:
        """Read one batch from every source; say whether any had something.

        Args:
            time: Is told of what has been read, and of sources that have ended.

        Raises:
            OperatorError: a source failed, or a function behind it.
        """
        moved = False
        for inlet in tuple(self._inlets):
            values = inlet.read(self._size(inlet, time))
            inlet.is_silent = not values
            self._drain()  # what has become of records that cannot be decoded
            if values is None:
                self._inlets.remove(inlet)
                time.source_ended(inlet.live.node.id)
                moved = True
            elif values:
                moved = True
                self._send(inlet, values, time)
        return moved

    def _size(self, inlet: Inlet, time: Timekeeper) -> int:
        """Return how many records to ask a source for.

        Where time counts, no source runs ahead of a slower one: what waits for it would pile up.
        """
        if not time:
            return inlet.size
        return min(i.size for i in self._inlets if i is inlet or not i.is_silent)

    def _send(self, inlet: Inlet, values: Sequence[object], time: Timekeeper) -> None:
        began = self._monotonic()
        inlet.send(values)
        self._drain()
        if time:
            time.advance()
        inlet.pace(self._monotonic() - began, self._batch_size)

    def poll_intervals(self) -> list[float]:
        """Return after how many seconds sources want to be asked that do not ring."""
        intervals = [inlet.reader.poll_interval for inlet in self._inlets]
        return [interval for interval in intervals if interval is not None]

    def total_counts(self) -> list[int | None]:
        """Return how many records each source will give, or would have; from any thread."""
        return self._totals or [total_count(inlet.reader) for inlet in tuple(self._all)]

    def forget(self) -> None:
        """Let go of the readers; how many records they would have given is kept."""
        self._totals = self.total_counts()
        self._inlets.clear()
        self._all.clear()
