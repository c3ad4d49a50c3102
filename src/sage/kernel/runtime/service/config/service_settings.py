"""The settings of services: which keys a file may have, and their types.

A setting that is not given is `None`: its default belongs to whoever uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from sage.common.config import AtLeastOne, Port
from sage.common.settings import Seconds, Settings, Size

Isolation = Literal["local", "process", "ray"]
"""Where the instances of a service live: in this process, in processes of their own, on a cluster."""

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Pause = Annotated[float, msgspec.Meta(ge=0)]
Factor = Annotated[float, msgspec.Meta(ge=1)]


class ServiceConfig(Settings, frozen=True, kw_only=True):
    """One service.

    Attributes:
        class_path: `"package.module.Class"`, or a factory function; `None` for a service that runs
            elsewhere, at `host` and `port`, or that comes with SAGE under its name.
        class_where: Where `class_path` stands, for `resolve_class`.
        args: Positional arguments of the constructor; substituted values are not shown.
        kwargs: Keyword arguments of the constructor; substituted values are not shown.
        isolation: Where its instances live. Without this key: `process` when `process_count` is
            given, else `local`.
        process_count: How many processes; the same as `replicas` with `isolation: process`.
        replicas: How many instances.
        max_concurrency: How many calls an instance works on at the same time.
        inline: Whether calls run on the thread of the caller.
        timeout: Seconds after which a call is given up.
        health_check_interval: Seconds between two health checks.
        host: The host at which it serves, or is reached.
        port: The port there.
        max_connections: How many connections it accepts.
    """

    derived: ClassVar[frozenset[str]] = Settings.derived | {"class_where"}

    class_path: str | None = msgspec.field(default=None, name="class")
    class_where: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    isolation: Isolation = "local"
    process_count: AtLeastOne | None = None
    replicas: AtLeastOne = 1
    max_concurrency: AtLeastOne | None = None
    inline: bool = False
    timeout: Seconds | None = None
    health_check_interval: Seconds | None = None
    host: str | None = None
    port: Port | None = None
    max_connections: AtLeastOne | None = None


class LocalServiceConfig(Settings, frozen=True, kw_only=True):
    """How services of this machine run.

    Attributes:
        max_workers: How many calls an instance works on at the same time, unless it says otherwise.
        queue_timeout: Seconds that a call waits for room in a full request queue.
        request_queue_size: How many requests wait at most.
    """

    max_workers: AtLeastOne | None = None
    queue_timeout: Seconds | None = None
    request_queue_size: AtLeastOne | None = None


class RayServiceConfig(Settings, frozen=True, kw_only=True):
    """How services of a Ray cluster run.

    Attributes:
        resources: What an instance takes: `{"CPU": 2}`.
        lifetime: Whether it outlives the program.
        max_restarts: How often it is started again; -1 is without end.
    """

    resources: dict[str, Pause] | None = None
    lifetime: Literal["detached", "non_detached"] | None = None
    max_restarts: Annotated[int, msgspec.Meta(ge=-1)] | None = None


class ServiceRunConfig(Settings, frozen=True, kw_only=True):
    """How services run.

    Attributes:
        local: On this machine.
        ray: On a Ray cluster.
    """

    local: LocalServiceConfig = LocalServiceConfig()
    ray: RayServiceConfig = RayServiceConfig()


class ServiceCallConfig(Settings, frozen=True, kw_only=True):
    """How services are called.

    Attributes:
        default_timeout: Seconds after which a call is given up, unless its service says otherwise.
        max_retries: How often a call is tried again.
        retry_interval: Seconds before the first retry.
        async_pool_size: How many threads make asynchronous calls.
    """

    default_timeout: Seconds | None = None
    max_retries: NotNegative | None = None
    retry_interval: Pause | None = None
    async_pool_size: AtLeastOne | None = None


class PerformanceConfig(Settings, frozen=True, kw_only=True):
    """How much of the machine services may take.

    Attributes:
        thread_pool_size: Threads.
        connection_pool_size: Connections.
        cache_size: Bytes.
    """

    thread_pool_size: AtLeastOne | None = None
    connection_pool_size: AtLeastOne | None = None
    cache_size: Size | None = None


class SecurityConfig(Settings, frozen=True, kw_only=True):
    """Who may call services.

    Attributes:
        tls_enabled: Whether connections are encrypted.
        auth_required: Whether callers must say who they are.
        rate_limiting: Requests per minute.
    """

    tls_enabled: bool | None = None
    auth_required: bool | None = None
    rate_limiting: AtLeastOne | None = None


class RetryPolicyConfig(Settings, frozen=True, kw_only=True):
    """How failed calls are tried again.

    Attributes:
        max_retries: How often.
        backoff_multiplier: How much longer each pause is than the one before.
    """

    max_retries: NotNegative | None = None
    backoff_multiplier: Factor | None = None


class ResilienceConfig(Settings, frozen=True, kw_only=True):
    """What is done about services that fail.

    Attributes:
        circuit_breaker: Whether a failing service is left alone for a while.
        retry_policy: How failed calls are tried again.
    """

    circuit_breaker: bool | None = None
    retry_policy: RetryPolicyConfig = RetryPolicyConfig()


class DiscoveryConfig(Settings, frozen=True, kw_only=True):
    """Where services of other machines are found.

    Attributes:
        type: The kind of registry.
        address: Its `host:port`.
    """

    type: Literal["consul", "etcd", "kubernetes"] | None = None
    address: str | None = None


class MonitoringConfig(Settings, frozen=True, kw_only=True):
    """How services are watched.

    Attributes:
        enabled: Whether they are.
        metrics_port: The port at which figures are read.
        health_check_interval: Seconds between two health checks.
    """

    enabled: bool | None = None
    metrics_port: Port | None = None
    health_check_interval: Seconds | None = None


class ServiceFileConfig(Settings, frozen=True, kw_only=True):
    """What a file says about services.

    Attributes:
        services: The services by name, in the order of the file.
        service: How they run.
        service_call: How they are called.
        performance: How much of the machine they may take.
        security: Who may call them.
        resilience: What is done about those that fail.
        discovery: Where those of other machines are found.
        monitoring: How they are watched.
        unsupported: The keys given that have no effect, as `"file:line: key"`.
    """

    services: Mapping[str, ServiceConfig] = {}
    service: ServiceRunConfig = ServiceRunConfig()
    service_call: ServiceCallConfig = ServiceCallConfig()
    performance: PerformanceConfig = PerformanceConfig()
    security: SecurityConfig = SecurityConfig()
    resilience: ResilienceConfig = ResilienceConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    unsupported: tuple[str, ...] = ()
