"""How event time moves through a task.

Time comes from the operators that assign timestamps. Every operator that reacts to time has those
above it as its inputs; its time is the least of theirs, idle ones left out. Between two batches the
operators are told, from the sources down, and what each puts out reaches those behind it before they
are told themselves: no record is overtaken by the time that it brought about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sage.common.clock import Clock
from sage.common.errors import OperatorError
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import LivePart
from sage.dataflow.operator.timestamps import Assigner, AssignTimestamps
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.live_operator import LiveOperator
from sage.kernel.runtime.task.time_layout import Origin, TimeLayout

if TYPE_CHECKING:
    from sage.kernel.runtime.exchange.exchange import SlotExchange


@dataclass(eq=False)
class TimeInput:
    """Where event time comes from.

    Attributes:
        live: The operator.
        assigner: Knows the watermark.
        sources: The sources above it; it has ended once all of them have.
        idle: Whether it has had no records for so long that it holds nobody back.
        has_clock: Whether it can become idle.
    """

    live: LiveOperator
    assigner: Assigner
    sources: set[int]
    _quiet_since: float
    idle: bool = False
    has_clock: bool = True
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
        elif assigner.idleness_ms is not None and self.has_clock and not self.idle:
            self.idle = now - self._quiet_since >= assigner.idleness_ms / 1000
        self.idle = self.idle or assigner.is_without_input
        mark = assigner.watermark(now)
        if mark is not None and mark > self.watermark:
            self.watermark = mark

    def idle_at(self) -> float | None:
        """Return when it becomes idle if nothing comes."""
        if self.assigner.idleness_ms is None or not self.has_clock or self.idle:
            return None
        own = self._quiet_since + self.assigner.idleness_ms / 1000
        of_split = self.assigner.idle_at()
        return own if of_split is None else min(own, of_split)


@dataclass(eq=False)
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
    inputs: Sequence[Origins]
    ended: bool = False

    @property
    def watermark(self) -> int:
        """How far it has let event time come."""
        return self.part.released

    @property
    def idle(self) -> bool:
        """Whether what is above is idle, and nothing is held."""
        return not self.part.is_waiting() and all(entry.idle for entry in self.inputs)


@dataclass(eq=False)
class RemoteTime:
    """Event time in another slot, as far as it is known here.

    Attributes:
        watermark: How far it has come.
        idle: Whether it holds nobody back.
    """

    watermark: int = MIN_WATERMARK
    idle: bool = False


@dataclass(eq=False)
class Junction:
    """Where the event time of several origins comes together.

    Attributes:
        inputs: Where it comes from.
        marks: How far the time of each input has come, as far as may be known here: an input whose
            time has moved may still have records on the way here.
    """

    inputs: Sequence[Origins] = ()
    marks: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Take note of the time of all inputs: their records are all here."""
        self.marks = [entry.watermark for entry in self.inputs]

    def look_at(self, moved: set[Origins]) -> None:
        """Take note of the time of some inputs."""
        for index, entry in enumerate(self.inputs):
            if entry in moved:
                self.marks[index] = entry.watermark

    def least(self) -> int:
        """Return the least of the times of the inputs; idle ones do not count, unless all are."""
        if len(self.marks) == 1:
            return self.marks[0]
        pairs = zip(self.marks, self.inputs, strict=True)
        active = [mark for mark, entry in pairs if not entry.idle]
        return min(active) if active else max(self.marks, default=MIN_WATERMARK)


@dataclass(eq=False)
class SentTime(Junction):
    """Event time as this slot sends it into an exchange: all records before it are sent already.

    Attributes:
        watermark: How far it has come.
    """

    watermark: int = MIN_WATERMARK

    @property
    def idle(self) -> bool:
        """Whether it holds nobody back."""
        return all(entry.idle for entry in self.inputs)

    def go_on(self) -> None:
        """Come as far as the inputs have, as far as that is known here."""
        self.watermark = max(self.watermark, self.least())


