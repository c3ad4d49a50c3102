"""`ServiceManager`: where every call begins; and the proxies that make it look like a method call."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, NoReturn, Protocol

from sage.common.errors import (
    ServiceCycleError,
    ServiceError,
    ServiceNotFoundError,
    ServiceTimeoutError,
)
from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.service_executor import (
    CURRENT_REQUEST,
    STREAM_CLOSE,
    STREAM_NEXT,
)
from sage.kernel.runtime.service.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.service_message import ServiceRequest, StreamToken


class Channel(Protocol):
    """The way to one service."""

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take unless it says otherwise."""
        ...

    def send(self, future: ServiceFuture) -> None:
        """Send the request; the future is completed with the answer.

        Raises:
            ServiceError: it cannot be sent.
        """
        ...


class Directory(Protocol):
    """Knows the services."""

    def channel(self, name: str) -> Channel | None:
        """Return the way to a service, starting it if need be; None if there is none."""
        ...

    def service_names(self) -> list[str]:
        """Return the names of all services."""
        ...


class HasDirectory(Protocol):
    """An environment, as far as services go."""

    @property
    def services(self) -> Directory:
        """The services of the environment."""
        ...


@dataclass(frozen=True)
class CallOptions:
    """What a single call may say about itself.

    Attributes:
        timeout: Seconds that it may take; None: what the service says.
    """

    timeout: float | None = None


_DEFAULT = CallOptions()
_numbers = itertools.count(1)


