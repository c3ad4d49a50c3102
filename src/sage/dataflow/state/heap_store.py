"""`HeapKeyedStore`: the state of one operator of one subtask, in dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sage.common.errors import StateError
from sage.dataflow.state.key_table import MISSING, KeyTable, TableChanges
from sage.dataflow.state.live import NO_KEY, Expiring
from sage.dataflow.state.timers import HeapTimers


class HeapKeyedStore:
    """Tables, timers, broadcast state and operator list state. Implements `KeyedStore`.

    One thread uses it; `query` alone may be called from others.

    Args:
        now_ms: Says the processing time.
        layered: Whether changes will be asked for.

    Attributes:
        current_key: The key at hand, or `NO_KEY`; set by the runtime.
        timers: Those of the operator.

    Examples:
        >>> store = HeapKeyedStore(lambda: 0)
        >>> store.table("seen")["a"] = True
        >>> store.query("seen", "a"), store.query("seen", "b")
        (True, None)
    """

    def __init__(self, now_ms: Callable[[], int], *, layered: bool = True) -> None:
        self.now_ms = now_ms
        self.current_key: Any = NO_KEY
        self.timers = HeapTimers(layered=layered)
        self._layered = layered
        self._tables: dict[str, KeyTable] = {}
        self._broadcast: dict[str, dict[Any, Any]] = {}
        self._lists: dict[str, list[Any]] = {}

    def table(self, name: str) -> KeyTable:
        """Return the table of a state, always the same one."""
        if name not in self._tables:
            self._tables[name] = KeyTable(layered=self._layered)
        return self._tables[name]

    def broadcast(self, name: str) -> dict[Any, Any]:
        """Return the entries of a broadcast state, always the same dict."""
        return self._broadcast.setdefault(name, {})

    def operator_list(self, name: str) -> list[Any]:
        """Return the elements of an operator list state, always the same list."""
        return self._lists.setdefault(name, [])

    def query(self, name: str, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default`; callable from any thread.

        What it says was so at some moment during the call, for this one key of this one table; it
        may be newer than the last checkpoint. A list or map comes as a copy; other values are the
        live ones and must not be changed. Expired values are not seen.
        """
        table = self._tables.get(name)
        entry = MISSING if table is None else table.get(key, MISSING)
        return seen_from_outside(entry, self.now_ms(), default)

    def snapshot_full(self) -> dict[str, Any]:
        """Return all there is, plain; pickle it at once. Changes are still counted as before."""
        return self._snapshot(KeyTable.full, lambda kind: kind.full())

    def take_changes(self) -> dict[str, Any]:
        """Return what changed in tables and timers since the last call or `load`.

        The tables may be the live ones: pickle them at once. Broadcast and list state is small and
        comes whole. A chain begins with `take_full`.

        Raises:
            StateError: the store is not layered.
        """
        self._check_layered()
        return self._snapshot(KeyTable.take_changes, lambda kind: kind.take_changes())

    def take_full(self) -> dict[str, Any]:
        """Return all there is, and let changes count from here: what begins a chain.

        The tables are the live ones: pickle them at once.

        Raises:
            StateError: the store is not layered.
        """
        self._check_layered()
        return self._snapshot(KeyTable.take_full, lambda kind: kind.take_full())

    def _check_layered(self) -> None:
        if not self._layered:
            raise StateError("this store does not keep track of changes: take snapshot_full()")

    def _snapshot(
        self, of_table: Callable[[KeyTable], Any], of_timers: Callable[[Any], Any]
    ) -> dict[str, Any]:
        timers = self.timers
        return {
            "tables": {name: of_table(table) for name, table in self._tables.items()},
            "event": of_timers(timers.event),
            "processing": of_timers(timers.processing),
            "broadcast": {name: dict(entries) for name, entries in self._broadcast.items()},
            "lists": {name: list(items) for name, items in self._lists.items()},
        }

    def load(self, full: Mapping[str, Any]) -> None:
        """Replace everything by what `snapshot_full` gave; tables keep their identity."""
        for name in {*self._tables, *full["tables"]}:
            self.table(name).load(full["tables"].get(name, {}))
        self.timers.event.load(full["event"])
        self.timers.processing.load(full["processing"])
        self.load_operator_state(full)

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Do what `take_changes` told, after `load` and in the order of the calls."""
        for name, of_table in changes["tables"].items():
            self.table(name).apply(TableChanges(*of_table))
        self.timers.event.apply(TableChanges(*changes["event"]))
        self.timers.processing.apply(TableChanges(*changes["processing"]))
        self.load_operator_state(changes)

    def join(self, other: HeapKeyedStore, owns: Callable[[Any], bool]) -> None:
        """Take over those keys of another store, with their timers, that `owns` says yes to."""
        for name, theirs in other._tables.items():
            mine = self.table(name)
            for key, value in theirs.items():
                if owns(key):
                    mine[key] = value
        self.timers.event.join(other.timers.event, owns)
        self.timers.processing.join(other.timers.processing, owns)

    def load_operator_state(self, saved: Mapping[str, Any]) -> None:
        """Replace broadcast and list state by `saved["broadcast"]` and `saved["lists"]`, by name."""
        for name in {*self._broadcast, *saved["broadcast"]}:
            entries = self.broadcast(name)
            entries.clear()
            entries.update(saved["broadcast"].get(name, {}))
        for name in {*self._lists, *saved["lists"]}:
            self.operator_list(name)[:] = saved["lists"].get(name, [])

    def restrict(self, owns: Callable[[Any], bool]) -> None:
        """Forget all keys, with their timers, but those that `owns` says yes to."""
        for table in self._tables.values():
            for key in table.scan():
                if not owns(key):
                    table.pop(key)
        self.timers.event.restrict(owns)
        self.timers.processing.restrict(owns)


def seen_from_outside(entry: Any, now_ms: int, default: Any) -> Any:
    """Return what a query shows of an entry of a table: a copy of a list or map, nothing expired."""
    value = _seen(entry, now_ms)
    if isinstance(value, dict):
        seen = {k: _seen(v, now_ms) for k, v in value.copy().items()}
        return {k: v for k, v in seen.items() if v is not MISSING}
    if isinstance(value, list):
        return value.copy()
    return default if value is MISSING else value


def _seen(entry: Any, now_ms: int) -> Any:
    if not isinstance(entry, Expiring):
        return entry
    return entry.value if entry.expires_ms > now_ms else MISSING
