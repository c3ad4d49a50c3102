"""Which subtask a key belongs to: stable hashes, key groups and their ranges.

`hash()` of a text differs from process to process, so nothing here depends on it. Keys that are
equal as keys of a dict have equal hashes: `1 == 1.0 == True`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from numbers import Number
from typing import Any, Final
from uuid import UUID
from zlib import crc32

MIN_MAX_PARALLELISM: Final = 128
MAX_MAX_PARALLELISM: Final = 32_768

_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15
_BEGINNING: Final = datetime(1, 1, 1)


def stable_hash(key: Any) -> int:
    """Return 32 bits that depend on nothing but the key, in every process and on every machine.

    Args:
        key: Text, bytes, a number, `None`, a date, `datetime` or `timedelta`, a `UUID`, a member of
            an `Enum`, or a tuple, frozenset or frozen dataclass of such.

    Returns:
        A number from 0 to 2**32 - 1; keys that are equal have the same one.

    Raises:
        TypeError: it is of another type, or not a number (NaN is not equal to itself).

    Examples:
        >>> stable_hash("user-7") == stable_hash("user-7"), stable_hash(1) == stable_hash(1.0)
        (True, True)
    """
    kind = type(key)
    if kind is str:
        try:
            code = crc32(key.encode())
        except UnicodeEncodeError:
            code = _text(key)
    elif kind is int:
        code = hash(key)
    else:
        code = (_BY_TYPE.get(kind) or _way_for(key))(key)
    # The low bits alone choose the group, so all bits must have a say in them.
    return (code * _GOLDEN & _WORD) >> 32


def key_group(key: Any, max_parallelism: int) -> int:
    """Return the group of a key, from 0 to `max_parallelism` - 1.

    Raises:
        TypeError: the key has no stable hash, see `stable_hash`.

    Examples:
        >>> key_group(1, 128) == key_group(True, 128)
        True
    """
    return stable_hash(key) % max_parallelism


def subtask_of(group: int, max_parallelism: int, parallelism: int) -> int:
    """Return the index of the subtask that owns a group.

    Examples:
        >>> subtask_of(64, 128, 2)
        1
    """
    return group * parallelism // max_parallelism


def group_range(subtask: int, max_parallelism: int, parallelism: int) -> range:
    """Return the groups that a subtask owns.

    Raises:
        ValueError: there is no such subtask, or there are more subtasks than groups.

    Examples:
        >>> group_range(0, 128, 3), group_range(2, 128, 3)
        (range(0, 43), range(86, 128))
    """
    if not 0 < parallelism <= max_parallelism:
        raise ValueError(f"parallelism must be from 1 to {max_parallelism}, not {parallelism}")
    if not 0 <= subtask < parallelism:
        raise ValueError(f"there is no subtask {subtask} at parallelism {parallelism}")
    first = -(-subtask * max_parallelism // parallelism)
    last = ((subtask + 1) * max_parallelism - 1) // parallelism
    return range(first, last + 1)


def default_max_parallelism(parallelism: int) -> int:
    """Return how many groups there are when nobody says: room to grow, within 128 and 32768.

    Examples:
        >>> default_max_parallelism(4), default_max_parallelism(100), default_max_parallelism(90_000)
        (128, 256, 32768)
    """
    wanted = -(-3 * parallelism // 2)
    power = 1 << max(0, wanted - 1).bit_length()
    return min(max(power, MIN_MAX_PARALLELISM), MAX_MAX_PARALLELISM)


@dataclass(frozen=True)
class Share:
    """What one subtask takes over of a state that several had before.

    Attributes:
        subtask: Which one it is.
        parallelism: How many share the state.
        max_parallelism: How many key groups there are.
        keyed: Whether the records of the operator have keys, by which they are dealt out.

    Examples:
        >>> shares = [Share(subtask, 2, 128) for subtask in range(2)]
        >>> [share.owns("user-7") for share in shares], [share.takes(5) for share in shares]
        ([True, False], [False, True])
    """

    subtask: int = 0
    parallelism: int = 1
    max_parallelism: int = MIN_MAX_PARALLELISM
    keyed: bool = False

    def owns(self, key: Any) -> bool:
        """Say whether the state of a key belongs here.

        Raises:
            TypeError: the key has no stable hash, see `stable_hash`.
        """
        if self.parallelism == 1:
            return True
        group = key_group(key, self.max_parallelism)
        return subtask_of(group, self.max_parallelism, self.parallelism) == self.subtask

    def takes(self, place: int) -> bool:
        """Say whether the `place`-th of things without keys belongs here; they are dealt in turn."""
        return place % self.parallelism == self.subtask


WHOLE: Final = Share()
"""Everything."""


def _text(key: str) -> int:
    return crc32(str.encode(key, "utf-8", "surrogatepass"))


def _number(key: Any) -> int:
    if key != key:  # noqa: PLR0124 - this is what makes it not a number
        raise TypeError(
            "NaN cannot be a key: it is not equal to itself; use None or a text instead"
        )
    # The hash of a number is laid down by the language so that equal numbers of all types agree;
    # it is not salted.
    return hash(key)


def _tuple(key: tuple[Any, ...]) -> int:
    code = len(key) + 1
    for item in key:
        code = (code * 1_000_003 ^ stable_hash(item)) & _WORD
    return code


def _frozenset(key: frozenset[Any]) -> int:
    return sum(stable_hash((item,)) for item in key) + 7


def _datetime(key: datetime) -> int:
    first = key.replace(fold=0)  # as `datetime.__hash__` does: `fold` has no part in equality
    since = first.replace(tzinfo=None) - _BEGINNING
    offset = first.utcoffset()
    return _timedelta(since if offset is None else since - offset)


def _timedelta(key: timedelta) -> int:
    return _tuple((key.days, key.seconds, key.microseconds))


def _member(key: Enum) -> int:
    return _tuple((type(key).__qualname__, key.name))


def _dataclass(key: Any) -> int:
    values = [getattr(key, field.name) for field in fields(key) if field.compare]
    return _tuple((type(key).__qualname__, *values))


_Way = Callable[[Any], int]

_BY_TYPE: Final[dict[type, _Way]] = {
    bytes: crc32,
    float: _number,
    bool: hash,
    complex: _number,
    tuple: _tuple,
    frozenset: _frozenset,
    type(None): lambda _: 0x5A6E,
    datetime: _datetime,
    timedelta: _timedelta,
    UUID: lambda key: hash(key.int),
    date: lambda key: key.toordinal() + 0x0DA7E,
}

_BY_BASE: Final[tuple[tuple[type, _Way], ...]] = (
    *((str, _text), (bytes, crc32), (Number, _number)),
    *((Enum, _member), (tuple, _tuple), (frozenset, _frozenset), (UUID, _BY_TYPE[UUID])),
    *((datetime, _datetime), (date, _BY_TYPE[date]), (timedelta, _timedelta)),
)
"""An enum of ints or texts comes before `Enum`: its members are equal to their values."""


def _way_for(key: Any) -> _Way:
    kind = type(key)
    if is_dataclass(key) and key.__dataclass_params__.frozen:  # type: ignore[union-attr]
        return _dataclass
    for base, way in _BY_BASE:
        if isinstance(key, base):
            return way
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be a key: its hash may differ from process "
        "to process. Use a text, bytes, a number, None, a date, a UUID, an Enum, or a tuple, "
        "frozenset or frozen dataclass of such; key_by can return, say, an id of the object"
    )
