"""From a configuration file to registered services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sage.kernel.runtime.service.config.service_config import UNSUPPORTED, resolve_class
from sage.kernel.runtime.service.config.service_settings import (
    ServiceCallConfig,
    ServiceConfig,
    ServiceFileConfig,
)
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions

NOT_YET: Final = UNSUPPORTED
"""The keys of the file that nothing is made of yet."""


def factories(config: ServiceFileConfig) -> list[ServiceFactory]:
    """Return the factories of all services of a file that name a class.

    Raises:
        ConfigError: a class cannot be imported, or a service asks for what there is not.
    """
    made = []
    for name, service in config.services.items():
        if service.class_path is None:
            continue
        target = resolve_class(service.class_path, service.class_where)
        options = _options(service, config)
        made.append(
            ServiceFactory(name, target, tuple(service.args), dict(service.kwargs), options)
        )
    return made


def _options(service: ServiceConfig, config: ServiceFileConfig) -> ServiceOptions:
    local, ray = config.service.local, config.service.ray
    first = (service.max_concurrency, local.max_workers)
    values: dict[str, Any] = {
        "isolation": service.isolation,
        "replicas": service.replicas,
        "inline": service.inline,
        "max_concurrency": next((n for n in first if n is not None), None),
        "health_check_interval": service.health_check_interval
        or config.monitoring.health_check_interval,
        "queue_timeout": local.queue_timeout,
    }
    if service.isolation == "ray":
        values |= {
            "resources": ray.resources,
            "lifetime": ray.lifetime,
            "max_restarts": ray.max_restarts,
        }
    given = {option: value for option, value in values.items() if value is not None}
    return ServiceOptions().changed(**given).changed(**_calls(service, config))


def _calls(service: ServiceConfig, config: ServiceFileConfig) -> dict[str, Any]:
    """Return what the file says about the calls of a service, from the general to the particular."""
    said: dict[str, Any] = {
        **_call_settings(config.service_call),
        "max_calls": config.service.local.request_queue_size,
        "circuit_breaker": config.resilience.circuit_breaker,
        "rate_limiting": config.security.rate_limiting,
    }
    retry = config.resilience.retry_policy
    if retry.max_retries is not None:
        said["max_retries"] = retry.max_retries
    said["backoff_multiplier"] = retry.backoff_multiplier
    if service.timeout is not None:
        said["timeout"] = service.timeout
    return {name: value for name, value in said.items() if value is not None}


def _call_settings(config: ServiceCallConfig) -> Mapping[str, Any]:
    return {
        "timeout": config.default_timeout,
        "max_retries": config.max_retries,
        "retry_interval": config.retry_interval,
    }
