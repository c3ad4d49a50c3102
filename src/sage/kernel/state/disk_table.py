"""`DiskTable`: a mapping on the disk, behind a cache of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from sage.kernel.state.encoding import encode_entry, encode_key, entry_key, entry_value
from sage.kernel.state.rocks_engine import RocksEngine

PREFIX_LENGTH: Final = 4
_ENTRY_COST: Final = 200
"""Bytes that an entry of a cache takes beside its data: two objects and a slot of a dict."""

_NONE: Final[Any] = object()

_AT_ONCE: Final = 256
"""How many entries `scan` reads from the database at once."""


@dataclass(frozen=True)
class CacheLimits:
    """How much of a table is kept in memory.

    Attributes:
        entries: At most so many entries.
        size: At most so many bytes, roughly.
    """

    entries: int = 100_000
    size: int = 64 << 20


TableDelta: TypeAlias = tuple[dict[bytes, bytes], list[bytes]]
"""What changed in a table: entries that were written, and keys that are gone, as bytes."""


class DiskTable(MutableMapping[Any, Any]):
    """Key to value, as a dict, of any size. Made by `DiskKeyedStore.table`.

    What is read is a copy: changing a value in place changes nothing, assign it. A value that
    cannot be pickled is refused when it is assigned. Iteration sees the table as it was when it
    began, in no particular order. For one thread at a time.

    Args:
        engine: The database.
        number: What tells this table from others in the database; from 1.
        limits: The size of the cache.
    """

    def __init__(self, engine: RocksEngine, number: int, limits: CacheLimits) -> None:
        self._limits = limits
        self._touched: dict[bytes, None] | None = None  # what is kept track of, if anything
        self._most_touched = 0
        self.attach(engine, number)

    def attach(self, engine: RocksEngine, number: int) -> None:
        """Stand for a table of another database; what was in the cache is forgotten."""
        self._engine = engine
        self._prefix = number.to_bytes(PREFIX_LENGTH, "big")
        self._count_name = bytes(PREFIX_LENGTH) + b"c" + self._prefix
        self._count = int.from_bytes(engine.get(self._count_name) or b"", "little")
        self._forget()

    def _forget(self) -> None:
        self._changed: dict[bytes, bytes | None] = {}  # None: deleted
        self._absent: set[bytes] = set()  # of the changed: those known not to be on the disk
        # Two generations stand for an order of use: a hit in the old one moves to the young one,
        # and when that is full, it becomes the old one.
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._changed_size = self._young_size = 0

    def _find(self, name: bytes) -> bytes | None:
        if name in self._changed:
            return self._changed[name]
        data = self._young.get(name)
        if data is not None:
            return data
        if name in self._absent:
            return None
        data = self._old.pop(name, None) or self._engine.get(self._prefix + name)
        if data is None:
            self._remember_absent(name)
        else:
            self._remember(name, data)
        return data

    def _remember(self, name: bytes, data: bytes) -> None:
        self._young[name] = data
        self._young_size += len(name) + len(data) + _ENTRY_COST
        if self._is_full(len(self._young), self._young_size):
            self._old, self._young, self._young_size = self._young, {}, 0

    def _remember_absent(self, name: bytes) -> None:
        if self._is_full(len(self._absent), len(self._absent) * _ENTRY_COST):
            self._absent.clear()
        self._absent.add(name)

    def _is_full(self, entries: int, size: int) -> bool:
        # There are three such parts: changed, young and old.
        return entries * 3 >= self._limits.entries or size * 3 >= self._limits.size

    def _change(self, name: bytes, data: bytes | None) -> None:
        if self._touched is not None:
            self._touched[name] = None
            if len(self._touched) > self._most_touched:
                self._touched = None
        before = self._changed.get(name)
        self._changed[name] = data
        self._changed_size += len(data or b"") - len(before or b"")
        size = self._changed_size + len(self._changed) * (_ENTRY_COST + len(name))
        if self._is_full(len(self._changed), size):
            self.flush()

    def flush(self) -> None:
        """Write what has changed to the database, in one batch.

        Raises:
            DiskStateError: it cannot be written; it is all still in the cache.
        """
        if not self._changed:
            return
        count = self._count + self._growth()
        batch = {self._prefix + name: data for name, data in self._changed.items()}
        batch[self._count_name] = count.to_bytes(8, "little")
        self._engine.write(batch)
        self._count = count
        self._settle()

    def _growth(self) -> int:
        known = self._young.keys() | self._old.keys()
        unknown = [n for n in self._changed if n not in known and n not in self._absent]
        found = self._engine.get_many([self._prefix + name for name in unknown])
        new = {name for name, data in zip(unknown, found, strict=True) if data is None}
        new.update(self._absent & self._changed.keys())
        added = sum(1 for name in new if self._changed[name] is not None)
        removed = sum(1 for name, data in self._changed.items() if data is None and name not in new)
        return added - removed

    def _settle(self) -> None:
        changed, self._changed, self._changed_size = self._changed, {}, 0
        self._absent.difference_update(changed)
        for name, data in changed.items():
            self._old.pop(name, None)
            before = self._young.pop(name, None)
            if before is not None:
                self._young_size -= len(name) + len(before) + _ENTRY_COST
            if data is not None:
                self._remember(name, data)

    def __getitem__(self, key: Any) -> Any:
        data = self._find(encode_key(key))
        if data is None:
            raise KeyError(key)
        return entry_value(data)

    def get(self, key: Any, default: Any = None) -> Any:
        """Give the value of a key, or the default."""
        data = self._find(encode_key(key))
        return default if data is None else entry_value(data)

    def __contains__(self, key: object) -> bool:
        return self._find(encode_key(key)) is not None

    def __setitem__(self, key: Any, value: Any) -> None:
        self._change(encode_key(key), encode_entry(key, value))

    def __delitem__(self, key: Any) -> None:
        self.pop(key)

    def pop(self, key: Any, default: Any = _NONE) -> Any:
        """Remove a key and give its value; the default if there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        name = encode_key(key)
        data = self._find(name)
        if data is not None:
            self._change(name, None)
            return entry_value(data)
        if default is _NONE:
            raise KeyError(key)
        return default

    def __len__(self) -> int:
        self.flush()
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for name, data in self._scan():
            yield entry_key(name, data)

    def entries(self) -> Iterator[tuple[Any, Any]]:
        """Give keys with their values, in one pass; `items()` looks up each value by its key."""
        for name, data in self._scan():
            yield entry_key(name, data), entry_value(data)

    def _scan(self) -> Iterator[tuple[bytes, bytes]]:
        self.flush()
        for name, data in self._engine.scan(self._prefix):
            yield name[PREFIX_LENGTH:], data

    def scan(self) -> Iterator[Any]:
        """Go through the keys; the table may be changed meanwhile, and nothing is held up by it.

        A key that is there from start to end is met once, others at most once.
        """
        cached = dict.fromkeys(self._changed)
        for name in cached:
            data = self._find(name)
            if data is not None:
                yield entry_key(name, data)
        after = b""
        while True:
            found = list(islice(self._engine.scan(self._prefix, after), _AT_ONCE))
            for whole, data in found:
                name = whole[PREFIX_LENGTH:]
                if name not in cached and self._changed.get(name, b"") is not None:
                    yield entry_key(name, data)
            if len(found) < _AT_ONCE:
                return
            after = found[-1][0][PREFIX_LENGTH:] + b"\0"

    def query(self, key: Any, default: Any = None) -> Any:
        """Give the value of a key, from any thread; not while the store is closed or restored."""
        name = encode_key(key)
        data = self._changed.get(name, b"")
        if data == b"":  # what has not changed may be stale in a cache, for this thread
            data = self._engine.get(self._prefix + name)
        return default if data is None else entry_value(data)

    def track(self, most: int) -> None:
        """Keep track of what is changed from now on, of up to `most` keys."""
        self._touched, self._most_touched = {}, most

    def changes(self) -> TableDelta | None:
        """Give what changed since `track`; `None` if that was too much, or everything was deleted."""
        if self._touched is None:
            return None
        found = {name: self._find(name) for name in self._touched}
        changed = {name: data for name, data in found.items() if data is not None}
        return changed, [name for name, data in found.items() if data is None]

    def apply(self, changed: Mapping[bytes, bytes], deleted: Iterable[bytes]) -> None:
        """Do what `changes` told."""
        for name in deleted:
            self._change(name, None)
        for name, data in changed.items():
            self._change(name, data)

    def clear(self) -> None:
        """Delete all entries, at a cost that does not depend on how many there are."""
        self._touched = None
        self._engine.delete_prefix(self._prefix, {self._count_name: bytes(8)})
        self._count = 0
        self._forget()
