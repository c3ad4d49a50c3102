"""Records of two streams that have the same key and fall into the same window.

The windows are those of one stream: both inputs go into them, each record with the number of its
side, and when a window fires its records are parted again (Flink's `CoGroupedStreams` does the same).
So whatever windows there are, with sessions that merge over both sides, triggers and allowed lateness,
can be joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Literal, cast

from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.operator.base import LiveContext, OperatorScope, RecordOperator, Results
from sage.dataflow.operator.joins.pairing import How, Pair, keeps_left, keeps_right, pair_of
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.operator.window import (
    GeneralLive,
    PaneLive,
    SessionLive,
    WindowLive,
    WindowSettings,
)
from sage.dataflow.record import LATE_RECORDS
from sage.dataflow.window.assigner import SessionWindows, WindowAssigner
from sage.dataflow.window.choice import chosen_path
from sage.dataflow.window.window_function import IncrementalContents
from sage.dataflow.window.window_operator import WindowSpec
from sage.dataflow.window.window_result import Window, WindowResult

Sided = tuple[int, Any]
"""A record with the number of its side: 0 left, 1 right."""

WindowFinish = Callable[[WindowResult], Iterable[Any]]
"""Makes results of a window whose value is its `Sides`."""


class Sides:
    """The records of a window, parted: what a window folds into."""

    __slots__ = ("parts",)

    def __init__(self, lefts: list[Any], rights: list[Any]) -> None:
        self.parts = (lefts, rights)

    def __deepcopy__(self, memo: Any) -> Sides:
        # Windows copy what they fold before they merge it; the records themselves never change.
        return Sides(copy(self.parts[0]), copy(self.parts[1]))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Sides, self.parts)


def first_of(record: Sided) -> Sides:
    """Return the sides of one record."""
    return add_to(Sides([], []), record)


def add_to(sides: Sides, record: Sided) -> Sides:
    """Put a record to its side."""
    sides.parts[record[0]].append(record[1])
    return sides


def merged(first: Sides, second: Sides) -> Sides:
    """Join the sides of two sessions."""
    first.parts[0].extend(second.parts[0])
    first.parts[1].extend(second.parts[1])
    return first


def itself(sides: Sides) -> Sides:
    """Return the sides."""
    return sides


def parted(key: Any, context: Any, records: Iterable[Sided]) -> Iterable[WindowResult]:
    """Part the records of a window that has kept them all."""
    sides = Sides([], [])
    for record in records:
        add_to(sides, record)
    return [WindowResult(key, context.window.start, context.window.end, sides)]


FOLD = IncrementalContents(first_of, add_to, None, itself)
MERGING_FOLD = replace(FOLD, merge=merged)


@dataclass(frozen=True)
class GapOfRecord:
    """The gap of a session, asked of the record without its side."""

    gap_of: Callable[[Any], timedelta | float]

    def __call__(self, record: Sided) -> timedelta | float:
        """Return the gap."""
        return self.gap_of(record[1])


def join_spec(settings: WindowSettings) -> WindowSpec:
    """Return the windows of both streams together.

    Tumbling windows and sessions part records as they come; the others keep them and part them when
    they fire.
    """
    assigner = _of_sided_records(settings.assigner)
    fold = MERGING_FOLD if isinstance(assigner, SessionWindows) else FOLD
    spec = WindowSpec(
        assigner,
        fold,
        trigger=settings.trigger,
        evictor=settings.evictor,
        allowed_lateness_ms=settings.allowed_lateness_ms,
    )
    return replace(spec, fold=None, finish=parted) if chosen_path(spec) == "general" else spec


def _of_sided_records(assigner: WindowAssigner) -> WindowAssigner:
    if isinstance(assigner, SessionWindows) and assigner.gap_of is not None:
        return replace(assigner, gap_of=GapOfRecord(assigner.gap_of))
    return assigner


class PartedResults:
    """Where the windows of both streams put things; implements `Results`.

    Args:
        results: Takes the results of the join, and late records as they came.
        finish: Makes results of a window.
    """

    def __init__(self, results: Results, finish: WindowFinish) -> None:
        self._results = results
        self._finish = finish

    def emit(self, value: WindowResult, timestamp: int | None) -> None:
        """Take a window that has fired."""
        emit = self._results.emit
        for result in self._finish(value):
            emit(result, timestamp)

    def side(self, tag: str, value: Any, timestamp: int | None) -> None:
        """Take a late record."""
        self._results.side(tag, value[1] if tag == LATE_RECORDS else value, timestamp)


@dataclass(frozen=True)
class _WindowContext:
    """What windows ask of their `LiveContext`, with the join's own place for results."""

    runtime: RuntimeContext
    results: Results


