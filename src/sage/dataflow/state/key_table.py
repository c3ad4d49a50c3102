"""`KeyTable`: key → value on the heap, in a dict that can be asked what has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, Protocol

from sage.common.errors import StateError
from sage.dataflow.state.change_sample import ChangeSample, entry_size

MISSING: Final[Any] = object()

_NOTING: Final = 60
"""As many bytes can be pickled in the time that it takes to note one key, about."""

_SMALL: Final = 1000
"""In tables of fewer keys than this, changes are noted anyway: it does not matter."""


class TableChanges(NamedTuple):
    """What happened to a table since it was last asked.

    Attributes:
        changed: The keys that were written, with their values.
        deleted: The keys that are gone.
        whole: Whether `changed` is all that there is: keys that are not in it are gone too.
    """

    changed: dict[Any, Any]
    deleted: list[Any]
    whole: bool = False


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
    """A dict that notes what is written and deleted, while that is little.

    Noting is a second write for each. When a large part of the keys changes from one checkpoint to
    the next, it costs more than it saves: nothing is noted then, and all is given, until a sample of
    the keys tells that little changes again. Nor is anything noted before changes are taken for the
    first time. A value that is changed in place must be assigned again to be noticed.

    Args:
        layered: Whether changes will be asked for.

    Examples:
        >>> table = KeyTable()
        >>> table["a"] = 1; table["b"] = 2; table.take_full()
        {'a': 1, 'b': 2}
        >>> table["a"] = 5; del table["b"]; table.take_changes()
        TableChanges(changed={'a': 5}, deleted=['b'], whole=False)
    """

    def __init__(self, *, layered: bool = True) -> None:
        self.layered = layered
        self._entries: dict[Any, Any] = {}
        self._changed: dict[Any, Any] | None = None  # since changes were taken; None: not noted
        self._deleted: set[Any] = set()
        self._size_before = 0  # when changes were taken
        self._sample: ChangeSample | None = None

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key]

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default`; callable from any thread."""
        return self._entries.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __setitem__(self, key: Any, value: Any) -> None:
        self._entries[key] = value
        changed = self._changed
        if changed is not None:
            changed[key] = value

    def __delitem__(self, key: Any) -> None:
        if self.pop(key, MISSING) is MISSING:
            raise KeyError(key)

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove a key and return its value; `default` if there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        found = self._entries.pop(key, MISSING)
        if found is not MISSING:
            if self._changed is not None:
                self._note_deletion(self._changed, key)
            return found
        if default is MISSING:
            raise KeyError(key)
        return default

    def _note_deletion(self, changed: dict[Any, Any], key: Any) -> None:
        changed.pop(key, None)
        self._deleted.add(key)
        # Most may have come and gone since changes were taken: there need not be an end to them.
        if len(self._deleted) > max(_SMALL, len(self._entries)):
            self._note_no_more()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Delete everything."""
        self._entries.clear()
        self._note_no_more()

    def scan(self) -> Iterator[Any]:
        """Go through the keys as they are now; the table may be changed meanwhile."""
        return iter(list(self._entries))

    def take_changes(self) -> TableChanges:
        """Return what changed since the last call or `load`; all, if it may be much or none is known.

        The values, and maybe the dict, are the live ones: pickle them before the table is used again.

        Raises:
            StateError: the table is not layered.
        """
        changed = self._changed
        if changed is None or self._is_many(len(changed)):
            return TableChanges(self.take_full(), [], whole=True)
        deleted = [key for key in self._deleted if key not in changed]
        self._note_anew()
        return TableChanges(changed, deleted)

    def take_full(self) -> dict[Any, Any]:
        """Return all entries, and let changes count from here.

        The dict is the live one: pickle it before the table is used again.

        Raises:
            StateError: the table is not layered.
        """
        self._check_layered()
        entries, changed = self._entries, self._changed
        if changed is not None and self._is_many(len(changed)):
            self._note_no_more()
            self._sample = ChangeSample(entries)
        elif changed is not None or self._changes_little():
            self._note_anew()
        return entries

    def full(self) -> dict[Any, Any]:
        """Return all entries in a new dict. The values are the live ones: pickle them at once."""
        return self._entries.copy()

    def load(self, full: Mapping[Any, Any]) -> None:
        """Replace everything by what `full` gave; nothing counts as changed then."""
        self._entries.clear()
        self._entries.update(full)
        self._note_anew()

    def apply(self, changes: TableChanges) -> None:
        """Do what `take_changes` told, after `load` and in the order of the calls."""
        if changes.whole:
            self._entries.clear()
        for key in changes.deleted:
            self._entries.pop(key, None)
        self._entries.update(changes.changed)

    def _is_many(self, changed: int) -> bool:
        before = self._size_before
        return before >= _SMALL and changed > self._part_that_is_many() * before

    def _part_that_is_many(self) -> float:
        """Return from which part of the keys on pickling all costs less than noting what changes."""
        size = entry_size(self._entries)
        return size / (size + _NOTING)

    def _changes_little(self) -> bool:
        """Say whether noting would pay, by how much has changed since this was last asked."""
        sample, entries = self._sample, self._entries
        if sample is None or len(entries) < _SMALL:
            return True
        return sample.changed_part(entries) <= self._part_that_is_many() / 2

    def _note_no_more(self) -> None:
        self._changed = None
        self._deleted.clear()

    def _note_anew(self) -> None:
        self._changed = {} if self.layered else None
        self._deleted.clear()
        self._size_before = len(self._entries)
        self._sample = None

    def _check_layered(self) -> None:
        if not self.layered:
            raise StateError(
                "this table does not keep track of its changes: make it with layered=True, or take "
                "full()"
            )
