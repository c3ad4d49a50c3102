"""The configuration of an environment: what keys there are, their types and their defaults.

An unknown key is an error that names the nearest known one: a misspelt `paralelism` that is quietly
ignored costs an afternoon.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean

ErrorPolicy = Literal["fail", "skip", "dead_letter"]
"""What becomes of a record whose function raises."""


AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
AtLeastOneMebibyte = Annotated[int, msgspec.Meta(ge=1 << 20)]
Groups = Annotated[int, msgspec.Meta(ge=1, le=32_768)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
FreePort = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class EnvironmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of an environment.

    Attributes:
        parallelism: How many subtasks an operator has unless it says otherwise.
        buffer_size: How many records a live source may be read ahead of the pipeline.
        batch_size: How many records at most travel together.
        buffer_timeout: How many seconds records wait at most to be sent to another process together.
        max_parallelism: How many groups the keys are parted into: the most subtasks that a keyed
            operator can ever have. If not given, enough for the parallelism to grow.
        heartbeat_timeout: After how many seconds of silence a worker process counts as dead.
        on_error: What becomes of a record whose function raises, unless its operator says otherwise.
        state_backend: What keeps the state that functions declare: `"heap"` or `"disk"`.
        state_directory: Below it are the files of the backend `"disk"`.
        state_cache_bytes: Bytes of memory for each operator of the backend `"disk"`.
        live_view: Whether a job is shown on standard error while it runs, if that is a terminal.
        metrics_port: The port at which the figures of a job are served to Prometheus while it runs; 0:
            any that is free; None: they are not.
        engine_host: The host of a JobManager; a local environment does not use it.
        engine_port: The port of a JobManager; a local environment does not use it.
        taskmanager_memory: The memory of a cluster worker; a local environment does not use it.
        taskmanager_slots: The slots of a cluster worker; a local environment does not use it.
    """

    parallelism: AtLeastOne = 1
    buffer_size: AtLeastOne = 10_000
    batch_size: AtLeastOne = 4096
    buffer_timeout: NotNegative = 0.1
    max_parallelism: Groups | None = None
    heartbeat_timeout: Seconds = 50.0
    on_error: ErrorPolicy = "fail"
    state_backend: Literal["heap", "disk"] = "heap"
    state_directory: str | None = None
    state_cache_bytes: AtLeastOneMebibyte = 128 << 20
    live_view: bool = False
    metrics_port: FreePort | None = None
    engine_host: str = "127.0.0.1"
    engine_port: Port = 19001
    taskmanager_memory: str | None = None
    taskmanager_slots: AtLeastOne = 1

    @classmethod
    def parse(cls, values: Mapping[str, Any], others: Collection[str] = ()) -> EnvironmentConfig:
        """Check `values` and fill in the defaults.

        Args:
            values: The settings.
            others: Keys that somebody else checks.

        Raises:
            ConfigError: a key is unknown, or a value is of the wrong type or out of range.
        """
        for key in values:
            if key not in cls.__struct_fields__ and key not in others:
                near = did_you_mean(str(key), (*cls.__struct_fields__, *others))
                raise ConfigError(
                    f"unknown configuration key {key!r}.{near} "
                    f"Known keys: {', '.join(sorted(cls.__struct_fields__))}."
                )
        try:
            own = {key: value for key, value in values.items() if key in cls.__struct_fields__}
            config = msgspec.convert(own, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"configuration: {error}") from error
        config._check_ranges()
        return config

    def _check_ranges(self) -> None:
        for key in ("parallelism", "buffer_size", "batch_size", "taskmanager_slots"):
            if getattr(self, key) < 1:
                raise ConfigError(
                    f"configuration: {key} must be at least 1, not {getattr(self, key)}"
                )
        if not 0 < self.engine_port < 65536:
            raise ConfigError(
                f"configuration: engine_port must be 1 to 65535, not {self.engine_port}"
            )
