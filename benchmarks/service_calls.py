"""How long a call to a service takes, by where the service runs."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.measure import table
from sage import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager

CALLS = 20_000
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
    return table("A call to a service", ["", "p50", "p99", "in flight together"], rows)


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
    began = time.perf_counter()
    for future in [begin("key") for _ in range(CALLS)]:
        future.result()
    together = CALLS / (time.perf_counter() - began)
    env.close()
    taken.sort()
    quantiles = [f"{taken[CALLS * p // 100] * 1e6:.1f} µs" for p in (50, 99)]
    return [*quantiles, f"{together:,.0f}/s"]
