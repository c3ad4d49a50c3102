"""Look something up for every record, without waiting for one answer after the other.

Orders name their customer by a number. A directory, which takes a few milliseconds to answer, knows the
names. One after the other, the lookups would take as long as all of them together; `async_map` has many
under way at once and still puts the orders out in order. The directory does not answer every call at
once: some are tried again, some never succeed and go to the dead letters.

    python examples/async_enrichment.py
    python examples/async_enrichment.py --orders 10000 --capacity 500
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import NamedTuple

from sage import DeadLetter, LocalEnvironment, MapFunction

LATENCY = 0.005
NAMES = ("Ada", "Bell", "Cara", "Dora")


class Order(NamedTuple):
    """An order, and who made it."""

    number: int
    customer: int
    name: str = ""


class Directory:
    """The service: knows the names of customers, and is busy now and then."""

    def __init__(self) -> None:
        self.asked: set[int] = set()

    async def find(self, order: int, customer: int) -> str:
        """Return the name of a customer."""
        await asyncio.sleep(LATENCY)
        if order % 10 == 0 and order not in self.asked:
            self.asked.add(order)
            raise ConnectionError("busy; try again")
        if customer >= len(NAMES):
            raise KeyError(f"nobody has the number {customer}")
        return NAMES[customer]


class AddName(MapFunction[Order, Order]):
    """Asks the directory."""

    async def execute(self, data: Order) -> Order:  # type: ignore[override]
        """Return the order with the name of its customer."""
        directory = self.call_service_async["directory"]
        return data._replace(name=await directory.find(data.number, data.customer))


def show(letter: DeadLetter) -> None:
    """Print an order for which no name was found."""
    print(f"order {letter.value.number}: {letter.error}")


def main() -> int:
    """Run the pipeline; return the exit status."""
    parser = argparse.ArgumentParser(description="Look up names for orders.")
    parser.add_argument("--orders", type=int, default=1000, help="how many orders there are")
    parser.add_argument("--capacity", type=int, default=100, help="how many lookups at a time")
    given = parser.parse_args()

    env = LocalEnvironment("enrichment")
    env.register_service("directory", Directory).options(max_concurrency=given.capacity)
    orders = [Order(i, 4 if i == 123 else i % 4) for i in range(given.orders)]
    named = env.from_batch(orders).async_map(
        AddName,
        capacity=given.capacity,
        timeout=2.0,
        retry={"max_attempts": 4, "initial_delay": 0.01},
        on_error="dead_letter",
        name="add name",
    )
    named.dead_letters().sink(show)
    results = named.collect()
    began = time.perf_counter()
    env.execute()
    taken = time.perf_counter() - began

    numbers = [order.number for order in results]
    print(f"{len(results)} orders have a name, in order: {numbers == sorted(numbers)}")
    print(f"faster than one after the other: {taken < LATENCY * len(orders)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
