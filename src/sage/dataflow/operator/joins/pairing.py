"""How two records become one, and which records go out without a partner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

How = Literal["inner", "left", "right", "outer"]
"""Whose records go out without a partner too: nobody's, those of one side, or of both."""

Pair: TypeAlias = Callable[[Any, Any], Any]
"""Makes a result of a left and a right record, `None` for the side that is missing."""


def keeps_left(how: How) -> bool:
    """Say whether left records without a partner go out."""
    return how in ("left", "outer")


def keeps_right(how: How) -> bool:
    """Say whether right records without a partner go out."""
    return how in ("right", "outer")


def pair_of(entries: list[Callable[..., Any]]) -> Pair:
    """Return the user's function; without one, results are tuples."""
    return entries[0] if entries else as_tuple


def as_tuple(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both records."""
    return (left, right)
