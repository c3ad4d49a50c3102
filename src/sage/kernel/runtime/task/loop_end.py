"""`LoopEnd`: how the operators of a feedback loop end that may be in several slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sage.dataflow.graph.loops import Loop
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.task.event_time import Timekeeper


class LoopEnd:
    """Says when an operator of a loop can end: once nothing is in flight in the loop, in any slot.

    What an operator puts out at its end goes round too, before the next one ends.

    Args:
        loop: The loop.
        exchange: What joins this slot with others.
        time: How time moves in this slot.
        is_busy: Says whether something is in flight in this slot.
        step_until: Does what there is to do until a condition holds.
    """

    def __init__(
        self,
        loop: Loop,
        exchange: SlotExchange,
        time: Timekeeper,
        is_busy: Callable[[], bool],
        step_until: Callable[[Callable[[], bool]], None],
    ) -> None:
        self._loop = loop
        self._exchange = exchange
        self._time = time
        self._is_busy = is_busy
        self._step_until = step_until
        self._rests = 0

    def operators(self) -> Iterator[int]:
        """Wait for, and yield, each operator of the loop that can end; all inputs have ended."""
        self._await_rest()
        if self._loop.ending:
            self._time.stop_clock(self._loop.nodes)  # nothing else may wake a slot that is at rest
            self._await_rest()
        for node in self._loop.ending:
            yield node
            self._await_rest()
        yield from (node for node in self._loop.nodes if node not in self._loop.ending)

    def _await_rest(self) -> None:
        """Wait until the loop has come to rest once more."""
        self._rests += 1
        self._step_until(self._is_at_rest)

    def _is_at_rest(self) -> bool:
        # Nothing may go out between the barrier of a checkpoint and the taking of the state.
        if self._exchange.aligning is not None:
            return False
        number = self._loop.number
        if self._exchange.rests_of(number) < self._rests and not self._is_busy():
            self._exchange.tell_rest(number)
        return self._exchange.rests_of(number) >= self._rests
