"""Windows over keyed records, as a part of the fused loop.

Records are folded, or kept, where they come; what fires goes out when event or processing time moves,
or through the results of the operator when a record itself makes a window fire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.base import LiveContext, LivePart, OperatorScope, RecordOperator
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.operator.process_live import (
    load_timers,
    timers_changes,
    timers_state,
    warn_of_pending,
)
from sage.dataflow.record import LATE_RECORDS
from sage.dataflow.state.key_table import KeyTable, TableChanges
from sage.dataflow.state.timers import HeapTimers
from sage.dataflow.time import MIN_WATERMARK
from sage.dataflow.window.assigner import SessionWindows, WindowAssigner
from sage.dataflow.window.choice import chosen_path
from sage.dataflow.window.evictor import Evictor, TimeEvictor
from sage.dataflow.window.pane_windows import PaneWindows
from sage.dataflow.window.session_windows import KeyedSessions
from sage.dataflow.window.trigger import EventTimeTrigger, PurgingTrigger, Trigger
from sage.dataflow.window.window_contents import PLAIN, Finish
from sage.dataflow.window.window_function import (
    IncrementalContents,
    ProcessWindowFunction,
    WindowFunction,
    aggregating,
    reducing,
)
from sage.dataflow.window.window_operator import WindowOperator, WindowOutputs, WindowSpec

Folding = Literal["reduce", "aggregate", "none"]


@dataclass(frozen=True)
class WindowSettings:
    """What the user said about windows.

    Attributes:
        assigner: Which windows a record belongs to.
        trigger: When they fire; None: as the assigner says.
        evictor: What thins them out.
        allowed_lateness_ms: How long they are kept behind the watermark.
    """

    assigner: WindowAssigner
    trigger: Trigger | None = None
    evictor: Evictor | None = None
    allowed_lateness_ms: int = 0


@dataclass(frozen=True, eq=False)
class WindowFold(RecordOperator):
    """Windows of keyed records.

    The functions are what folds the records, unless they are kept, and what makes results of that,
    if anything does.

    Attributes:
        settings: Which windows.
        folding: How records are folded as they come.
        finishing: Whether the last function makes the results.
    """

    kind: ClassVar[str] = "window"
    settings: WindowSettings = field(default_factory=lambda: _MISSING)
    folding: Folding = "none"
    finishing: bool = False

    @property
    def tells_late(self) -> bool:
        """Records that come too late are told."""
        return True

    @property
    def gives_time(self) -> bool:
        """The results have the time of their window, if its windows have any."""
        return self.settings.assigner.timed

    @property
    def needs_time(self) -> bool:
        """Whether the windows, or what was said about them, go by event time."""
        settings = self.settings
        return (
            settings.assigner.on_event_time
            or _goes_by_event_time(settings.trigger)
            or isinstance(settings.evictor, TimeEvictor)
        )

    def create_live(self, context: LiveContext) -> LivePart:
        """Make the machine that suits these windows."""
        spec = self._spec(context.functions)
        path = chosen_path(spec)
        if path == "panes":
            return PaneLive(spec, context)
        return SessionLive(spec, context) if path == "sessions" else GeneralLive(spec, context)

    def _spec(self, functions: list[Any]) -> WindowSpec:
        settings = self.settings
        fold = _folding(self.folding, functions[0])
        finish, clear = PLAIN, _ignore
        if self.finishing:
            finish, clear = _finish(functions[-1])
        return WindowSpec(
            settings.assigner,
            fold,
            finish,
            clear,
            settings.trigger,
            settings.evictor,
            settings.allowed_lateness_ms,
        )

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Write what the machine wants of the loop."""
        scope.live().write(scope, flow)

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many results went out."""
        return count("produced")


_MISSING: Any = None


def _goes_by_event_time(trigger: Trigger | None) -> bool:
    inner = trigger.inner if isinstance(trigger, PurgingTrigger) else trigger
    return isinstance(inner, EventTimeTrigger)


def _ignore(*_: Any) -> None:
    return None


def _folding(folding: Folding, function: Any) -> IncrementalContents | None:
    if folding == "reduce":
        return reducing(getattr(function, "execute", function))
    return aggregating(function) if folding == "aggregate" else None


def _finish(function: Any) -> tuple[Finish, Callable[..., None]]:
    if isinstance(function, ProcessWindowFunction):
        return _checked(function.process), function.clear
    apply = function.apply if isinstance(function, WindowFunction) else function
    return _checked(lambda key, context, values: apply(key, context.window, values)), _ignore


def _checked(function: Callable[..., Any]) -> Finish:
    """Take `None` as no results, and refuse what is no iterable."""

    def finish(key: Any, context: Any, values: Any) -> Iterable[Any]:
        results = function(key, context, values)
        if results is None:
            return ()
        if isinstance(results, (str, bytes)) or not isinstance(results, Iterable):
            raise TypeError(
                "a window function returns or yields its results, [] or None for none, not "
                f"{type(results).__name__}"
            )
        return results

    return finish


class WindowLive(LivePart):
    """What the live parts of windows share: where results and late records go."""

    def __init__(self, context: LiveContext) -> None:
        self.results = context.results

    def late(self, value: Any, key: Any, timestamp: int) -> None:
        """Put a record that is too late where late records go."""
        self.results.side(LATE_RECORDS, value, timestamp)

    def emit_all(self, results: Iterable[tuple[Any, int]]) -> None:
        """Put out what fired."""
        emit = self.results.emit
        for result, timestamp in results:
            emit(result, timestamp)


class PaneLive(WindowLive):
    """Tumbling and sliding windows by panes.

    Attributes:
        after: Where the pane that the loop holds on to ends; MIN_WATERMARK: it must look again,
            because event time has moved in the midst of a batch.
    """

    def __init__(self, spec: WindowSpec, context: LiveContext) -> None:
        super().__init__(context)
        self.after = MIN_WATERMARK
        assert spec.fold is not None
        self.fold = spec.fold
        self.windows = PaneWindows(
            spec.assigner,  # type: ignore[arg-type]  # the choice of the path says so
            spec.fold,
            spec.allowed_lateness_ms,
            self.results.emit,
            self.late,
        )

    def write(self, scope: OperatorScope, flow: Flow) -> None:
        """Write the loop of `pane_windows`."""
        writer, windows = scope.writer, self.windows
        key, value, at = flow.key, flow.value, flow.timestamp
        start, pane = writer.fresh("start"), writer.fresh("pane")
        find, miss = writer.bind("find", windows.pane), writer.bind("miss", windows.pane_miss)
        behind, add = writer.bind("behind", windows.behind), writer.bind("add", self.fold.add)
        after = f"{writer.bind('panes', self)}.after"
        length, offset = windows.pane_ms, windows.offset_ms
        into = f"({at} - {offset}) % {length}" if offset else f"{at} % {length}"
        writer.first(f"{start} = {after} = 0; {pane} = None")
        lines = [
            f"if not {start} <= {at} < {after}:",
            f"    {start} = {at} - {into}",
            f"    {pane} = {find}({start})",
            f"    {after} = {start} if {pane} is None else {start} + {length}",
            f"if {pane} is None: {behind}({key}, {value}, {at})",
            f"elif {key} in {pane}: {pane}[{key}] = {add}({pane}[{key}], {value})",
            f"else: {miss}({start}, {key}, {value})",
        ]
        scope.attempt(lines, flow, phase="key")

    def advance(self, watermark: int) -> None:
        """Fire what is complete."""
        if watermark < self.windows.next_fire:
            self.windows.watermark = watermark
        else:
            self.after = MIN_WATERMARK
            self.emit_all(self.windows.advance(watermark))

    def take_changes(self) -> Any:
        """Return the panes that changed."""
        return self.windows.take_changes()

    def full_state(self) -> Any:
        """Return all panes."""
        return self.windows.full_state()

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over panes."""
        for part in parts:
            self.windows.load(*part, owns=share.owns)


