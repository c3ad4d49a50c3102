"""State that belongs to a subtask, not to keys: broadcast state and operator lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from sage.common.errors import StateError
from sage.dataflow.state.declarations import StateDeclaration, declared_states
from sage.dataflow.state.live import KeyedStore

T = TypeVar("T")
K = TypeVar("K")


class WriteAccess:
    """Whether broadcast state may be changed at the moment.

    Args:
        where: Where it may be, for the message.

    Attributes:
        allowed: Whether this is there.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.allowed = True

    def check(self, name: str) -> None:
        """Check that state may be changed.

        Raises:
            StateError: it may not.
        """
        if not self.allowed:
            raise StateError(
                f"broadcast state {name!r} can only be changed in {self.where}, whose records all "
                "subtasks see: elsewhere it would become another one on each of them"
            )


class LiveBroadcast(MutableMapping[K, T]):
    """A map that is the same on every subtask, if all change it in the same way.

    Args:
        entries: Where they are kept.
        name: The name of the state.

    Attributes:
        access: Says when it may be changed; always, unless the runtime gives another.
    """

    def __init__(self, entries: dict[K, T], name: str = "") -> None:
        self._entries = entries
        self._name = name
        self.access = WriteAccess("its function")

    def read_only(self) -> Mapping[K, T]:
        """Return a view that follows the map and cannot change it."""
        return MappingProxyType(self._entries)

    def __getitem__(self, key: K) -> T:
        return self._entries[key]

    def __setitem__(self, key: K, value: T) -> None:
        self.access.check(self._name)
        self._entries[key] = value

    def __delitem__(self, key: K) -> None:
        self.access.check(self._name)
        del self._entries[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def snapshot(self) -> dict[K, T]:
        """Return the entries in a new dict; pickle them at once."""
        return dict(self._entries)

    def load(self, entries: Mapping[K, T]) -> None:
        """Replace everything by what `snapshot` gave."""
        saved = dict(entries)
        self._entries.clear()
        self._entries.update(saved)


class LiveOperatorList(MutableSequence[T]):
    """A list of one subtask; its items are handed out anew when the parallelism changes."""

    def __init__(self, items: list[T]) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: Any, item: Any) -> None:
        self._items[index] = item

    def __delitem__(self, index: int | slice) -> None:
        del self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def insert(self, index: int, value: T) -> None:
        """Put an item before that at `index`."""
        self._items.insert(index, value)

    def snapshot(self) -> list[T]:
        """Return the items in a new list; pickle them at once."""
        return list(self._items)

    def load(self, items: Sequence[T]) -> None:
        """Replace everything by what `snapshot` gave."""
        self._items[:] = list(items)


class BroadcastState(StateDeclaration[LiveBroadcast[K, T]]):
    """A map that is the same on every subtask."""

    kind = "broadcast"

    def __init__(self, key_kind: type[K], kind: type[T], *, name: str | None = None) -> None:
        super().__init__((key_kind, kind), None, name)

    def _live(self, store: KeyedStore) -> LiveBroadcast[K, T]:
        return LiveBroadcast(store.broadcast(self.name), self.name)


def broadcast_states(function: object) -> list[LiveBroadcast[Any, Any]]:
    """Return the live broadcast states of a function that is bound to a store."""
    declared = declared_states(function).values()
    return [
        state.__get__(function, type(function))
        for state in declared
        if isinstance(state, BroadcastState)
    ]


Rescaled = Literal["split", "union"]
"""Whether the items of a list are dealt out to new subtasks, or given to all of them."""


class OperatorListState(StateDeclaration[LiveOperatorList[T]]):
    """A list of each subtask.

    Args:
        kind: The type of the items.
        name: The name in checkpoints; that of the attribute when left out.
        rescaled: What becomes of the items when there are other subtasks than before: `"split"` deals
            them out evenly, `"union"` gives all of them to each.

    Raises:
        ValueError: `rescaled` is neither.
    """

    kind = "operator list"

    def __init__(
        self, kind: type[T], *, name: str | None = None, rescaled: Rescaled = "split"
    ) -> None:
        super().__init__((kind,), None, name)
        if rescaled not in ("split", "union"):
            raise ValueError(f"rescaled must be 'split' or 'union', not {rescaled!r}")
        self.rescaled: Rescaled = rescaled

    def _live(self, store: KeyedStore) -> LiveOperatorList[T]:
        return LiveOperatorList(store.operator_list(self.name))


def split_lists(lists: Sequence[Sequence[T]], parallelism: int) -> list[list[T]]:
    """Deal the items of all subtasks out to `parallelism` new ones, evenly and in order.

    Examples:
        >>> split_lists([[1, 2, 3], [4, 5]], 3)
        [[1], [2, 3], [4, 5]]
    """
    items = [item for part in lists for item in part]
    cuts = [i * len(items) // parallelism for i in range(parallelism + 1)]
    return [items[cuts[i] : cuts[i + 1]] for i in range(parallelism)]


def union_lists(lists: Sequence[Sequence[T]], parallelism: int) -> list[list[T]]:
    """Give the items of all subtasks to each of `parallelism` new ones.

    Examples:
        >>> union_lists([[1], [2]], 2)
        [[1, 2], [1, 2]]
    """
    items = [item for part in lists for item in part]
    return [list(items) for _ in range(parallelism)]
