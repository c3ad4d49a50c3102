"""What the registry of this machine says of a running service, in the terms of `sage service`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.policy.call_statistics import SLOT_SECONDS
from sage.kernel.runtime.service.registry.service_info import ServiceInfo
from sage.kernel.runtime.service.service_registry import ServiceRegistry

WINDOWS = {
    "1 min": "last_minute",
    "5 min": "last_5_minutes",
    "15 min": "last_15_minutes",
    "start": "since_start",
}
"""The stretches of time that statistics are kept of, and their keys."""

_MINUTE = 60


class RunningService:
    """One registration; its figures are at most a second or so old.

    Anybody may register anything: what an entry does not tell is `None` or 0.

    Args:
        info: The registration.
    """

    def __init__(self, info: ServiceInfo) -> None:
        self.info = info
        self.name = info.name
        self.environment = str(info.metadata.get("environment") or "")
        self.figures = _dict(info.metadata.get("figures"))
        self.called = _dict(self.figures.get("called"))
        self.overall = _dict(self.called.get("overall"))

    @property
    def state(self) -> str:
        """How it is, as its environment said last."""
        down = self.up < self.info.replicas
        return "degraded" if down and self.info.state == "healthy" else self.info.state

    @property
    def is_well(self) -> bool:
        """Whether its environment said last that it is well, with all its processes."""
        return self.state == "healthy"

    @property
    def up(self) -> int:
        """How many of its instances take calls."""
        return int(self.figures.get("up", self.info.replicas))

    @property
    def pids(self) -> list[int]:
        """The processes in which it runs."""
        return list(self.figures.get("pids", [self.info.pid]))

    @property
    def uptime(self) -> float | None:
        """For how many seconds it has been running."""
        seconds: float | None = self.figures.get("uptime_seconds")
        return seconds

    @property
    def in_flight(self) -> int:
        """How many calls from its environment's process are under way."""
        return int(self.overall.get("in_flight", 0))

    @property
    def calls_per_second(self) -> float | None:
        """How many calls ended per second in the last minute."""
        taken_at, uptime = self.info.metadata.get("taken_at"), self.uptime
        if taken_at is None or not uptime:
            return None
        # The window is the present slot, which has only begun, and full ones before it.
        covered = _MINUTE - SLOT_SECONDS + taken_at % SLOT_SECONDS
        calls: int = _dict(self.overall.get("last_minute")).get("calls", 0)
        return calls / float(min(covered, uptime))

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The statistics of its methods."""
        return _dict(self.called.get("methods"))

    def summary(self) -> dict[str, Any]:
        """Return the line of `ls` as plain data."""
        return {
            "name": self.name,
            "environment": self.environment or None,
            "isolation": self.info.isolation,
            "address": self.info.address,
            "replicas": self.info.replicas,
            "up": self.up,
            "state": self.state,
            "pids": self.pids,
            "uptime_seconds": self.uptime,
            "calls_per_second": self.calls_per_second,
            "in_flight": self.in_flight,
        }

    def details(self) -> dict[str, Any]:
        """Return all that is known, as plain data."""
        more = {k: self.figures.get(k) for k in ("waiting", "breaker", "retries", "cache")}
        left_out = self.called.get("left_out", 0)
        return {
            **self.summary(),
            "class": self.info.class_path,
            **more,
            "overall": self.overall,
            "methods": self.methods,
            "methods_left_out": left_out,
        }


def running_services(registry: ServiceRegistry) -> list[RunningService]:
    """Return all instances of all services, by name."""
    names = sorted(registry.discover_services())
    return [RunningService(info) for n in names for info in registry.discover_services(n)]


def find_services(registry: ServiceRegistry, name: str | None) -> list[RunningService]:
    """Return the instances of one service; of all services without a name.

    Raises:
        LookupError: no service of that name runs; the message tells near misses.
    """
    found = running_services(registry)
    if name is None:
        return found
    named = [service for service in found if service.name == name]
    if not named:
        near = did_you_mean(name, {service.name for service in found})
        raise LookupError(f"no service {name!r} is running.{near}")
    return named


def windows(statistics: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the title and the figures of each stretch of time."""
    for title, key in WINDOWS.items():
        yield title, _dict(statistics.get(key))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
