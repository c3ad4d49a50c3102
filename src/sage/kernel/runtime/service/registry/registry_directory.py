"""`DirectoryStore`: the entries of a registry as files, shared by the processes of one user.

One small JSON file per instance, in a directory that only the user can enter. A file is written
beside its place and renamed into it, so that a reader sees an entry whole or not at all, whenever a
writer is killed. Nothing is locked.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.common.private_directory import check_private, make_private, runtime_directory
from sage.kernel.runtime.service.registry.service_info import ServiceInfo

MAX_BYTES: Final = 64 * 1024
"""How long a file may be."""

_SUFFIX: Final = ".json"
_UNFINISHED: Final = ".tmp"
_UNFINISHED_SECONDS: Final = 60  # nobody writes for so long: its writer is dead
_SETTLED_NS: Final = (
    100_000_000  # file times move in steps of some ms: what is newer may still change
)

_Stamp = tuple[int, int, int]


class DirectoryStore:
    """Entries in a directory.

    Args:
        directory: Where; `registry` in the user's runtime directory by default. It is made when
            the first entry is put, with mode 0700.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     DirectoryStore(Path(directory, "registry")).load()
        {}
    """

    def __init__(self, directory: Path | None = None) -> None:
        default = runtime_directory() / "registry"
        self._directory = directory or default
        # the directory around the user's own may be open to all: what lies in it is checked too
        self._private = [self._directory] if directory else [default.parent, default]
        self._lock = threading.Lock()
        self._scanned: int | None = None  # the time of the directory, if a look at it is enough
        self._entries: dict[str, ServiceInfo] = {}
        self._files: dict[str, tuple[_Stamp, ServiceInfo | None]] = {}

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def put(self, info: ServiceInfo) -> None:
        """Write the file of an entry.

        Raises:
            ConfigError: the directory is not private.
            OSError: the file cannot be written.
            ValueError: the entry is too long.
        """
        data = msgspec.json.encode(info)
        if len(data) > MAX_BYTES:
            raise ValueError(f"the entry of {info.name!r} has {len(data)} bytes of {MAX_BYTES}")
        try:
            self._write(info.instance, data)
        except FileNotFoundError:  # a clean-up has taken the directory or the unfinished file away
            self._write(info.instance, data)

    def _write(self, instance: str, data: bytes) -> None:
        for directory in self._private:
            make_private(directory)
        unfinished = self.directory / f"{instance}.{new_uuid()}{_UNFINISHED}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(unfinished, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.directory / (instance + _SUFFIX))
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def remove(self, instance: str) -> None:
        """Delete the file of an entry."""
        (self.directory / (instance + _SUFFIX)).unlink(missing_ok=True)

    def load(self) -> dict[str, ServiceInfo]:
        """Read the files that are new; most often none is, and one look at the directory tells.

        Raises:
            ConfigError: the directory is not private.
            OSError: it cannot be read.
        """
        with self._lock:
            try:
                changed = [check_private(d) for d in self._private][-1].st_mtime_ns
                if changed != self._scanned:
                    self._scanned = None
                    now = time.time_ns()
                    self._scan(now)
                    self._scanned = changed if now - changed > _SETTLED_NS else None
            except FileNotFoundError:
                self._entries, self._files, self._scanned = {}, {}, None
            return dict(self._entries)

    def _scan(self, now: int) -> None:
        files = {}
        with os.scandir(self.directory) as listing:
            for file in listing:
                if file.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):  # it was removed just now
                        files[file.name] = self._look(file, now)
                elif file.name.endswith(_UNFINISHED):
                    _remove_forgotten(file, now)
        self._files = files
        found = [info for _, info in files.values() if info is not None]
        self._entries = {info.instance: info for info in found}

    def _look(self, file: os.DirEntry[str], now: int) -> tuple[_Stamp, ServiceInfo | None]:
        status = file.stat(follow_symlinks=False)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._files.get(file.name)
        if known is not None and known[0] == stamp and now - status.st_mtime_ns > _SETTLED_NS:
            return known
        try:
            return stamp, _read(Path(file.path))
        except _UnusableFileError as error:
            if known is None or known[0] != stamp:
                get_logger("service", "registry").warning("%s is not used: %s", file.path, error)
            return stamp, None


class _UnusableFileError(Exception):
    """A file is none of ours."""


def _read(path: Path) -> ServiceInfo:
    try:  # without waiting: it may be a pipe
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _UnusableFileError(str(error.strerror)) from error
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise _UnusableFileError("it is not a file of this user")
        if status.st_size > MAX_BYTES:
            raise _UnusableFileError(f"it is longer than {MAX_BYTES} bytes")
        data = os.read(number, MAX_BYTES)
    finally:
        os.close(number)
    try:
        info = msgspec.json.decode(data, type=ServiceInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _UnusableFileError(f"it is not an entry: {error}") from error
    if info.instance != path.name.removesuffix(_SUFFIX):
        raise _UnusableFileError("it has the name of another entry")
    return info


def _remove_forgotten(file: os.DirEntry[str], now: int) -> None:
    """Delete an unfinished file whose writer was killed."""
    with suppress(FileNotFoundError):
        if now - file.stat(follow_symlinks=False).st_mtime_ns > _UNFINISHED_SECONDS * 10**9:
            Path(file.path).unlink()
