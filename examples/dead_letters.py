"""Keep going when records are bad, and lose none of them.

It shows the three error policies. Orders that cannot be read go to the dead letters, where they are
printed with the reason; a bad price is skipped and counted; and with `--strict` the first bad
record ends the job with an `OperatorError` that names the operator and the record.

    python examples/dead_letters.py
    python examples/dead_letters.py --strict
"""

from __future__ import annotations

import argparse
import sys
from typing import TypedDict

import msgspec

from sage import DeadLetter, LocalEnvironment, OperatorError

LINES = (
    '{"item": "tea", "price": 3}',
    '{"item": "coffee", "price": 4}',
    "this is no order",
    '{"item": "milk"}',
    '{"item": "water", "price": 0}',
    '{"item": "tea", "price": 5}',
)


class Order(TypedDict):
    """What a line must hold."""

    item: str
    price: float


def read_order(line: str) -> Order:
    """Turn a line into an order, or raise what is wrong with it."""
    return msgspec.json.decode(line, type=Order)


def check_price(order: Order) -> Order:
    """Return the order unless its price makes no sense."""
    if order["price"] <= 0:
        raise ValueError(f"the price of {order['item']} is {order['price']}")
    return order


def show(letter: DeadLetter) -> None:
    """Print a dead letter: what came, and why it failed."""
    print(f"not read: {letter.value!r}: {letter.error}")


def main() -> int:
    """Run the pipeline; return the exit status."""
    parser = argparse.ArgumentParser(description="What becomes of bad records.")
    parser.add_argument(
        "--strict", action="store_true", help="let the first bad record end the job"
    )
    strict = parser.parse_args().strict

    env = LocalEnvironment("orders", {"on_error": "fail" if strict else "skip"})
    orders = env.from_batch(LINES).map(read_order, on_error=None if strict else "dead_letter")
    if not strict:
        orders.dead_letters().sink(show)
    totals = orders.map(check_price).key_by("item").sum("price", emit="final").collect()
    try:
        result = env.execute()
    except OperatorError as error:
        print(f"{error.operator} failed on {error.record!r}: {error.__cause__}", file=sys.stderr)
        return 1
    for item, total in totals:
        print(f"{item}: {total:g}")
    for operator in result.metrics.operators.values():
        if operator.errors:
            print(f"{operator.name}: {operator.errors} of {operator.records_in} records failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
