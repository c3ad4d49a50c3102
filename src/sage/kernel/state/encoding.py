"""The bytes that stand for keys and values on the disk.

Keys that are equal have the same bytes, as a dict would have it: `1`, `1.0`, `True` and
`Decimal(1)` are one key. Pickle does not give that (nor the same bytes for the same tuple twice),
so keys have an encoding of their own. Values are pickled, but for small and frequent types.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from struct import Struct
from typing import Any, Final
from uuid import UUID

from sage.dataflow.state.live import Expiring
from sage.kernel.state.errors import StateKeyError

_LENGTH: Final = 4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

PICKLED: Final = 0x80
"""The first byte of every pickle of protocol 2 and later: other values begin with another one."""

_EXPIRING: Final = ord("x")
_EXPIRY: Final = Struct("<Bq")

_INT, _STR, _BYTES = b"i", b"s", b"b"


def encode_key(key: Any) -> bytes:
    """Give the bytes of a key: the same for equal keys, different for others.

    All NaN are one key. Which of several equal keys is seen when a table is iterated is not said.

    Args:
        key: A str, number, bytes, `None`, date or time, UUID, Enum, a frozen dataclass with the
            comparison that `dataclass` wrote, or a tuple or frozenset of these.

    Raises:
        StateKeyError: it is of another type.

    Examples:
        >>> encode_key(1) == encode_key(1.0) == encode_key(True) != encode_key("1")
        True
    """
    kind = type(key)
    if kind is str:
        return b"s" + key.encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]
    if kind is int:
        return b"i%d" % key if -_PLAIN < key < _PLAIN else b"I" + _big(key)
    return _encode_other(key)


_PLAIN: Final = 10**18
"""From here on the digits of an int are not written in decimal, which takes quadratic time."""


def _big(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


def decode_key(data: bytes) -> Any:
    """Give the str, int, bytes or `None` that `encode_key` has encoded."""
    kind, rest = data[:1], data[1:]
    if kind == _STR:
        return rest.decode("utf-8", "surrogatepass")
    if kind == _INT:
        return int(rest)
    if kind == b"I":
        return int.from_bytes(rest, "little", signed=True)
    return rest if kind == _BYTES else None


def is_told_by_bytes(key: Any) -> bool:
    """Tell whether `decode_key` gives back this very key; others are kept beside their value."""
    return type(key) in _SELF_EVIDENT


_SELF_EVIDENT: Final = frozenset({str, int, bytes, type(None)})


def _join(kind: bytes, parts: Iterable[bytes]) -> bytes:
    return kind + b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)


def _number(key: Any) -> bytes:
    if key != key:  # noqa: PLR0124 - the one test for NaN that all kinds of numbers pass
        return b"fnan"
    if isinstance(key, complex):
        return (
            _number(key.real) if not key.imag else _join(b"c", map(_number, (key.real, key.imag)))
        )
    if math.isinf(key):
        return b"finf" if key > 0 else b"f-inf"
    exact = Fraction(key)
    if exact.denominator == 1:
        return encode_key(exact.numerator)
    return _join(b"q", map(_big, (exact.numerator, exact.denominator)))


def _datetime(key: datetime) -> bytes:
    if key.utcoffset() is None:
        return b"dn" + key.replace(fold=0, tzinfo=None).isoformat().encode()
    return b"da%d" % ((key - _EPOCH) // _MICROSECOND)


def _time(key: time) -> bytes:
    offset = key.utcoffset()
    if offset is None:
        return b"hn" + key.replace(fold=0, tzinfo=None).isoformat().encode()
    since = timedelta(
        hours=key.hour, minutes=key.minute, seconds=key.second, microseconds=key.microsecond
    )
    return b"ha%d" % ((since - offset) // _MICROSECOND)


def _class(key: Any) -> bytes:
    return f"{type(key).__module__}:{type(key).__qualname__}".encode()


_ENCODERS: Final[tuple[tuple[Any, Callable[[Any], bytes]], ...]] = (
    (str, lambda key: encode_key(str.__str__(key))),
    (int, lambda key: encode_key(int(key))),
    ((float, Decimal, Fraction, complex), _number),
    (type(None), lambda _: b"n"),
    (bytes, lambda key: _BYTES + key),
    (tuple, lambda key: _join(b"t", map(encode_key, key))),
    (frozenset, lambda key: _join(b"z", sorted(map(encode_key, key)))),
    (Enum, lambda key: _join(b"e", (_class(key), key.name.encode()))),
    (datetime, _datetime),
    (date, lambda key: b"D" + key.isoformat().encode()),
    (time, _time),
    (timedelta, lambda key: b"T%d" % (key // _MICROSECOND)),
    (UUID, lambda key: b"u" + key.bytes),
)


def _encode_other(key: Any) -> bytes:
    for kind, encode in _ENCODERS:
        if isinstance(key, kind):
            return encode(key)
    if _is_frozen_record(key):
        fields = (getattr(key, field.name) for field in dataclasses.fields(key) if field.compare)
        return _join(b"r", (_class(key), *map(encode_key, fields)))
    raise StateKeyError(
        f"a {type(key).__qualname__} cannot be a key of state on the disk, since there is no telling"
        " which of them are equal: use a str, a number, a tuple of these, or a frozen dataclass"
    )


def _is_frozen_record(key: Any) -> bool:
    rules = getattr(type(key), "__dataclass_params__", None)
    return rules is not None and rules.frozen and rules.eq


def encode_value(value: Any) -> bytes:
    """Give the bytes of a value; a copy of it, in effect.

    Raises:
        pickle.PicklingError: it cannot be pickled (or what else its type raises then).

    Examples:
        >>> decode_value(encode_value([1, "two"]))
        [1, 'two']
    """
    kind = type(value)
    if kind is int and -_PLAIN < value < _PLAIN:
        return b"i%d" % value
    if kind is str:
        return b"s" + value.encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]
    if kind is Expiring:
        return _EXPIRY.pack(_EXPIRING, value.expires_ms) + encode_value(value.value)
    return pickle.dumps(value, 5)


def decode_value(data: bytes) -> Any:
    """Give the value back that `encode_value` has encoded."""
    kind = data[0]
    if kind == PICKLED:
        return pickle.loads(data)  # noqa: S301 - our own file, in a directory of our own
    if kind == _INT[0]:
        return int(data[1:])
    if kind == _EXPIRING:
        return Expiring(decode_value(data[_EXPIRY.size :]), _EXPIRY.unpack_from(data)[1])
    return data[1:].decode("utf-8", "surrogatepass")


def encode_entry(key: Any, value: Any) -> bytes:
    """Give the bytes of a value, with its key before it if the bytes of the key do not tell it."""
    data = encode_value(value)
    if is_told_by_bytes(key):
        return data
    told = pickle.dumps(key, 5)
    return b"k" + len(told).to_bytes(_LENGTH, "big") + told + data


def entry_key(name: bytes, data: bytes) -> Any:
    """Give the key of an entry, from the bytes of the key and those of the entry."""
    if data[0] != _KEYED:
        return decode_key(name)
    return pickle.loads(data[1 + _LENGTH : _value_at(data)])  # noqa: S301 - our own file


def entry_value(data: bytes) -> Any:
    """Give the value of an entry."""
    return decode_value(data if data[0] != _KEYED else data[_value_at(data) :])


_KEYED: Final = ord("k")


def _value_at(data: bytes) -> int:
    return 1 + _LENGTH + int.from_bytes(data[1 : 1 + _LENGTH], "big")
