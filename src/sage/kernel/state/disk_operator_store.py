"""`DiskOperatorStore`: the state of one operator of one subtask, with its tables on the disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sage.common.errors import StateError
from sage.dataflow.state.heap_store import HeapKeyedStore, seen_from_outside
from sage.dataflow.state.key_table import MISSING, TableChanges
from sage.dataflow.state.live import NO_KEY
from sage.kernel.state.disk_store import DiskKeyedStore
from sage.kernel.state.disk_table import CacheLimits, DiskTable
from sage.kernel.state.errors import DiskStateError

_MOST_TOUCHED: Final = 50_000
"""Of so many keys of a table changes are told one by one; above, all files are taken."""


class DiskOperatorStore:
    """Tables on the disk; timers, broadcast state and operator list state on the heap.

    The same contract as `HeapKeyedStore`. What it says of its tables, though, are bytes that only
    this kind of store understands: the changed entries while they are few, otherwise the files of the
    database as they are, all of them. `load` and `apply` take what a `HeapKeyedStore` has said, too.

    One thread uses it; `query` alone may be called from others.

    Args:
        directory: Where the database is; another store must not have it.
        now_ms: Says the processing time.
        layered: Whether changes will be asked for.
        limits: The size of the cache of each table.
        memory: Bytes of memory for the database.
        most_touched: How many changed keys of a table are told one by one.

    Attributes:
        current_key: The key at hand, or `NO_KEY`; set by the runtime.
        timers: Those of the operator.

    Raises:
        ConfigError: RocksDB is not installed.
        DiskStateError: the directory cannot be used.

    Examples:
        >>> from tempfile import mkdtemp
        >>> store = DiskOperatorStore(Path(mkdtemp()), lambda: 0)
        >>> store.table("seen")["a"] = True
        >>> store.query("seen", "a"), store.query("seen", "b")
        (True, None)
        >>> store.close()
    """

    def __init__(
        self,
        directory: Path,
        now_ms: Callable[[], int],
        *,
        layered: bool = True,
        limits: CacheLimits | None = None,
        memory: int = 64 << 20,
        most_touched: int = _MOST_TOUCHED,
    ) -> None:
        self.now_ms = now_ms
        self.current_key: Any = NO_KEY
        self._directory = directory
        self._layered = layered
        self._most_touched = most_touched
        self._heap = HeapKeyedStore(now_ms, layered=layered)  # all but the tables
        self._disk = DiskKeyedStore(directory, limits=limits, memory=memory)
        self._tables: dict[str, DiskTable] = {}
        # The database must not go away under a query of another thread.
        self._in_place = threading.Lock()
        self._closed = False
        self.timers = self._heap.timers
        self.broadcast = self._heap.broadcast
        self.operator_list = self._heap.operator_list
        self.load_operator_state = self._heap.load_operator_state

    def table(self, name: str) -> DiskTable:
        """Return the table of a state, always the same one."""
        if name not in self._tables:
            table = self._disk.table(name)
            if self._layered:
                table.track(self._most_touched)
            self._tables[name] = table
        return self._tables[name]

    def query(self, name: str, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default`; callable from any thread.

        What it says was so at some moment during the call, for this one key of this one table; it may
        be newer than the last checkpoint. All values are copies. A store that is closed has none.
        """
        with self._in_place:
            table = None if self._closed else self._tables.get(name)
            entry = MISSING if table is None else table.query(key, MISSING)
        return seen_from_outside(entry, self.now_ms(), default)

    def snapshot_full(self) -> dict[str, Any]:
        """Return all there is, plain. Changes are still counted as before.

        The files of the database are in memory as bytes then.

        Raises:
            DiskStateError: the database cannot be written or read.
        """
        taken = self._directory / "taken"
        shutil.rmtree(taken, ignore_errors=True)
        try:
            self._disk.snapshot(taken)
            files = [(file.name, file.read_bytes()) for file in sorted(taken.iterdir())]
        except OSError as error:
            raise DiskStateError(f"cannot read the snapshot {taken}: {error}") from error
        finally:
            shutil.rmtree(taken, ignore_errors=True)
        return {**self._heap.snapshot_full(), "files": files}

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call or `load`, plain, or all there is if it was much.

        A chain begins with `take_full`.

        Raises:
            StateError: the store is not layered.
            DiskStateError: the database cannot be written or read.
        """
        rest = self._heap.take_changes()
        entries = {name: table.changes() for name, table in self._tables.items()}
        changes = self.snapshot_full() if None in entries.values() else {**rest, "entries": entries}
        # Timers of a whole snapshot are whole, too: `apply` tells by "files".
        self._track()
        return changes

    def take_full(self) -> dict[str, Any]:
        """Return all there is, plain, and let changes count from here: what begins a chain.

        Raises:
            StateError: the store is not layered.
            DiskStateError: the database cannot be written or read.
        """
        if not self._layered:
            raise StateError("this store does not keep track of changes: take snapshot_full()")
        full = self.snapshot_full()
        self._heap.take_changes()
        self._track()
        return full

    def load(self, full: Mapping[str, Any]) -> None:
        """Replace everything by what `snapshot_full` gave; tables keep their identity.

        Raises:
            DiskStateError: it cannot be written, or is no snapshot.
        """
        self._heap.load({**full, "tables": {}})
        if "files" in full:
            self._load_files(full["files"])
        else:
            for name in {*self._disk.names(), *full["tables"]}:
                self.table(name).clear()
                self.table(name).update(full["tables"].get(name, {}))
        self._track()

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Do what `take_changes` told, after `load` and in the order of the calls.

        Raises:
            DiskStateError: it cannot be written.
        """
        if "files" in changes:
            self.load(changes)
            return
        self._heap.apply({**changes, "tables": {}})
        for name, delta in changes.get("entries", {}).items():
            self.table(name).apply(*delta)
        for name, delta in changes["tables"].items():
            table, told = self.table(name), TableChanges(*delta)
            if told.whole:
                table.clear()
            for key in told.deleted:
                table.pop(key, None)
            table.update(told.changed)
        self._track()

    def restrict(self, owns: Callable[[Any], bool]) -> None:
        """Forget all keys, with their timers, but those that `owns` says yes to."""
        for name in self._disk.names():
            table = self.table(name)
            for key in table.scan():
                if not owns(key):
                    table.pop(key)
        self._heap.restrict(owns)

    def join(self, other: DiskOperatorStore, owns: Callable[[Any], bool]) -> None:
        """Take over those keys of another store, with their timers, that `owns` says yes to.

        Raises:
            DiskStateError: it cannot be written or read.
        """
        for name in other._disk.names():
            mine = self.table(name)
            for key, value in other.table(name).entries():
                if owns(key):
                    mine[key] = value
        self._heap.join(other._heap, owns)

    def close(self) -> None:
        """Close; nobody wants what is in the directory any more. Again: nothing happens."""
        with self._in_place:
            self._closed = True
            self._disk.close(keep=False)

    def _load_files(self, files: list[tuple[str, bytes]]) -> None:
        given = self._directory / "given"
        shutil.rmtree(given, ignore_errors=True)
        try:
            given.mkdir(mode=0o700)
            for name, data in files:
                (given / Path(name).name).write_bytes(data)
            with self._in_place:
                self._disk.restore(given)
        except OSError as error:
            raise DiskStateError(f"cannot write the snapshot {given}: {error}") from error
        finally:
            shutil.rmtree(given, ignore_errors=True)
        for name in self._disk.names():
            self.table(name)

    def _track(self) -> None:
        if self._layered:
            for table in self._tables.values():
                table.track(self._most_touched)
