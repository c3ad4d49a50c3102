"""`PartFile`: one file that a sink is writing, and has not made visible; here for lines of text.

Parquet has its own in `parquet_part`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sage.connector.compression import Codec, Compressor, open_compressor
from sage.connector.record_format import RecordFormat
from sage.connector.work_directory import WorkDirectory
from sage.connector.work_files import cannot, finish


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

    def snapshot(self) -> Any:
        """Return the columns of CSV."""
        return self.format.fieldnames


class TextPart:
    """A file of lines.

    Set aside it ends a compressed part; the next one follows it, and readers take them for one.

    Args:
        work: Where it grows.
        parts: How it is written.
    """

    def __init__(self, work: WorkDirectory, parts: TextParts) -> None:
        self._format, self._codec, self._step = parts.format, parts.codec, work.step
        self.name, self._raw = work.create()
        self._path: Path = work.directory / self.name
        self._compressor: Compressor | None = None
        self._size = 0
        self._begun = False

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
        if self._raw.closed:
            self._raw = self._path.open("ab", buffering=1 << 16)
        if self._codec is None:
            return self._raw
        if self._compressor is None:
            self._compressor = open_compressor(self._raw, self._codec)
        return self._compressor

    def size(self) -> int:
        """Return about how many bytes it has: what is being compressed is not counted yet."""
        return self._size if self._raw.closed else self._raw.tell()

    def set_aside(self) -> bool:
        """Close it until the next `write`."""
        try:
            self._end_compression()
            self._size = self._raw.tell()
            self._raw.close()
        except OSError as error:
            raise cannot("write to", self._path, error) from error
        return True

    def _end_compression(self) -> None:
        compressor, self._compressor = self._compressor, None
        if compressor is not None:
            compressor.close()

    def finish(self) -> None:
        """Bring it to disk; see `PartFile`."""
        try:
            if self._raw.closed:
                self._raw = self._path.open("ab")
            self._end_compression()
        except OSError as error:
            self.abandon()
            raise cannot("write to", self._path, error) from error
        finish(self._raw, self._path, self._step)

    def abandon(self) -> None:
        """Close it."""
        with suppress(OSError):  # a full disk: it is going to be removed anyway
            self._end_compression()
        with suppress(OSError):
            self._raw.close()
