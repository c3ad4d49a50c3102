"""`CheckpointConfig`: when checkpoints are taken, where they go, and how many are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean
from sage.kernel.checkpoint.duration import parse_duration
from sage.kernel.checkpoint.messages import CheckpointRules

OnCancel = Literal["retain", "delete"]
"""What becomes of the checkpoints of a job that was cancelled."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """The settings of checkpoints; they mean what they mean in Flink.

    Attributes:
        interval: Seconds from the start of one checkpoint to the start of the next; `None`: only
            on request.
        path: The directory they are kept in; `None`: none is given, and the runtime chooses.
        min_pause: Seconds at least from the end of one to the start of the next.
        timeout: Seconds after which a checkpoint that is not acknowledged by all is aborted.
        tolerated_failures: How many failures in a row do not fail the job.
        retained: How many completed checkpoints are kept.
        on_cancel: Whether they outlive a cancelled job. Those of a failed job are always kept.
        incremental: Whether a checkpoint may refer to what earlier ones have written.

    Examples:
        >>> CheckpointConfig.parse({"checkpoint_interval": 300}).interval
        300.0
    """

    interval: float | None = None
    path: str | None = None
    min_pause: float = 0.0
    timeout: float = 600.0
    tolerated_failures: int = 0
    retained: int = 3
    on_cancel: OnCancel = "retain"
    incremental: bool = True

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> CheckpointConfig:
        """Read the settings from a configuration.

        Args:
            values: The keys of `CHECKPOINT_KEYS`, or some of them: `checkpoint_interval` or Flink's
                `execution.checkpointing.interval`; durations in seconds or as `"10 min"`. `None`
                stands for the default.

        Raises:
            ConfigError: a key is unknown, a value is not usable, or a setting is given under two
                names with different values.
        """
        settings: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for key, value in values.items():
            name, read = _reader(key)
            if value is None:
                continue
            setting = read(key, value)
            if settings.setdefault(name, setting) != setting:
                raise ConfigError(
                    f"configuration: {origin[name]} and {key} are the same setting, but differ; "
                    f"leave one out"
                )
            origin[name] = key
        settings.pop("max_concurrent", None)  # only ever 1
        return cls(**settings)

    @property
    def rules(self) -> CheckpointRules:
        """What the coordinator needs to know of them."""
        return CheckpointRules(
            interval=self.interval,
            min_pause=self.min_pause,
            timeout=self.timeout,
            tolerated_failures=self.tolerated_failures,
        )


def _duration(key: str, value: object) -> float:
    return parse_duration(key, value)


def _positive_duration(key: str, value: object) -> float:
    return parse_duration(key, value, positive=True)


def _count(key: str, value: object, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"configuration: {key} must be a number from {least}, not {value!r}")
    return value


def _at_least_one(key: str, value: object) -> int:
    return _count(key, value, least=1)


def _one(key: str, value: object) -> int:
    if value != 1:
        raise ConfigError(f"configuration: {key} must be 1: checkpoints are taken one at a time")
    return 1


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"configuration: {key} must be true or false, not {value!r}")
    return value


def _path(key: str, value: object) -> str:
    text = str(value).removeprefix("file://")
    if not text or "://" in text:
        raise ConfigError(f"configuration: {key} must be a directory, not {value!r}")
    return text


_ON_CANCEL: Final[dict[str, OnCancel]] = {
    "retain": "retain",
    "delete": "delete",
    "retain_on_cancellation": "retain",
    "delete_on_cancellation": "delete",
}


def _on_cancel(key: str, value: object) -> OnCancel:
    choice = _ON_CANCEL.get(str(value).lower())
    if choice is None:
        near = did_you_mean(str(value), _ON_CANCEL)
        raise ConfigError(
            f"configuration: {key} must be 'retain' or 'delete', not {value!r}.{near}"
        )
    return choice


_Read = Callable[[str, object], Any]

_SETTINGS: Final[tuple[tuple[str, _Read, str, str], ...]] = (
    ("interval", _positive_duration, "checkpoint_interval", "interval"),
    ("path", _path, "checkpoint_path", "dir"),
    ("min_pause", _duration, "checkpoint_min_pause", "min-pause"),
    ("timeout", _positive_duration, "checkpoint_timeout", "timeout"),
    ("tolerated_failures", _count, "checkpoint_tolerated_failures", "tolerable-failed-checkpoints"),
    ("retained", _at_least_one, "checkpoint_retained", "num-retained"),
    ("on_cancel", _on_cancel, "checkpoint_on_cancel", "externalized-checkpoint-retention"),
    ("incremental", _flag, "checkpoint_incremental", "incremental"),
    ("max_concurrent", _one, "checkpoint_max_concurrent", "max-concurrent-checkpoints"),
)
_READERS: Final[dict[str, tuple[str, _Read]]] = {
    key: (name, read)
    for name, read, short, flink in _SETTINGS
    for key in (short, f"execution.checkpointing.{flink}")
}

CHECKPOINT_KEYS: Final = frozenset(_READERS)
"""Every key that `CheckpointConfig.parse` understands."""


def _reader(key: str) -> tuple[str, _Read]:
    found = _READERS.get(key)
    if found is None:
        near = did_you_mean(str(key), CHECKPOINT_KEYS)
        raise ConfigError(f"configuration: unknown checkpoint key {key!r}.{near}")
    return found
