"""`RayServiceTask`: a service in Ray actors, on this machine or any other of a Ray cluster."""

from __future__ import annotations

import time
from typing import Any

from sage.common.errors import ServiceUnavailableError
from sage.common.ids import new_uuid
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.channel.ray_channel import RayChannel, RaySide
from sage.kernel.runtime.service.hosting.ray_actor import (
    ACTOR_OPTIONS,
    CONTROL,
    WAITING,
    RayAddress,
    RayOrder,
    RayReplica,
    pack_order,
)
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.transport.ray_runtime import import_ray

_STOP_SECONDS = 10.0
_ASK_SECONDS = 5.0


class RayServiceTask(BaseServiceTask):
    """Replicas of a service, each in a Ray actor of its own, started again by Ray when they die.

    Ray brings a service to other machines; it does not bring it closer. A call of a Ray actor takes
    about a millisecond, some hundred times as long as one of a service with
    `isolation="process"`. On one machine, prefer that.

    If Ray does not run in this process, it is started for this machine alone, and ended when the
    last service stops that needs it.

    `ServiceOptions` say what an actor gets: `resources`, `lifetime`, and `max_restarts`, which Ray
    counts over the whole life of an actor. An actor whose `lifetime` is `"detached"` outlives a
    program that ends without stopping it; `stop_service` ends it all the same.

    Args:
        service_factory: Makes the service, in the actors.
        ctx: Unused: a service in an actor gets a context there.
        address: Where it takes requests; None: it stands alone.
        side: The way to the Ray services of an environment; None: one of its own.

    Attributes:
        task_class: The class of service task that answers requests in the actors.
        others: The other Ray services, which this one may call.
        elsewhere: The names of the services that it cannot reach.
        middleware: What is around its own calls.

    Raises:
        ConfigError: on `start_service`: Ray is not installed; install `sage-dataflow[ray]`.
    """

    task_class: type[BaseServiceTask] = BaseServiceTask
    others: tuple[RayAddress, ...] = ()
    elsewhere: tuple[str, ...] = ()
    middleware: tuple[ServiceMiddleware, ...] = ()

    def __init__(
        self,
        service_factory: ServiceFactory,
        ctx: Any = None,
        address: RayAddress | None = None,
        side: RaySide | None = None,
    ) -> None:
        super().__init__(service_factory, ctx)
        if address is None:
            token = side.token if side is not None else f"sage-{new_uuid()[:12]}"
            address = ray_address(token, 0, service_factory)
        self.address = address
        self._own_side = side is None
        self._side = side
        self._actors: list[Any] = []

    @property
    def channel(self) -> RayChannel:
        """The way to it from this process.

        Raises:
            ServiceUnavailableError: it stands alone and has not been started.
        """
        if self._side is None:
            raise ServiceUnavailableError(f"the service {self.name!r} is not running")
        return self._side.channel(self.address)

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self.channel.waiter

    def send(self, future: ServiceFuture) -> None:
        """Send the request to one of the replicas."""
        self.channel.send(future)

    def get_statistics(self) -> dict[str, Any]:
        """Return how many replicas there are, how many of them are up, and what they did."""
        told = self._ask("statistics", _ASK_SECONDS) if self._actors else []
        figures = [one for one in told if isinstance(one, dict)]
        return {
            "replicas": self.address.replicas,
            "up": self.channel.up if self._actors else 0,
            "calls": sum(one["calls"] for one in figures),
            "failures": sum(one["failures"] for one in figures),
        }

    def _start(self) -> None:
        if self._side is None:
            self._side = RaySide(self.address.token)
        try:
            for replica in range(self.address.replicas):
                self._actors.append(self._make_actor(replica))
            self._wait_ready()
        except BaseException:
            self._let_go()
            raise
        for replica, actor in enumerate(self._actors):
            self.channel.set_actor(replica, actor)

    def _make_actor(self, replica: int) -> Any:
        order = RayOrder(
            self.service_factory,
            self.task_class,
            self.address,
            replica,
            self.others,
            self.elsewhere,
            self.middleware,
        )
        actor_class = import_ray().remote(**ACTOR_OPTIONS)(RayReplica)
        name, space = self.address.actor(replica), self.address.token
        options = actor_class.options(name=name, namespace=space, **self._actor_options())
        return options.remote(pack_order(order))

    def _actor_options(self) -> dict[str, Any]:
        """Return what Ray is asked for, in Ray's words."""
        resources = dict(self.options.resources or {})
        asked: dict[str, Any] = {
            # Without this, Ray wants a whole CPU to place an actor that then occupies none.
            "num_cpus": resources.pop("CPU", 0),
            "num_gpus": resources.pop("GPU", 0),
            "resources": resources,
            "max_restarts": self.options.max_restarts,
            "max_concurrency": WAITING,
        }
        if self.options.lifetime is not None:
            asked["lifetime"] = self.options.lifetime
        return asked

    def _wait_ready(self) -> None:
        seconds = self.options.start_timeout
        for replica, told in enumerate(self._ask("ready", seconds)):
            name = f"{self.name}[{replica}]"
            if told is None:
                told = (0, f"it was not ready within {seconds:g} s")  # noqa: PLW2901
            elif isinstance(told, Exception):
                told = (0, str(told))  # noqa: PLW2901
            if told[1]:
                raise ServiceUnavailableError(f"{name} could not start:\n{told[1]}")

    def _ask(self, method: str, seconds: float) -> list[Any]:
        """Return what each actor says: an exception if it fails, None if it says nothing in time."""
        ray = import_ray()
        asked = [
            getattr(actor, method).options(concurrency_group=CONTROL).remote()
            for actor in self._actors
        ]
        until, answers = time.monotonic() + seconds, []
        for reference in asked:
            try:
                answers.append(ray.get(reference, timeout=max(0.0, until - time.monotonic())))
            except ray.exceptions.GetTimeoutError:
                answers.append(None)
            except ray.exceptions.RayError as error:
                answers.append(error)
        return answers

    def _stop(self) -> None:
        try:
            told = self._ask("stop", _STOP_SECONDS)
        finally:
            self._let_go()
        failures = [text for text in told if isinstance(text, str) and text]
        if failures:
            raise ServiceUnavailableError(f"{self.name} failed to stop:\n{failures[0]}")

    def _let_go(self) -> None:
        """End the actors, whatever they do."""
        ray = import_ray()
        for replica, actor in enumerate(self._actors):
            ray.kill(actor, no_restart=True)
            self.channel.set_actor(replica, None)
        self._actors.clear()
        if self._own_side and self._side is not None:
            self._side.close()
            self._side = None


def ray_address(token: str, number: int, factory: ServiceFactory) -> RayAddress:
    """Return where a service of an environment takes requests.

    Args:
        token: Stands for the environment.
        number: Which of its services this is.
        factory: Makes the service.
    """
    options = factory.options
    return RayAddress(
        token,
        number,
        factory.name,
        options.replicas,
        options.calls,
        options.queue_timeout,
        options.queue_bytes,
    )
