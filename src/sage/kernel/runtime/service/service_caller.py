"""`ServiceManager`: where every call begins; and the proxies that make it look like a method call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, Self

from sage.common.errors import ServiceError, ServiceNotFoundError, ServiceUnavailableError
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.base_service_task import RequestQueue
from sage.kernel.runtime.service.call.call_path import CallPath
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.policy.call_options import CallOptions
from sage.kernel.runtime.service.policy.call_statistics import ServiceStatistics
from sage.kernel.runtime.service.policy.policy_config import parse_call_options


class Directory(Protocol):
    """Knows the services."""

    def path(self, name: str) -> CallPath | None:
        """Return the path to a service, starting it if need be; None if there is none."""
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


class ServiceManager:
    """Calls services, and knows what is to be known about them. Thread-safe.

    Args:
        environment: Where the services are registered.

    Attributes:
        directory: Knows the services.

    Examples:
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> registration = env.register_service("words", dict, hello="world")
        >>> manager = ServiceManager(env)
        >>> manager.call_service_sync("words", "get", "hello")
        'world'
        >>> answer = env.close()
    """

    def __init__(self, environment: HasDirectory) -> None:
        self.directory = environment.services
        self.logger = get_logger("service")
        self._sync_proxies: dict[str, ServiceCallProxy] = {}
        self._async_proxies: dict[str, AsyncServiceCallProxy] = {}

    @staticmethod
    def generate_trace_id() -> str:
        """Return a new id, for those who trace calls by hand."""
        return new_uuid()

    @property
    def _service_factories(self) -> list[str]:
        """The names of all services, under the name that the requirement documents use."""
        return self.directory.service_names()

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
        return self.begin(service_name, method, args, kwargs, _within(timeout)).result()

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
            ServiceCycleError: the service waits for this very call.
            TypeError: an argument cannot be sent to another process.
        """
        method, args, kwargs = _either_shape(method_name, args, kwargs)
        return self.begin(service_name, method, args, kwargs, _within(timeout))

    def begin(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions | None = None,
    ) -> ServiceFuture:
        """Make a call; all others come down to this one.

        Args:
            service: The name of the service.
            method: The method.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            options: What is different about this call.

        Raises:
            ServiceNotFoundError: there is no such service.
            ServiceCycleError: the service waits for this very call.
            ServiceTimeoutError: nothing is left of the time of the call on whose behalf this is.
            TypeError: an argument cannot be sent to another process.
        """
        path = self.directory.path(service) or self.missing(service)
        return path.begin(method, args, kwargs, options)

    def missing(self, name: str) -> NoReturn:
        """Say that there is no such service.

        Raises:
            ServiceNotFoundError: always.
        """
        known = self.directory.service_names()
        raise ServiceNotFoundError(
            f"there is no service {name!r}.{did_you_mean(name, known)} Registered: "
            f"{', '.join(known) or 'none'}."
        )

    # ---- proxies

    def get_sync_proxy(self, service_name: str) -> ServiceCallProxy:
        """Return what turns method calls into calls of the service: the same one each time."""
        known = self._sync_proxies.get(service_name)
        return known or self._sync_proxies.setdefault(
            service_name, ServiceCallProxy(self, service_name)
        )

    def get_async_proxy(self, service_name: str) -> AsyncServiceCallProxy:
        """Return what turns method calls into calls that give futures: the same one each time."""
        known = self._async_proxies.get(service_name)
        return known or self._async_proxies.setdefault(
            service_name, AsyncServiceCallProxy(self, service_name)
        )

    # ---- what is to be known

    def discover_services(self) -> list[str]:
        """Return the names of all services."""
        return self.directory.service_names()

    def get_statistics(self, service_name: str) -> ServiceStatistics:
        """Return what became of the calls that this process has made to a service.

        Raises:
            ServiceNotFoundError: there is no such service.
        """
        path = self.directory.path(service_name) or self.missing(service_name)
        return path.statistics.snapshot()

    def get_service_queue(self, service_name: str) -> RequestQueue:
        """Return the queue in which the requests for a service wait: of its first replica.

        Raises:
            ServiceNotFoundError: there is no such service.
            ServiceUnavailableError: the service has no queue here: it runs inline, or on Ray.
        """
        path = self.directory.path(service_name) or self.missing(service_name)
        requests = path.channel.request_queue()
        if requests is None:
            raise ServiceUnavailableError(f"no requests wait in a queue for {service_name!r} here")
        return requests

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
            return self.begin(name, HEALTH_CHECK, (), {}, _within(timeout))
        except ServiceError as error:
            return error


HEALTH_CHECK = "health_check"
_MOST_METHODS = 500


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


def _within(timeout: float | None) -> CallOptions | None:
    return None if timeout is None else CallOptions(timeout=timeout)


class _Proxy:
    """What both proxies share. A name that begins with an underscore is never a method call.

    A proxy has no state but its methods, so all threads may share it.
    """

    def __init__(
        self, manager: ServiceManager, name: str, said: Mapping[str, Any] | None = None
    ) -> None:
        self._manager = manager
        self._name = name
        self._said = said or {}
        self._options = parse_call_options(said) if said else None

    def options(self, **options: Any) -> Self:
        """Return a proxy whose calls have these options.

        Args:
            options: `timeout` in seconds, `retry` (how often, or a `RetryPolicy`), `idempotent`,
                `cache_ttl` in seconds, `hedge`, `fallback`; see `CallOptions`.

        Raises:
            ConfigError: an option is unknown or its value impossible.
        """
        return type(self)(self._manager, self._name, {**self._said, **options})

    def _keep(self, method: str, call: Callable[..., Any]) -> None:
        """Let a method be found without `__getattr__` the next time."""
        if len(self.__dict__) < _MOST_METHODS:  # some take the names from elsewhere
            self.__dict__[method] = call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name!r}>"


class ServiceCallProxy(_Proxy):
    """`proxy.method(...)` calls the service and waits for the result."""

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)
        path_to, missing = self._manager.directory.path, self._manager.missing
        name, options = self._name, self._options

        def call(*args: Any, **kwargs: Any) -> Any:
            path = path_to(name) or missing(name)
            return path.begin(method, args, kwargs, options).result()

        self._keep(method, call)
        return call


class AsyncServiceCallProxy(_Proxy):
    """`proxy.method(...)` calls the service and returns a future."""

    def __getattr__(self, method: str) -> Callable[..., ServiceFuture]:
        if method.startswith("__"):
            raise AttributeError(method)
        path_to, missing = self._manager.directory.path, self._manager.missing
        name, options = self._name, self._options

        def call(*args: Any, **kwargs: Any) -> ServiceFuture:
            path = path_to(name) or missing(name)
            return path.begin(method, args, kwargs, options)

        self._keep(method, call)
        return call
