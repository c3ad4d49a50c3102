"""What a join keeps for each key, when it is to be looked at again, and what of it has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar


class Entry(Protocol):
    """What is kept for a key.

    Attributes:
        look_at: At which watermark it is to be looked at; None: at none.
    """

    look_at: int | None

    def plain(self) -> Any:
        """Return it as plain data."""
        ...


E = TypeVar("E", bound=Entry)


class EntriesByKey(Generic[E]):
    """A table of entries, with one appointment for each of them.

    Appointments lie in a heap; one that has been brought forward is left where it is, and passed by
    when its time comes.

    Args:
        make: Makes the entry of a key from plain data; None for a new one.

    Attributes:
        table: The entries. Whoever changes one adds its key to `touched`.
        touched: The keys whose entries have changed since the last snapshot.
        next_look: A watermark below this has no appointments.
    """

    def __init__(self, make: Callable[[Any], E]) -> None:
        self.table: dict[Any, E] = {}
        self.touched: set[Any] = set()
        self.next_look: float = float("inf")
        self._make = make
        self._heap: list[tuple[int, int, Any]] = []
        self._count = 0

    def entry(self, key: Any) -> E:
        """Return the entry of a key, a new one if there is none, to be changed."""
        self.touched.add(key)
        entry = self.table.get(key)
        if entry is None:
            entry = self.table[key] = self._make(None)
        return entry

    def drop(self, key: Any) -> None:
        """Forget the entry of a key."""
        self.touched.add(key)
        del self.table[key]

    def look(self, key: Any, entry: E, at: int) -> None:
        """Let the entry be looked at when the watermark is at `at`, if not sooner."""
        if entry.look_at is not None and entry.look_at <= at:
            return
        entry.look_at = at
        self._count += 1
        heappush(self._heap, (at, self._count, key))
        self.next_look = min(self.next_look, at)

    def due(self, watermark: int) -> Iterator[tuple[Any, E]]:
        """Take out the appointments up to a watermark, also those made meanwhile."""
        heap = self._heap
        while heap and heap[0][0] <= watermark:
            at, _, key = heappop(heap)
            entry = self.table.get(key)
            if entry is not None and entry.look_at == at:
                entry.look_at = None
                yield key, entry
        self.next_look = heap[0][0] if heap else float("inf")

    # ---- snapshots

    def take_changes(self, watermark: int) -> dict[str, Any]:
        """Return the entries that changed since the last call, and the keys that are gone."""
        touched, self.touched = self.touched, set()
        changed = {key: self.table[key].plain() for key in touched if key in self.table}
        dropped = [key for key in touched if key not in changed]
        return {"entries": changed, "dropped": dropped, "watermark": watermark}

    def full_state(self, watermark: int) -> dict[str, Any]:
        """Return all entries, in the form of `take_changes`."""
        entries = {key: entry.plain() for key, entry in self.table.items()}
        return {"entries": entries, "dropped": [], "watermark": watermark}

    def load(self, parts: Sequence[Sequence[dict[str, Any]]], owns: Callable[[Any], bool]) -> int:
        """Take over states, each a full one and what changed since; return how far event time was.

        All entries are to be looked at with the next watermark.

        Args:
            parts: The states; no key is in two of them.
            owns: Says which keys to take.
        """
        return min(self._load_part(part, owns) for part in parts)

    def _load_part(self, changes: Sequence[dict[str, Any]], owns: Callable[[Any], bool]) -> int:
        state: dict[Any, Any] = {}
        for change in changes:
            for key in change["dropped"]:
                state.pop(key, None)
            state.update(change["entries"])
        watermark: int = changes[-1]["watermark"]
        for key, plain in state.items():
            if owns(key):
                entry = self.table[key] = self._make(plain)
                self.look(key, entry, watermark)
        return watermark
