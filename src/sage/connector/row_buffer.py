"""`RowBuffer`: the rows of one epoch, pickled; in memory, and in a file beyond a number of bytes."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from sage.connector.sink_error import SinkError, cannot
from sage.connector.work_directory import WorkDirectory, finish
from sage.dataflow.function.context import RuntimeContext
from sage.kernel.checkpoint.durable_files import Step

_HEAD: Final = struct.Struct("<II")  # length and CRC of a block


@dataclass(frozen=True)
class Spill:
    """Where rows go that are too many for the memory.

    Attributes:
        directory: A directory that is there after a restart: on several machines, a shared one.
        above_bytes: So many bytes of pickled rows are kept in memory, per subtask.
    """

    directory: str
    above_bytes: int = 16 << 20


def open_spill(
    spill: Spill | None, context: RuntimeContext, state: Mapping[str, Any] | None, step: Step
) -> WorkDirectory | None:
    """Open the directory in which a writer keeps rows, and remove what earlier runs have left there.

    Args:
        spill: Where it is; `None`: rows stay in memory.
        context: Tells the job, the operator and the subtask.
        state: What a writer or `kept_by_all` says of files that are still needed, as `"prepared"` and
            `"kept"`; `None` at the first start.
        step: Is called before each operation, for tests that end the process there.

    Raises:
        SinkError: the directory cannot be made or written to.
    """
    if spill is None:
        return None
    files = WorkDirectory(Path(spill.directory), "rows", context, step)
    kept = None if state is None else state.get("kept")
    mine = None if state is None else state["prepared"]
    files.remove_abandoned(mine if kept is None else kept, of_others=kept is not None)
    return files


def kept_by_all(states: Sequence[Any]) -> list[str]:
    """Return the files that any of the writers of before has prepared: nobody is to remove them."""
    return [name for state in states if state is not None for name in state["prepared"]]


def spilled(spill: Spill | None, name: str | None) -> Path | None:
    """Return where the rows are that a checkpoint has in a file; `None` if it has none.

    Raises:
        SinkError: it has, and the sink does not say where.
    """
    if name is None:
        return None
    if spill is None:
        raise SinkError(f"the rows are in the file {name}; say where with spill=")
    return Path(spill.directory, name)


class RowBuffer:
    """Collects the rows of one epoch.

    Args:
        files: Where the file of rows is made; None keeps all of them in memory.
        above_bytes: How many bytes are kept in memory.
    """

    def __init__(self, files: WorkDirectory | None, above_bytes: int) -> None:
        self._files = files
        self._above = above_bytes
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._name: str | None = None
        self._file: BinaryIO | None = None

    def append(self, rows: Sequence[Any]) -> None:
        """Take rows as they are now.

        Raises:
            SinkError: a row cannot be pickled, or the disk is full.
        """
        try:
            block = pickle.dumps(rows, 5)
        except Exception as error:
            raise SinkError(f"a row cannot be kept until its checkpoint: {error}") from error
        self._blocks.append(block)
        self._bytes += len(block)
        if self._files is not None and self._bytes > self._above:
            self._spill(self._files)

    def _spill(self, files: WorkDirectory) -> None:
        if self._file is None:
            self._name, self._file = files.create()
        path = files.directory / (self._name or "")
        files.step("write", path)
        try:
            for block in self._blocks:
                self._file.write(_HEAD.pack(len(block), zlib.crc32(block)))
                self._file.write(block)
        except OSError as error:
            raise cannot("write to", path, error) from error
        self._blocks, self._bytes = [], 0

    def take(self) -> tuple[list[bytes], str | None]:
        """Return the blocks in memory, and the name of the file with those before them; and forget.

        Raises:
            SinkError: the disk is full.
        """
        if self._file is not None and self._files is not None and self._name is not None:
            finish(self._file, self._files.directory / self._name, self._files.step)
            self._files.sync()
        taken = self._blocks, self._name
        self._blocks, self._bytes, self._name, self._file = [], 0, None, None
        return taken

    def close(self) -> list[str]:
        """Close the file and return its name, if there is one: nobody has taken it."""
        if self._file is not None:
            with suppress(OSError):  # a full disk: it is going to be removed anyway
                self._file.close()
        return [] if self._name is None else [self._name]


def read_rows(blocks: Sequence[bytes], path: Path | None) -> Iterator[list[Any]]:
    """Give the rows of an epoch, those of the file first.

    Raises:
        SinkError: the file is gone or damaged.
    """
    if path is not None:
        yield from map(_unpickle, _read_blocks(path))
    yield from map(_unpickle, blocks)


def _unpickle(block: bytes) -> list[Any]:
    rows: list[Any] = pickle.loads(block)  # noqa: S301 - our own bytes, verified
    return rows


def _read_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while head := file.read(_HEAD.size):
                if len(head) < _HEAD.size:
                    raise SinkError(f"{path} is damaged: it ends too early")
                length, checksum = _HEAD.unpack(head)
                block = file.read(length)
                if len(block) != length or zlib.crc32(block) != checksum:
                    raise SinkError(f"{path} is damaged: its checksum is wrong")
                yield block
    except OSError as error:
        raise cannot("read the rows of a checkpoint from", path, error) from error