class SessionLive(WindowLive):
    """Sessions that are folded as records come."""

    def __init__(self, spec: WindowSpec, context: LiveContext) -> None:
        super().__init__(context)
        assert spec.fold is not None
        assert isinstance(spec.assigner, SessionWindows)
        self.fold, self.gap = (
            spec.fold,
            spec.assigner.gap_ms if spec.assigner.gap_of is None else None,
        )
        self.sessions = KeyedSessions(
            spec.assigner, spec.fold, spec.allowed_lateness_ms, self.results.emit, self.late
        )

    def write(self, scope: OperatorScope, flow: Flow) -> None:
        """Write the loop of `session_windows`; a gap that depends on the record asks for each."""
        writer, sessions = scope.writer, self.sessions
        key, value, at = flow.key, flow.value, flow.timestamp
        if self.gap is None:
            add = writer.bind("add", sessions.add)
            scope.attempt([f"{add}({key}, {value}, {at})"], flow, phase="key")
            return
        latest, miss = writer.bind("latest", sessions.latest), writer.bind("miss", sessions.miss)
        add, session = writer.bind("add", self.fold.add), writer.fresh("session")
        end = writer.fresh("end")
        lines = [
            f"{end} = {at} + {self.gap}",
            f"{session} = {latest}.get({key})",
            f"if {session} is not None and {session}.start <= {at} <= {session}.end:",
            f"    {session}.folded = {add}({session}.folded, {value})",
            f"    if {end} > {session}.end: {session}.end = {end}",
            f"else: {miss}({key}, {value}, {at}, {end})",
        ]
        scope.attempt(lines, flow, phase="key")

    def advance(self, watermark: int) -> None:
        """Fire what is complete."""
        if watermark < self.sessions.next_fire:
            self.sessions.watermark = watermark
        else:
            self.emit_all(self.sessions.advance(watermark))

    def take_changes(self) -> Any:
        """Return the sessions that changed."""
        return self.sessions.take_changes()

    def full_state(self) -> Any:
        """Return all sessions."""
        return self.sessions.full_state()

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over sessions."""
        for part in parts:
            self.sessions.load(*part, owns=share.owns)


def _windows_of(part: Sequence[Any], share: Share) -> dict[Any, Any]:
    """Return the windows by key that belong here, out of a full state and what changed since."""
    table = KeyTable(layered=False)
    for state in part:
        if "full" in state:
            table.load(state["full"])
        else:
            table.apply(TableChanges(*state["changes"]))
    windows = table.full()
    if share == WHOLE:
        return windows
    return {key: entry for key, entry in windows.items() if share.owns(key)}


class GeneralLive(WindowLive):
    """Any windows, by the general operator."""

    def __init__(self, spec: WindowSpec, context: LiveContext) -> None:
        super().__init__(context)
        self._runtime = context.runtime
        self._now = context.runtime.now_ms
        self._timers = HeapTimers()
        outputs = WindowOutputs(self.results.emit, self.late, self.results.side)
        self._table = KeyTable()
        self.operator = WindowOperator(spec, self._table, self._timers, outputs)

    def write(self, scope: OperatorScope, flow: Flow) -> None:
        """Hand each record over; the clock is read once per batch."""
        writer = scope.writer
        add, now = writer.bind("add", self.operator.add), writer.fresh("now")
        writer.first(f"{now} = {writer.bind('clock', self._now)}()")
        at = flow.timestamp or "0"
        scope.attempt([f"{add}({flow.key}, {flow.value}, {at}, {now})"], flow, phase="key")
        writer.last(f"{writer.bind('live', self)}.look()")

    def full_state(self) -> Any:
        """Return windows, timers and how far event time has come."""
        timers = timers_state(self._timers)
        return {"full": self._table.full(), "at": self.operator.watermark, **timers}

    def take_changes(self) -> Any:
        """Return the windows of those keys that changed, what changed in the timers, and the time."""
        timers = timers_changes(self._timers) or {"event": ((), ()), "processing": ((), ())}
        changes = tuple(self._table.take_changes())
        return {"changes": changes, "at": self.operator.watermark, **timers}

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over windows and timers."""
        found: dict[Any, Any] = {}
        for part in parts:
            found |= _windows_of(part, share)
        self._table.load(found)
        self.operator.watermark = min(part[-1]["at"] for part in parts)
        load_timers(self._timers, parts, share)
        self.look()

    def end(self) -> None:
        """Tell of timers for which nobody waits: windows on processing time that are open."""
        warn_of_pending(self._timers, self._runtime)

    def look(self) -> None:
        """Take note of when the next timer on processing time is due."""
        self.next_due_ms = self._timers.next_processing()

    def advance(self, watermark: int) -> None:
        """Bring the timers on event time that are due."""
        operator = self.operator
        operator.watermark = watermark
        operator.now_ms = self._now()
        for timestamp, key, window in self._timers.due_events(watermark):
            operator.on_event_timer(timestamp, key, window)
        self.look()

    def on_processing_time(self, now_ms: int) -> None:
        """Bring the timers on processing time that are due."""
        for timestamp, key, window in self._timers.due_processing(now_ms):
            self.operator.on_processing_timer(timestamp, key, window)
        self.look()
