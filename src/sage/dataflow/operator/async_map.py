"""Functions that take their time: called for many records at once while the task goes on.

The operator declares; its live part keeps the records under way, and decides what is called, tried
again, given up and put out. How calls run is the business of a `CallRunner`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from random import random
from typing import Any, ClassVar

from sage.common.errors import FunctionError
from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.async_calls import CallRunner, Ended, Retry
from sage.dataflow.operator.base import LiveContext, LivePart, OperatorScope, RecordOperator
from sage.dataflow.operator.in_flight import Call, OrderedInFlight, UnorderedInFlight
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.time import MIN_WATERMARK

_ROOM = 2
"""How many records are taken in at most for each call that may run.

Those that are not running wait for their turn, so that a call that ends is followed by the next without
the task; or have ended and wait for those before them.
"""

_FEW_TIMERS = 64


@dataclass(frozen=True)
class AsyncSettings:
    """What the user said about the calls.

    Attributes:
        capacity: How many calls run at a time at most.
        timeout_ms: After how long an attempt is given up; None: never.
        ordered: Whether results leave in the order of the records.
        retry: Which failed attempts are made again; None: none.
        blocking: Whether the function blocks its thread, and so is called in threads of its own.
    """

    capacity: int = 100
    timeout_ms: int | None = None
    ordered: bool = True
    retry: Retry | None = None
    blocking: bool = False


@dataclass(frozen=True, eq=False)
class AsyncMap(RecordOperator):
    """One record in, one out, some time later.

    Attributes:
        settings: What the user said about the calls.
    """

    kind: ClassVar[str] = "async_map"
    flat: ClassVar[bool] = False
    settings: AsyncSettings = AsyncSettings()

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own."""
        return True

    def create_live(self, context: LiveContext) -> LivePart:
        """Make what keeps the records under way."""
        return AsyncLive(self, context)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Hand the record over; waits while there are too many."""
        live = scope.live()
        submit = scope.writer.bind("submit", live.submit)
        scope.writer.last(f"{scope.writer.bind('live', live)}.hand_over()")
        scope.writer.line(f"{submit}({flow.value}, {flow.key}, {flow.timestamp})")

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced")


@dataclass(frozen=True, eq=False)
class AsyncFlatMap(AsyncMap):
    """One record in, any number out, some time later."""

    kind: ClassVar[str] = "async_flat_map"
    flat: ClassVar[bool] = True


class AsyncLive(LivePart):
    """The records under way of one subtask.

    Args:
        operator: What the user said.
        context: What it is made with.
    """

    polls: ClassVar[bool] = True
    holds_time: ClassVar[bool] = True

    def __init__(self, operator: AsyncMap, context: LiveContext) -> None:
        settings = operator.settings
        self._flat = operator.flat
        self._room = _ROOM * settings.capacity
        self._retry = settings.retry
        self._context = context
        self._emit = context.results.emit
        self._records = OrderedInFlight() if settings.ordered else UnorderedInFlight()
        self._runner: CallRunner = context.run_calls(
            capacity=settings.capacity, blocking=settings.blocking, collects=operator.flat
        )
        self._numbers = itertools.count(1)
        self._running: dict[int, Call] = {}
        self._timers = CallTimers(settings.timeout_ms, context.runtime.now_ms)
        self._is_over = False

    def submit(self, value: Any, key: Any, timestamp: int | None) -> None:
        """Begin with a record; wait before that while there are too many."""
        if len(self._records) >= self._room:
            self._wait_while(self._is_full)
        call = Call(value, key, timestamp)
        self._records.add(call)
        self._start(call)
        if self._is_over:  # what comes back through a loop, say, after the end
            self._wait_while(self._has_records)

    def hand_over(self) -> None:
        """See to it that the calls begin, and are given up in time."""
        self._runner.hand_over()
        self.next_due_ms = self._timers.next_due()

    def advance(self, watermark: int) -> None:
        """Take in a watermark behind the records that came before."""
        self._records.add_watermark(watermark)
        self._put_out()

    def poll(self) -> None:
        """Put out what has ended, and give up what has taken too long."""
        self._take()

    def on_processing_time(self, now_ms: int) -> None:
        """Do what `poll` does."""
        self._take()

    def end(self) -> None:
        """Wait for what is under way."""
        self._is_over = True
        self._wait_while(self._has_records)

    def close(self) -> None:
        """Give up what is under way."""
        self._runner.close()

    def is_waiting(self) -> bool:
        """Say whether records are under way."""
        return bool(len(self._records))

    def has_arrivals(self) -> bool:
        """Say whether a call has ended."""
        return self._runner.has_ended()

    # ---- checkpoints

    def full_state(self) -> Any:
        """Return the records under way, with the watermarks between them; None if there are none."""
        return self.take_changes() or None

    def take_changes(self) -> Any:
        """Return the records under way: they are others each time."""
        return [
            entry if isinstance(entry, int) else (entry.value, entry.key, entry.timestamp)
            for entry in self._records.entries()
        ]

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Begin anew with those records that were under way and belong here, part by part.

        No watermark goes between them when they are of several subtasks, whose watermarks differ.
        """
        for number, part in enumerate(parts):
            for place, entry in enumerate(part[-1], start=number):
                if isinstance(entry, int):
                    if share == WHOLE and len(parts) == 1:
                        self._records.add_watermark(entry)
                elif share.owns(entry[1]) if share.keyed else share.takes(place):
                    self._go_on_with(Call(*entry))
        self.hand_over()

    def _go_on_with(self, call: Call) -> None:
        self._records.add(call)
        self._start(call)

    def resume(self, watermark: int) -> None:
        """Let event time go on from `watermark` when all that was under way has left."""
        if watermark != MIN_WATERMARK:
            self._records.add_watermark(watermark)
            self.released = self._records.released

    # ---- calls

    def _is_full(self) -> bool:
        return len(self._records) >= self._room

    def _has_records(self) -> bool:
        return len(self._records) > 0

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Take in what ends until the condition is no longer given."""
        self._take()
        while condition():
            self._context.pass_on()
            self._runner.wait(self._timers.wait_seconds())
            self._take()

    def _start(self, call: Call) -> None:
        number = next(self._numbers)
        call.attempt += 1
        self._running[number] = call
        self._timers.started(number, self._running)
        self._runner.start(number, call.value)

    def _take(self) -> None:
        """Take in what has ended; call again and give up what is due; put out what may leave."""
        for ended in self._runner.take():
            self._ended(ended)
        for number in self._timers.due():
            self._due(number)
        self._runner.hand_over()
        self._put_out()
        self.next_due_ms = self._timers.next_due()

    def _ended(self, ended: Ended) -> None:
        number, result, error = ended
        call = self._running.pop(number, None)
        if call is None:
            return  # it had been given up
        if error is not None:
            self._failed(call, error)
            return
        call.result, call.done = result, True
        self._records.end(call)

    def _due(self, number: int) -> None:
        resting = self._timers.resting.pop(number, None)
        if resting is not None:
            self._start(resting)
        elif number in self._running and self._timers.is_over(
            number, self._runner.began_ms(number)
        ):
            self._runner.cancel(number)
            seconds = (self._timers.timeout_ms or 0) / 1000
            call = self._running.pop(number)
            self._failed(call, TimeoutError(f"no result within {seconds:g} s"))

    def _failed(self, call: Call, error: BaseException) -> None:
        delay = self._delay(call, error)
        if delay is None:
            call.error, call.done = error, True
            self._records.end(call)
        else:
            self._timers.rest(next(self._numbers), call, delay)

    def _delay(self, call: Call, error: BaseException) -> float | None:
        """Return in how many seconds the function is called again; None: it is not."""
        retry = self._retry
        if retry is None or isinstance(error, FunctionError) or not isinstance(error, Exception):
            return None
        if not retry.is_retryable(error, idempotent=True):
            return None
        return retry.next_delay(call.attempt, inf, random)

    def _put_out(self) -> None:
        records, emit = self._records, self._emit
        for call in records.leaving():
            if call.error is not None:
                self._context.fail(call.error, call.value)
            elif self._flat:
                for item in call.result:
                    emit(item, call.timestamp)
            else:
                emit(call.result, call.timestamp)
        self.released = records.released


class CallTimers:
    """When attempts are given up, and when the next ones are made.

    Args:
        timeout_ms: After how long an attempt is given up; None: never.
        now_ms: The clock.

    Attributes:
        resting: The records that wait for their next attempt, by number.
    """

    def __init__(self, timeout_ms: int | None, now_ms: Callable[[], int]) -> None:
        self.timeout_ms = timeout_ms
        self.resting: dict[int, Call] = {}
        self._now_ms = now_ms
        self._heap: list[tuple[int, int]] = []

    def started(self, number: int, running: dict[int, Call]) -> None:
        """Give the attempt `number` up when its time is over."""
        if self.timeout_ms is None:
            return
        heapq.heappush(self._heap, (self._now_ms() + self.timeout_ms, number))
        if len(self._heap) > 2 * (len(running) + len(self.resting)) + _FEW_TIMERS:
            live = [
                entry for entry in self._heap if entry[1] in running or entry[1] in self.resting
            ]
            heapq.heapify(live)
            self._heap = live

    def is_over(self, number: int, began_ms: int | None) -> bool:
        """Say whether the time of an attempt is over that began then; if not, look again later."""
        timeout, now = self.timeout_ms or 0, self._now_ms()
        ends = (now if began_ms is None else began_ms) + timeout
        if ends > now:
            heapq.heappush(self._heap, (ends, number))
        return ends <= now

    def rest(self, number: int, call: Call, seconds: float) -> None:
        """Let a record wait for its next attempt."""
        self.resting[number] = call
        heapq.heappush(self._heap, (self._now_ms() + round(seconds * 1000), number))

    def due(self) -> Iterable[int]:
        """Return the numbers whose time has come, some of which may be done with already."""
        if not self._heap:
            return ()
        now, due = self._now_ms(), []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[1])
        return due

    def next_due(self) -> int | None:
        """Return when the next is due."""
        return self._heap[0][0] if self._heap else None

    def wait_seconds(self) -> float | None:
        """Return how long it is until the next is due; None: nothing is."""
        return max(0.0, (self._heap[0][0] - self._now_ms()) / 1000) if self._heap else None
