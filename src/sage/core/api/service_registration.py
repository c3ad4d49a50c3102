"""What `env.register_service` returns: a service that can still be given options."""

from __future__ import annotations

from typing import Any

from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions
from sage.kernel.runtime.service.hosting.service_host import ServiceHost
from sage.kernel.runtime.service.local_service_task import LocalServiceTask


class ServiceRegistration:
    """A service that is registered with an environment and does not run yet.

    Args:
        host: The services of the environment.
        factory: Makes the service.
        task_class: The kind of service task that answers its requests.
    """

    def __init__(
        self,
        host: ServiceHost,
        factory: ServiceFactory,
        task_class: type[BaseServiceTask] = LocalServiceTask,
    ) -> None:
        self._host = host
        self._factory = factory
        self._task_class = task_class
        host.register(factory, task_class)

    @property
    def name(self) -> str:
        """The name under which the service is called."""
        return self._factory.name

    def options(self, **options: Any) -> ServiceRegistration:
        """Say how the service runs; see `ServiceOptions` for the options.

        Raises:
            ConfigError: an option is unknown or its value impossible, or the service runs already.
        """
        changed = self._factory.options.changed(**options)
        factory = ServiceFactory(
            self._factory.name,
            self._factory.target,
            self._factory.args,
            self._factory.kwargs,
            changed,
        )
        self._host.register(factory, self._task_class)
        self._factory = factory
        return self

    def __repr__(self) -> str:
        options: ServiceOptions = self._factory.options
        return f"<service {self.name!r}, {options.isolation}, {options.replicas} replicas>"
