"""`WorkFiles`: the hidden files in which a two-phase sink keeps what is not visible yet.

Their names tell whose they are: the job and operator, the subtask, and a random part. They are
locked as long as the writer that made them is alive, so that a run never removes what another run
of the same job is still writing. What becomes of them at a commit is the sink's business.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sage.common.ids import new_uuid
from sage.connector.sink_error import SinkError
from sage.dataflow.function.context import RuntimeContext
from sage.kernel.checkpoint.durable_files import TEMPORARY, DurableFiles, Step, no_step


class WorkFiles:
    """The hidden files of one subtask of a sink in one directory.

    Args:
        directory: Where they are; it is made if it is not there.
        prefix: How their names begin, behind the dot.
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
        self._locks: dict[str, int] = {}
        make_directory(directory, self._durable, step)

    def remove_abandoned(self, keep: Collection[str] | None, *, of_others: bool = False) -> None:
        """Remove what earlier runs of this subtask have left.

        Args:
            keep: The names that a checkpoint refers to; `None` at a start without a checkpoint,
                where those of subtasks that are no more are removed as well.
            of_others: Whether `keep` has the names of all subtasks, so that those of subtasks that are
                no more are removed as well.

        Raises:
            SinkError: something cannot be removed.
        """
        for path, subtask in self._found():
            mine = subtask == self._subtask or (
                (keep is None or of_others) and subtask % self._parallelism == self._subtask
            )
            if mine and path.name not in (keep or ()):
                self._remove_unless_locked(path)

    def _found(self) -> Iterator[tuple[Path, int]]:
        pattern = re.compile(
            re.escape(self._stem) + r"([0-9]+)-[0-9a-f]{32}" + re.escape(TEMPORARY)
        )
        for name in sorted(os.listdir(self.directory)):
            if match := pattern.fullmatch(name):
                yield self.directory / name, int(match[1])

    def _remove_unless_locked(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot("remove", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.remove(path.name)
        except BlockingIOError:  # another run is alive and writes it
            pass
        finally:
            os.close(descriptor)

    def create(self) -> tuple[str, BinaryIO]:
        """Make a file and return its name and itself, open for writing.

        Raises:
            SinkError: it cannot be made.
        """
        path = self.directory / f"{self._stem}{self._subtask}-{new_uuid()}{TEMPORARY}"
        self.step("create", path)
        try:
            # 0o666, less what the umask takes away: it becomes an ordinary file of the user's.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot("write to", path, error) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._locks[path.name] = os.dup(descriptor)  # lives on when the file is closed
        return path.name, os.fdopen(descriptor, "wb", buffering=1 << 18)

    def sync(self) -> None:
        """Make the names in the directory last.

        Raises:
            SinkError: it cannot be done.
        """
        try:
            self._durable.sync_directory(self.directory)
        except OSError as error:
            raise cannot("write to", self.directory, error) from error

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
        finally:
            self.release(name)

    def release(self, name: str) -> None:
        """Let go of a file that is visible now."""
        descriptor = self._locks.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self, unfinished: Collection[str] = ()) -> None:
        """Remove the files that have not been prepared, and let go of the others."""
        for name in unfinished:
            with suppress(SinkError):  # the next run removes it
                self.remove(name)
        for name in list(self._locks):
            self.release(name)


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


def cannot(what: str, path: Path, error: OSError) -> SinkError:
    """Return an error that says what could not be done to which file, and why."""
    return SinkError(f"cannot {what} {path}: {error.strerror or error}")


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
