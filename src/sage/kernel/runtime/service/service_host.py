"""The services of an environment: registered, started in order, stopped in reverse."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError, QueueError
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.local_service_task import LocalServiceTask
from sage.kernel.runtime.service.local_waiter import LocalWaiter
from sage.kernel.runtime.service.service_address import ServiceAddress
from sage.kernel.runtime.service.service_caller import Channel
from sage.kernel.runtime.service.service_context import ServiceContext
from sage.kernel.runtime.service.service_factory import ServiceFactory
from sage.kernel.runtime.service.service_future import ServiceFuture, Waiter

if TYPE_CHECKING:
    from sage.kernel.runtime.service.process_channel import CallerSide
    from sage.kernel.runtime.service.service_process_manager import ServiceProcessManager


class LocalChannel:
    """The way to a service in this process. Implements `Channel`."""

    def __init__(self, task: BaseServiceTask) -> None:
        self._task = task
        self._waiter = LocalWaiter(task.cancel_request)

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self._waiter

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take unless it says otherwise."""
        return self._task.options.timeout

    def send(self, future: ServiceFuture) -> None:
        """Give the call to the service's threads."""
        self._task.send(future)


class ServiceHost:
    """Implements `Directory` where the services are registered."""

    def __init__(self) -> None:
        self._factories: dict[str, ServiceFactory] = {}
        self._task_classes: dict[str, type[BaseServiceTask]] = {}
        self._tasks: dict[str, BaseServiceTask] = {}
        self._channels: dict[str, Channel] = {}
        self._token = f"sage-{new_uuid()[:12]}"
        self._manager: ServiceProcessManager | None = None
        self._side: CallerSide | None = None
        self._lock = threading.RLock()
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
        with self._lock:
            if factory.name in self._tasks:
                raise ConfigError(f"the service {factory.name!r} runs already; stop it first")
            self._factories[factory.name] = factory
            self._task_classes[factory.name] = task_class

    def factory(self, name: str) -> ServiceFactory:
        """Return how a service is made."""
        return self._factories[name]

    def service_names(self) -> list[str]:
        """Return the names of all services, in the order of their registration."""
        return list(self._factories)

    # ---- life

    def start_all(self) -> None:
        """Start every service that does not run, in the order of registration.

        Raises:
            Exception: one could not be started; those that had been are stopped again.
        """
        with self._lock:
            try:
                for name in self._factories:
                    if name not in self._channels:
                        self._start(name)
            except BaseException:
                self.stop_all()
                raise

    def stop_all(self) -> list[Exception]:
        """Stop all services, the youngest first; return what failed."""
        failures: list[Exception] = []
        with self._lock:
            for name in reversed(list(self._tasks)):
                try:
                    self._tasks.pop(name).stop_service()
                except Exception as error:
                    self._logger.exception("the service %r failed to stop", name)
                    failures.append(error)
            self._channels.clear()
            if self._side is not None:
                self._side.close()
                self._side = None
            if self._manager is not None:
                self._manager.close()
                self._manager = None
                self._sweep()
        return failures

    def _sweep(self) -> None:
        """Remove the queues that processes have left behind, those that were killed among them."""
        from sage.kernel.transport.sage_queue import list_queues, remove_queue  # noqa: PLC0415

        for name in list_queues():
            if name.startswith(self._token):
                try:
                    remove_queue(name)
                except QueueError as error:
                    self._logger.warning("the queue %s is left behind: %s", name, error)

    def channel(self, name: str) -> Channel | None:
        """Return the way to a service; if it does not run, all are started: they may need another."""
        channel = self._channels.get(name)
        if channel is not None or name not in self._factories:
            return channel
        self.start_all()
        return self._channels.get(name)

    def task(self, name: str) -> BaseServiceTask | None:
        """Return the running task of a service."""
        return self._tasks.get(name)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of every service."""
        stopped = {"status": "stopped"}
        return {
            name: self._tasks[name].get_service_status() if name in self._tasks else stopped
            for name in self._factories
        }

    def _start(self, name: str) -> None:
        factory = self._factories[name]
        if factory.options.isolation == "process":
            task, channel = self._process_task(factory)
        else:
            task = self._task_classes[name](factory, ServiceContext(name, self))
            channel = LocalChannel(task)
        task.start_service()
        self._tasks[name] = task
        self._channels[name] = channel

    def _process_task(self, factory: ServiceFactory) -> tuple[BaseServiceTask, Channel]:
        # What it takes to start processes is imported by those who do.
        from sage.kernel.runtime.service.process_channel import CallerSide  # noqa: PLC0415
        from sage.kernel.runtime.service.process_service_task import (  # noqa: PLC0415
            ProcessServiceTask,
        )
        from sage.kernel.runtime.service.service_process_manager import (  # noqa: PLC0415
            ServiceProcessManager,
        )

        if self._manager is None:
            self._manager = ServiceProcessManager(self._token)
        if self._side is None:
            self._side = CallerSide(self._token)
        addresses = self._addresses()
        address = addresses[factory.name]
        channel = self._side.channel(address)
        task = ProcessServiceTask(factory, address, self._manager, channel)
        task.task_class = self._task_classes[factory.name]
        task.others = tuple(other for other in addresses.values() if other is not address)
        return task, channel

    def _addresses(self) -> dict[str, ServiceAddress]:
        return {
            name: ServiceAddress(
                self._token, number, name, factory.options.replicas, factory.options.timeout
            )
            for number, (name, factory) in enumerate(self._factories.items())
            if factory.options.isolation == "process"
        }
