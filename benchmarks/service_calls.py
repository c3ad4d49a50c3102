"""How long a call to a service takes, by where the service runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.measure import table
from sage import LocalEnvironment
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.service_caller import ServiceManager

CALLS = 20_000
PIPELINED = 100_000
IN_FLIGHT = 256
RUNS: dict[str, dict[str, Any]] = {
    "inline, on the caller's thread": {"isolation": "local", "inline": True},
    "in this process, on its own thread": {"isolation": "local"},
    "in a process of its own": {"isolation": "process"},
}


class Cache:
    """A service that does next to nothing."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def get(self, key: str) -> int | None:
        """Return the value of `key`."""
        return self.values.get(key)


def service_calls() -> str:
    """One small call after the other, and many in flight."""
    rows = [[name, *_figures(options)] for name, options in RUNS.items()]
    return table("A call to a service", ["", "p50", "p99", f"{IN_FLIGHT} in flight"], rows)


def _figures(options: dict[str, Any]) -> list[str]:
    env = LocalEnvironment("service-calls")
    env.register_service("cache", Cache).options(**options)
    manager = ServiceManager(env)
    call, begin = manager.get_sync_proxy("cache").get, manager.get_async_proxy("cache").get
    for _ in range(CALLS // 10):
        call("key")
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call("key")
        taken.append(time.perf_counter() - began)
    together = PIPELINED / _seconds_together(begin)
    env.close()
    taken.sort()
    quantiles = [f"{taken[CALLS * p // 100] * 1e6:.1f} µs" for p in (50, 99)]
    return [*quantiles, f"{together:,.0f}/s"]


def _seconds_together(begin: Callable[[str], ServiceFuture]) -> float:
    """Return the seconds for many calls of which `IN_FLIGHT` are under way all the time."""
    began = time.perf_counter()
    futures = deque(begin("key") for _ in range(IN_FLIGHT))
    for _ in range(PIPELINED - IN_FLIGHT):
        futures.popleft().result()
        futures.append(begin("key"))
    for future in futures:
        future.result()
    return time.perf_counter() - began
