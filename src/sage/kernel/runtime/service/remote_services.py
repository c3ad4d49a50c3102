"""The services of an environment, as another process of the machine sees them."""

from __future__ import annotations

import threading

from sage.kernel.runtime.service.process_channel import CallerSide
from sage.kernel.runtime.service.service_address import ServiceAddress
from sage.kernel.runtime.service.service_caller import Channel


class RemoteServices:
    """Implements `Directory` from addresses alone; the way back is made at the first call.

    Args:
        token: Stands for the environment.
        addresses: Those of its services that run in processes of their own.
    """

    def __init__(self, token: str, addresses: tuple[ServiceAddress, ...]) -> None:
        self._token = token
        self._addresses = {address.name: address for address in addresses}
        self._side: CallerSide | None = None
        self._lock = threading.Lock()

    @property
    def services(self) -> RemoteServices:
        """Itself: it stands where an environment stands."""
        return self

    def channel(self, name: str) -> Channel | None:
        """Return the way to a service; None if there is none of that name."""
        address = self._addresses.get(name)
        if address is None:
            return None
        with self._lock:
            if self._side is None:
                self._side = CallerSide(self._token)
            return self._side.channel(address)

    def service_names(self) -> list[str]:
        """Return the names of all services that can be reached."""
        return list(self._addresses)

    def close(self) -> None:
        """Let the way back go."""
        with self._lock:
            if self._side is not None:
                self._side.close()
                self._side = None
