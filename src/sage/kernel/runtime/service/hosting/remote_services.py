"""The services of an environment, as another process of the machine sees them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sage.kernel.runtime.service.call.call_path import CallPath, Channel, Surroundings
from sage.kernel.runtime.service.channel.process_channel import CallerSide
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig

if TYPE_CHECKING:
    from sage.kernel.runtime.service.channel.ray_channel import RaySide
    from sage.kernel.runtime.service.hosting.ray_actor import RayServices


class RemoteServices:
    """Implements `Directory` from addresses alone; the way back is made at the first call.

    Args:
        token: Stands for the environment.
        addresses: Those of its services that run in processes of their own.
        middleware: What is around every call.
        ray: Those that run on Ray, which is joined at the first call; None: there are none.
    """

    def __init__(
        self,
        token: str,
        addresses: tuple[ServiceAddress, ...],
        middleware: tuple[ServiceMiddleware, ...] = (),
        ray: RayServices | None = None,
    ) -> None:
        self._token = token
        self._surroundings = Surroundings(middleware)
        self._paths: dict[str, CallPath] = {}
        self._addresses = {address.name: address for address in addresses}
        self._side: CallerSide | None = None
        self._ray = ray
        self._ray_addresses = {} if ray is None else {a.name: a for a in ray.addresses}
        self._ray_side: RaySide | None = None
        self._lock = threading.Lock()

    @property
    def services(self) -> RemoteServices:
        """Itself: it stands where an environment stands."""
        return self

    def path(self, name: str) -> CallPath | None:
        """Return the path to a service; None if there is none of that name."""
        return self._paths.get(name) or self._make_path(name)

    def _make_path(self, name: str) -> CallPath | None:
        with self._lock:
            if name not in self._paths:
                way = self._way(name)
                if way is None:
                    return None
                self._paths[name] = CallPath(name, *way, self._surroundings)
            return self._paths[name]

    def _way(self, name: str) -> tuple[PolicyConfig, Channel] | None:
        if name in self._addresses:
            if self._side is None:
                self._side = CallerSide(self._token)
            address = self._addresses[name]
            return address.calls, self._side.channel(address)
        if name in self._ray_addresses:
            ray_address = self._ray_addresses[name]
            return ray_address.calls, self._join_ray().channel(ray_address)
        return None

    def _join_ray(self) -> RaySide:
        # Only those who use Ray have it.
        from sage.kernel.runtime.service.channel.ray_channel import RaySide  # noqa: PLC0415

        if self._ray_side is None:
            assert self._ray is not None
            self._ray_side = RaySide(self._token, self._ray.cluster)
        return self._ray_side

    def service_names(self) -> list[str]:
        """Return the names of all services that can be reached."""
        return [*self._addresses, *self._ray_addresses]

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
            if self._ray_side is not None:
                self._ray_side.close()
                self._ray_side = None
