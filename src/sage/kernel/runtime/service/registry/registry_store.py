"""Where a registry keeps its entries: `RegistryStore`, and the store of one process.

Each entry has exactly one writer, the registry that made it, so nothing is ever locked across
processes. Anybody may remove an entry that is over; if that was a mistake, because its process had
been stopped for a while, the writer's next heartbeat puts it back.
"""

from __future__ import annotations

import threading
from typing import Protocol

import msgspec

from sage.kernel.runtime.service.registry.service_info import ServiceInfo


class RegistryStore(Protocol):
    """Entries by the identifiers of their instances. May be used from several threads."""

    def put(self, info: ServiceInfo) -> None:
        """Keep an entry, in place of an older one of the same instance; all of it or nothing."""
        ...

    def remove(self, instance: str) -> None:
        """Take an entry out; no entry is fine."""
        ...

    def load(self) -> dict[str, ServiceInfo]:
        """Return all entries. Called often: cheap when nothing has changed."""
        ...


class MemoryStore:
    """Entries in memory, for registries of one process.

    Examples:
        >>> store = MemoryStore()
        >>> store.load()
        {}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, bytes] = {}  # as bytes: a reader cannot change what others read

    def put(self, info: ServiceInfo) -> None:
        """Keep an entry."""
        data = msgspec.json.encode(info)
        with self._lock:
            self._entries[info.instance] = data

    def remove(self, instance: str) -> None:
        """Take an entry out."""
        with self._lock:
            self._entries.pop(instance, None)

    def load(self) -> dict[str, ServiceInfo]:
        """Return all entries."""
        with self._lock:
            entries = list(self._entries.items())
        return {i: msgspec.json.decode(data, type=ServiceInfo) for i, data in entries}
