"""The services of an environment: registered, started in order, stopped in reverse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError, QueueError, ServiceUnavailableError
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.call.call_path import CallPath, Channel, Surroundings
from sage.kernel.runtime.service.channel.local_channel import LocalChannel
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.hosting.service_context import ServiceContext
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.hosting.service_life import ServiceLife
from sage.kernel.runtime.service.local_service_task import LocalServiceTask
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.call_statistics import Calls

if TYPE_CHECKING:
    from sage.kernel.runtime.service.channel.process_channel import CallerSide
    from sage.kernel.runtime.service.channel.ray_channel import RaySide
    from sage.kernel.runtime.service.hosting.ray_actor import RayAddress, RayServices
    from sage.kernel.runtime.service.hosting.service_process_manager import ServiceProcessManager


class ServiceHost:
    """Implements `Directory` where the services are registered. Thread-safe.

    Starting and stopping take their turns; while services are being stopped, none is started.

    Attributes:
        remote_calls: Returns what other processes know of the calls that they make, by service.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self.remote_calls: Callable[[], Sequence[Mapping[str, Calls]]] = tuple
        self._factories: dict[str, ServiceFactory] = {}
        self._task_classes: dict[str, type[BaseServiceTask]] = {}
        self._middleware: tuple[ServiceMiddleware, ...] = ()
        self._tasks: dict[str, BaseServiceTask] = {}
        self._paths: dict[str, CallPath] = {}
        self._token = f"sage-{new_uuid()[:12]}"
        self._manager: ServiceProcessManager | None = None
        self._side: CallerSide | None = None
        self._ray_side: RaySide | None = None
        self._surroundings: Surroundings | None = None
        self._life: ServiceLife | None = None
        self._turn = threading.RLock()  # held while services start and stop
        self._stopping = False
        self._starting: set[str] = set()
        self._logger = get_logger("service")

    @property
    def services(self) -> ServiceHost:
        """Itself: it stands where an environment stands."""
        return self

    # ---- registration

    def register(
        self, factory: ServiceFactory, task_class: type[BaseServiceTask] = LocalServiceTask
    ) -> None:
        """Add a service, or change one that does not run.

        Raises:
            ConfigError: a service of that name runs already.
        """
        with self._turn:
            if factory.name in self._tasks:
                raise ConfigError(f"the service {factory.name!r} runs already; stop it first")
            self._factories[factory.name] = factory
            self._task_classes[factory.name] = task_class

    def share(self) -> None:
        """Let no service run in this process, so that several processes can call it.

        Raises:
            ConfigError: one runs already in this process.
        """
        with self._turn:
            for name, factory in self._factories.items():
                if factory.options.isolation == "local":
                    options = factory.options.changed(isolation="process", inline=False)
                    self.register(replace(factory, options=options), self._task_classes[name])

    @property
    def token(self) -> str:
        """What stands for the environment in the names of queues."""
        return self._token

    @property
    def middleware(self) -> tuple[ServiceMiddleware, ...]:
        """What is around every call."""
        return self._middleware

    def add_middleware(self, middleware: ServiceMiddleware) -> None:
        """Put `middleware` around every call, inside of those that are there.

        Raises:
            ConfigError: services run already.
        """
        with self._turn:
            if self._tasks:
                raise ConfigError("add middleware before services are started")
            self._middleware += (middleware,)

    def factory(self, name: str) -> ServiceFactory:
        """Return how a service is made."""
        return self._factories[name]

    def service_names(self) -> list[str]:
        """Return the names of all services, in the order of their registration."""
        return list(self._factories)

    # ---- life

    def start_all(self) -> None:
        """Start every service that does not run: in the order of registration, dependencies first.

        Raises:
            ConfigError: a dependency is not there, or depends on what depends on it.
            Exception: one could not be started; those that had been are stopped again.
        """
        with self._turn:
            try:
                for name in self._start_order():
                    if name not in self._tasks and name not in self._starting:
                        self._start(name)
            except BaseException:
                if not self._starting:
                    self.stop_all()
                raise

    def stop_all(self) -> list[Exception]:
        """Stop all services, the youngest first; return what failed."""
        failures: list[Exception] = []
        with self._turn:
            self._stopping = True
            try:
                if self._life is not None:
                    self._life.close()
                    self._life = None
                if self._surroundings is not None:
                    self._surroundings.close()
                    self._surroundings = None
                for name in reversed(list(self._tasks)):
                    try:
                        self._tasks.pop(name).stop_service()
                    except Exception as error:
                        self._logger.exception("the service %r failed to stop", name)
                        failures.append(error)
                self._paths.clear()
                self._close_transports()
            finally:
                self._stopping = False
        return failures

    def _close_transports(self) -> None:
        if self._ray_side is not None:
            self._ray_side.close()
            self._ray_side = None
        if self._side is not None:
            self._side.close()
            self._side = None
        if self._manager is not None:
            self._manager.close()
            self._manager = None
            self._sweep()

    def _sweep(self) -> None:
        """Remove the queues that processes have left behind, those that were killed among them."""
        from sage.kernel.transport.sage_queue import list_queues, remove_queue  # noqa: PLC0415

        for name in list_queues():
            if name.startswith(self._token):
                try:
                    remove_queue(name)
                except QueueError as error:
                    self._logger.warning("the queue %s is left behind: %s", name, error)

    def path(self, name: str) -> CallPath | None:
        """Return the path to a service; if it does not run, all are started: they may need another.

        Raises:
            ServiceUnavailableError: the services are being stopped.
        """
        path = self._paths.get(name)
        if path is not None or name not in self._factories:
            return path
        if self._stopping:
            raise ServiceUnavailableError(f"the service {name!r} has been stopped")
        with self._turn:
            if self._starting:  # this thread is starting a service that calls another
                self._start_one(name)
            else:
                self.start_all()
        return self._paths.get(name)

    def task(self, name: str) -> BaseServiceTask | None:
        """Return the running task of a service."""
        return self._tasks.get(name)

    def path_if_running(self, name: str) -> CallPath | None:
        """Return the path to a service, without starting it."""
        return self._paths.get(name)

    def is_up(self, name: str) -> bool:
        """Say whether all instances of a service run."""
        task = self._tasks.get(name)
        figures = {} if task is None else task.get_statistics()
        return task is not None and figures.get("up") == figures.get("replicas")

    def restart(self, name: str) -> None:
        """Start the processes of a service anew; one that runs elsewhere is left alone."""
        if self._manager is not None and self._factories[name].options.isolation == "process":
            self._logger.warning("the processes of %r are started anew", name)
            self._manager.restart_service(name)

    def close_idle(self) -> None:
        """Let the queues go that have not been used since this was last called."""
        side = self._side
        if side is not None:
            side.handles.close_idle()

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of every service."""
        return {name: self.figures(name) for name in self._factories}

    def figures(self, name: str) -> dict[str, Any]:
        """Return how a service is, and what became of the calls to it."""
        task, path = self._tasks.get(name), self._paths.get(name)
        if task is None or path is None:
            return {"name": name, "status": "stopped"}
        breaker, requests = path.breaker, path.channel.request_queue()
        return {
            **task.get_service_status(),
            "waiting": None if requests is None else requests.qsize(),
            "breaker": None if breaker is None else breaker.state.value,
            "retries": path.retries,
            "called": path.statistics.snapshot(
                known[name] for known in self.remote_calls() if name in known
            ),
            "cache": path.cache.statistics(),
        }

    def _start_order(self) -> list[str]:
        """Return all services, each after those it depends on, else as they were registered."""
        for name, factory in self._factories.items():
            for other in factory.options.depends_on:
                if other not in self._factories:
                    near = did_you_mean(other, self._factories)
                    raise ConfigError(f"service {name!r} depends on {other!r}, unknown.{near}")
        depends = {name: f.options.depends_on for name, f in self._factories.items()}
        try:
            return list(TopologicalSorter(depends).static_order())
        except CycleError as error:
            way = " → ".join(error.args[1])
            raise ConfigError(f"services depend on each other in a circle: {way}") from None

    def _start_one(self, name: str) -> None:
        if name in self._starting:
            raise ServiceUnavailableError(f"the service {name!r} is called while it is starting")
        for other in (*self._factories[name].options.depends_on, name):
            if other not in self._tasks:
                self._start(other)

    def _start(self, name: str) -> None:
        self._starting.add(name)
        try:
            factory = self._factories[name]
            task, channel = self._make(factory)
            task.start_service()
            around = self._around()
            self._tasks[name] = task
            self._paths[name] = CallPath(name, factory.options.calls, channel, around)
        finally:
            self._starting.discard(name)
        if self._life is None:
            self._life = ServiceLife(self, self._name)
        self._life.add(name)

    def _around(self) -> Surroundings:
        if self._surroundings is None:
            self._surroundings = Surroundings(self._middleware)
        return self._surroundings

    def _make(self, factory: ServiceFactory) -> tuple[BaseServiceTask, Channel]:
        if factory.options.isolation == "process":
            return self._process_task(factory)
        if factory.options.isolation == "ray":
            return self._ray_task(factory)
        task = self._task_classes[factory.name](factory, ServiceContext(factory.name, self))
        return task, LocalChannel(task, self._around().timer)

    def _process_task(self, factory: ServiceFactory) -> tuple[BaseServiceTask, Channel]:
        # What it takes to start processes is imported by those who do.
        from sage.kernel.runtime.service.channel.process_channel import CallerSide  # noqa: PLC0415
        from sage.kernel.runtime.service.hosting.service_process_manager import (  # noqa: PLC0415
            ServiceProcessManager,
        )
        from sage.kernel.runtime.service.process_service_task import (  # noqa: PLC0415
            ProcessServiceTask,
        )

        if self._manager is None:
            self._manager = ServiceProcessManager(self._token)
        if self._side is None:
            self._side = CallerSide(self._token)
        addresses = self.addresses()
        address = addresses[factory.name]
        channel = self._side.channel(address)
        task = ProcessServiceTask(factory, address, self._manager, channel)
        task.task_class = self._task_classes[factory.name]
        task.others = tuple(other for other in addresses.values() if other is not address)
        task.middleware = self._middleware
        return task, channel

    def _ray_task(self, factory: ServiceFactory) -> tuple[BaseServiceTask, Channel]:
        # Only those who use Ray have it.
        from sage.kernel.runtime.service.channel.ray_channel import RaySide  # noqa: PLC0415
        from sage.kernel.runtime.service.ray_service_task import (  # noqa: PLC0415
            RayServiceTask,
        )

        if self._ray_side is None:
            self._ray_side = RaySide(self._token)
        addresses = self._ray_addresses()
        address = addresses[factory.name]
        task = RayServiceTask(factory, None, address, self._ray_side)
        task.task_class = self._task_classes[factory.name]
        task.others = tuple(other for other in addresses.values() if other is not address)
        task.elsewhere = tuple(name for name in self._factories if name not in addresses)
        task.middleware = self._middleware
        return task, task.channel

    def _ray_addresses(self) -> dict[str, RayAddress]:
        # Only those who use Ray have it.
        from sage.kernel.runtime.service.ray_service_task import ray_address  # noqa: PLC0415

        return {
            name: ray_address(self._token, number, factory)
            for number, (name, factory) in enumerate(self._factories.items())
            if factory.options.isolation == "ray"
        }

    def ray_services(self) -> RayServices | None:
        """Return where other processes find the services on Ray, which run; None: there are none."""
        if self._ray_side is None:
            return None
        from sage.kernel.runtime.service.hosting.ray_actor import RayServices  # as above  # noqa: PLC0415
        from sage.kernel.transport.ray_runtime import ray_cluster  # noqa: PLC0415

        return RayServices(ray_cluster(), tuple(self._ray_addresses().values()))

    def addresses(self) -> dict[str, ServiceAddress]:
        """Return where those services take requests that run in processes of their own."""
        return {
            name: ServiceAddress(
                self._token,
                number,
                name,
                factory.options.replicas,
                factory.options.calls,
                factory.options.queue_timeout,
            )
            for number, (name, factory) in enumerate(self._factories.items())
            if factory.options.isolation == "process"
        }
