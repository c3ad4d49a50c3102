"""Files that are there whole or not at all, also after a crash: write, fsync, rename, fsync.

Every operation announces itself to a `step` function first. It does nothing, unless a test wants
the process to die, or the disk to be full, at exactly that point.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sage.common.ids import new_uuid
from sage.kernel.checkpoint.errors import CheckpointLockedError

Step = Callable[[str, Path], None]
"""Called with the name of an operation and its file before it is done."""

TEMPORARY: Final = ".tmp"
"""How the names of files end that are not whole yet."""

_BLOCK: Final = 1 << 20


def no_step(operation: str, path: Path) -> None:
    """Let the operation happen."""


class DurableFiles:
    """The few operations on files that a store is made of."""

    def __init__(self, step: Step = no_step) -> None:
        self._step = step

    def make_directory(self, path: Path) -> None:
        """Make a directory that only this user can enter, and its parents, unless they are there."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        self._step("mkdir", path)
        path.mkdir(mode=0o700, exist_ok=True)
        self.sync_directory(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that appears whole or not at all; `sync_directory` makes its name last.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        draft = path.with_name(f"{path.name}-{new_uuid()}{TEMPORARY}")
        try:
            self._write_draft(draft, data)
            self._step("rename", path)
            draft.rename(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    def _write_draft(self, draft: Path, data: bytes) -> None:
        self._step("create", draft)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            for block in _blocks(data):
                self._step("write", draft)
                _write_all(file.fileno(), block)
            self._step("fsync", draft)
            os.fsync(file.fileno())

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory last."""
        self._step("fsync-directory", path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file, or a directory with all that is in it, unless it is gone already."""
        self._step("remove", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _blocks(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, max(len(view), 1), _BLOCK):
        yield view[start : start + _BLOCK]


def _write_all(descriptor: int, block: memoryview) -> None:
    while block:
        block = block[os.write(descriptor, block) :]


class DirectoryLock:
    """Keeps a directory to one process; the kernel lets go of it when the process dies."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise CheckpointLockedError(
                f"the checkpoints in {path.parent} are in use by process {holder or 'unknown'}; "
                f"is the same job running twice?"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others have the directory."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
