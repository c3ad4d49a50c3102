"""`DiskKeyedStore`: the tables of one subtask, in one database in a directory of their own.

In the directory are `lock`, held while a store is open; `db`, the database; and for the moment of a
restore `incoming` and `outgoing`, the database that comes and the one that goes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sage.kernel.state.disk_table import PREFIX_LENGTH, CacheLimits, DiskTable
from sage.kernel.state.errors import (
    DiskStateClosedError,
    DiskStateError,
    DiskStateLockedError,
)
from sage.kernel.state.rocks_engine import RocksEngine, import_rocksdict

_NAMES: Final = bytes(PREFIX_LENGTH) + b"n"
_DEFAULT_MEMORY: Final = 96 << 20


class DiskKeyedStore:
    """Named tables in an embedded database. It has its directory for itself.

    A crash loses at most what came after the last snapshot: `restore` gives that exactly. Without
    it the store opens with all tables as they were at some moment before the crash.

    Args:
        directory: Where it keeps its files; made if it is not there. A local disk.
        limits: The size of the cache of each table.
        memory: Bytes of memory for the database, beside the caches of the tables.

    Raises:
        ConfigError: RocksDB is not installed: `pip install 'sage-dataflow[state]'`.
        DiskStateLockedError: another store has the directory.
        DiskStateError: the directory cannot be used.

    Examples:
        >>> from tempfile import mkdtemp
        >>> with DiskKeyedStore(Path(mkdtemp())) as store:
        ...     counts = store.table("counts")
        ...     counts["pear"] = counts.get("pear", 0) + 1
        ...     dict(counts)
        {'pear': 1}
    """

    def __init__(
        self,
        directory: Path,
        *,
        limits: CacheLimits | None = None,
        memory: int = _DEFAULT_MEMORY,
    ) -> None:
        import_rocksdict()  # before anything is made on the disk
        self._directory = directory
        self._limits = limits or CacheLimits()
        self._memory = memory
        self._tables: dict[str, DiskTable] = {}
        self._lock = _lock(directory)
        self._engine: RocksEngine | None = None
        try:
            _finish_restore(directory)
            self._engine = RocksEngine(directory / "db", memory)
        except BaseException:
            os.close(self._lock)
            raise

    def table(self, name: str) -> DiskTable:
        """Give the table of this name; it is empty if it was never written to."""
        if name not in self._tables:
            engine = self._open_engine()
            self._tables[name] = DiskTable(engine, _number(engine, name), self._limits)
        return self._tables[name]

    def names(self) -> list[str]:
        """Give the names of all tables, in order."""
        found = self._open_engine().scan(_NAMES)
        return sorted(name[len(_NAMES) :].decode() for name, _ in found)

    def snapshot(self, into: Path) -> None:
        """Make a consistent copy of all tables. Its files are hard links if the disk is the same.

        Args:
            into: A directory that does not exist yet, in one that does. It appears whole or not at
                all, and is never changed by this store.

        Raises:
            DiskStateError: it cannot be written.
        """
        engine = self._open_engine()
        for table in self._tables.values():
            table.flush()
        engine.checkpoint(into)

    def restore(self, source: Path) -> None:
        """Replace everything by what a snapshot holds. Tables that were given out show it, too.

        Args:
            source: What `snapshot` has made; it stays as it is.

        Raises:
            DiskStateError: there is no snapshot, or it cannot be copied; nothing has changed then.
        """
        engine = self._open_engine()
        if not (source / "CURRENT").is_file():
            raise DiskStateError(f"there is no snapshot of state in {source}")
        try:
            _link_database(source, self._directory / "incoming")
        except OSError as error:
            raise DiskStateError(f"cannot copy the snapshot {source}: {error}") from error
        self._engine = None
        engine.close()
        _swap(self._directory)
        self._engine = RocksEngine(self._directory / "db", self._memory)
        for name, table in self._tables.items():
            table.attach(self._engine, _number(self._engine, name))

    def close(self, *, keep: bool = True) -> None:
        """Write everything and close; again: nothing happens.

        Args:
            keep: Otherwise nobody wants the tables any more, and what is in the caches is dropped.
        """
        if self._lock < 0:
            return
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                _close(engine, list(self._tables.values()) if keep else [])
        finally:
            os.close(self._lock)
            self._lock = -1

    def _open_engine(self) -> RocksEngine:
        if self._engine is None:
            raise DiskStateClosedError(f"the store in {self._directory} is closed")
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _close(engine: RocksEngine, tables: list[DiskTable]) -> None:
    try:
        for table in tables:
            table.flush()
    finally:
        engine.close()


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskStateError(f"cannot keep state in {directory}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DiskStateLockedError(
            f"the state in {directory} is in use by another store: close it, or give each subtask a"
            " directory of its own"
        ) from error
    return lock


def _number(engine: RocksEngine, name: str) -> int:
    """Give the number of a table; a new one if there is none of this name."""
    found = engine.get(_NAMES + name.encode())
    if found is not None:
        return int.from_bytes(found, "big")
    number = 1 + max((int.from_bytes(used, "big") for _, used in engine.scan(_NAMES)), default=0)
    engine.write({_NAMES + name.encode(): number.to_bytes(PREFIX_LENGTH, "big")})
    return number


def _link_database(source: Path, into: Path) -> None:
    """Copy a database: what never changes is linked if it can be, the rest copied."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(mode=0o700)
    for file in source.iterdir():
        if file.suffix == ".sst":
            try:
                os.link(file, into / file.name)
                continue
            except OSError:  # another disk, or one without links; copying tells what else is wrong
                pass
        shutil.copyfile(file, into / file.name)


def _swap(directory: Path) -> None:
    """Put the database that comes in the place of the one there was."""
    shutil.rmtree(directory / "outgoing", ignore_errors=True)
    (directory / "db").rename(directory / "outgoing")
    (directory / "incoming").rename(directory / "db")
    shutil.rmtree(directory / "outgoing", ignore_errors=True)


def _finish_restore(directory: Path) -> None:
    """Clean up after a process that died in `restore`."""
    if not (directory / "db").exists():
        with suppress(FileNotFoundError):
            (directory / "outgoing").rename(directory / "db")
    for left in ("incoming", "outgoing"):
        shutil.rmtree(directory / left, ignore_errors=True)
