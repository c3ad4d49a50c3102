"""The live objects behind declared state: what `self.seen` is while a function runs.

Each reads the store's `current_key` at every access. A value that is changed in place, such as a
list in a `ValueState`, must be assigned again: otherwise a checkpoint may miss the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, NoReturn, Protocol, TypeVar

from sage.common.errors import StateError
from sage.dataflow.function.keyed import AggregateFunction
from sage.dataflow.state.key_table import MISSING, StateTable

T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R")

NO_KEY: Final[Any] = object()
"""The `current_key` of a store while no record or timer of a key is at hand."""

_SWEEP: Final = 2
"""How many other entries each access looks at: more than one, so that sweeping catches up."""


class KeyedStore(Protocol):
    """Where the state of one operator of one subtask is kept.

    Attributes:
        current_key: The key of the record or timer at hand, or `NO_KEY`.
    """

    current_key: Any

    def table(self, name: str) -> StateTable:
        """Return the table of a state, always the same one."""
        ...

    def broadcast(self, name: str) -> dict[Any, Any]:
        """Return the entries of a broadcast state, always the same dict."""
        ...

    def operator_list(self, name: str) -> list[Any]:
        """Return the elements of an operator list state, always the same list."""
        ...

    def now_ms(self) -> int:
        """The processing time in ms, by which entries expire."""
        ...


class Expiring(NamedTuple):
    """A stored value with the time from which on it is not seen any more."""

    value: Any
    expires_ms: int


@dataclass(frozen=True)
class Lifetime:
    """How long entries live, in ms; `on_read` says whether reading counts like writing."""

    after_ms: int
    on_read: bool


class Entries:
    """The entries of one state, of which only the present key's is seen, and only while it lives.

    Args:
        store: Whose `current_key` counts.
        name: The name of the state.
        lifetime: How long entries live; `None` for ever.
    """

    def __init__(self, store: KeyedStore, name: str, lifetime: Lifetime | None) -> None:
        self.store = store
        self.name = name
        self.table = store.table(name)
        self.lifetime = lifetime
        self._scan: Iterator[Any] = iter(())

    def get(self) -> Any:
        """Return the value of the present key, or `MISSING`."""
        key = self.store.current_key
        if key is NO_KEY:
            self._refuse()
        entry = self.table.get(key, MISSING)
        return entry if self.lifetime is None else self._living(key, entry, self.lifetime)

    def put(self, value: Any) -> None:
        """Store the value of the present key; its life begins anew."""
        key = self.store.current_key
        if key is NO_KEY:
            self._refuse()
        if self.lifetime is not None:
            self.sweep(_SWEEP)
            value = Expiring(value, self.store.now_ms() + self.lifetime.after_ms)
        self.table[key] = value

    def clear(self) -> None:
        """Forget the value of the present key."""
        if self.store.current_key is NO_KEY:
            self._refuse()
        self.table.pop(self.store.current_key, None)

    def sweep(self, limit: int) -> int:
        """Look at up to `limit` entries and remove the expired; return how many those were."""
        if self.lifetime is None:
            return 0
        now_ms, removed = self.store.now_ms(), 0
        for _ in range(limit):
            key = next(self._scan, MISSING)
            if key is MISSING:
                self._scan = self.table.scan()
                break
            removed += self._remove_expired(key, now_ms)
        return removed

    def _remove_expired(self, key: Any, now_ms: int) -> bool:
        entry = self.table.get(key, MISSING)
        if entry is MISSING or entry.expires_ms > now_ms:
            return False
        self.table.pop(key, None)
        return True

    def _living(self, key: Any, entry: Any, lifetime: Lifetime) -> Any:
        self.sweep(_SWEEP)
        if entry is MISSING:
            return MISSING
        now_ms = self.store.now_ms()
        if entry.expires_ms <= now_ms:
            self.table.pop(key, None)
            return MISSING
        if lifetime.on_read:
            self.table[key] = Expiring(entry.value, now_ms + lifetime.after_ms)
        return entry.value

    def _refuse(self) -> NoReturn:
        raise StateError(
            f"state {self.name!r} belongs to keys, and there is no key here: use it in the methods "
            "that are called with records or timers, after key_by(...); not in open() or close()"
        )


class LiveValue(Generic[T]):
    """One value per key."""

    def __init__(self, entries: Entries, default: Callable[[], T]) -> None:
        self.entries = entries
        self._default = default

    @property
    def value(self) -> T:
        """The value of the present key, or the default."""
        found = self.entries.get()
        return self._default() if found is MISSING else found

    @value.setter
    def value(self, value: T) -> None:
        self.entries.put(value)

    def clear(self) -> None:
        """Forget the value of the present key."""
        self.entries.clear()


class LiveList(Generic[T]):
    """One list per key. Its life, if limited, is that of the list as a whole."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def append(self, item: T) -> None:
        """Add one item at the end."""
        self.extend((item,))

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        found = self.entries.get()
        items_now: list[T] = [] if found is MISSING else found
        items_now.extend(items)
        if items_now:
            self.entries.put(items_now)

    def replace(self, items: Iterable[T]) -> None:
        """Have these items and no others."""
        new = list(items)
        if new:
            self.entries.put(new)
        else:
            self.entries.clear()

    def clear(self) -> None:
        """Forget the list of the present key."""
        self.entries.clear()

    def _items(self) -> list[T]:
        found = self.entries.get()
        return [] if found is MISSING else found

    def __iter__(self) -> Iterator[T]:
        return iter(self._items())

    def __len__(self) -> int:
        return len(self._items())

    def __getitem__(self, index: int) -> T:
        return self._items()[index]


