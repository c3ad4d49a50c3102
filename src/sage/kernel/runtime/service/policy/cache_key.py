"""`cache_key`: which calls are the same, so that one may have the result of the other.

Two calls are the same only if their method could not tell them apart. `==` is not enough: `1`, `True`
and `1.0` are equal, `0.0` and `-0.0` too, and so are two moments given in different time zones. A
hash is not enough either: an object that hashes by identity may have changed in between. So the key
is made from exact types that are known to be immutable, and any other argument makes the call one
that is not cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

CacheKey: TypeAlias = tuple[Any, ...]
"""The method's name, then type and content of each argument, after its name if it is given by name."""

_PLAIN: Final = frozenset({str, int, bytes, bool, type(None)})
"""Types whose equal values of the same type cannot be told apart."""


def cache_key(
    method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> CacheKey | None:
    """Return the key of a call, or None if its arguments cannot make one.

    Strings, bytes, whole and other numbers, `None`, enumeration members, `Decimal`, `UUID`, dates
    and times can be keys, and tuples and frozen sets of these. Keyword arguments in another order
    make another key, because a method that takes `**kwargs` sees their order.

    Args:
        method: The name of the method.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Examples:
        >>> cache_key("get", (1,)) == cache_key("get", (True,))
        False
        >>> cache_key("get", ([1],)) is None
        True
    """
    parts: list[Any] = [method]
    for value in args:
        kind = type(value)
        content = value if kind in _PLAIN else _content(value)
        if content is _NOT_A_KEY:
            return None
        parts += (kind, content)
    return _with_words(parts, kwargs) if kwargs else tuple(parts)


def _with_words(parts: list[Any], kwargs: Mapping[str, Any]) -> CacheKey | None:
    # A name stands where a positional argument has its type: the two cannot be mistaken.
    for name, value in kwargs.items():
        content = _content(value)
        if content is _NOT_A_KEY:
            return None
        parts += (name, type(value), content)
    return tuple(parts)


_NOT_A_KEY: Final = object()


def _content(value: Any) -> Any:
    """Return what tells `value` from others of its exact type, or `_NOT_A_KEY`."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Enum):
        return id(value)  # members live as long as their class, and the class is part of the key
    content = _CONTENTS.get(kind)
    return _NOT_A_KEY if content is None else content(value)


def _many(values: tuple[Any, ...] | frozenset[Any]) -> Any:
    contents = [(type(value), _content(value)) for value in values]
    if any(content is _NOT_A_KEY for _, content in contents):
        return _NOT_A_KEY
    return tuple(contents) if isinstance(values, tuple) else frozenset(contents)


def _zoned(value: datetime | time) -> Any:
    # The `repr` of a moment tells its zone only if the zone's own `repr` does. That of a foreign
    # class may hold its address, which another zone can have later.
    zone = value.tzinfo
    named = type(zone) is ZoneInfo and zone.key is not None
    known = zone is None or named or type(zone) is timezone
    return repr(value) if known else _NOT_A_KEY


_CONTENTS: Final[dict[type, Callable[[Any], Any]]] = {
    # `repr` tells -0.0 from 0.0, and 1.0 from 1.00 in decimals, which `==` does not. It also makes a
    # NaN equal to a NaN, for which the same answer is due.
    float: repr,
    complex: repr,
    Decimal: repr,
    UUID: repr,
    date: repr,
    timedelta: repr,
    datetime: _zoned,
    time: _zoned,
    tuple: _many,
    frozenset: _many,
}
