"""How a service is made, and how it is to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten

Isolation = Literal["local", "process"]


@dataclass(frozen=True)
class ServiceOptions:
    """How a service runs.

    Attributes:
        isolation: `"local"` in the process that starts it, `"process"` in processes of its own.
        replicas: How many instances there are; calls go to the less busy of two picked at random.
        max_concurrency: How many calls one instance works on at a time.
        inline: Run methods on the caller's own thread; only for `"local"`, and for methods that
            never block.
        timeout: Seconds that a call may take unless it says otherwise; None is for ever.
        start_timeout: Seconds that a process may take to start.
        queue_bytes: How many bytes of requests may wait.
        max_restarts: How often in a row a process that dies is started again.
    """

    isolation: Isolation = "local"
    replicas: int = 1
    max_concurrency: int = 1
    inline: bool = False
    timeout: float | None = 30.0
    start_timeout: float = 30.0
    queue_bytes: int = 4 << 20
    max_restarts: int = 5

    def changed(self, **values: Any) -> ServiceOptions:
        """Return these options with some of them changed.

        Raises:
            ConfigError: an option is unknown or its value impossible.
        """
        known = self.__dataclass_fields__
        for name in values:
            if name not in known:
                near = did_you_mean(name, known)
                raise ConfigError(f"unknown service option {name!r}.{near}")
        return replace(self, **values)._checked()

    def _checked(self) -> ServiceOptions:
        if self.isolation not in get_args(Isolation):
            choices = ", ".join(map(repr, get_args(Isolation)))
            raise ConfigError(f"isolation is one of {choices}, not {self.isolation!r}")
        for name in ("replicas", "max_concurrency", "queue_bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is a whole number of at least 1, not {value!r}")
        if self.replicas > 1 and self.isolation == "local":
            raise ConfigError(
                'replicas need isolation="process"; in one process, max_concurrency says how many '
                "calls are worked on at a time"
            )
        for name in ("timeout", "start_timeout"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise ConfigError(f"{name} is a number of seconds above 0, not {value!r}")
        if self.inline and self.isolation != "local":
            raise ConfigError(
                'inline=True needs isolation="local": it runs on the caller\'s thread'
            )
        return self


@dataclass(frozen=True)
class ServiceFactory:
    """Makes the instances of a service.

    Attributes:
        name: The name under which it is called.
        target: A class, or a function that returns the service.
        args: Positional arguments of `target`.
        kwargs: Keyword arguments of `target`.
        options: How it runs.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: ServiceOptions = ServiceOptions()

    def __post_init__(self) -> None:
        if type(self.name) is not str or self.name == "":
            raise ConfigError(f"the name of a service is a string, not {self.name!r}")
        if not callable(self.target):
            raise ConfigError(
                f"service {self.name!r}: give a class or a function that returns the service, not "
                f"{shorten(self.target)}"
            )

    def create_service(self, ctx: Any = None) -> Any:
        """Make an instance; if it has an attribute `ctx`, that is set."""
        service = self.target(*self.args, **self.kwargs)
        if hasattr(type(service), "ctx"):
            service.ctx = ctx
        return service