def pairs(pair: Pair, how: How) -> WindowFinish:
    """Return what joins each left record of a window with each right one."""
    lonely_left, lonely_right = keeps_left(how), keeps_right(how)

    def finish(window: WindowResult) -> Iterable[Any]:
        lefts, rights = window.value.parts
        if lefts and rights:
            return [pair(left, right) for left in lefts for right in rights]
        if lonely_left and lefts:
            return [pair(left, None) for left in lefts]
        return [pair(None, right) for right in rights] if lonely_right else ()

    return finish


def groups(function: Callable[..., Any]) -> WindowFinish:
    """Return what hands the records of both sides of a window to a function."""

    def finish(window: WindowResult) -> Iterable[Any]:
        lefts, rights = window.value.parts
        # Copies: the window may fire again, and the lists are the function's.
        results = function(window.key, Window(window.start, window.end), lefts[:], rights[:])
        if results is None:
            return ()
        if isinstance(results, (str, bytes)) or not isinstance(results, Iterable):
            raise TypeError(
                "the function of cogroup returns or yields its results, [] or None for none, not "
                f"{type(results).__name__}"
            )
        return results

    return finish


@dataclass(frozen=True, eq=False)
class WindowJoin(RecordOperator):
    """Joins records of one key and window: pairs of them, or both groups as a whole.

    Attributes:
        settings: Which windows.
        how: Whose records go out without a partner too.
        making: `"pairs"` or `"groups"`.
    """

    kind: ClassVar[str] = "join"
    settings: WindowSettings = field(default_factory=lambda: _MISSING)
    how: How = "inner"
    making: Literal["pairs", "groups"] = "pairs"

    @property
    def tells_late(self) -> bool:
        """Records that come too late are told."""
        return True

    @property
    def label(self) -> str:
        """The name of the operator."""
        label = super().label
        return label if self.making == "pairs" else label.replace("join", "cogroup", 1)

    @property
    def gives_time(self) -> bool:
        """The results have the time of their window, if its windows have any."""
        return self.settings.assigner.timed

    @property
    def needs_time(self) -> bool:
        """Whether the windows go by event time."""
        return self.settings.assigner.on_event_time

    def create_live(self, context: LiveContext) -> WindowLive:
        """Make the machine that suits these windows."""
        entries = context.entries
        finish = (
            groups(entries[0]) if self.making == "groups" else pairs(pair_of(entries), self.how)
        )
        results = PartedResults(context.results, finish)
        inner = cast("LiveContext", _WindowContext(context.runtime, results))
        spec = join_spec(self.settings)
        path = chosen_path(spec)
        if path == "panes":
            return PaneLive(spec, inner)
        return SessionLive(spec, inner) if path == "sessions" else KeptLive(spec, inner)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Hand each record over, with the number of its side."""
        live, writer = scope.live(), scope.writer
        record, at = f"({index}, {flow.value})", flow.timestamp or "0"
        if isinstance(live, KeptLive):
            add, now = writer.bind("add", live.operator.add), writer.fresh("now")
            writer.first(f"{now} = {writer.bind('clock', live.now_ms)}()")
            scope.attempt([f"{add}({flow.key}, {record}, {at}, {now})"], flow, phase="key")
            writer.last(f"{writer.bind('live', live)}.look()")
            return
        windows = live.windows if isinstance(live, PaneLive) else live.sessions
        add = writer.bind("add", windows.add)
        scope.attempt([f"{add}({flow.key}, {record}, {at})"], flow, phase="key")

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many results went out."""
        return count("produced")


class KeptLive(GeneralLive):
    """The live part of windows that keep their records until they fire."""

    def __init__(self, spec: WindowSpec, context: LiveContext) -> None:
        super().__init__(spec, context)
        self.now_ms = context.runtime.now_ms


_MISSING: Any = None
