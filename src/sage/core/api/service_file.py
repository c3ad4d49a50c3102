"""From a configuration file to registered services."""

from __future__ import annotations

from typing import Any, Final

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.service_config import UNSUPPORTED, resolve_class
from sage.kernel.runtime.service.service_factory import ServiceFactory, ServiceOptions
from sage.kernel.runtime.service.service_settings import ServiceConfig, ServiceFileConfig

NOT_YET: Final = UNSUPPORTED | {
    "services.*.health_check_interval",
    "service.local.queue_timeout",
    "service.local.request_queue_size",
    "service_call.max_retries",
    "service_call.retry_interval",
    "resilience.*",
}
"""The keys of the file that the call path makes nothing of yet."""


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
        options = _options(name, service, config)
        made.append(
            ServiceFactory(name, target, tuple(service.args), dict(service.kwargs), options)
        )
    return made


def _options(name: str, service: ServiceConfig, config: ServiceFileConfig) -> ServiceOptions:
    if service.isolation == "ray":
        raise ConfigError(
            f"service {name!r}: isolation 'ray' is not there yet; choose 'local' or 'process'"
        )
    first = (service.max_concurrency, config.service.local.max_workers)
    values: dict[str, Any] = {
        "isolation": service.isolation,
        "replicas": service.replicas,
        "inline": service.inline,
        "max_concurrency": next((n for n in first if n is not None), None),
        "timeout": service.timeout or config.service_call.default_timeout,
    }
    given = {option: value for option, value in values.items() if value is not None}
    return ServiceOptions().changed(**given)
