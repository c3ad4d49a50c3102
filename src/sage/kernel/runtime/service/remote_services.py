"""The services of an environment, as another process of the machine sees them."""

from __future__ import annotations

import threading

from sage.kernel.runtime.service.call_path import CallPath, Surroundings
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.service.process_channel import CallerSide
from sage.kernel.runtime.service.service_address import ServiceAddress


class RemoteServices:
    """Implements `Directory` from addresses alone; the way back is made at the first call.

    Args:
        token: Stands for the environment.
        addresses: Those of its services that run in processes of their own.
        middleware: What is around every call.
    """

    def __init__(
        self,
        token: str,
        addresses: tuple[ServiceAddress, ...],
        middleware: tuple[ServiceMiddleware, ...] = (),
    ) -> None:
        self._token = token
        self._surroundings = Surroundings(middleware)
        self._paths: dict[str, CallPath] = {}
        self._addresses = {address.name: address for address in addresses}
        self._side: CallerSide | None = None
        self._lock = threading.Lock()

    @property
    def services(self) -> RemoteServices:
        """Itself: it stands where an environment stands."""
        return self

    def path(self, name: str) -> CallPath | None:
        """Return the path to a service; None if there is none of that name."""
        return self._paths.get(name) or self._make_path(name)

    def _make_path(self, name: str) -> CallPath | None:
        address = self._addresses.get(name)
        if address is None:
            return None
        with self._lock:
            if self._side is None:
                self._side = CallerSide(self._token)
            if name not in self._paths:
                channel = self._side.channel(address)
                self._paths[name] = CallPath(name, address.calls, channel, self._surroundings)
            return self._paths[name]

    def service_names(self) -> list[str]:
        """Return the names of all services that can be reached."""
        return list(self._addresses)

    def calls(self) -> dict[str, Calls]:
        """Return what is known of the calls from this process, by service."""
        return {name: path.statistics.calls() for name, path in tuple(self._paths.items())}

    def close_idle(self) -> None:
        """Let the queues go that have not been used since this was last called."""
        with self._lock:
            if self._side is not None:
                self._side.handles.close_idle()

    def close(self) -> None:
        """Let the way back go."""
        self._surroundings.close()
        with self._lock:
            if self._side is not None:
                self._side.close()
                self._side = None