class ServiceManager:
    """Calls services, and knows what is to be known about them. Thread-safe.

    Args:
        environment: Where the services are registered.

    Example:
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> registration = env.register_service("words", dict, hello="world")
        >>> manager = ServiceManager(env)
        >>> manager.call_service_sync("words", "get", "hello")
        'world'
        >>> answer = env.close()
    """

    def __init__(self, environment: HasDirectory) -> None:
        self._directory = environment.services

    # ---- calls, in both shapes of the requirement documents

    def call_service_sync(
        self,
        service_name: str,
        method_name: str = "",
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a method of a service and wait for what it returns.

        Two shapes mean the same: `call_service_sync("cache", "get", key, default=0)` and
        `call_service_sync(service_name="cache", method="get", args=(key,), kwargs={"default": 0})`.

        Args:
            service_name: The name of the service.
            method_name: The method; or `method=`, with which `args=` and `kwargs=` hold the
                arguments.
            args: Positional arguments of the method.
            timeout: Seconds that the call may take. A `timeout` for the method itself goes into
                `kwargs=` of the second shape, which reaches the method untouched.
            kwargs: Keyword arguments of the method.

        Raises:
            ServiceCallError: the method raised.
            ServiceTimeoutError: there was no answer in time.
            ServiceUnavailableError: the service is down.
            ServiceNotFoundError: there is no such service.
            ServiceMethodError: it has no such method.
        """
        method, args, kwargs = _either_shape(method_name, args, kwargs)
        return self.begin(service_name, method, args, kwargs, CallOptions(timeout)).result()

    def call_service_async(
        self,
        service_name: str,
        method_name: str = "",
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> ServiceFuture:
        """Call a method of a service and return its future at once; the shapes of the sync call.

        Raises:
            ServiceNotFoundError: there is no such service.
            ServiceUnavailableError: the service is down.
        """
        method, args, kwargs = _either_shape(method_name, args, kwargs)
        return self.begin(service_name, method, args, kwargs, CallOptions(timeout))

    def begin(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions = _DEFAULT,
        *,
        replica: int | None = None,
    ) -> ServiceFuture:
        """Send a call, to a certain replica if one is given."""
        above = CURRENT_REQUEST.get()
        if above is not None:
            self._check_cycle(above, service)
        channel = self._directory.channel(service) or self._missing(service)
        timeout = channel.timeout if options.timeout is None else options.timeout
        now = time.monotonic()
        deadline = inf if timeout is None else now + timeout
        chain: tuple[str, ...] = ()
        if above is not None:
            deadline, chain = self._below(above, service, deadline)
        request = ServiceRequest(
            next(_numbers), service, method, args, kwargs, "", deadline, 1, None, chain
        )
        future = ServiceFuture(request, channel.waiter, now, self._open_stream, replica)
        channel.send(future)
        return future

    def _open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Yield the items of a generator that lives in a service; close it there when done here."""
        name, where, ended = future.request.service_name, token.replica, False
        try:
            while not ended:
                fetch = self.begin(name, STREAM_NEXT, (token.number,), {}, replica=where)
                items, ended = fetch.result()
                yield from items
        finally:
            if not ended:
                close = self.begin(name, STREAM_CLOSE, (token.number,), {}, replica=where)
                close.result()

    def _check_cycle(self, above: ServiceRequest, service: str) -> None:
        chain = (*above.caller_chain, above.service_name)
        if service in chain:
            way = " → ".join((*chain, service))
            raise ServiceCycleError(f"{service!r} waits for this very call: {way}")

    def _below(
        self, above: ServiceRequest, service: str, deadline: float
    ) -> tuple[float, tuple[str, ...]]:
        """Return the deadline and the chain of a call made while working on `above`."""
        chain = (*above.caller_chain, above.service_name)
        deadline = min(deadline, above.deadline)
        if deadline <= time.monotonic():
            raise ServiceTimeoutError(
                f"no time is left to call {service!r} on behalf of {above.service_name!r}"
            )
        return deadline, chain

    def _missing(self, name: str) -> NoReturn:
        known = self._directory.service_names()
        raise ServiceNotFoundError(
            f"there is no service {name!r}.{did_you_mean(name, known)} Registered: "
            f"{', '.join(known) or 'none'}."
        )

    # ---- proxies

    def get_sync_proxy(self, service_name: str) -> ServiceCallProxy:
        """Return what turns method calls into calls of the service."""
        return ServiceCallProxy(self, service_name)

    def get_async_proxy(self, service_name: str) -> AsyncServiceCallProxy:
        """Return what turns method calls into calls of the service that give futures."""
        return AsyncServiceCallProxy(self, service_name)

    # ---- what is to be known

    def discover_services(self) -> list[str]:
        """Return the names of all services."""
        return self._directory.service_names()

    def health_check_all_services(self, timeout: float = 5.0) -> dict[str, str]:
        """Ask every service whether it is well.

        Returns:
            For each name `"healthy"`, `"unhealthy"`, or `"error: …"`. A service without a method
            `health_check` is healthy if it answers at all.
        """
        calls = {name: self._begin_health_check(name, timeout) for name in self.discover_services()}
        return {name: _health(call) for name, call in calls.items()}

    def _begin_health_check(self, name: str, timeout: float) -> ServiceFuture | ServiceError:
        try:
            return self.begin(name, HEALTH_CHECK, (), {}, CallOptions(timeout))
        except ServiceError as error:
            return error


HEALTH_CHECK = "health_check"


def _health(call: ServiceFuture | ServiceError) -> str:
    error = call if isinstance(call, ServiceError) else call.exception()
    if error is not None:
        return f"error: {error}"
    assert isinstance(call, ServiceFuture)
    return "healthy" if call.result() else "unhealthy"


def _either_shape(
    method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    if method_name:
        return method_name, args, kwargs
    method = kwargs.pop("method", None)
    if not isinstance(method, str) or not method:
        raise TypeError("name the method to call: method_name, or method= with args= and kwargs=")
    given_args, given_kwargs = tuple(kwargs.pop("args", ())), dict(kwargs.pop("kwargs", None) or {})
    if kwargs:
        extra = ", ".join(kwargs)
        raise TypeError(f"with method=, arguments go into args= and kwargs=; left over: {extra}")
    return method, given_args, given_kwargs


class _Proxy:
    """What both proxies share. A name that begins with an underscore is never a method call."""

    def __init__(self, manager: ServiceManager, name: str, options: CallOptions = _DEFAULT) -> None:
        self._manager = manager
        self._name = name
        self._options = options

    def options(self, **options: Any) -> Any:
        """Return a proxy whose calls have these options: `timeout=` in seconds."""
        return type(self)(self._manager, self._name, replace(self._options, **options))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name!r}>"


class ServiceCallProxy(_Proxy):
    """`proxy.method(...)` calls the service and waits for the result."""

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)
        begin, name, options = self._manager.begin, self._name, self._options

        return lambda *args, **kwargs: begin(name, method, args, kwargs, options).result()


class AsyncServiceCallProxy(_Proxy):
    """`proxy.method(...)` calls the service and returns a future."""

    def __getattr__(self, method: str) -> Callable[..., ServiceFuture]:
        if method.startswith("__"):
            raise AttributeError(method)
        begin, name, options = self._manager.begin, self._name, self._options
        return lambda *args, **kwargs: begin(name, method, args, kwargs, options)
