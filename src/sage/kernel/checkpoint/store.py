"""Where checkpoints are kept: the contract, and a store in a directory.

    <path>/<job>/lock                        one process at a time writes checkpoints of a job
    <path>/<job>/chk-<id>/<random>.chunk     a piece of state; later checkpoints may refer to it
    <path>/<job>/chk-<id>/metadata.json      written last: with it the checkpoint exists

The pieces are written by whoever has the state, in any process (`ChunkFiles`); the metadata by the
one process that holds the lock. What no kept metadata refers to is garbage, and is removed when a
later checkpoint has completed and when the store is opened. The directory with the highest number
is left, so that no number is used twice.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from sage.common.errors import ConfigError
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.kernel.checkpoint.durable_files import TEMPORARY, DirectoryLock, DurableFiles
from sage.kernel.checkpoint.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointWriteError,
)
from sage.kernel.checkpoint.metadata import (
    CheckpointMetadata,
    Chunk,
    decode_metadata,
    digest_of,
    encode_metadata,
)

METADATA: Final = "metadata.json"
_CHECKPOINT: Final = re.compile(r"chk-([0-9]{1,18})")
_JOB: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BLOCK: Final = 1 << 20

_logger = get_logger("checkpoint")


class CheckpointStore(ABC):
    """Keeps the completed checkpoints of one job.

    One process has it open. Its methods are called from one thread at a time; they do I/O.

    Attributes:
        chunks: With which the subtasks write their state; it may be pickled and used in any
            process and thread, for a checkpoint that has been begun.
    """

    chunks: ChunkFiles

    @abstractmethod
    def next_id(self) -> int:
        """Return a number above all that were ever begun."""

    @abstractmethod
    def begin(self, checkpoint_id: int) -> None:
        """Use up a number, before anything is written for it.

        Raises:
            CheckpointWriteError: that cannot be written down.
        """

    @abstractmethod
    def commit(self, metadata: CheckpointMetadata) -> None:
        """Let a checkpoint exist, whose chunks are written; then drop what is needed no more.

        Raises:
            CheckpointDamagedError: a chunk it refers to is not there, or not of its size.
            CheckpointWriteError: it cannot be written. Either way it does not count.
        """

    @abstractmethod
    def save(self, metadata: CheckpointMetadata, target: Path) -> Path:
        """Write a savepoint whose chunks are in the store, and forget them here.

        It refers to nothing outside of itself, and can be moved and copied.

        Returns:
            Its directory, a new one in `target`.

        Raises:
            CheckpointDamagedError: a chunk is missing or damaged.
            CheckpointWriteError: it cannot be written; nothing of it counts.
        """

    @abstractmethod
    def abort(self, checkpoint_id: int) -> None:
        """Remove what was written for a checkpoint that will not complete."""

    @abstractmethod
    def completed(self) -> list[int]:
        """Return the numbers of the checkpoints that are kept, the newest first."""

    @abstractmethod
    def latest(self) -> CheckpointMetadata | None:
        """Return the newest checkpoint that is whole, every byte of it verified; None: there is none.

        What is damaged is named in the log and passed over.

        Raises:
            CheckpointDamagedError: all that there are, are damaged.
        """

    @abstractmethod
    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk.

        Raises:
            CheckpointDamagedError: they are missing, or not the ones that were written.
        """

    @abstractmethod
    def delete_all(self) -> None:
        """Remove all checkpoints of the job; its numbers go on."""

    @abstractmethod
    def close(self) -> None:
        """Let another process have the store; closing twice is harmless."""


