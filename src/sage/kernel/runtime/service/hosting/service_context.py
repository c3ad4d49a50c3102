"""What a service may ask of the runtime that runs it."""

from __future__ import annotations

import logging

from sage.common.log import get_logger
from sage.dataflow.function.base import ServiceProxies
from sage.kernel.runtime.service.service_caller import HasDirectory, ServiceManager
from sage.kernel.runtime.service.trace import TraceFilter

_TRACE = TraceFilter()


class ServiceContext:
    """A service whose class has an attribute `ctx` finds this there.

    Args:
        name: The name of the service.
        environment: Where the other services are to be found.

    Attributes:
        name: The name of the service.
        service_manager: Calls other services, within the deadline of the call at hand.
    """

    def __init__(self, name: str, environment: HasDirectory) -> None:
        self.name = name
        self.service_manager = ServiceManager(environment)

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the service; its records have a `trace_id`, see `TraceFilter`."""
        logger = get_logger("service", self.name)
        logger.addFilter(_TRACE)  # again: no effect
        return logger

    @property
    def call_service(self) -> ServiceProxies:
        """`ctx.call_service["name"].method(...)` calls another service."""
        return ServiceProxies(self.service_manager.get_sync_proxy)

    @property
    def call_service_async(self) -> ServiceProxies:
        """`ctx.call_service_async["name"].method(...)` gives a future."""
        return ServiceProxies(self.service_manager.get_async_proxy)
