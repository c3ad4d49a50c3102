"""`ServiceRegistry`: who offers which service, on this machine.

A registry object is a view of a store that others share: of a directory, all processes of a user;
of a `MemoryStore`, all registries of this process that were made with it. Registries of other
machines are not here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, overload

import msgspec

from sage.common.clock import Clock, Doorbell, SystemClock
from sage.common.deadline import Deadline
from sage.common.errors import ServiceNotFoundError, ServiceUnavailableError
from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.registry.registration import Registration
from sage.kernel.runtime.service.registry.registry_directory import DirectoryStore
from sage.kernel.runtime.service.registry.registry_store import RegistryStore
from sage.kernel.runtime.service.registry.registry_watch import Callback, Watch, WatchThread
from sage.kernel.runtime.service.registry.service_info import (
    RANK,
    ServiceInfo,
    ServiceState,
    list_changes,
)

POLL_SECONDS: Final = 0.2
"""How often a registry looks for the changes of others, while somebody waits for them."""


class ServiceRegistry:
    """Services by name. May be used from several threads.

    A registration lasts as long as its process, as its heartbeats when it has a `ttl`, and as this
    registry, which takes back what it registered when it is closed.

    Args:
        store: Where entries are kept; by default the directory of this user, which all processes
            share.
        clock: What heartbeats and waits are measured with.
        poll_interval: Seconds between two looks for the changes of others.

    Examples:
        >>> from sage.kernel.runtime.service.registry.registry_store import MemoryStore
        >>> with ServiceRegistry(MemoryStore()) as registry:
        ...     info = registry.register_service("memory-service", "localhost:8080", zone="a")
        ...     [found] = registry.discover_services("memory-service")
        >>> found.address, found.metadata, found.state
        ('localhost:8080', {'zone': 'a'}, 'starting')
    """

    def __init__(
        self,
        store: RegistryStore | None = None,
        *,
        clock: Clock | None = None,
        poll_interval: float = POLL_SECONDS,
    ) -> None:
        self._store = store or DirectoryStore()
        self._clock = clock or SystemClock()
        self._poll_interval = poll_interval
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._own: dict[str, ServiceInfo] = {}
        self._seen: dict[str, ServiceInfo] = {}
        self._version = 0
        self._bells: set[Doorbell] = set()
        self._watches: WatchThread | None = None
        self._closed = False

    def register_service(
        self, name: str, address_or_class: str | Callable[..., Any], **options: Any
    ) -> ServiceInfo:
        """Make a service known.

        Args:
            name: Its name. Each call registers one more instance of it.
            address_or_class: Either `"host:port"`, or a class or factory function.
            **options: `queues`, `pid` (of the process it lives with; this one by default),
                `replicas`, `isolation`, `state`, `ttl` and `metadata`, as `ServiceInfo` describes
                them. Of any others, those beside an address are metadata; those beside a class are
                arguments of its constructor, of which only the names are made known.

        Returns:
            The registration.

        Raises:
            ConfigError: something given is not usable.
            ServiceUnavailableError: the registry is closed, or there is no process `pid`.
        """
        given = Registration.parse(name, address_or_class, options)
        info = given.make_info(self._clock.now_ms())
        with self._lock:
            self._check_open()
            self._put(info)
        self._ring()
        return info

    @overload
    def discover_services(self, name: None = None) -> dict[str, ServiceInfo]: ...
    @overload
    def discover_services(self, name: str) -> list[ServiceInfo]: ...

    def discover_services(
        self, name: str | None = None
    ) -> dict[str, ServiceInfo] | list[ServiceInfo]:
        """Find services.

        What has stopped, whose process has ended or whose heartbeat is overdue is not found. An
        instance that calls itself unhealthy is, after those that do not.

        Args:
            name: The service; all services by default.

        Returns:
            With a name, all its instances, the best first: healthy before starting before
            unhealthy, then the one registered first. Without, the best instance of each name.

        Raises:
            ServiceUnavailableError: the registry is closed.
        """
        entries = self._look().values()
        found = sorted((e for e in entries if e.state != "stopped"), key=_order)
        if name is not None:
            return [info for info in found if info.name == name]
        return {info.name: info for info in reversed(found)}

    def heartbeat(
        self,
        service: str | ServiceInfo,
        state: ServiceState = "healthy",
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Say that a service which this registry registered lives, and how it is.

        Args:
            service: A registration, or a name for all that this registry has under it.
            state: How it is.
            metadata: What is said about it from now on; `None` leaves that as it was.

        Raises:
            ServiceNotFoundError: this registry has not registered it, or its process has ended.
            ServiceUnavailableError: the registry is closed.
        """
        now = self._clock.now_ms()
        with self._lock:
            for info in self._find_own(service):
                if not info.process.is_alive():
                    self._remove(info)
                    raise ServiceNotFoundError(f"process {info.pid} of {info.name!r} has ended")
                said = info.metadata if metadata is None else metadata
                self._put(
                    msgspec.structs.replace(info, heartbeat_at=now, state=state, metadata=said)
                )
        self._ring()

    def deregister(self, service: str | ServiceInfo) -> None:
        """Take back a registration of this registry.

        Args:
            service: A registration, or a name for all that this registry has under it.

        Raises:
            ServiceNotFoundError: this registry has not registered it.
            ServiceUnavailableError: the registry is closed.
        """
        with self._lock:
            for info in self._find_own(service):
                self._remove(info)
        self._ring()

    @property
    def version(self) -> int:
        """A number that grows whenever this registry finds something changed; it looks now."""
        with self._lock:
            self._look()
            return self._version

    def wait_changed(self, version: int, timeout: float | None = None) -> int:
        """Wait until something has changed.

        Args:
            version: What `version` was when the caller last looked.
            timeout: For how many seconds to wait; `None` is for ever.

        Returns:
            The present version; the one given, if the time is over.

        Raises:
            ServiceUnavailableError: the registry is closed.
        """
        deadline = Deadline.after(self._clock, timeout)
        with self._listening() as bell:
            while (present := self.version) == version and not deadline.expired(self._clock):
                seconds = min(self._poll_interval, deadline.remaining(self._clock))
                self._clock.wait(bell, seconds)
        return present

    def watch(self, callback: Callback) -> Watch:
        """Be told of changes, from a thread of this registry; see `Watch` for what is promised.

        Args:
            callback: Called with each `ServiceEvent`.

        Returns:
            The watch; `end` ends it.

        Raises:
            ServiceUnavailableError: the registry is closed.
        """
        watch = Watch(callback)
        with self._lock:
            self._check_open()
            if self._watches is None:
                self._watches = WatchThread(self._look, self._clock, self._poll_interval)
                self._watches.start()
            self._watches.add(watch)
        return watch

    def close(self) -> None:
        """Take back what this registry registered, end its watches and waits. May be called twice."""
        with self._lock:
            self._closed = True
            watches, self._watches = self._watches, None
        if watches is not None:
            watches.close()
        with self._lock:
            own, self._own = self._own, {}
            if os.getpid() == self._owner:  # a forked copy does not own what its parent registered
                for instance in own:
                    self._store.remove(instance)
        self._ring()

    def __enter__(self) -> ServiceRegistry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self) -> Mapping[str, ServiceInfo]:
        """Return the present entries, remove those that are over, and count a change."""
        with self._lock:
            self._check_open()
            entries = self._store.load()
            for instance in _find_over(entries, self._clock.now_ms()):
                self._store.remove(instance)
                del entries[instance]
            if list_changes(self._seen, entries):
                self._version += 1
                self._seen = entries
            return entries

    def _check_open(self) -> None:
        if self._closed:
            raise ServiceUnavailableError("the service registry is closed")

    def _find_own(self, service: str | ServiceInfo) -> list[ServiceInfo]:
        self._check_open()
        own = self._own.values()
        if isinstance(service, ServiceInfo):
            found = [info for info in own if info.instance == service.instance]
        else:
            found = [info for info in own if info.name == service]
        if not found:
            name = service.name if isinstance(service, ServiceInfo) else service
            near = did_you_mean(name, {info.name for info in own} - {name})
            raise ServiceNotFoundError(f"this registry has not registered {name!r}.{near}")
        return found

    def _put(self, info: ServiceInfo) -> None:
        self._store.put(info)
        self._own[info.instance] = info

    def _remove(self, info: ServiceInfo) -> None:
        self._store.remove(info.instance)
        del self._own[info.instance]

    def _ring(self) -> None:
        with self._lock:
            for bell in self._bells:
                bell.ring()
            if self._watches is not None:
                self._watches.ring()

    @contextmanager
    def _listening(self) -> Iterator[Doorbell]:
        bell = Doorbell()
        with self._lock:
            self._bells.add(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._bells.discard(bell)


def _find_over(entries: Mapping[str, ServiceInfo], now_ms: int) -> list[str]:
    """Return the instances whose process has ended or whose heartbeat is overdue."""
    alive = {p for p in {entry.process for entry in entries.values()} if p.is_alive()}
    return [i for i, e in entries.items() if e.process not in alive or e.is_overdue(now_ms)]


def _order(info: ServiceInfo) -> tuple[int, int, str]:
    return RANK[info.state], info.registered_at, info.instance
