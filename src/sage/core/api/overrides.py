"""Settings from outside of a program, which its environments take on top of their own.

`sage run app.py --set key=value` gives them before the program begins. They hold for the whole process,
whichever thread makes an environment, so this is one of the few places with state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sage.common.config import EnvironmentConfig
from sage.core.api.recovery_settings import RECOVERY_KEYS
from sage.kernel.checkpoint.checkpoint_config import CHECKPOINT_KEYS, CheckpointConfig
from sage.kernel.checkpoint.restart_strategy import RESTART_KEYS, parse_restart_strategy


@dataclass
class Overrides:
    """Settings from outside.

    Attributes:
        values: The settings, by the keys of an environment's configuration.
        were_taken: Whether an environment has been made with them.
    """

    values: Mapping[str, Any]
    were_taken: bool = False


_current: list[Overrides] = []


@contextmanager
def overriding(values: Mapping[str, Any]) -> Iterator[Overrides]:
    """Let all environments that are made in the block take `values` on top of their own settings.

    What the program sets later, by `env.set_parallelism(…)` and the like, does not change them. An
    operator with a `parallelism=` of its own keeps it.

    Args:
        values: The settings, by the keys of an environment's configuration.

    Raises:
        ConfigError: a key is unknown, or a value is not usable.

    Examples:
        >>> from sage import LocalEnvironment
        >>> with overriding({"batch_size": 10}):
        ...     env = LocalEnvironment("app", {"batch_size": 500, "on_error": "skip"})
        >>> env.config
        {'batch_size': 10, 'on_error': 'skip'}
    """
    _check(values)
    outer = _current[-1].values if _current else {}
    _current.append(Overrides({**outer, **values}))
    try:
        yield _current[-1]
    finally:
        _current.pop()


def take_overrides() -> Mapping[str, Any]:
    """Return the settings that an environment made now takes on top of its own."""
    if not _current:
        return {}
    _current[-1].were_taken = True
    return _current[-1].values


def _check(values: Mapping[str, Any]) -> None:
    EnvironmentConfig.parse(values, RECOVERY_KEYS)
    CheckpointConfig.parse({key: values[key] for key in values if key in CHECKPOINT_KEYS})
    parse_restart_strategy({key: values[key] for key in values if key in RESTART_KEYS})
