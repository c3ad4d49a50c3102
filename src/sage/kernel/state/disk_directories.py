"""The directories in which operators keep state on the disk: made, locked, and removed again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sage.kernel.state.disk_operator_store import DiskOperatorStore
from sage.kernel.state.disk_table import CacheLimits
from sage.kernel.state.errors import DiskStateError

_BYTES_OF_AN_ENTRY: Final = 300
"""So much of a cache is reckoned for an entry, to limit their number as well."""


@dataclass(frozen=True)
class Memory:
    """How much memory a store takes.

    Attributes:
        database: Bytes for the database.
        of_table: The cache of each table.
    """

    database: int
    of_table: CacheLimits

    @classmethod
    def split(cls, size: int, tables: int) -> Self:
        """Give half of `size` bytes to the database, and half to the caches of so many tables."""
        each = size // 2 // max(1, tables)
        return cls(size // 2, CacheLimits(entries=max(8, each // _BYTES_OF_AN_ENTRY), size=each))


def open_below(
    base: Path,
    names: tuple[str, str],
    now_ms: Callable[[], int],
    *,
    layered: bool,
    memory: Memory,
) -> tuple[DiskOperatorStore, Callable[[], None]]:
    """Make an empty store in a new directory; remove what killed processes have left of the job.

    Args:
        base: The directory of all jobs.
        names: Those of the job and the operator.
        now_ms: Says the processing time.
        layered: Whether changes will be asked for.
        memory: How much the store takes.

    Returns:
        The store, and what closes it and removes its directory.

    Raises:
        ConfigError: RocksDB is not installed.
        DiskStateError: the directory cannot be used.
    """
    job, operator = map(_file_name, names)
    with _locked(base):
        of_job = base / job
        of_job.mkdir(mode=0o700, exist_ok=True)
        _remove_stale(of_job)
        own = Path(tempfile.mkdtemp(prefix=f"{operator}-", dir=of_job))
        try:
            store = DiskOperatorStore(
                own, now_ms, layered=layered, limits=memory.of_table, memory=memory.database
            )
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            with suppress(OSError):  # others of the job are there
                of_job.rmdir()
            raise

    def close() -> None:
        try:
            store.close()
        finally:
            _remove(own, base)

    return store, close


def base_directory(directory: str | None) -> Path:
    """Return the directory of all jobs, made if need be; if none is given, one of this user.

    Raises:
        DiskStateError: it cannot be made, or is not ours.
    """
    chosen = directory or f"{tempfile.gettempdir()}/sage-state-{os.getuid()}"
    path = Path(chosen).expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat() if directory is None else path.stat()
    except OSError as error:
        raise DiskStateError(f"cannot keep state in {path}: {error}") from error
    if directory is None and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise DiskStateError(
            f"{path} belongs to somebody else: call env.set_state_backend('disk', directory=...)"
        )
    return path


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Let nobody else make or remove directories of operators meanwhile."""
    try:
        lock = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise DiskStateError(f"cannot keep state in {base}: {error}") from error


def _remove_stale(of_job: Path) -> None:
    """Remove directories of operators that no living store has."""
    for left in of_job.iterdir():
        if not _is_in_use(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_in_use(directory: Path) -> bool:
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _remove(own: Path, base: Path) -> None:
    shutil.rmtree(own, ignore_errors=True)
    with suppress(OSError, DiskStateError), _locked(base):  # others of the job may be there still
        own.parent.rmdir()


def _file_name(name: str) -> str:
    """Return what can be the name of a directory; of different names, different ones."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60].lstrip(".-")
    if plain == name:
        return name
    return f"{plain}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
