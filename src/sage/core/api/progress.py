"""The progress bar and the summary, for people who watch a terminal.

Only here is `rich` used, and it is imported when there is something to show.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from sage.kernel.jobmanager.job import Job
from sage.kernel.jobmanager.job_metrics import JobMetrics

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_REFRESH_SECONDS = 0.1


def wants_progress(progress: bool | None) -> bool:
    """Say whether to show progress: as asked, else where standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty() if progress is None else progress


def show_progress(job: Job, timeout: float | None) -> bool:
    """Show how far a job is until it is done; say whether it is within `timeout` seconds."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    deadline = None if timeout is None else time.monotonic() + timeout
    done = False
    to_terminal = sys.stdout.isatty()  # what goes to a file stays in it
    with Progress(*columns, console=console, transient=True, redirect_stdout=to_terminal) as bar:
        line = bar.add_task(escape(job.name), total=None, figures="")
        while not done and (deadline is None or time.monotonic() < deadline):
            metrics = job.metrics
            bar.update(
                line,
                total=metrics.total_count,
                completed=metrics.records_in,
                figures=_figures(metrics),
            )
            left = _REFRESH_SECONDS if deadline is None else deadline - time.monotonic()
            done = job.wait(max(0.0, min(_REFRESH_SECONDS, left)))
    if done:
        _show_summary(job, console)
    return done


def _figures(metrics: JobMetrics) -> str:
    return f"{metrics.records_in:,} records  {metrics.records_per_second:,.0f}/s"


def _show_summary(job: Job, console: Console) -> None:
    from rich.markup import escape  # noqa: PLC0415

    metrics = job.metrics
    console.print(
        f"{escape(job.name)}: {job.status}, {_figures(metrics)} in {metrics.seconds:.2f} s"
    )
    console.print(summary_table(metrics))


def summary_table(metrics: JobMetrics) -> Table:
    """Return the figures of all operators as a table."""
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    shown = [what for what in ("errors", "dropped", "unrouted", "late") if _any(metrics, what)]
    table = Table(box=None, pad_edge=False)
    for heading in ("operator", "in", "out", *shown):
        table.add_column(heading, justify="left" if heading == "operator" else "right")
    for operator in metrics.operators.values():
        figures = (operator.records_in, operator.records_out)
        extra = (getattr(operator, what) for what in shown)
        table.add_row(escape(operator.name), *(f"{figure:,}" for figure in (*figures, *extra)))
    return table


def _any(metrics: JobMetrics, what: str) -> bool:
    return any(getattr(operator, what) for operator in metrics.operators.values())
