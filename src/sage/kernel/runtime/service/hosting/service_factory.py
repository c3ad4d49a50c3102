"""How a service is made, and how it is to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig

Isolation = Literal["local", "process", "ray"]
Lifetime = Literal["detached", "non_detached"]


@dataclass(frozen=True)
class ServiceOptions:
    """How a service runs.

    Attributes:
        isolation: `"local"` in the process that starts it, `"process"` in processes of its own,
            `"ray"` in Ray actors, a hundred times as far away.
        replicas: How many instances there are; calls go to the less busy of two picked at random.
        max_concurrency: How many calls one instance works on at a time.
        inline: Run methods on the caller's own thread; only for `"local"`, and for methods that
            never block.
        depends_on: The names of the services that start before this one and stop after it.
        health_check_interval: Seconds between two looks whether it is well; None: nobody looks.
        queue_timeout: Seconds that a call waits for room in a full queue; None: to its deadline.
        start_timeout: Seconds that a process may take to start.
        queue_bytes: How many bytes of requests may wait.
        max_restarts: How often in a row a process that dies is started again; a Ray actor, in all.
        restart_backoff: Seconds before a process that has died is started again; after each further
            death in a row twice as long, up to 10 s.
        steady_after: Seconds that a process has to live until its earlier deaths no longer count.
        resources: What a Ray actor asks for: `"CPU"`, `"GPU"` and the cluster's own.
        lifetime: `"detached"`: a Ray actor outlives a program that does not stop it.
        calls: How it is called: time-outs, retries, limits and all the rest of `PolicyConfig`.
        layers: The settings from which `calls` was made.
    """

    isolation: Isolation = "local"
    replicas: int = 1
    max_concurrency: int = 1
    inline: bool = False
    depends_on: tuple[str, ...] = ()
    health_check_interval: float | None = None
    queue_timeout: float | None = None
    start_timeout: float = 30.0
    queue_bytes: int = 4 << 20
    max_restarts: int = 5
    restart_backoff: float = 0.1
    steady_after: float = 60.0
    resources: Mapping[str, float] | None = None
    lifetime: Lifetime | None = None
    calls: PolicyConfig = field(default_factory=PolicyConfig)
    layers: tuple[Mapping[str, Any], ...] = ()

    def changed(self, **values: Any) -> ServiceOptions:
        """Return these options with some of them changed.

        Args:
            values: Options of this class, and those of `PolicyConfig` about its calls:
                `timeout=5, retry=3, circuit_breaker=True`.

        Raises:
            ConfigError: an option is unknown or its value impossible.

        Examples:
            >>> options = ServiceOptions().changed(replicas=2, isolation="process", timeout=5)
            >>> options.replicas, options.calls.call.timeout
            (2, 5.0)
        """
        own = {name: value for name, value in values.items() if name in _OWN}
        others = {name: value for name, value in values.items() if name not in _OWN}
        for name in others:
            if name not in PolicyConfig.setting_names():
                near = did_you_mean(name, (*_OWN, *PolicyConfig.setting_names()))
                raise ConfigError(f"unknown service option {name!r}.{near}")
        if isinstance(own.get("depends_on"), str):
            own["depends_on"] = (own["depends_on"],)
        if "depends_on" in own:
            own["depends_on"] = tuple(own["depends_on"])
        if others:
            layers = (*self.layers, others)
            own |= {"layers": layers, "calls": PolicyConfig.parse(*layers, where="options")}
        return replace(self, **own)._checked()

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
                'replicas need isolation="process" or "ray"; in one process, max_concurrency says '
                "how many calls are worked on at a time"
            )
        self._check_ray()
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise ConfigError(f"{name} is a number of seconds above 0, not {value!r}")
        if self.inline and self.isolation != "local":
            raise ConfigError(
                'inline=True needs isolation="local": it runs on the caller\'s thread'
            )
        return self

    def _check_ray(self) -> None:
        for name in ("resources", "lifetime"):
            if getattr(self, name) is not None and self.isolation != "ray":
                raise ConfigError(f'{name} needs isolation="ray"')
        if self.lifetime not in (None, *get_args(Lifetime)):
            choices = ", ".join(map(repr, get_args(Lifetime)))
            raise ConfigError(f"lifetime is one of {choices}, not {self.lifetime!r}")
        asked: Mapping[str, Any] = self.resources or {}
        for resource, amount in asked.items():
            if not (isinstance(amount, (int, float)) and amount >= 0):
                told = f"resources are numbers of at least 0, not {amount!r} of {resource!r}"
                raise ConfigError(told)


_SECONDS = (
    "start_timeout",
    "queue_timeout",
    "health_check_interval",
    "restart_backoff",
    "steady_after",
)

_OWN = frozenset(ServiceOptions.__dataclass_fields__) - {"calls", "layers"}
"""The options that say how a service runs; all others say how it is called."""


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
