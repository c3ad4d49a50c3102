"""Checks that the frozen settings share, for those made in a program as for those read from a file."""

from __future__ import annotations

from sage.common.errors import ConfigError
from sage.common.suggest import shorten

DAY = 86_400.0
"""No delay or window of a policy is longer, in seconds: a larger number is milliseconds by mistake."""


def check_number(key: str, value: object, low: float, high: float) -> None:
    """Check a setting that is a number.

    Raises:
        ConfigError: the value is not a number or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{key} must be from {low:g} to {high:g}, not {shorten(value, 60)}")


def check_count(key: str, value: object, low: int = 1) -> None:
    """Check a setting that is a whole number of at least `low`.

    Raises:
        ConfigError: the value is not a whole number or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(
            f"{key} must be a whole number of at least {low}, not {shorten(value, 60)}"
        )
