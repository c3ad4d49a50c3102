"""Call something that fails, is slow to forgive, and must not be called too often.

The "external API" refuses every fifth call and is down for a while in the middle. The pipeline gets
an answer for each record all the same. It shows a limit on the rate and on the calls under way,
retries, a circuit breaker, a cache, a fallback, and the figures of it all.

    python examples/external_api.py
    python examples/external_api.py --records 500 --no-retry
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sage import LocalEnvironment, MapFunction

CITIES = ("Oslo", "Lima", "Cairo", "Hanoi", "Quito", "Accra", "Perth", "Turin")
OUTAGE = range(40, 50)
"""Which requests find the API down."""

SECONDS_BETWEEN_RECORDS = 0.002


class WeatherApi:
    """Stands for a server elsewhere: it counts its requests and fails some of them."""

    def __init__(self) -> None:
        self.requests = 0

    def temperature(self, city: str, hour: int) -> int:
        """Return the temperature of a city."""
        self.requests += 1
        if self.requests in OUTAGE or self.requests % 5 == 0:
            raise ConnectionError("connection refused")
        return (len(city) * 7 + hour) % 30


class Ask(MapFunction[tuple[str, int], int | None]):
    """Asks the API for the temperature of each record.

    Args:
        at_end: Called when the last record is done, while the services still run.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        super().__init__()
        self.at_end = at_end

    def execute(self, data: tuple[str, int]) -> int | None:
        """Return the temperature; `None` if it was not to be had."""
        found: int | None = self.call_service["weather"].temperature(*data)
        return found

    def close(self) -> None:
        """Look at the figures."""
        self.at_end()


def questions(number: int) -> Iterator[tuple[str, int]]:
    """Yield pairs of city and hour, one after the other as they would come in; some come twice."""
    for i in range(number):
        time.sleep(SECONDS_BETWEEN_RECORDS)
        yield CITIES[i % len(CITIES)], i // 16


def run(number: int, retries: int) -> tuple[list[int | None], dict[str, Any]]:
    """Run the pipeline; return the answers, and how the service was at the end."""
    figures: dict[str, Any] = {}
    with LocalEnvironment("weather") as env:
        env.register_service("weather", WeatherApi).options(
            timeout=1.0,
            max_calls=4,
            rate_limiting={"requests_per_minute": 60_000, "burst": 50},
            retry={"max_retries": retries, "initial_delay": 0.01, "retry_on": ["ConnectionError"]},
            idempotent=True,  # asking twice is the same as asking once, so it may be tried again
            circuit_breaker={
                "consecutive_failures": 6,
                "open_seconds": 0.02,
                "probes": 1,
                "failure_errors": ["ConnectionError"],
            },
            cache_ttl=60,
            fallback=lambda error: None,
        )
        look = lambda: figures.update(env.services.status()["weather"])  # noqa: E731
        answers = env.from_batch(questions(number)).map(Ask, look).collect()
        env.execute(progress=False)
        return list(answers), figures


def main() -> None:
    """Read the arguments, run, print the figures."""
    parser = argparse.ArgumentParser(description="Calls to something that is not reliable.")
    parser.add_argument("--records", type=positive, default=200, metavar="N", help="(default: 200)")
    parser.add_argument("--no-retry", action="store_true", help="do not try again")
    options = parser.parse_args()
    answers, figures = run(options.records, 0 if options.no_retry else 4)
    kinds = Counter("unknown" if answer is None else "known" for answer in answers)
    called, cache = figures["called"].overall.since_start, figures["cache"]
    print(f"answers     {kinds['known']} known, {kinds['unknown']} from the fallback")
    print(f"calls       {called.calls}, {called.failed} of them failed: {called.failures}")
    print(f"requests    {figures['calls']} reached the API, {figures['failures']} were refused")
    print(f"retries     {figures['retries']}")
    print(f"cache       {cache.hits} hits, {cache.misses} misses")
    print(f"breaker     {figures['breaker']}")
    if called.p50 is not None and called.p99 is not None:
        print(f"latency     p50 {called.p50 * 1000:.2f} ms, p99 {called.p99 * 1000:.2f} ms")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
