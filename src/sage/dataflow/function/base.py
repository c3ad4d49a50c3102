"""`BaseFunction`: what all functions of a pipeline have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from sage.dataflow.function.context import RuntimeContext, ServiceCaller


class ServiceProxies:
    """`proxies["name"]` gives the proxy of a service, which threads may share.

    Args:
        get_proxy: Returns the proxy of a service.
    """

    def __init__(self, get_proxy: Callable[[str], Any]) -> None:
        self._get_proxy = get_proxy

    def __getitem__(self, service_name: str) -> Any:
        return self._get_proxy(service_name)


class BaseFunction:
    """The base of all function classes: a life cycle, a context, a logger.

    The runtime calls, for each parallel instance and always from the one thread that runs it:
    `open` once before the first record, then the method of the kind of function (`execute` in most)
    once per record, then `close` exactly once, also when `open` or a record failed. When a job is
    restarted, a new instance lives the same life from the start.

    Not guaranteed: that the constructor runs in the process that calls `open` (connect to things in
    `open`), and that `close` runs when the process is killed.

    Keyword arguments that the constructor of a subclass does not take are kept as `self.params`.

    Examples:
        >>> class Scale(BaseFunction):
        ...     def execute(self, data):
        ...         return data * self.params["factor"]
        >>> Scale(factor=3).execute(2)
        6
    """

    ctx: RuntimeContext | None = None
    params: Mapping[str, Any] = MappingProxyType({})
    entry_points: ClassVar[tuple[str, ...]] = ("execute",)
    """The methods called with records, in the order of the operator's inputs."""

    def __init__(self, **params: Any) -> None:
        self.params = params

    @property
    def name(self) -> str:
        """The operator's name at run time, before that the name of the class."""
        return type(self).__name__ if self.ctx is None else self.ctx.operator_name

    @property
    def logger(self) -> logging.Logger:
        """The operator's logger at run time, before that one named after the class."""
        if self.ctx is None:
            return logging.getLogger(f"sage.function.{type(self).__name__}")
        return self.ctx.logger

    @property
    def call_service(self) -> ServiceProxies:
        """`self.call_service["cache"].get(key)` calls a service and waits for the result.

        Raises:
            RuntimeError: there is no runtime yet: call services from `open` on.
        """
        return ServiceProxies(self._services().get_sync_proxy)

    @property
    def call_service_async(self) -> ServiceProxies:
        """`self.call_service_async["cache"].get(key)` calls a service and returns a future.

        Raises:
            RuntimeError: there is no runtime yet: call services from `open` on.
        """
        return ServiceProxies(self._services().get_async_proxy)

    def _services(self) -> ServiceCaller:
        if self.ctx is None:
            raise RuntimeError(
                "Runtime context not initialized. Cannot access services: call them from open() "
                "on, not in the constructor"
            )
        return self.ctx.service_manager

    def open(self) -> None:
        """Get ready: called once before the first record, with `self.ctx` set."""

    def close(self) -> None:
        """Let go of what `open` took: called once after the last record, whatever happened."""
