"""`ServiceLife`: makes the running services of an environment known, and looks whether they are well.

One thread does both, once a second: it tells the registry of this machine how the services are and
what has become of their calls, so that `sage service` can show it, and asks those for their health
that want to be asked.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec

from sage.common.clock import Doorbell
from sage.common.errors import SageError
from sage.common.log import get_logger
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.policy.call_options import CallOptions
from sage.kernel.runtime.service.registry.registry_directory import MAX_BYTES
from sage.kernel.runtime.service.registry.service_info import ServiceInfo, ServiceState
from sage.kernel.runtime.service.service_registry import ServiceRegistry

if TYPE_CHECKING:
    from sage.kernel.runtime.service.hosting.service_host import ServiceHost

_SECONDS = 1.0
_OVERDUE_SECONDS = 10.0
_IDLE_SECONDS = 60
_MOST_BYTES = MAX_BYTES // 2  # the other half is for what else an entry says
_PATIENCE = 3  # failed checks in a row, after which the processes of a service are started anew


class _Watched:
    """A running service."""

    def __init__(self, name: str, info: ServiceInfo, interval: float | None) -> None:
        self.name = name
        self.info = info
        self.interval = interval
        self.state: ServiceState = "healthy"
        self.next_check = 0.0 if interval is None else time.monotonic() + interval
        self.check: ServiceFuture | None = None
        self.failures = 0


class ServiceLife:
    """Tells of the services of an environment as long as they run.

    Args:
        host: The services.
        environment: The name of the environment.
    """

    def __init__(self, host: ServiceHost, environment: str) -> None:
        self._host = host
        self._environment = environment
        self._registry = ServiceRegistry()
        self._watched: dict[str, _Watched] = {}
        self._bell = Doorbell()
        self._logger = get_logger("service")
        self._thread = threading.Thread(target=self._run, name="sage-service-life", daemon=True)

    def add(self, name: str) -> None:
        """Make a service known that has just been started."""
        factory = self._host.factory(name)
        options = factory.options
        address = self._host.addresses().get(name)
        info = self._registry.register_service(
            name,
            factory.target,
            replicas=options.replicas,
            isolation=options.isolation,
            state="healthy",
            ttl=_OVERDUE_SECONDS,
            queues=[]
            if address is None
            else [address.requests(replica) for replica in range(options.replicas)],
            metadata=self._metadata(name),
        )
        self._watched[name] = _Watched(name, info, options.health_check_interval)
        if not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """Tell nothing more, and take back what was told."""
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join()
        self._registry.close()

    def _run(self) -> None:
        for second in itertools.count(1):
            if self._bell.wait(_SECONDS):
                return
            if second % _IDLE_SECONDS == 0:
                self._host.close_idle()
            for watched in list(self._watched.values()):
                try:
                    self._look_after(watched)
                except (SageError, OSError) as error:
                    self._logger.warning("cannot tell how %r is: %s", watched.name, error)

    def _look_after(self, watched: _Watched) -> None:
        # A check is a call like others: the figures are taken before the next one begins.
        metadata = self._metadata(watched.name)
        if watched.interval is not None:
            self._check(watched, watched.interval)
        self._registry.heartbeat(watched.info, watched.state, metadata=metadata)

    def _metadata(self, name: str) -> dict[str, Any]:
        """Return what all processes of the user may know of a service: names and counts, no values."""
        figures: dict[str, Any] = msgspec.to_builtins(self._host.figures(name))
        address = self._host.addresses().get(name)
        return {
            "environment": self._environment,
            "taken_at": time.monotonic(),
            "token": None if address is None else address.token,
            "number": None if address is None else address.number,
            "figures": _shorten(figures),
        }

    # ---- health

    def _check(self, watched: _Watched, interval: float) -> None:
        """Look at the last check if it has ended, and begin the next one if it is time."""
        if watched.check is not None and watched.check.done():
            error = watched.check.exception()
            well = error is None and bool(watched.check.result())
            watched.check = None
            self._judge(watched, well, "it says so itself" if error is None else str(error))
        path = self._host.path_if_running(watched.name)
        now = time.monotonic()
        ready = watched.check is None and now >= watched.next_check and path is not None
        # A process that is still starting is not asked: it would not be started any faster.
        if ready and path is not None and self._host.is_up(watched.name):
            watched.next_check = now + interval
            options = CallOptions(timeout=max(interval, _SECONDS))
            watched.check = path.begin("health_check", (), {}, options)

    def _judge(self, watched: _Watched, well: bool, reason: str) -> None:
        before = watched.state
        watched.state = "healthy" if well else "unhealthy"
        watched.failures = 0 if well else watched.failures + 1
        if well and before != "healthy":
            self._logger.info("the service %r is healthy again", watched.name)
        elif not well and before == "healthy":
            self._logger.warning("the service %r is not healthy: %s", watched.name, reason)
        if watched.failures >= _PATIENCE:
            watched.failures = 0
            self._host.restart(watched.name)


def _shorten(figures: dict[str, Any]) -> dict[str, Any]:
    """Leave out the methods that were called least, as many as it takes to fit into an entry."""
    called = figures.get("called")
    if called is None or len(msgspec.json.encode(figures)) <= _MOST_BYTES:
        return figures
    methods = called["methods"]
    room = _MOST_BYTES - len(msgspec.json.encode({**figures, "called": {**called, "methods": {}}}))
    kept = {}
    for name in sorted(methods, key=lambda m: -methods[m]["since_start"]["calls"]):
        room -= len(msgspec.json.encode({name: methods[name]}))
        if room < 0:
            break
        kept[name] = methods[name]
    return {**figures, "called": {**called, "methods": kept, "left_out": len(methods) - len(kept)}}