class LiveMap(MutableMapping[K, T]):
    """One map per key. If life is limited, each entry of a map has its own."""

    def __init__(self, entries: Entries, lifetime: Lifetime | None) -> None:
        self.entries = entries
        self._lifetime = lifetime

    def _map(self) -> dict[K, Any]:
        found = self.entries.get()
        if found is MISSING:
            return {}
        return self._drop_expired(found) if self._lifetime else found

    def _drop_expired(self, found: dict[K, Any]) -> dict[K, Any]:
        now_ms = self.entries.store.now_ms()
        gone = [key for key, entry in found.items() if entry.expires_ms <= now_ms]
        for key in gone:
            del found[key]
        if gone:
            self._keep(found)
        return found

    def _keep(self, found: dict[K, Any]) -> None:
        if found:
            self.entries.put(found)
        else:
            self.entries.clear()

    def __getitem__(self, key: K) -> T:
        found = self._map()
        if self._lifetime is None:
            return found[key]  # type: ignore[no-any-return]
        value: T = found[key].value
        if self._lifetime.on_read:
            self[key] = value
        return value

    def __setitem__(self, key: K, value: T) -> None:
        found = self._map()
        if self._lifetime is None:
            found[key] = value
        else:
            found[key] = Expiring(value, self.entries.store.now_ms() + self._lifetime.after_ms)
        self._keep(found)

    def __delitem__(self, key: K) -> None:
        found = self._map()
        del found[key]
        self._keep(found)

    def __contains__(self, key: object) -> bool:
        return key in self._map()

    def __iter__(self) -> Iterator[K]:
        return iter(self._map())

    def __len__(self) -> int:
        return len(self._map())

    def clear(self) -> None:
        """Forget the map of the present key."""
        self.entries.clear()


class LiveReducing(Generic[T]):
    """One value per key, into which each addition is folded."""

    def __init__(self, entries: Entries, reduce: Callable[[T, T], T]) -> None:
        self.entries = entries
        self._reduce = reduce

    def add(self, item: T) -> None:
        """Fold one more item in."""
        found = self.entries.get()
        self.entries.put(item if found is MISSING else self._reduce(found, item))

    @property
    def value(self) -> T | None:
        """What the items of the present key came to; `None` without any."""
        found = self.entries.get()
        return None if found is MISSING else found

    def clear(self) -> None:
        """Forget the items of the present key."""
        self.entries.clear()


class LiveAggregating(Generic[T, R]):
    """One accumulator per key."""

    def __init__(self, entries: Entries, aggregate: AggregateFunction[T, Any, R]) -> None:
        self.entries = entries
        self._aggregate = aggregate

    def add(self, item: T) -> None:
        """Fold one more item in."""
        found = self.entries.get()
        before = self._aggregate.create_accumulator() if found is MISSING else found
        self.entries.put(self._aggregate.add(before, item))

    @property
    def value(self) -> R:
        """The result for the present key, also for one that has seen nothing."""
        found = self.entries.get()
        seen = self._aggregate.create_accumulator() if found is MISSING else found
        return self._aggregate.get_result(seen)

    def clear(self) -> None:
        """Forget the items of the present key."""
        self.entries.clear()


UpdateOn = Literal["write", "read_and_write"]
