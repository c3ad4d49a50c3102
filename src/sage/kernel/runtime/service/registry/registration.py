"""`Registration`: what a caller said about a service that is to be known, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sage.common.config import AtLeastOne
from sage.common.errors import ConfigError, ServiceUnavailableError
from sage.common.ids import new_uuid
from sage.common.process_id import ProcessId
from sage.common.settings import Seconds
from sage.common.suggest import shorten
from sage.kernel.runtime.service.config.service_settings import Isolation
from sage.kernel.runtime.service.registry.service_info import ServiceInfo, ServiceState

MAX_NAME: Final = 200
"""How many characters the name of a service may have."""

_ADDRESS: Final = re.compile(r"\S+:(\d{1,5})")


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What is made known about a service; see `ServiceInfo` for the fields."""

    name: str
    address: str | None = None
    class_path: str | None = None
    arguments: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    pid: int | None = None
    replicas: AtLeastOne = 1
    isolation: Isolation = "local"
    state: ServiceState = "starting"
    metadata: dict[str, Any] = {}
    ttl: Seconds | None = None

    @classmethod
    def parse(
        cls, name: str, address_or_class: str | Callable[..., Any], options: Mapping[str, Any]
    ) -> Registration:
        """Check what was given to `register_service`.

        Raises:
            ConfigError: something is not usable.
        """
        _check_name(name)
        known = {key: value for key, value in options.items() if key in _OPTIONS}
        others = {key: value for key, value in options.items() if key not in _OPTIONS}
        metadata = dict(known.pop("metadata", {}))
        values: dict[str, Any] = {"name": name}
        if isinstance(address_or_class, str):
            _check_address(name, address_or_class)
            values |= {"address": address_or_class, "isolation": "process"}
            metadata |= others
        else:
            path = _class_path(name, address_or_class)
            values |= {"class_path": path, "arguments": sorted(others)}
        values |= known | {"metadata": _plain(name, metadata)}
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"service {name!r}: {error}") from error

    def make_info(self, now_ms: int) -> ServiceInfo:
        """Return the entry of a new instance.

        Raises:
            ServiceUnavailableError: its process does not run.
        """
        pid = os.getpid() if self.pid is None else self.pid
        process = ProcessId.of(pid)
        if process is None:
            raise ServiceUnavailableError(f"service {self.name!r}: there is no process {pid}")
        values = msgspec.structs.asdict(self)
        del values["pid"]
        return ServiceInfo(
            instance=new_uuid(),
            process=process,
            registered_at=now_ms,
            heartbeat_at=now_ms,
            **values,
        )


_OPTIONS: Final = frozenset(
    {"queues", "pid", "replicas", "isolation", "state", "metadata", "ttl"},
)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ConfigError(
            f"the name of a service is a text of 1 to {MAX_NAME} printable characters, "
            f"not {shorten(name)}"
        )


def _check_address(name: str, address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match.group(1)) < 65536:
        raise ConfigError(f"service {name!r}: the address {address!r} is not 'host:port'")


def _class_path(name: str, target: object) -> str:
    if not callable(target):
        raise ConfigError(
            f"service {name!r}: give its address as 'host:port', its class or a factory function, "
            f"not {shorten(target)}"
        )
    named = target if hasattr(target, "__qualname__") else type(target)
    return f"{named.__module__}.{named.__qualname__}"


def _plain(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as every reader will see it: as JSON gives it back."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(metadata))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigError(f"service {name!r}: metadata must be plain data: {error}") from error
    return plain
