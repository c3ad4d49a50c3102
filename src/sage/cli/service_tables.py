"""The tables of `sage service`."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sage.cli.running_service import RunningService, windows
from sage.cli.service_health import Health
from sage.common.units import duration, latency, rate, share

_COLOURS = {
    "healthy": "green",
    "starting": "yellow",
    "degraded": "yellow",
    "unhealthy": "red",
    "closed": "green",
    "half_open": "yellow",
    "open": "red",
}
_MOST_PIDS = 3


def service_table(services: list[RunningService]) -> Table:
    """Return the table of `ls` and `top`."""
    table = _table("NAME", "ENV", "RUNS", "STATE", "PID", "UPTIME")
    table.columns[0].overflow = "fold"  # it is what the other commands are given
    table.columns[2].no_wrap = True
    for title in ("CALLS/S", "FLYING"):
        table.add_column(title, justify="right")
    for service in services:
        table.add_row(
            Text(service.name),
            Text(service.environment or "-"),
            _where(service),
            _coloured(service.state),
            _pids(service.pids),
            duration(service.uptime),
            rate(service.calls_per_second),
            str(service.in_flight),
        )
    return table


def status_view(service: RunningService) -> RenderableType:
    """Return what `status` shows of a service."""
    head = Table.grid(padding=(0, 2))
    for label, value in _facts(service).items():
        head.add_row(Text(label, style="dim"), value)
    parts: list[RenderableType] = [Text(service.name, style="bold"), head, Text()]
    methods = service.methods
    if not methods:
        return Group(*parts[:-1], Text("\nIt has not been called yet.\n"))
    left_out: int = service.called.get("left_out", 0)
    parts.append(_calls_table(methods, service.overall))
    if left_out:
        parts.append(Text(f"{left_out} methods that were called less are not shown.\n"))
    failed = _failures_table(methods)
    if failed.row_count:
        parts += [Text(), failed]
    return Group(*parts, Text())


def health_table(healths: list[Health]) -> Table:
    """Return the table of `health`."""
    table = _table("NAME", "ENV", "HEALTH", "ANSWERED IN", "TOLD")
    for column in (0, 4):
        table.columns[column].overflow = "fold"
    for health in healths:
        state = "healthy" if health.well else "unhealthy"
        table.add_row(
            Text(health.service.name),
            Text(health.service.environment or "-"),
            _coloured(state),
            latency(health.seconds),
            Text(health.told),
        )
    return table


def _facts(service: RunningService) -> dict[str, Text]:
    figures = service.figures
    breaker, cache = figures.get("breaker"), figures.get("cache") or {}
    asked = cache.get("hits", 0) + cache.get("misses", 0)
    hits = f"{cache.get('hits', 0)} of {asked} ({share(cache.get('hits', 0), asked)})"
    waiting = figures.get("waiting")
    return {
        "environment": Text(service.environment or "-"),
        "class": Text(service.info.class_path or service.info.address or "-"),
        "runs": _where(service),
        "state": _coloured(service.state),
        "processes": Text(", ".join(map(str, service.pids)) or "-"),
        "uptime": Text(duration(service.uptime)),
        "calls per second": Text(rate(service.calls_per_second)),
        "in flight": Text(str(service.in_flight)),
        "waiting in queue": Text("-" if waiting is None else str(waiting)),
        "circuit breaker": Text("none") if breaker is None else _coloured(breaker),
        "retries": Text(str(figures.get("retries", 0))),
        "cache hits": Text(hits if asked else "none"),
    }


def _calls_table(methods: dict[str, Any], overall: dict[str, Any]) -> Table:
    table = _table("METHOD", "LAST")
    table.columns[0].overflow = "fold"
    for title in ("CALLS", "OK", "MEAN", "P50", "P95", "P99", "FLYING"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = sorted(methods.items())
    if len(shown) > 1:
        shown.append(("(all)", overall))
    for method, statistics in shown:
        for number, (title, window) in enumerate(windows(statistics)):
            first = number == 0
            table.add_row(
                Text(method) if first else "",
                title,
                *_window_cells(window),
                str(statistics.get("in_flight", 0)) if first else "",
                end_section=title == "start",
            )
    return table


def _window_cells(window: dict[str, Any]) -> list[str]:
    calls: int = window.get("calls", 0)
    failed = sum(window.get("failures", {}).values())
    latencies = [latency(window.get(key)) for key in ("mean", "p50", "p95", "p99")]
    return [str(calls), share(calls - failed, calls), *latencies]


def _failures_table(methods: dict[str, Any]) -> Table:
    table = _table("METHOD", "FAILED WITH")
    for title in ("1 MIN", "5 MIN", "15 MIN", "START"):
        table.add_column(title, justify="right")
    table.columns[1].overflow = "fold"
    for method, statistics in sorted(methods.items()):
        by_window = [window.get("failures", {}) for _, window in windows(statistics)]
        for error in sorted(by_window[-1]):
            counts = [str(failures.get(error, 0)) for failures in by_window]
            table.add_row(Text(method), Text(error), *counts)
    return table


def _table(*titles: str) -> Table:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, collapse_padding=True
    )
    for title in titles:
        table.add_column(title)
    return table


def _where(service: RunningService) -> Text:
    info = service.info
    if info.address is not None:
        return Text(f"at {info.address}")
    if info.isolation == "local":
        return Text("local")
    return Text(f"{info.isolation} {service.up}/{info.replicas}")


def _pids(pids: list[int]) -> Text:
    more = f" +{len(pids) - _MOST_PIDS}" if len(pids) > _MOST_PIDS else ""
    return Text(" ".join(map(str, pids[:_MOST_PIDS])) + more or "-")


def _coloured(state: str) -> Text:
    return Text(state.replace("_", " "), style=_COLOURS.get(state, ""))
