"""Join streams of a small web shop: one section for each kind of join.

It shows joins of two keyed streams by window, by distance in time and by nearest time, a join by a
function of one's own, grouping without pairing, and looking up in a table and in a service.

    python examples/joins.py
    python examples/joins.py --only asof
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sage import (
    BaseFunction,
    DataStream,
    LocalEnvironment,
    SageError,
    Window,
    session_window,
    tumbling_time_window,
)
from sage.core.api.function.join_function import BaseJoinFunction

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    """Something that a user did, so many seconds after noon."""

    user: str
    second: float
    what: str

    @property
    def time(self) -> datetime:
        """When it was."""
        return NOON + timedelta(seconds=self.second)


CLICKS = [
    Event("ada", 1, "click lamp"),
    Event("bob", 3, "click rug"),
    Event("ada", 70, "click vase"),
    Event("cy", 75, "click lamp"),
]
ORDERS = [Event("ada", 20, "order lamp"), Event("ada", 82, "order vase"), Event("bob", 90, "rug")]
PAYMENTS = [Event("ada", 24, "paid 30"), Event("ada", 115, "paid 12"), Event("bob", 91, "paid 99")]
PRICES = [Event("lamp", 0, "30"), Event("lamp", 60, "35"), Event("rug", 60, "99")]
CITIES = {"ada": "London", "bob": "Paris"}


def stream(env: LocalEnvironment, events: list[Event]) -> DataStream[Event]:
    """Return a stream of events by user, in the order of their times."""
    return env.from_batch(events).assign_timestamps(lambda event: event.time).key_by("user")


def told(left: Event | None, right: Event | None) -> str:
    """Say what met."""
    first, second = (event.what if event else "nothing" for event in (left, right))
    who = left or right
    return f"{who.user if who else '?'}: {first} - {second}"


def window(env: LocalEnvironment) -> DataStream[str]:
    """Clicks and orders of one user in the same minute; clicks without an order too."""
    joined = stream(env, CLICKS).join(stream(env, ORDERS))
    return joined.window(tumbling_time_window(minutes=1)).apply(told, how="left")


def cogroup(env: LocalEnvironment) -> DataStream[str]:
    """How much of each a user did in one visit: sessions over both streams."""

    def summary(user: str, visit: Window, clicks: list[Event], orders: list[Event]) -> list[str]:
        seconds = (visit.end - visit.start) // 1000
        return [f"{user}: {len(clicks)} clicks and {len(orders)} orders in {seconds} s"]

    grouped = stream(env, CLICKS).cogroup(stream(env, ORDERS))
    return grouped.window(session_window(seconds=30)).apply(summary)


def interval(env: LocalEnvironment) -> DataStream[str]:
    """Orders and what was paid within ten seconds of them; the unpaid ones too."""
    joined = stream(env, ORDERS).interval_join(stream(env, PAYMENTS))
    return joined.between(0, timedelta(seconds=10)).apply(told, how="left")


def asof(env: LocalEnvironment) -> DataStream[str]:
    """What the thing on which somebody clicked cost at that time."""
    clicks = env.from_batch(CLICKS).assign_timestamps(lambda event: event.time)
    prices = env.from_batch(PRICES).assign_timestamps(lambda event: event.time)
    by_thing = clicks.key_by(lambda event: event.what.split()[1])
    return by_thing.asof_join(prices.key_by("user")).apply(told)


class Totals(BaseJoinFunction[str]):
    """Counts the orders and payments of each user, and tells when they are even."""

    def __init__(self) -> None:
        super().__init__()
        self.due: dict[str, int] = {}

    def execute(self, payload: Event, key: str, tag: int) -> Iterable[str]:
        """Take an order (tag 0) or a payment (tag 1)."""
        self.due[key] = self.due.get(key, 0) + (1 if tag == 0 else -1)
        return [] if self.due[key] else [f"{key}: as many orders as payments"]


def function(env: LocalEnvironment) -> DataStream[str]:
    """A join in one's own words."""
    both = stream(env, ORDERS).connect(stream(env, PAYMENTS))
    return both.join(Totals)


def table(env: LocalEnvironment) -> DataStream[str]:
    """Where those live who click."""
    clicks = env.from_batch(CLICKS)
    return clicks.lookup_join(
        CITIES, key="user", how="left", apply=lambda click, city: f"{click.what} from {city}"
    )


class Stock(BaseFunction):
    """A service that knows how many of a thing there are."""

    def get(self, thing: str) -> int | None:
        """Return the number; None for what is not sold."""
        return {"lamp": 4, "rug": 0}.get(thing)


def service(env: LocalEnvironment) -> DataStream[str]:
    """How many there are of the thing on which somebody clicked; what is not sold is left out."""
    env.register_service("stock", Stock)
    return env.from_batch(CLICKS).lookup_join(
        "stock",
        key=lambda click: click.what.split()[1],
        apply=lambda click, left: f"{click.what}: {left} left",
    )


SECTIONS: dict[str, Callable[[LocalEnvironment], DataStream[Any]]] = {
    "window": window,
    "cogroup": cogroup,
    "interval": interval,
    "asof": asof,
    "function": function,
    "table": table,
    "service": service,
}


def show(name: str) -> None:
    """Run one section and print its results."""
    env = LocalEnvironment(f"{name} join")
    results = SECTIONS[name](env).collect()
    env.execute()
    print(f"{name}: {SECTIONS[name].__doc__}")
    for result in sorted(results):
        print(f"  {result}")


def main() -> None:
    """Read the command line and show the joins."""
    parser = argparse.ArgumentParser(description="Join streams of a small web shop.")
    parser.add_argument("--only", choices=SECTIONS, help="show one kind of join")
    only = parser.parse_args().only
    try:
        for name in [only] if only else SECTIONS:
            show(name)
    except SageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
