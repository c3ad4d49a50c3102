"""What the live view shows of a job: its operators, slots, checkpoints and services, as tables."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sage.common.clock import Clock
from sage.common.units import duration, lag, latency, rate, size
from sage.dataflow.time import MAX_WATERMARK
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointStatistics
from sage.kernel.jobmanager.job import Job
from sage.kernel.jobmanager.job_metrics import JobMetrics
from sage.kernel.jobmanager.operator_metrics import OperatorMetrics
from sage.kernel.runtime.exchange.figures import SlotFigures

ServiceStatus = Callable[[], Mapping[str, Mapping[str, Any]]]
"""Returns the status of every service."""

_WINDOW_SECONDS: Final = 3.0
_BAR: Final = 10
_SHOWN_IF_ANY: Final = ("late", "errors", "dropped", "unrouted")
_COLOURS: Final = {"RUNNING": "green", "FINISHED": "green", "FAILED": "red", "FAILING": "red"}
_FEWEST_OPERATORS: Final = 3
_WIDEST_NAME: Final = 32
_WIDE: Final = 100
_FOR_WIDE: Final = ("IN", "SUBTASKS", "STATE", "LAST", "WRITTEN")
_LINES_ABOVE: Final = 6  # above the operators, and around them
_LINES_AROUND: Final = 3


@dataclass(frozen=True)
class _Sample:
    """The figures of a job at some moment, on a clock that never goes back."""

    at: float
    metrics: JobMetrics
    calls: Mapping[str, int]


class JobView:
    """Shows a job. Rates and shares are those of the last seconds; at the end, those of the whole.

    Args:
        job: The job.
        services: Returns the status of its services.
        clock: The job's clock.
    """

    def __init__(self, job: Job, services: ServiceStatus, clock: Clock) -> None:
        self._job = job
        self._services = services
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self._status: Mapping[str, Mapping[str, Any]] = {}

    def draw(self, width: int, height: int) -> RenderableType:
        """Return how the job is now, in so many columns and lines if that can be."""
        self._take_sample()
        return self._tables(_Change(self._samples[0], self._samples[-1]), width, height)

    def draw_end(self, width: int) -> RenderableType:
        """Return how it ended, in so many columns if that can be."""
        metrics = self._job.metrics
        start = _Sample(0.0, JobMetrics({}, 0.0, 0), {})
        end = _Sample(metrics.seconds, metrics, _calls(self._status))
        return self._tables(_Change(start, end), width, None)

    def _take_sample(self) -> None:
        status = self._services()
        if any("called" in figures for figures in status.values()):
            self._status = status  # they have stopped before the job is over
        now, calls = time.monotonic(), _calls(self._status)
        self._samples.append(_Sample(now, self._job.metrics, calls))
        while len(self._samples) > 2 and self._samples[1].at <= now - _WINDOW_SECONDS:
            self._samples.popleft()

    def _tables(self, change: _Change, width: int, height: int | None) -> RenderableType:
        metrics, narrow = change.last.metrics, width < _WIDE
        below = [_slots(change, narrow=narrow)]
        if metrics.checkpoints != CheckpointStatistics():
            now_ms = self._clock.now_ms()
            below.append(_checkpoints(metrics.checkpoints, now_ms, narrow=narrow))
        running = {name: s for name, s in self._status.items() if "called" in s}
        if running:
            below.append(_services(running, change, narrow=narrow))
        rows = sum(table.row_count + _LINES_AROUND for table in below)
        most = None if height is None else max(_FEWEST_OPERATORS, height - rows - _LINES_ABOVE)
        head = _head(self._job.name, str(self._job.status), change)
        tables = [_operators(change, most, narrow=narrow), *below]
        return Group(head, *(part for table in tables for part in (Text(), table)), Text())


@dataclass(frozen=True)
class _Change:
    """What has changed from one sample to another.

    Attributes:
        first: The earlier one.
        last: The later one.
    """

    first: _Sample
    last: _Sample

    def rate(self, before: float, after: float) -> str:
        """Return by how much something grows in a second; what begins anew has no rate."""
        seconds = self.last.at - self.first.at
        return rate(max(0.0, after - before) / seconds) if seconds > 0 else "-"

    def operator_rate(self, operator: OperatorMetrics, what: str) -> str:
        """Return how many records go into or out of an operator in a second."""
        before = self.first.metrics.operators.get(operator.name)
        return self.rate(0 if before is None else getattr(before, what), getattr(operator, what))

    def shares(self, slot: SlotFigures) -> dict[str, float]:
        """Return what a slot has done with its time between the samples."""
        before = next((s for s in self.first.metrics.slots if s.number == slot.number), None)
        if before is None or before.seconds > slot.seconds:
            before = SlotFigures()  # it has begun anew
        part = SlotFigures(
            seconds=slot.seconds - before.seconds,
            idle=slot.idle - before.idle,
            blocked=slot.blocked - before.blocked,
            aligning=slot.aligning - before.aligning,
        )
        kinds = ("busy", "idle", "blocked", "aligning")
        return {kind: max(0.0, getattr(part, f"{kind}_share")) for kind in kinds}


def _calls(status: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    return {
        name: figures["called"].overall.since_start.calls
        for name, figures in status.items()
        if "called" in figures
    }


def _head(name: str, status: str, change: _Change) -> Text:
    metrics = change.last.metrics
    done = f"{metrics.records_in:,}"
    if metrics.total_count:
        done += f" of {metrics.total_count:,}"
    speed = change.rate(change.first.metrics.records_in, metrics.records_in)
    facts = [f"{done} records", f"{speed}/s", duration(metrics.seconds)]
    if metrics.restarts:
        facts.append(f"restarted {metrics.restarts} times")
    head = Text.assemble((name, "bold"), "  ", (status, _COLOURS.get(status, "yellow")))
    return head.append("  " + "   ".join(facts))


def _operators(change: _Change, most: int | None, *, narrow: bool) -> Table:
    operators = list(change.last.metrics.operators.values())
    shown = [what for what in _SHOWN_IF_ANY if any(getattr(o, what) for o in operators)]
    spread = any(len(o.subtasks) > 1 for o in operators)
    timed = any(o.watermark is not None for o in operators)
    kept = any(o.state_bytes for o in operators)
    table = _Table("OPERATOR", narrow=narrow)
    for operator in operators[:most]:
        name = Text(operator.name)
        cells = {
            "IN/S": change.operator_rate(operator, "records_in"),
            "OUT/S": change.operator_rate(operator, "records_out"),
            "IN": f"{operator.records_in:,}",
            "OUT": f"{operator.records_out:,}",
            **{what.upper(): f"{getattr(operator, what):,}" for what in shown},
            "SUBTASKS": str(len(operator.subtasks)) if spread else None,
            "WATERMARK": _watermark(operator.watermark, narrow=narrow) if timed else None,
            "BEHIND": lag(operator.watermark_lag_ms) if timed else None,
            "STATE": size(operator.state_bytes or None) if kept else None,
        }
        table.add(name, {heading: cell for heading, cell in cells.items() if cell is not None})
    if most is not None and len(operators) > most:
        table.add(Text(f"… and {len(operators) - most} more", style="dim"), {})
    return table


def _watermark(watermark: int | None, *, narrow: bool) -> str:
    if watermark is None:
        return "-"
    if watermark == MAX_WATERMARK:
        return "end"
    try:
        moment = datetime.fromtimestamp(watermark / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # time need not be that of a calendar
        return str(watermark)
    return f"{moment:%H:%M:%S}" if narrow else f"{moment:%Y-%m-%d %H:%M:%S}"


def _slots(change: _Change, *, narrow: bool) -> Table:
    table = _Table("SLOT", narrow=narrow)
    for slot in change.last.metrics.slots:
        shares = change.shares(slot)
        before = next((s for s in change.first.metrics.slots if s.number == slot.number), None)
        sent = change.rate(0 if before is None else before.bytes_sent, slot.bytes_sent)
        cells = {kind.upper(): f"{share:.0%}" for kind, share in shares.items()}
        name = Text(f"{slot.number}  ").append(_bar(shares))
        table.add(name, {**cells, "SENT/S": f"{sent}B" if slot.bytes_sent else "-"})
    return table


def _bar(shares: Mapping[str, float]) -> Text:
    busy = round(_BAR * shares["busy"])
    blocked = min(_BAR - busy, round(_BAR * (shares["blocked"] + shares["aligning"])))
    bar = Text("█" * busy, style="green").append("█" * blocked, style="red")
    return bar.append("░" * (_BAR - busy - blocked), style="dim")


def _checkpoints(statistics: CheckpointStatistics, now_ms: int, *, narrow: bool) -> Table:
    table, last = _Table("CHECKPOINTS", narrow=narrow), statistics.last
    name, failed = Text(f"{statistics.completed} completed"), {"FAILED": str(statistics.failed)}
    if last is None:
        table.add(name, failed)
        return table
    cells = {
        "LAST": f"{'savepoint ' if last.savepoint else ''}#{last.checkpoint_id}",
        "AGO": lag(max(0, now_ms - last.ended_ms)),
        "TOOK": latency(last.seconds),
        "SIZE": size(last.size),
        "WRITTEN": size(last.bytes),
        "ALIGNED": latency(last.alignment),
        "IN FLIGHT": size(last.in_flight_bytes),
    }
    table.add(name, failed | cells)
    return table


def _services(status: Mapping[str, Mapping[str, Any]], change: _Change, *, narrow: bool) -> Table:
    table = _Table("SERVICE", narrow=narrow)
    for name, figures in status.items():
        called = figures["called"].overall
        recent, total = called.last_minute, called.since_start
        before, now = (sample.calls.get(name, 0) for sample in (change.first, change.last))
        cells = {
            "CALLS/S": change.rate(before, now),
            "P50": latency(recent.p50),
            "P99": latency(recent.p99),
            "CALLS": f"{total.calls:,}",
            "FAILED": f"{total.failed:,}",
            "FLYING": str(called.in_flight),
        }
        table.add(Text(name), cells)
    return table


class _Table(Table):
    """Names on the left, figures on the right; where there is no room for all, the less important go.

    Args:
        title: Says what is on the left.
        narrow: Whether there is no room for all.
    """

    def __init__(self, title: str, *, narrow: bool) -> None:
        super().__init__(
            box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, collapse_padding=True
        )
        self._narrow = narrow
        self.add_column(title, no_wrap=True, overflow="ellipsis", max_width=_WIDEST_NAME)

    def add(self, name: Text, cells: Mapping[str, str]) -> None:
        """Add a row."""
        cells = {h: c for h, c in cells.items() if not (self._narrow and h in _FOR_WIDE)}
        known = {str(column.header) for column in self.columns}
        for heading in cells:
            if heading not in known:
                self.add_column(heading, justify="right", no_wrap=True)
        self.add_row(name, *cells.values())
