"""How an accumulator is copied before `merge` may change it in place.

Values that cannot change are shared: numbers, text, bytes, `None`, dates, and tuples and frozen sets
of such. A list, dict or set of such is copied flat. Everything else goes through `copy.deepcopy`.
"""

from __future__ import annotations

import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

A = TypeVar("A")

_ATOMS = frozenset(
    (
        *(int, float, complex, bool, Decimal, Fraction, str, bytes, type(None)),
        *(date, datetime, time, timedelta),
    )
)


def independent_copy(value: A) -> A:
    """Return a value that can be changed without changing `value`.

    Examples:
        >>> before = [1, 2]
        >>> after = independent_copy(before); after.append(3); before
        [1, 2]
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if (kind is tuple or kind is frozenset) and _ATOMS.issuperset(map(type, value)):  # type: ignore[call-overload]
        return value
    if (kind is list or kind is set) and _ATOMS.issuperset(map(type, value)):  # type: ignore[call-overload]
        return value.copy()  # type: ignore[attr-defined, no-any-return]
    # The keys of a dict are hashable and so, by the rules of dicts, do not change.
    if kind is dict and _ATOMS.issuperset(map(type, value.values())):  # type: ignore[attr-defined]
        return value.copy()  # type: ignore[attr-defined, no-any-return]
    return copy.deepcopy(value)
