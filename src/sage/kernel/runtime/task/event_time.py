"""How event time moves through a task.

Time comes from the operators that assign timestamps. Every operator that reacts to time has those
above it as its inputs; its time is the least of theirs, idle ones left out. Between two batches the
operators are told, from the sources down, and what each puts out reaches those behind it before they
are told themselves: no record is overtaken by the time that it brought about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sage.common.clock import Clock
from sage.common.errors import OperatorError
from sage.dataflow.graph.job_graph import topological_order
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import LivePart
from sage.dataflow.operator.timestamps import Assigner, AssignTimestamps
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.live_operator import LiveOperator


@dataclass
class TimeInput:
    """Where event time comes from.

    Attributes:
        live: The operator.
        assigner: Knows the watermark.
        sources: The sources above it; it has ended once all of them have.
        idle: Whether it has had no records for so long that it holds nobody back.
    """

    live: LiveOperator
    assigner: Assigner
    sources: set[int]
    _quiet_since: float
    idle: bool = False
    _notes: int = 0

    @property
    def watermark(self) -> int:
        """How far its time has come."""
        return self.live.watermark

    @watermark.setter
    def watermark(self, watermark: int) -> None:
        self.live.watermark = watermark

    def look(self, now: float) -> None:
        """Ask the assigner, and find out whether it is idle."""
        assigner = self.assigner
        if assigner.notes != self._notes:
            self._notes, self._quiet_since, self.idle = assigner.notes, now, False
        elif assigner.idleness_ms is not None and not self.idle:
            self.idle = now - self._quiet_since >= assigner.idleness_ms / 1000
        mark = assigner.watermark()
        if mark is not None and mark > self.watermark:
            self.watermark = mark

    def idle_at(self) -> float | None:
        """Return when it becomes idle if nothing comes."""
        if self.assigner.idleness_ms is None or self.idle:
            return None
        return self._quiet_since + self.assigner.idleness_ms / 1000


@dataclass
class HeldTime:
    """Event time behind an operator that holds it until what came before has gone out.

    Attributes:
        part: The operator's live part.
        sources: The sources above it.
        inputs: Where its own event time comes from.
        ended: Whether all sources above it have ended, and what came of them has gone out.
    """

    part: LivePart
    sources: set[int]
    inputs: Sequence[TimeInput | HeldTime]
    ended: bool = False

    @property
    def watermark(self) -> int:
        """How far it has let event time come."""
        return self.part.released

    @property
    def idle(self) -> bool:
        """Whether what is above is idle, and nothing is held."""
        return not self.part.is_waiting() and all(entry.idle for entry in self.inputs)


@dataclass
class Listener:
    """An operator that reacts to time.

    Attributes:
        live: The operator.
        part: Its live part.
        inputs: Where its event time comes from.
    """

    live: LiveOperator
    part: LivePart
    inputs: Sequence[TimeInput | HeldTime] = ()


class Timekeeper:
    """Tells the operators of a task how far time has come.

    Args:
        graph: The whole stream graph.
        live: The task's operators.
        clock: The job's clock.
        pass_on: Delivers what an operator has put out, and all that comes of it.
    """

    def __init__(
        self,
        graph: StreamGraph,
        live: Mapping[int, LiveOperator],
        clock: Clock,
        pass_on: Callable[[int], None],
    ) -> None:
        self._live = live
        self._clock = clock
        self._pass_on = pass_on
        self.inputs: dict[int, TimeInput] = {}
        self._held: dict[int, HeldTime] = {}
        self.listeners: list[Listener] = []
        above: dict[int, list[int]] = {}
        sources: dict[int, set[int]] = {}
        for node in topological_order(graph):
            upstream = [u.node for inputs in graph.nodes[node].inputs for u in inputs]
            sources[node] = set().union(*(sources.get(u, set()) for u in upstream)) or {node}
            above[node] = list(dict.fromkeys(i for u in upstream for i in above.get(u, ())))
            if node in live:
                self._note(node, live[node], above, sources[node])
                if node in self._held or live[node].node.operator.final:
                    sources[node] = {node}  # it goes on for a while when they have ended

    def _note(
        self, node: int, live: LiveOperator, above: dict[int, list[int]], sources: set[int]
    ) -> None:
        part = live.part
        if isinstance(live.node.operator, AssignTimestamps):
            assert isinstance(part, Assigner)
            self.inputs[node] = TimeInput(live, part, set(sources), self._clock.monotonic())
            above[node] = [node]
        elif part is not None:
            inputs = [self._input_at(i) for i in above[node]]
            self.listeners.append(Listener(live, part, inputs))
            if part.holds_time:
                self._held[node] = HeldTime(part, set(sources), inputs)
                above[node] = [node]

    def _input_at(self, node: int) -> TimeInput | HeldTime:
        return self._held[node] if node in self._held else self.inputs[node]

    def __bool__(self) -> bool:
        return bool(self.listeners)

    # ---- event time

    def advance(self) -> None:
        """Ask the assigners, and tell everybody whose event time has moved."""
        now = self._clock.monotonic()
        for node in self.inputs:
            self._look(node, now)
        self.tell()

    def _look(self, node: int, now: float) -> None:
        try:
            self.inputs[node].look(now)
        except USER_ERRORS as error:
            raise operator_error(error, self._live[node].node, "timer") from error

    def set_watermark(self, node: int, watermark: int) -> None:
        """Let the time of one assigner come as far as `watermark`, at once."""
        entry = self.inputs[node]
        if watermark > entry.watermark:
            entry.watermark = watermark
            self._look(node, self._clock.monotonic())
            self.tell()

    def source_ended(self, node: int) -> None:
        """Take note that a source has ended: it holds nobody back any more.

        They are told at once: nothing else may ever happen that would bring them on.
        """
        for held in self._held.values():
            held.sources.discard(node)
        for entry in self.inputs.values():
            entry.sources.discard(node)
            if not entry.sources:
                entry.watermark = MAX_WATERMARK
        self.tell()

    def end(self, node: int) -> None:
        """Let event time end behind an assigner whose input has ended."""
        self.inputs[node].watermark = MAX_WATERMARK
        self.tell()

    def poll(self) -> None:
        """Let those put out what has come from elsewhere who wait for it."""
        for listener in self.listeners:
            if listener.part.polls:
                self._run(listener, listener.part.poll)
        if self._held:
            self._end_held()
            self.tell()

    def _end_held(self) -> None:
        """Take note of those who have put everything out that came of sources that have ended."""
        for node, held in self._held.items():
            if not (held.ended or held.sources or held.part.is_waiting()):
                held.ended = True
                self.source_ended(node)

    def is_waiting(self) -> bool:
        """Say whether something is still to come from elsewhere that came of records of before."""
        return any(listener.part.is_waiting() for listener in self.listeners)

    def tell(self) -> None:
        """Tell everybody whose event time has moved."""
        for listener in self.listeners:
            watermark = _least(listener.inputs)
            if watermark > listener.live.watermark:
                listener.live.watermark = watermark
                self._run(listener, partial(listener.part.advance, watermark))

    # ---- processing time

    def next_look(self) -> float | None:
        """Return in how many seconds something is due, or an input becomes idle; None: never."""
        if any(listener.part.has_arrivals() for listener in self.listeners):
            return 0.0  # the ring that told of it was heard by one that waited for something else
        waits: list[float] = []
        due = [at for s in self.listeners if (at := s.part.next_due_ms) is not None]
        if due:
            waits.append((min(due) - self._clock.now_ms()) / 1000)
        idle = [a for entry in self.inputs.values() if (a := entry.idle_at()) is not None]
        if idle:
            waits.append(min(idle) - self._clock.monotonic())
        return max(0.0, min(waits)) if waits else None

    def look_at_clock(self) -> None:
        """Tell those for whom something is due."""
        for listener in self.listeners:
            due = listener.part.next_due_ms
            if due is not None and due <= (now := self._clock.now_ms()):
                self._run(listener, partial(listener.part.on_processing_time, now))

    def _run(self, listener: Listener, action: Callable[[], None]) -> None:
        live = listener.live
        try:
            action()
        except OperatorError:  # of another operator, or told already
            raise
        except USER_ERRORS as error:
            raise operator_error(error, live.node, "timer") from error
        self._pass_on(live.node.id)


def _least(inputs: Sequence[TimeInput | HeldTime]) -> int:
    """Return the least watermark; idle inputs do not count, unless all are."""
    if len(inputs) == 1:
        return inputs[0].watermark
    active = [entry.watermark for entry in inputs if not entry.idle]
    if active:
        return min(active)
    return max((entry.watermark for entry in inputs), default=MIN_WATERMARK)
