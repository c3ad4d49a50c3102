"""`load_service_config`: the services of a program, and how they are run and called, from a file.

The file is YAML (see `sage.common.yaml_file` for places and environment variables) with these blocks,
each of which may be left out:

* `services:` one entry per service, and beside them, if they have no `class`, `discovery` and
  `monitoring`;
* `service:` how services run: `local:` in this process, `ray:` on a cluster;
* `service_call:` how they are called;
* `performance:`, `security:`, `resilience:`, `discovery:`, `monitoring:`.

Every key is known and checked (`service_settings` lists them), whether or not something uses it;
those that nothing uses are listed in `ServiceFileConfig.unsupported`, so that nobody believes in a
setting without effect. What came from an environment variable is shown neither by errors nor by
`repr`; only the path of a class is told when it cannot be imported.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from sage.common.quiet import QuietDict
from sage.common.settings import Settings, read_settings
from sage.common.yaml_file import UNREAD_KEYS, YamlNode, read_yaml
from sage.kernel.runtime.service.config.service_class import resolve_class
from sage.kernel.runtime.service.config.service_settings import (
    DiscoveryConfig,
    Isolation,
    MonitoringConfig,
    PerformanceConfig,
    ResilienceConfig,
    SecurityConfig,
    ServiceCallConfig,
    ServiceConfig,
    ServiceFileConfig,
    ServiceRunConfig,
)

__all__ = [
    "UNSUPPORTED",
    "ServiceConfig",
    "ServiceFileConfig",
    "load_service_config",
    "resolve_class",
]

UNSUPPORTED: Final[frozenset[str]] = frozenset(
    {
        "services.*.host",
        "services.*.port",
        "services.*.max_connections",
        "services.discovery.*",
        "services.monitoring.enabled",
        "services.monitoring.metrics_port",
        "service_call.async_pool_size",
        "performance.*",
        "security.tls_enabled",
        "security.auth_required",
        "discovery.*",
        "monitoring.enabled",
        "monitoring.metrics_port",
    }
)
"""The keys that are known and that nothing uses yet; `*` stands for any one name."""

_SECTIONS: Final = ("discovery", "monitoring")


_BLOCKS: Final[dict[str, type[Settings]]] = {
    "service": ServiceRunConfig,
    "service_call": ServiceCallConfig,
    "performance": PerformanceConfig,
    "security": SecurityConfig,
    "resilience": ResilienceConfig,
    "discovery": DiscoveryConfig,
    "monitoring": MonitoringConfig,
}


def load_service_config(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
    unsupported: Collection[str] = UNSUPPORTED,
) -> ServiceFileConfig:
    """Read and check a file that describes services. Imports nothing of the user's.

    Args:
        path: The file.
        environ: The variables for `${NAME}`; those of this process by default.
        unsupported: Patterns of the keys that the caller makes nothing of.

    Raises:
        ConfigError: the file or something in it is not usable; the message names file, line and
            key: `services.yaml:12: services.cache.proces_count: unknown key. Did you mean …`.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("services: {cache: {class: collections.Counter, process_count: 2}}")
        ...     file.flush()
        ...     config = load_service_config(file.name)
        >>> config.services["cache"].isolation, config.services["cache"].replicas
        ('process', 2)
    """
    root = read_yaml(path, environ)
    # The same file may say what is read and written.
    root.check_keys(["services", "sources", "sinks", *_BLOCKS], free=UNREAD_KEYS)
    services = root.get("services")
    entries = {} if services is None else dict(services.mapping())
    blocks = {name: node for name in _BLOCKS if (node := root.get(name)) is not None}
    _move_sections(entries, blocks)
    read: dict[str, Any] = {n: read_settings(_BLOCKS[n], node) for n, node in blocks.items()}
    named = {name: _read_service(node) for name, node in entries.items()}
    useless = [p for p in unsupported if not p.startswith(tuple(f"services.{n}." for n in named))]
    told = tuple(node.where for node in _unsupported(root, useless))
    return ServiceFileConfig(where=root.where, services=named, unsupported=told, **read)


def _move_sections(entries: dict[str, YamlNode], blocks: dict[str, YamlNode]) -> None:
    """Take what is a block of its own from among the services: it says no `class`."""
    for name in _SECTIONS:
        node = entries.get(name)
        if node is not None and node.get("class") is None:
            if name in blocks:
                raise node.error(f"given twice, also on line {blocks[name].line}")
            blocks[name] = entries.pop(name)


def _read_service(node: YamlNode) -> ServiceConfig:
    config = read_settings(ServiceConfig, node, skip=("args", "kwargs"))
    if config.class_path is None and config.port is None:
        raise node.error("a service needs its `class`, or the `port` at which it is reached")
    args, kwargs = _read_arguments(node)
    isolation, replicas = _read_place(config, node)
    class_node = node.get("class")
    return msgspec.structs.replace(
        config,
        class_where="" if class_node is None else class_node.where,
        args=args,
        kwargs=kwargs,
        isolation=isolation,
        replicas=replicas,
    )


def _read_arguments(node: YamlNode) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return positional and keyword arguments; `args` may hold either, as a list or a mapping."""
    args_node, kwargs_node = node.get("args"), node.get("kwargs")
    kwargs = {} if kwargs_node is None else dict(kwargs_node.mapping())
    if args_node is None or args_node.value is None:
        return (), _quiet(kwargs)
    if isinstance(args_node.value, list):
        return args_node.plain(), _quiet(kwargs)
    if not isinstance(args_node.value, dict):
        raise args_node.error(
            "must be a list of positional arguments or a mapping of keyword arguments, "
            f"not {args_node.kind}"
        )
    for name, argument in args_node.value.items():
        if name in kwargs:
            raise argument.error(f"given twice, also on line {kwargs[name].line}")
    return (), _quiet({**args_node.value, **kwargs})


def _quiet(nodes: Mapping[str, YamlNode]) -> QuietDict:
    hidden = frozenset(name for name, node in nodes.items() if node.substituted)
    return QuietDict({name: node.plain() for name, node in nodes.items()}, hidden)


def _read_place(config: ServiceConfig, node: YamlNode) -> tuple[Isolation, int]:
    """Return where the instances live and how many there are; `process_count` tells both."""
    count = config.process_count
    if count is None:
        return config.isolation, config.replicas
    isolation, replicas = node.get("isolation"), node.get("replicas")
    if isolation is not None and config.isolation != "process":
        raise isolation.error("with process_count it can only be `process`")
    if replicas is not None and config.replicas != count:
        raise replicas.error("it differs from process_count; give one of them")
    return "process", count


def _unsupported(node: YamlNode, patterns: Collection[str]) -> Iterator[YamlNode]:
    if any(_matches(node, pattern) for pattern in patterns):
        yield node
    elif isinstance(node.value, dict):
        for child in node.value.values():
            yield from _unsupported(child, patterns)


def _matches(node: YamlNode, pattern: str) -> bool:
    steps = pattern.split(".")
    pairs = zip(steps, node.path, strict=False)
    return len(steps) == len(node.path) and all(step in {"*", key} for step, key in pairs)
