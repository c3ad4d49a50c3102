"""`PartFile`: one file that a sink is writing, and has not made visible; here for lines of text.

Parquet has its own in `parquet_part`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sage.connector.compression import Codec, Compressor, open_compressor
from sage.connector.record_format import RecordFormat
from sage.connector.sink_error import cannot
from sage.connector.work_directory import WorkDirectory, finish


class PartFile(Protocol):
    """A file that grows: written, perhaps set aside and written on, then finished or abandoned."""

    name: str

    def write(self, values: Sequence[Any]) -> None:
        """Append records; a file that was set aside is opened again.

        Raises:
            SinkError: a record does not fit the format, or the disk is full.
        """
        ...

    def size(self) -> int:
        """Return about how many bytes it has."""
        ...

    def set_aside(self) -> bool:
        """Close it until the next `write`; `False`: it has been finished, and can take no more.

        Raises:
            SinkError: the disk is full.
        """
        ...

    def hold(self) -> int | None:
        """Bring what it has to disk, for a checkpoint behind which it is written on.

        Returns:
            How many bytes that is; `None`: it cannot be written on afterwards.

        Raises:
            SinkError: the disk is full.
        """
        ...

    def finish(self) -> None:
        """Bring it to disk and close it; it is not written any more.

        Raises:
            SinkError: the disk is full.
        """
        ...

    def abandon(self) -> None:
        """Close it; it is going to be removed."""
        ...


class PartFormat(Protocol):
    """How records become files; keeps what the files of a sink have in common."""

    def open_part(self, work: WorkDirectory) -> PartFile:
        """Begin a file.

        Raises:
            SinkError: it cannot be made.
        """
        ...

    def continue_part(self, work: WorkDirectory, name: str, size: int) -> PartFile:
        """Go on with a file that had so many bytes when it was held.

        Raises:
            SinkError: it is not there, or has fewer.
        """
        ...

    def snapshot(self) -> Any:
        """Return what a new sink must know to write the same kind of files; plain data."""
        ...


class TextParts:
    """Files of lines: text, JSON Lines, CSV.

    Args:
        format: How records become bytes.
        codec: How the bytes are compressed.
    """

    def __init__(self, format: RecordFormat, codec: Codec | None) -> None:  # noqa: A002
        self.format = format
        self.codec = codec

    def open_part(self, work: WorkDirectory) -> PartFile:
        """Begin a file; see `PartFormat`."""
        return TextPart(work, self)

    def continue_part(self, work: WorkDirectory, name: str, size: int) -> PartFile:
        """Go on with a file; see `PartFormat`."""
        work.cut(name, size)
        return TextPart(work, self, (name, size))

    def snapshot(self) -> Any:
        """Return the columns of CSV."""
        return self.format.fieldnames


class TextPart:
    """A file of lines.

    Set aside it ends a compressed part; the next one follows it, and readers take them for one.

    Args:
        work: Where it grows.
        parts: How it is written.
        continued: The name and the size of a file to go on with; `None` begins one.
    """

    def __init__(
        self, work: WorkDirectory, parts: TextParts, continued: tuple[str, int] | None = None
    ) -> None:
        self._format, self._codec, self._step = parts.format, parts.codec, work.step
        self._raw: BinaryIO | None = None
        if continued is None:
            self.name, self._raw = work.create()
        else:
            self.name = continued[0]
        self._path: Path = work.directory / self.name
        self._compressor: Compressor | None = None
        self._size = 0 if continued is None else continued[1]
        self._begun = self._size > 0

    def write(self, values: Sequence[Any]) -> None:
        """Append records; see `PartFile`."""
        data = self._format.encode(values)
        if not self._begun:
            data = self._format.header() + data
            self._begun = True
        self._step("write", self._path)
        try:
            self._out().write(data)
        except OSError as error:
            raise cannot("write to", self._path, error) from error

    def _out(self) -> BinaryIO | Compressor:
        raw = self._opened()
        if self._codec is None:
            return raw
        if self._compressor is None:
            self._compressor = open_compressor(raw, self._codec)
        return self._compressor

    def _opened(self) -> BinaryIO:
        if self._raw is None:
            self._raw = self._path.open("ab", buffering=1 << 16)
        return self._raw

    def size(self) -> int:
        """Return about how many bytes it has: what is being compressed is not counted yet."""
        return self._size if self._raw is None else self._raw.tell()

    def set_aside(self) -> bool:
        """Close it until the next `write`."""
        try:
            self._end_compression()
            self._size = self.size()
            self._close()
        except OSError as error:
            raise cannot("write to", self._path, error) from error
        return True

    def _close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def hold(self) -> int:
        """Bring what it has to disk; see `PartFile`."""
        was_open = self._raw is not None
        self._step("fsync", self._path)
        try:
            self._end_compression()
            raw = self._opened()
            raw.flush()
            os.fsync(raw.fileno())
            self._size = raw.tell()
            if not was_open:
                self._close()
        except OSError as error:
            raise cannot("write to", self._path, error) from error
        return self._size

    def _end_compression(self) -> None:
        compressor, self._compressor = self._compressor, None
        if compressor is not None:
            compressor.close()

    def finish(self) -> None:
        """Bring it to disk; see `PartFile`."""
        try:
            raw = self._opened()
            self._end_compression()
        except OSError as error:
            self.abandon()
            raise cannot("write to", self._path, error) from error
        finish(raw, self._path, self._step)
        self._raw = None

    def abandon(self) -> None:
        """Close it."""
        with suppress(OSError):  # a full disk: it is going to be removed anyway
            self._end_compression()
        with suppress(OSError):
            self._close()
