"""`KeyTable`: key → value on the heap, in two layers, so that a checkpoint costs what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, Protocol

from sage.common.errors import StateError

MISSING: Final[Any] = object()


class TableChanges(NamedTuple):
    """What happened to a table since it was last asked.

    Attributes:
        changed: The keys that were written, with their values.
        deleted: The keys that are gone.
    """

    changed: dict[Any, Any]
    deleted: list[Any]


class StateTable(Protocol):
    """What state keeps its entries in: a mapping; keys are compared as in a dict."""

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of a key, or `default`."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None: ...

    def pop(self, key: Any, default: Any = ..., /) -> Any:
        """Remove a key and return its value, or `default`."""
        ...

    def __len__(self) -> int: ...

    def scan(self) -> Iterator[Any]:
        """Go through the keys; the table may be changed meanwhile.

        A key that is there from start to end is met once, others at most once.
        """
        ...


class KeyTable(MutableMapping[Any, Any]):
    """A dict in layers: `fresh` takes every write, `base` holds what the last checkpoint holds.

    A read looks into `fresh`, then into `base`. Both keep their identity for ever, so that a loop
    may bind them as locals, read them and write to `fresh` by itself; only deletions have to go
    through the table. A value that is changed in place must be assigned again to be noticed.

    Args:
        layered: Whether changes will be asked for. If not, `base` stays empty.

    Attributes:
        fresh: What was written since `take_changes`.
        base: What was there then, less what was deleted since.
        deleted: What was in `base` and was deleted since; a later write stands in `fresh` besides.

    Examples:
        >>> table = KeyTable()
        >>> table["a"] = 1; table["b"] = 2; table.take_changes()
        TableChanges(changed={'a': 1, 'b': 2}, deleted=[])
        >>> table["a"] = 5; del table["b"]; table.take_changes()
        TableChanges(changed={'a': 5}, deleted=['b'])
    """

    def __init__(self, *, layered: bool = True) -> None:
        self.layered = layered
        self.fresh: dict[Any, Any] = {}
        self.base: dict[Any, Any] = {}
        self.deleted: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        value = self.fresh.get(key, MISSING)
        return self.base[key] if value is MISSING else value

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        value = self.fresh.get(key, MISSING)
        return self.base.get(key, default) if value is MISSING else value

    def __contains__(self, key: object) -> bool:
        return key in self.fresh or key in self.base

    def __setitem__(self, key: Any, value: Any) -> None:
        self.fresh[key] = value

    def __delitem__(self, key: Any) -> None:
        if self.pop(key, MISSING) is MISSING:
            raise KeyError(key)

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove a key and return its value; `default` if there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        new = self.fresh.pop(key, MISSING)
        old = self.base.pop(key, MISSING)
        if old is not MISSING:
            self.deleted.add(key)
        found = old if new is MISSING else new
        if found is not MISSING:
            return found
        if default is MISSING:
            raise KeyError(key)
        return default

    def __iter__(self) -> Iterator[Any]:
        yield from self.base
        for key in self.fresh:
            if key not in self.base:
                yield key

    def __len__(self) -> int:
        base, fresh = self.base, self.fresh
        small, large = (fresh, base) if len(fresh) < len(base) else (base, fresh)
        return len(base) + len(fresh) - sum(key in large for key in small)

    def clear(self) -> None:
        """Delete everything."""
        self.deleted.update(self.base)
        self.base.clear()
        self.fresh.clear()

    def scan(self) -> Iterator[Any]:
        """Go through the keys as they are now; the table may be changed meanwhile."""
        return iter(list(self))

    def take_changes(self) -> TableChanges:
        """Return what changed since the last call or `load`; the cost follows what changed.

        The values are the live ones: pickle them before the table is used again.

        Raises:
            StateError: the table is not layered.
        """
        if not self.layered:
            raise StateError(
                "this table does not keep track of its changes: make it with layered=True, or take "
                "full()"
            )
        changes = TableChanges(dict(self.fresh), [k for k in self.deleted if k not in self.fresh])
        # Into `base` first: a reader in another thread looks into `fresh` before it.
        self.base.update(self.fresh)
        self.fresh.clear()
        self.deleted.clear()
        return changes

    def full(self) -> dict[Any, Any]:
        """Return all entries in a new dict. The values are the live ones: pickle them at once."""
        return {**self.base, **self.fresh}

    def load(self, full: Mapping[Any, Any]) -> None:
        """Replace everything by what `full` gave; nothing counts as changed then."""
        self.fresh.clear()
        self.base.clear()
        self.deleted.clear()
        (self.base if self.layered else self.fresh).update(full)

    def apply(self, changes: TableChanges) -> None:
        """Do what `take_changes` told, after `load` and in the order of the calls."""
        settled = self.base if self.layered else self.fresh
        for key in changes.deleted:
            settled.pop(key, None)
        settled.update(changes.changed)
