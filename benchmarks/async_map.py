"""How many records a second `async_map` takes through calls that take 10 ms, 100 of them at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import table, take_turns
from sage import DataStream, LocalEnvironment, MapFunction

RECORDS = 10_000
CAPACITY = 100
LATENCY = 0.010
ROUNDS = 2


class Slow:
    """A service that takes 10 ms for each call, and takes as many calls at a time as come."""

    async def get(self, key: int) -> int:
        """Return the key, later."""
        await asyncio.sleep(LATENCY)
        return key


class AskSlow(MapFunction[int, int]):
    """Asks the service, and returns its future."""

    def open(self) -> None:
        """Find the method once."""
        self._get = self.call_service_async["slow"].get

    def execute(self, data: int) -> Any:
        """Begin the call."""
        return self._get(data)


async def wait(value: int) -> int:
    """Return the value, later."""
    await asyncio.sleep(LATENCY)
    return value


def block(value: int) -> int:
    """Return the value, later; a thread waits."""
    time.sleep(LATENCY)
    return value


def async_map() -> str:
    """Compare with a program that has nothing but an event loop."""
    contestants: dict[str, Callable[[], None]] = {
        "asyncio alone, 100 workers": lambda: asyncio.run(_workers()),
        "`async def`, ordered": lambda: _run(lambda s: s.async_map(wait, capacity=CAPACITY)),
        "`async def`, unordered": lambda: _run(
            lambda s: s.async_map(wait, capacity=CAPACITY, ordered=False), ordered=False
        ),
        "a service in this process": lambda: _run(_ask, "local"),
        "a service in a process of its own": lambda: _run(_ask, "process"),
        "`blocking=True`, 100 threads": lambda: _run(
            lambda s: s.async_map(block, capacity=CAPACITY, blocking=True)
        ),
    }
    times = take_turns(contestants, ROUNDS)
    rows = [[name, f"{RECORDS / min(taken):,.0f}/s"] for name, taken in times.items()]
    most = CAPACITY / LATENCY
    heading = f"Calls of 10 ms, 100 at a time: {most:,.0f}/s if nothing else took time"
    return table(heading, ["", "records"], rows)


def _ask(stream: DataStream[int]) -> DataStream[int]:
    return stream.async_map(AskSlow, capacity=CAPACITY)


def _run(
    build: Callable[[DataStream[int]], DataStream[int]],
    isolation: str = "",
    *,
    ordered: bool = True,
) -> None:
    env = LocalEnvironment("async-map")
    if isolation:
        options: dict[str, Any] = {"isolation": isolation, "max_concurrency": CAPACITY}
        env.register_service("slow", Slow).options(**options)
    results = build(env.from_batch(range(RECORDS))).collect()
    env.execute(progress=False)
    if (list(results) if ordered else sorted(results)) != list(range(RECORDS)):
        raise AssertionError("records are missing, or out of order")


async def _workers() -> None:
    values = iter(range(RECORDS))
    results = []

    async def work() -> None:
        for value in values:
            results.append(await wait(value))  # noqa: PERF401 - many share the list

    await asyncio.gather(*(work() for _ in range(CAPACITY)))