class ChunkFiles:
    """Chunks in files below a directory; needs no lock, and any thread may use it.

    Args:
        directory: The directory of the job, or of a savepoint.
        files: How files are written.
    """

    def __init__(self, directory: Path, files: DurableFiles | None = None) -> None:
        self.directory = directory
        self._files = files or DurableFiles()

    def write(self, checkpoint_id: int, data: bytes) -> Chunk:
        """Write a chunk for a checkpoint that has been begun.

        Raises:
            CheckpointWriteError: it cannot be written; nothing of it is left.
        """
        return self.write_in(f"chk-{checkpoint_id}/", data)

    def write_in(self, prefix: str, data: bytes) -> Chunk:
        """Write a chunk whose name begins with `prefix`: a directory that is there, or nothing."""
        chunk = Chunk(f"{prefix}{new_uuid()}.chunk", len(data), digest_of(data))
        with _told(f"a chunk of {len(data)} bytes in {self.directory / prefix}"):
            self._files.write(self.directory / chunk.name, data)
        return chunk

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk.

        Raises:
            CheckpointDamagedError: they are missing, or not the ones that were written.
        """
        path = self.directory / chunk.name
        with _readable(path):
            data = path.read_bytes()
        if len(data) != chunk.size or digest_of(data) != chunk.digest:
            raise CheckpointDamagedError(f"{path} is damaged: its checksum does not fit")
        return data

    def verify(self, chunk: Chunk) -> None:
        """Read a chunk block by block and compare its checksum.

        Raises:
            CheckpointDamagedError: it is missing, or not the one that was written.
        """
        self.check_size(chunk)
        path = self.directory / chunk.name
        state = hashlib.blake2b(digest_size=16)
        with _readable(path), path.open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
        if state.hexdigest() != chunk.digest:
            raise CheckpointDamagedError(f"{path} is damaged: its checksum does not fit")

    def check_size(self, chunk: Chunk) -> None:
        """Demand that a chunk is there and as long as it was.

        Raises:
            CheckpointDamagedError: it is not.
        """
        path = self.directory / chunk.name
        with _readable(path):
            size = path.stat().st_size
        if size != chunk.size:
            raise CheckpointDamagedError(f"{path} has {size} bytes instead of {chunk.size}")


class Savepoint:
    """A savepoint in a directory: its metadata, and the chunks that belong to it.

    Raises:
        CheckpointDamagedError: it is not there, or its metadata is damaged.
        CheckpointError: it is a checkpoint.
    """

    def __init__(self, directory: Path) -> None:
        if not (directory / METADATA).exists():
            inside = sorted(directory.glob(f"savepoint-*/{METADATA}"))
            near = f". Did you mean {inside[-1].parent}?" if inside else ""
            raise CheckpointDamagedError(
                f"there is no savepoint in {directory}: {METADATA} is missing{near}"
            )
        self.metadata = _read_metadata(directory)
        if self.metadata.kind != "savepoint":
            raise CheckpointError(
                f"{directory} is a checkpoint, which refers to files of others: a job of the name "
                f"{self.metadata.job!r} that keeps its checkpoints there goes on from it by itself"
            )
        self._chunks = ChunkFiles(directory)

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            CheckpointDamagedError: a chunk is missing or damaged.
        """
        for chunk in self.metadata.chunks():
            self._chunks.verify(chunk)

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk, as `CheckpointStore.read` does."""
        return self._chunks.read(chunk)


class FileCheckpointStore(CheckpointStore):
    """Keeps the checkpoints of one job in a directory, on a file system with `flock` and `fsync`.

    Args:
        path: The directory of all jobs.
        job: The name of this one: letters, digits, `_`, `.` and `-`.
        retained: How many completed checkpoints are kept.
        files: How files are written.

    Raises:
        CheckpointLockedError: another process has it open.
        CheckpointWriteError: the directory cannot be made or written.
        ConfigError: `job` cannot be the name of a directory, or `retained` is less than 1.

    Examples:
        >>> import tempfile
        >>> from sage.kernel.checkpoint.metadata import SubtaskState
        >>> directory = tempfile.TemporaryDirectory()
        >>> store = FileCheckpointStore(Path(directory.name), "sums")
        >>> store.begin(store.next_id())
        >>> chunk = store.chunks.write(1, b"all the sums")
        >>> state = SubtaskState("sum", 0, (chunk,))
        >>> store.commit(CheckpointMetadata(1, "sums", created_ms=0, subtasks=(state,)))
        >>> store.read(store.latest().subtasks[0].chunks[0])
        b'all the sums'
        >>> store.close(); directory.cleanup()
    """

    def __init__(
        self, path: Path, job: str, retained: int = 3, files: DurableFiles | None = None
    ) -> None:
        if not _JOB.fullmatch(job):
            raise ConfigError(f"{job!r} cannot be the name of a directory of checkpoints")
        if retained < 1:
            raise ConfigError(f"at least 1 checkpoint must be retained, not {retained}")
        self.directory = path.absolute() / job
        self._job = job
        self._retained = retained
        self._files = files or DurableFiles()
        self.chunks = ChunkFiles(self.directory, self._files)
        with _told(str(self.directory)):
            self._files.make_directory(self.directory)
            self._lock = DirectoryLock(self.directory / "lock")
        self._collect_quietly()

    def next_id(self) -> int:
        """Return a number above all that were ever begun."""
        return max(self._begun(), default=0) + 1

    def begin(self, checkpoint_id: int) -> None:
        """Make the directory of the checkpoint."""
        with _told(f"checkpoint {checkpoint_id} in {self.directory}"):
            self._files.make_directory(self._home(checkpoint_id))

    def commit(self, metadata: CheckpointMetadata) -> None:
        """Write the metadata."""
        number = metadata.checkpoint_id
        if metadata.job != self._job or number <= max(self.completed(), default=-1):
            raise CheckpointError(
                f"checkpoint {number} of {metadata.job!r} cannot follow {self.completed()[:1]} of "
                f"{self._job!r}"
            )
        for chunk in metadata.chunks():
            self.chunks.check_size(chunk)
        self._write_metadata(self._home(number), metadata)
        self._collect_quietly(number)

    def save(self, metadata: CheckpointMetadata, target: Path) -> Path:
        """Copy the chunks and write the metadata beside them."""
        unique = f"savepoint-{self._job}-{metadata.checkpoint_id}-{new_uuid()[:8]}"
        directory = target.absolute() / unique
        try:
            with _told(f"the savepoint {directory}"):
                self._files.make_directory(directory)
            self._write_savepoint(directory, metadata)
        except BaseException:
            with suppress(OSError):
                self._files.remove(directory)
            raise
        self.abort(metadata.checkpoint_id)
        return directory

    def abort(self, checkpoint_id: int) -> None:
        """Remove the chunks of a checkpoint, unless it has completed; an error is only logged."""
        home = self._home(checkpoint_id)
        if (home / METADATA).exists():
            return
        try:
            self._sweep(home, keep=frozenset())
        except OSError as error:
            _logger.warning("what is left of checkpoint %d stays: %s", checkpoint_id, error)

    def completed(self) -> list[int]:
        """Return the numbers of the directories that have metadata."""
        return [n for n in self._begun() if (self._home(n) / METADATA).exists()]

    def latest(self) -> CheckpointMetadata | None:
        """Return the newest checkpoint whose metadata and chunks are whole."""
        newest: CheckpointDamagedError | None = None
        for number in self.completed():
            try:
                return self._verified(number)
            except CheckpointDamagedError as error:
                _logger.warning("checkpoint %d cannot be used: %s", number, error)
                newest = newest or error
        if newest is not None:  # to begin anew is not for us to choose
            raise CheckpointDamagedError(
                f"there are checkpoints in {self.directory}, but none that is whole: {newest}. To let "
                "the job begin anew, move that directory away"
            ) from newest
        return None

    def read(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk."""
        return self.chunks.read(chunk)

    def delete_all(self) -> None:
        """Remove everything but the highest number."""
        numbers = self._begun()
        with _told(str(self.directory)):
            for number in reversed(numbers):  # what goes on from here is the newest to the end
                self._drop(number)
            self._remove_garbage(numbers, keep=frozenset())

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _home(self, checkpoint_id: int) -> Path:
        return self.directory / f"chk-{checkpoint_id}"

    def _begun(self) -> list[int]:
        found = (_CHECKPOINT.fullmatch(name) for name in os.listdir(self.directory))
        return sorted((int(match.group(1)) for match in found if match), reverse=True)

    def _verified(self, number: int) -> CheckpointMetadata:
        metadata = self._metadata(number)
        for chunk in metadata.chunks():
            self.chunks.verify(chunk)
        return metadata

    def _metadata(self, number: int) -> CheckpointMetadata:
        metadata = _read_metadata(self._home(number))
        if metadata.checkpoint_id != number or metadata.job != self._job:
            raise CheckpointDamagedError(
                f"{self._home(number)} holds checkpoint {metadata.checkpoint_id} of "
                f"{metadata.job!r}: it is not where it was written"
            )
        return metadata

    def _write_metadata(self, home: Path, metadata: CheckpointMetadata) -> None:
        """Write what makes a checkpoint exist; if that fails in the end, take it back."""
        path = home / METADATA
        with _told(f"checkpoint {metadata.checkpoint_id} in {home}"):
            self._files.sync_directory(home)  # the names of the chunks, before what refers to them
            try:
                self._files.write(path, encode_metadata(metadata))
                self._files.sync_directory(home)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise

    def _write_savepoint(self, directory: Path, metadata: CheckpointMetadata) -> None:
        copies = ChunkFiles(directory, self._files)
        originals = {chunk.name: chunk for chunk in metadata.chunks()}
        moved = {name: copies.write_in("", self.read(c)) for name, c in originals.items()}
        subtasks = tuple(
            msgspec.structs.replace(s, chunks=tuple(moved[c.name] for c in s.chunks))
            for s in metadata.subtasks
        )
        saved = msgspec.structs.replace(metadata, kind="savepoint", subtasks=subtasks)
        self._write_metadata(directory, saved)

    def _collect_quietly(self, up_to: int | None = None) -> None:
        """Collect garbage; if that fails, what is kept is none the worse."""
        try:
            self._collect(up_to)
        except OSError as error:
            _logger.warning("what is not needed in %s cannot be removed: %s", self.directory, error)

    def _collect(self, up_to: int | None) -> None:
        """Drop checkpoints beyond the retained ones, then the chunks that nothing refers to."""
        numbers = [number for number in self._begun() if up_to is None or number <= up_to]
        readable: dict[int, CheckpointMetadata] = {}
        unreadable = []
        for number in self.completed():
            if len(readable) == self._retained:
                self._drop(number)
                continue
            try:
                readable[number] = self._metadata(number)
            except CheckpointDamagedError as error:
                unreadable.append(number)
                _logger.warning("checkpoint %d cannot be used: %s", number, error)
        if unreadable:  # nobody knows what it refers to: another version may be able to read it
            numbers = [number for number in numbers if number > max(unreadable)]
        keep = frozenset(chunk.name for kept in readable.values() for chunk in kept.chunks())
        self._remove_garbage(numbers, keep)

    def _drop(self, number: int) -> None:
        """Let a checkpoint be no more: its metadata goes first."""
        path = self._home(number) / METADATA
        if path.exists():
            self._files.remove(path)
            self._files.sync_directory(path.parent)

    def _remove_garbage(self, numbers: list[int], keep: frozenset[str]) -> None:
        highest = max(numbers, default=0)
        for number in numbers:
            home = self._home(number)
            if not self._sweep(home, keep) and number != highest:
                self._files.remove(home)

    def _sweep(self, home: Path, keep: frozenset[str]) -> int:
        """Remove the drafts and the chunks that are not kept; return how many files are left."""
        left = 0
        for name in os.listdir(home):
            if name == METADATA or f"{home.name}/{name}" in keep:
                left += 1
            elif name.endswith((".chunk", TEMPORARY)):
                self._files.remove(home / name)
            else:  # not ours
                left += 1
        return left


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(f"cannot write {what}: {error.strerror or error}") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CheckpointDamagedError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointDamagedError(f"{path} cannot be read: {error.strerror}") from error


def _read_metadata(directory: Path) -> CheckpointMetadata:
    path = directory / METADATA
    with _readable(path):
        data = path.read_bytes()
    return decode_metadata(data, str(path))
