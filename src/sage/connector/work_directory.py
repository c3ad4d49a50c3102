"""`WorkDirectory`: where the files of a two-phase sink grow, and wait to be made visible.

Each writer has a hidden directory of its own, whose name tells the job, the operator and the subtask,
and which is locked as long as the writer is alive: no run removes what another one is writing. A file
that is made visible is renamed out of it. An empty directory is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from sage.common.ids import new_uuid
from sage.connector.sink_error import SinkError, cannot
from sage.dataflow.function.context import RuntimeContext
from sage.kernel.checkpoint.durable_files import TEMPORARY, DurableFiles, Step, no_step

_LOCK: Final = "lock"
_HIDDEN: Final = re.compile(r"\..*-([0-9]+)-[0-9a-f]{32}" + re.escape(TEMPORARY))


class WorkDirectory:
    """The hidden directory of one writer, below the directory of its sink.

    Files are named by their path below the directory of the sink.

    Args:
        directory: That of the sink; it is made if it is not there.
        prefix: How the names of hidden directories begin, behind the dot.
        context: Tells the job, the operator and the subtask.
        step: Is called before each operation, for tests that end the process there.

    Raises:
        SinkError: the directory cannot be made or written to.
    """

    def __init__(
        self, directory: Path, prefix: str, context: RuntimeContext, step: Step = no_step
    ) -> None:
        self.directory = directory
        self.step = step
        self._durable = DurableFiles(step)
        self._stem = owner_stem(prefix, context)
        self._subtask, self._parallelism = context.subtask_index, context.parallelism
        self._own: str | None = None
        self._made = 0
        self._locks: dict[str, int] = {}
        make_directory(directory, self._durable, step)

    def remove_abandoned(self, keep: Collection[str] | None, *, of_others: bool = False) -> None:
        """Remove what earlier runs of this subtask have left.

        Args:
            keep: The files that a checkpoint refers to; `None` at a start without a checkpoint,
                where those of subtasks that are no more are removed as well.
            of_others: Whether `keep` has the files of all subtasks, so that those of subtasks that
                are no more are removed as well.

        Raises:
            SinkError: something cannot be removed.
        """
        for name, subtask in list(self._found()):
            mine = subtask == self._subtask or (
                (keep is None or of_others) and subtask % self._parallelism == self._subtask
            )
            if mine and self._lock(name):
                self._clear(name, keep or ())
                self._drop_if_empty(name)

    def _found(self) -> Iterator[tuple[str, int]]:
        for name in sorted(os.listdir(self.directory)):
            if not name.startswith(self._stem) or not (self.directory / name).is_dir():
                continue
            if (subtask := made_by(name)) is not None:
                yield name, subtask

    def _lock(self, name: str) -> bool:
        """Take a hidden directory; say whether it is there, and nobody else's."""
        path = self.directory / name / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise cannot("write to", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another run is alive and writes there
            os.close(descriptor)
            return False
        self._locks[name] = descriptor
        return True

    def _clear(self, name: str, keep: Collection[str]) -> None:
        for file in os.listdir(self.directory / name):
            if file != _LOCK and f"{name}/{file}" not in keep:
                self.remove(f"{name}/{file}")

    def create(self) -> tuple[str, BinaryIO]:
        """Make a file and return its name and itself, open for writing.

        Raises:
            SinkError: it cannot be made.
        """
        if self._own is None:
            self._own = self._make_own()
        name = f"{self._own}/{self._made}"
        self._made += 1
        path = self.directory / name
        self.step("create", path)
        try:
            return name, open(path, "xb", buffering=1 << 16)
        except OSError as error:
            raise cannot("write to", path, error) from error

    def _make_own(self) -> str:
        name = f"{self._stem}{self._subtask}-{new_uuid()}{TEMPORARY}"
        self.step("mkdir", self.directory / name)
        try:
            os.mkdir(self.directory / name)
        except OSError as error:
            raise cannot("make the directory", self.directory / name, error) from error
        self._lock(name)
        self._made = 0
        return name

    def sync(self) -> None:
        """Make the names of the files that have been made last.

        Raises:
            SinkError: it cannot be done.
        """
        if self._own is not None:
            self._sync(self.directory / self._own)
            self._sync(self.directory)

    def _sync(self, path: Path) -> None:
        try:
            self._durable.sync_directory(path)
        except OSError as error:
            raise cannot("write to", path, error) from error

    def publish(self, pairs: Collection[tuple[str, str]]) -> None:
        """Give files their visible names, and make these last.

        Raises:
            SinkError: a directory cannot be made, or a file not be renamed.
        """
        for hidden, visible in pairs:
            self._rename(hidden, self.directory / visible)
        # Also if nothing was left to do: the names may not be on disk yet.
        for directory in dict.fromkeys((self.directory / visible).parent for _, visible in pairs):
            self._sync(directory)
        for name in dict.fromkeys(hidden.partition("/")[0] for hidden, _ in pairs):
            self._let_go(name)

    def _rename(self, hidden: str, path: Path) -> None:
        make_directory(path.parent, self._durable, self.step)
        if not _may_rename(self.directory / hidden, path):
            return
        self.step("rename", path)
        try:
            os.rename(self.directory / hidden, path)
        except OSError as error:
            raise cannot("rename to", path, error) from error

    def discard(self, name: str) -> None:
        """Remove a file that nobody needs any more, and its directory if it was the last one there.

        Raises:
            SinkError: it cannot be removed.
        """
        self.remove(name)
        self._let_go(name.partition("/")[0])

    def _let_go(self, name: str) -> None:
        if name in self._locks or self._lock(name):  # it may be of a subtask that is no more
            self._drop_if_empty(name)

    def _drop_if_empty(self, name: str) -> None:
        """Remove a hidden directory in which nothing is left, if it is held."""
        path = self.directory / name
        if name not in self._locks or os.listdir(path) not in ([], [_LOCK]):
            return
        self.step("rmdir", path)
        try:
            (path / _LOCK).unlink(missing_ok=True)
            path.rmdir()
        except OSError as error:
            raise cannot("remove", path, error) from error
        os.close(self._locks.pop(name))
        if name == self._own:
            self._own = None

    def cut(self, name: str, size: int) -> None:
        """Take a file that had so many bytes at a checkpoint, and remove those behind them.

        Raises:
            SinkError: it is not there, has fewer, or another run is writing it.
        """
        path = self.directory / name
        directory = name.partition("/")[0]
        if directory not in self._locks and path.exists() and not self._lock(directory):
            raise SinkError(f"cannot go on with {path}: another run of the job is writing it")
        self.step("truncate", path)
        try:
            found = path.stat().st_size
            if found >= size:
                os.truncate(path, size)
        except OSError as error:
            raise cannot("go on with", path, error) from error
        if found < size:
            raise SinkError(
                f"cannot go on with {path}: it has {found} bytes, and had {size} when the "
                "checkpoint was taken"
            )

    def remove(self, name: str) -> None:
        """Remove a file, unless it is gone already.

        Raises:
            SinkError: it cannot be removed.
        """
        self.step("remove", self.directory / name)
        try:
            (self.directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot("remove", self.directory / name, error) from error

    def close(self, unfinished: Collection[str] = ()) -> None:
        """Remove files that have not been prepared, and let go of the others."""
        with suppress(OSError, SinkError):  # the next run removes it
            for name in unfinished:
                self.remove(name)
            for name in list(self._locks):
                self._drop_if_empty(name)
        for descriptor in self._locks.values():
            os.close(descriptor)
        self._locks.clear()
        self._own = None


def owner_stem(prefix: str, context: RuntimeContext) -> str:
    """Return how the names begin of what belongs to an operator of a job and is hidden."""
    owner = f"{context.job_name}\0{context.operator_name}"
    return f".{prefix}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}-"


def make_directory(directory: Path, durable: DurableFiles, step: Step) -> None:
    """Make a directory and its parents, in a way that lasts.

    Raises:
        SinkError: it cannot be made.
    """
    if directory.is_dir():
        return
    make_directory(directory.parent, durable, step)
    step("mkdir", directory)
    try:
        directory.mkdir(exist_ok=True)
        durable.sync_directory(directory.parent)
    except OSError as error:
        raise cannot("make the directory", directory, error) from error


def made_by(name: str) -> int | None:
    """Return which subtask made a hidden directory, or a file in it; `None` if it is no such name.

    Examples:
        >>> made_by(".part-3f0c8a9b2d1e-7-0123456789abcdef0123456789abcdef.tmp/0")
        7
    """
    match = _HIDDEN.fullmatch(name.partition("/")[0])
    return None if match is None else int(match[1])


def _may_rename(hidden: Path, visible: Path) -> bool:
    """Say whether a file has yet to get its name.

    Raises:
        SinkError: it is there under neither name, or another one has its name.
    """
    if not hidden.exists():
        if visible.exists():
            return False
        raise SinkError(
            f"{visible} cannot be committed: neither it nor {hidden} is there. Was it moved, or the "
            "directory of the sink changed? Put it back, or start without the checkpoint"
        )
    if visible.exists():
        raise SinkError(
            f"{hidden} cannot be committed: there is another {visible.name} already. Give each "
            "sink a directory or prefix of its own, move that file away and go on"
        )
    return True


def finish(file: BinaryIO, path: Path, step: Step) -> None:
    """Bring all that was written to disk, and close the file.

    Raises:
        SinkError: it cannot be done: the disk is full, say.
    """
    step("fsync", path)
    try:
        try:
            file.flush()
            os.fsync(file.fileno())
        finally:
            file.close()
    except OSError as error:
        raise cannot("write to", path, error) from error