@dataclass(eq=False, kw_only=True)
class Listener(Junction):
    """An operator that reacts to time.

    Attributes:
        live: The operator.
        part: Its live part.
        held: Where event time comes from behind it, if it holds it.
    """

    live: LiveOperator
    part: LivePart
    held: HeldTime | None = None


Origins = TimeInput | HeldTime | RemoteTime | SentTime


class Timekeeper:
    """Tells the operators of a task how far time has come.

    Args:
        graph: The whole stream graph.
        live: The task's operators.
        clock: The job's clock.
        pass_on: Delivers what an operator has put out, and all that comes of it.
        exchange: What joins this slot with others; None: there are none.
    """

    def __init__(
        self,
        graph: StreamGraph,
        live: Mapping[int, LiveOperator],
        clock: Clock,
        pass_on: Callable[[int], None],
        *,
        exchange: SlotExchange | None = None,
    ) -> None:
        self._live = live
        self._clock = clock
        self._pass_on = pass_on
        self.inputs: dict[int, TimeInput] = {}
        self._held: dict[int, HeldTime] = {}
        self.listeners: list[Listener] = []
        self._clockless: set[int] = set()
        self._remote: dict[tuple[int, int], RemoteTime] = {}
        self._sent: dict[int, SentTime] = {}
        self._junctions: list[Listener | SentTime] = []  # each after those that it looks at
        self._origins: dict[int, Sequence[Origins]] = {}
        layout = TimeLayout(graph, *((exchange.graph, exchange.slot) if exchange else ()))
        for node in layout.order:
            above, sources = layout.look_above(node)
            for way in layout.sent.keys() - self._sent.keys():
                self._send_time(way, layout.sent[way])
            if node in live:
                self._note(node, live[node], above, sources)
            layout.note(node, begins=self._begins_time(graph, node), goes_on=self._goes_on(node))

    def _send_time(self, way: int, origins: Sequence[Origin]) -> None:
        self._sent[way] = SentTime([self._input_at(*origin) for origin in origins])
        self._junctions.append(self._sent[way])

    def _note(
        self, node: int, live: LiveOperator, above: Sequence[Origin], sources: set[int]
    ) -> None:
        part = live.part
        if isinstance(live.node.operator, AssignTimestamps):
            assert isinstance(part, Assigner)
            self.inputs[node] = TimeInput(live, part, set(sources), self._clock.monotonic())
            self._origins[node] = [self.inputs[node]]
            return
        inputs = self._origins[node] = [self._input_at(*origin) for origin in above]
        if part is not None:
            holds = part.holds_time or part.puts_out_at_end
            held = HeldTime(part, set(sources), inputs) if holds else None
            self.listeners.append(Listener(inputs, live=live, part=part, held=held))
            self._junctions.append(self.listeners[-1])
            if held is not None:
                self._held[node] = held

    def _begins_time(self, graph: StreamGraph, node: int) -> bool:
        """Say whether those behind an operator look at its time, not at that of those above it."""
        operator = graph.nodes[node].operator
        here = node in self._held or node in self.inputs
        return here or isinstance(operator, AssignTimestamps) or operator.holds_time

    def _goes_on(self, node: int) -> bool:
        """Say whether an operator goes on for a while when the sources above it have ended."""
        live = self._live.get(node)
        return node in self._held or (live is not None and live.node.operator.final)

    def _input_at(self, node: int, slot: int | None) -> Origins:
        if slot is not None:
            return self._remote.setdefault((node, slot), RemoteTime())
        if node < 0:
            return self._sent[node]
        return self._held[node] if node in self._held else self.inputs[node]

    def __bool__(self) -> bool:
        return bool(self._junctions)

    def watermarks(self) -> dict[int, int]:
        """Return how far event time has come for the operators that have any; from any thread."""
        least = {node: Junction(origins).least() for node, origins in self._origins.items()}
        return {node: mark for node, mark in least.items() if mark != MIN_WATERMARK}

    def forget(self) -> None:
        """Let go of the operators, and of the state that they keep."""
        self._origins = {}  # a reader may be at the old one
        for kept in (self.inputs, self._held, self._remote, self._sent):
            kept.clear()
        self.listeners.clear()
        self._junctions.clear()

    # ---- other slots

    def times(self) -> dict[int, tuple[int, bool]]:
        """Return how far the time has come that goes into each exchange, and whether it is idle."""
        return {way: (entry.watermark, entry.idle) for way, entry in self._sent.items()}

    def take_times(self, slot: int, times: Mapping[int, tuple[int, bool]]) -> None:
        """Take note of how far time has come in another slot; all records before it are here."""
        for node, (watermark, idle) in times.items():
            entry = self._remote.get((node, slot))
            if entry is not None:
                entry.watermark, entry.idle = max(entry.watermark, watermark), idle
        self.tell()

    def exchange_ended(self, exchange: int) -> None:
        """Take note that nothing more comes through an exchange."""
        self.source_ended(~exchange)

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
        """Let the time of one assigner come as far as `watermark`, at once.

        This may be in the midst of a batch, or while another operator puts out what time has brought
        about: only those below the assigner are told, and only of its time.
        """
        entry = self.inputs[node]
        if watermark > entry.watermark:
            entry.watermark = watermark
            self._look(node, self._clock.monotonic())
            self._tell_below(entry)

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
            part = held.part
            if not (held.ended or held.sources or part.is_waiting() or part.puts_out_at_end):
                held.ended = True
                self.source_ended(node)

    def is_waiting(self) -> bool:
        """Say whether something is still to come from elsewhere that came of records of before."""
        return any(listener.part.is_waiting() for listener in self.listeners)

    def tell(self) -> None:
        """Tell everybody whose event time has moved; nothing is on its way."""
        for junction in self._junctions:
            junction.look()
            self._tell_one(junction)

    def _tell_below(self, entry: TimeInput) -> None:
        moved: set[Origins] = {entry}
        for junction in self._junctions:
            if not moved.isdisjoint(junction.inputs):
                junction.look_at(moved)
                self._tell_one(junction)
                behind = junction if isinstance(junction, SentTime) else junction.held
                if behind is not None:
                    moved.add(behind)

    def _tell_one(self, junction: Listener | SentTime) -> None:
        if isinstance(junction, SentTime):
            junction.go_on()
            return
        watermark, live = junction.least(), junction.live
        if watermark > live.watermark:
            live.watermark = watermark
            self._run(junction, partial(junction.part.advance, watermark))

    # ---- processing time

    def next_look(self) -> float | None:
        """Return in how many seconds something is due, or an input becomes idle; None: never."""
        if any(listener.part.has_arrivals() for listener in self.listeners):
            return 0.0  # the ring that told of it was heard by one that waited for something else
        waits: list[float] = []
        due = [at for s in self._with_clock() if (at := s.part.next_due_ms) is not None]
        if due:
            waits.append((min(due) - self._clock.now_ms()) / 1000)
        idle = [a for entry in self.inputs.values() if (a := entry.idle_at()) is not None]
        if idle:
            waits.append(min(idle) - self._clock.monotonic())
        return max(0.0, min(waits)) if waits else None

    def stop_clock(self, nodes: Collection[int]) -> None:
        """Let the clock bring nothing about any more for some operators: their input has ended."""
        self._clockless.update(nodes)
        for node in self.inputs.keys() & self._clockless:
            self.inputs[node].has_clock = False

    def _with_clock(self) -> list[Listener]:
        return [entry for entry in self.listeners if entry.live.node.id not in self._clockless]

    def look_at_clock(self) -> None:
        """Tell those for whom something is due."""
        for listener in self._with_clock():
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
