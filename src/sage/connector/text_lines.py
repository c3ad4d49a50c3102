"""`LineFile`: the lines of one text file, a piece at a time, from any line on.

Here bytes become lines: decompression, decoding, line numbers, and positions to come back to. Which
files are read, and what a line means, is said elsewhere.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias, cast

from sage.common.errors import SourceError

Compression: TypeAlias = Literal["infer", "gzip", "none"]

_CHUNK: Final = 1 << 16
_ASCII: Final = bytes(range(128))


def check_encoding(encoding: str) -> str:
    """Return the codec's own name for `encoding`, one whose line ends are single bytes.

    Raises:
        SourceError: the encoding is unknown, or lines cannot be told apart before decoding.

    Examples:
        >>> check_encoding("UTF8")
        'utf-8'
    """
    try:
        codec = codecs.lookup(encoding)
    except LookupError:
        raise SourceError(
            f"unknown encoding {encoding!r}; 'utf-8' and 'latin-1' are usual ones"
        ) from None
    except TypeError:
        raise SourceError(f"an encoding is a name such as 'utf-8', not {encoding!r}") from None
    try:
        fits = _ASCII.decode(codec.name) == _ASCII.decode("ascii")
    except (UnicodeError, LookupError):
        fits = False
    if not fits:
        raise SourceError(
            f"encoding {encoding!r} cannot be read by lines, because it does not write the ASCII "
            "characters as ASCII does; convert the text to utf-8 first, for example with "
            f"`iconv -f {encoding} -t utf-8`"
        )
    return codec.name


class LineFile:
    r"""Reads one file in pieces of whole lines.

    A position is the triple (byte offset at which a piece begins, lines before it, lines read of
    it); for a compressed file the offset counts decompressed bytes.

    Args:
        path: The file.
        encoding: As `check_encoding` returns it.
        compression: `"infer"` decompresses what is called `*.gz`.
        keep_ends: Whether lines keep their line ends; without them `\n` and `\r\n` are cut off.

    Raises:
        SourceError: the file cannot be opened.
    """

    def __init__(
        self, path: str, encoding: str, compression: Compression, *, keep_ends: bool = False
    ) -> None:
        self.path = path
        self._codec = "utf-8" if encoding == "utf-8-sig" else encoding
        self._skips_mark = encoding == "utf-8-sig"
        self._keep_ends = keep_ends
        self._file = _open_binary(path, compression)
        self._tail = b""
        self._offset = self._line = 0  # where the present piece begins …
        self._size = self._count = 0  # … and how many bytes and lines it has
        self._dropped = 0
        self._fault: SourceError | None = None

    def seek(self, position: Sequence[int]) -> list[str]:
        """Go to `position` and return the lines left of its piece; call it before anything else.

        Raises:
            SourceError: the file has no such position.
        """
        offset, line, skip = position
        try:
            if offset:  # a piece begins behind a line end: a changed file is found out by that
                self._file.seek(offset - 1)
                if self._file.read1(1) != b"\n":
                    raise self._misfit(line + skip)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        self._offset, self._line = offset, line
        return self._drop(skip)

    def _drop(self, skip: int) -> list[str]:
        lines: list[str] = []
        left = skip
        while left > len(lines):
            left -= len(lines)
            lines = self.read_lines()
            if not lines:
                raise self._misfit(self._line + left)
        self._dropped = left
        return lines[left:]

    def read_lines(self) -> list[str]:
        """Return the lines of the next piece; an empty list at the end of the file.

        Raises:
            SourceError: the file is damaged or not in its encoding. The lines before the fault have
                been returned.
        """
        if self._fault is not None:
            raise self._fault
        self._offset += self._size
        self._line += self._count
        self._size = self._count = self._dropped = 0
        piece = self._read_piece()
        lines = self._split(self._decode(piece)) if piece else []
        if not lines and self._fault is not None:
            raise self._fault
        self._size, self._count = len(piece), len(lines)
        return lines

    def position(self, taken: int) -> tuple[int, int, int]:
        """Return the position behind the first `taken` lines of those last returned."""
        return self._offset, self._line, self._dropped + taken

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_piece(self) -> bytes:
        parts = [self._tail]
        try:
            # read1 gives what is there: nothing that could be read is lost before a fault.
            while chunk := self._file.read1(_CHUNK):
                if cut := chunk.rfind(b"\n") + 1:
                    parts.append(chunk[:cut])
                    self._tail = chunk[cut:]
                    return b"".join(parts)
                parts.append(chunk)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        self._tail = b""
        return b"".join(parts)

    def _decode(self, piece: bytes) -> str:
        if self._skips_mark and self._offset == 0:
            piece = piece.removeprefix(codecs.BOM_UTF8)
        try:
            return piece.decode(self._codec)
        except UnicodeDecodeError as error:
            begin = piece.rfind(b"\n", 0, error.start) + 1
            self._fault = self._undecodable(piece, error)
            self._fault.__cause__ = error
            return piece[:begin].decode(self._codec)

    def _split(self, text: str) -> list[str]:
        # Not str.splitlines: it also splits at form feeds, U+2028 and other characters.
        if self._keep_ends:
            return io.StringIO(text, newline="\n").readlines()
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        return lines

    def _undecodable(self, piece: bytes, error: UnicodeDecodeError) -> SourceError:
        line = self._line + piece.count(b"\n", 0, error.start) + 1
        wrong = piece[error.start : error.end]
        return SourceError(
            f"{self.path}, line {line}: the bytes {wrong!r} are not {self._codec} "
            f"({error.reason}); name the encoding that the file has, for example "
            "encoding='latin-1'"
        )

    def _unreadable(self, error: BaseException) -> SourceError:
        what = "the compressed data ends too early" if isinstance(error, EOFError) else str(error)
        return SourceError(
            f"{self.path}, after line {self._line + self._count}: cannot be read on: {what}. Its "
            "lines so far have been read; fetch the file again if it is incomplete or damaged"
        )

    def _misfit(self, line: int) -> SourceError:
        return SourceError(
            f"cannot continue {self.path} after line {line}: it has changed "
            "since the position was taken; start without the checkpoint, or restore the file"
        )


class _ByteStream(Protocol):
    """What `LineFile` needs of a file; `open` and `gzip.open` both give it."""

    def read1(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def close(self) -> None: ...


def _open_binary(path: str, compression: Compression) -> _ByteStream:
    zipped = path.endswith(".gz") if compression == "infer" else compression == "gzip"
    try:
        return cast("_ByteStream", gzip.open(path, "rb") if zipped else open(path, "rb"))
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
