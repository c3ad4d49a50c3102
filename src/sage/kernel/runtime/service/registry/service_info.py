"""`ServiceInfo`: what a registry knows about one instance of a service, and how that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sage.common.process_id import ProcessId
from sage.kernel.runtime.service.config.service_settings import Isolation

ServiceState = Literal["starting", "healthy", "unhealthy", "stopped"]
"""How an instance is, in its own words."""

RANK: dict[ServiceState, int] = {"healthy": 0, "starting": 1, "unhealthy": 2, "stopped": 3}
"""Which state is told first: the lower, the better."""


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One registration of a service.

    Attributes:
        name: The name of the service; several instances may have the same.
        instance: What tells them apart.
        process: The process that the registration lives and ends with.
        address: `"host:port"`, or `None` for what is reached by queues.
        class_path: The class or factory, as `"package.module.Class"`; `None` with an address.
        arguments: The names of the constructor's arguments. Their values stay where they were given:
            they may be secrets.
        queues: The names of its request queues.
        replicas: How many instances it stands for.
        isolation: Where it runs.
        state: How it is.
        metadata: Plain data of the user: `{"health_check_url": "/health"}`.
        ttl: Within how many seconds it must give a heartbeat; `None` needs none.
        registered_at: When it was registered, in milliseconds since the Unix epoch.
        heartbeat_at: When it last gave a heartbeat, likewise.
    """

    name: str
    instance: str
    process: ProcessId
    address: str | None = None
    class_path: str | None = None
    arguments: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    replicas: int = 1
    isolation: Isolation = "local"
    state: ServiceState = "starting"
    metadata: Mapping[str, Any] = {}
    ttl: float | None = None
    registered_at: int = 0
    heartbeat_at: int = 0

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def is_overdue(self, now_ms: int) -> bool:
        """Say whether its heartbeat should have come by now."""
        return self.ttl is not None and now_ms - self.heartbeat_at > self.ttl * 1000

    def differs(self, other: ServiceInfo) -> bool:
        """Say whether anything but the time of the heartbeat is different."""
        return self != msgspec.structs.replace(other, heartbeat_at=self.heartbeat_at)


class ServiceEvent(msgspec.Struct, frozen=True):
    """A change in a registry.

    Attributes:
        kind: What happened; a heartbeat alone is no change.
        service: The instance, as it is now; as it was last seen, when it was removed.
    """

    kind: Literal["added", "changed", "removed"]
    service: ServiceInfo


def list_changes(old: dict[str, ServiceInfo], new: dict[str, ServiceInfo]) -> list[ServiceEvent]:
    """Return what leads from one state of a registry to another: first what went, then what came.

    Args:
        old: The instances by their identifiers.
        new: Those of later.
    """
    removed = [ServiceEvent("removed", old[i]) for i in old if i not in new]
    changed = [ServiceEvent("changed", new[i]) for i in new if i in old and new[i].differs(old[i])]
    added = [ServiceEvent("added", new[i]) for i in new if i not in old]
    return removed + changed + added
