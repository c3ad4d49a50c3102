"""`LineFile`: the lines of one text file, a piece at a time, from any line on.

Here bytes become lines: decompression, decoding, line numbers, and positions to come back to. Which
files are read, and what a line means, is said elsewhere.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sage.common.errors import SourceError
from sage.connector.compression import READ_FAULTS, Compression, check_compression, open_binary

MAX_LINE_BYTES: Final = 64 << 20

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


@dataclass(frozen=True)
class TextFormat:
    """How the bytes of a file become lines.

    Attributes:
        encoding: Any that writes ASCII as ASCII does.
        compression: `"infer"` goes by the name of the file.
        max_line_bytes: A line with more bytes than that is a fault.

    Raises:
        SourceError: one of them cannot be used.
    """

    encoding: str = "utf-8"
    compression: Compression = "infer"
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", check_encoding(self.encoding))
        check_compression(self.compression)
        if type(self.max_line_bytes) is not int or self.max_line_bytes < 1:
            raise SourceError(
                f"max_line_bytes is a whole number of at least 1, not {self.max_line_bytes!r}"
            )


class LineFile:
    r"""Reads one file in pieces of whole lines.

    A position is the triple (byte offset at which a piece begins, lines before it, lines read of
    it); for a compressed file the offset counts decompressed bytes.

    Args:
        path: The file.
        format: Its encoding and compression.
        keep_ends: Whether lines keep their line ends; without them `\n` and `\r\n` are cut off.
        part: The lines that begin at these bytes, the second not included; `None` for all of them.
            Lines are counted from the first that begins there.

    Raises:
        SourceError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        format: TextFormat,  # noqa: A002 - the word for it
        *,
        keep_ends: bool = False,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self.begin = 0 if part is None else part[0]
        self._end = None if part is None else part[1]
        self._format = format
        self._codec = "utf-8" if format.encoding == "utf-8-sig" else format.encoding
        self._keep_ends = keep_ends
        self._file = open_binary(path, format.compression)
        self._tail = b""
        self._offset = self._line = 0  # where the present piece begins …
        self._size = self._count = 0  # … and how many bytes and lines it has
        self._dropped = 0
        self._fault: SourceError | None = None

    @property
    def place(self) -> str:
        """The file, and the byte from which its lines are counted unless it is the first."""
        return f"{self.path} from byte {self.begin} on" if self.begin else self.path

    def begin_part(self) -> None:
        """Go to the first line that begins in the part of the file; instead of `seek`.

        Raises:
            SourceError: the file is damaged.
        """
        if not self.begin:
            return
        at = self.begin - 1  # a line that begins at the first byte has a line end before it
        try:
            self._file.seek(at)
            while chunk := self._file.read1(_CHUNK):
                if cut := chunk.find(b"\n") + 1:
                    self._tail = chunk[cut:]
                    self._offset = at + cut
                    return
                at += len(chunk)
        except READ_FAULTS as error:
            raise self._unreadable(error) from error
        self._offset = at

    def seek(self, position: Sequence[int]) -> list[str]:
        """Go to `position` and return the lines left of its piece; call it before anything else.

        Raises:
            SourceError: the file has no such position.
        """
        offset, line, skip = position
        try:
            if offset:  # a piece begins behind a line end: a changed file is found out by that
                self._file.seek(offset - 1)
                if (before := self._file.read1(1)) != b"\n":
                    raise self._misfit(line + skip, "" if before else f"; it has no byte {offset}")
        except READ_FAULTS as error:
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
        piece = self._check_length(self._cut(self._read_piece()))
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
        if self._end is not None and self._offset >= self._end:
            return b""
        parts, size = [self._tail], len(self._tail)
        try:
            # read1 gives what is there: nothing that could be read is lost before a fault.
            while chunk := self._file.read1(_CHUNK):
                if cut := chunk.rfind(b"\n") + 1:
                    parts.append(chunk[:cut])
                    self._tail = chunk[cut:]
                    return b"".join(parts)
                parts.append(chunk)
                size += len(chunk)
                if size > self._format.max_line_bytes + 1:  # one for a carriage return
                    raise self._too_long(self._line + 1)
        except READ_FAULTS as error:
            raise self._unreadable(error) from error
        self._tail = b""
        return b"".join(parts)

    def _cut(self, piece: bytes) -> bytes:
        """Leave out the lines that begin behind the part of the file."""
        if self._end is None or self._offset + len(piece) <= self._end:
            return piece
        cut = piece.find(b"\n", self._end - 1 - self._offset) + 1
        return piece[:cut] if cut else piece

    def _check_length(self, piece: bytes) -> bytes:
        limit = self._format.max_line_bytes
        if len(piece) <= limit:
            return piece
        begin = 0
        for number, line in enumerate(piece.split(b"\n"), 1):
            if len(line.removesuffix(b"\r")) > limit:
                self._fault = self._too_long(self._line + number)
                return piece[:begin]
            begin += len(line) + 1
        return piece

    def _decode(self, piece: bytes) -> str:
        if self._format.encoding == "utf-8-sig" and self._offset == 0:
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
            f"{self.place}, line {line}: the bytes {wrong!r} are not {self._codec} "
            f"({error.reason}); name the encoding that the file has, for example "
            "encoding='latin-1'"
        )

    def _unreadable(self, error: BaseException) -> SourceError:
        what = "the compressed data ends too early" if isinstance(error, EOFError) else str(error)
        return SourceError(
            f"{self.place}, after line {self._line + self._count}: cannot be read on: {what}. Its "
            "lines so far have been read; fetch the file again if it is incomplete or damaged"
        )

    def _too_long(self, line: int) -> SourceError:
        limit = self._format.max_line_bytes
        return SourceError(
            f"{self.place}, line {line} has more than {limit} bytes; is it a file of lines? If so, "
            "allow longer ones with max_line_bytes=…"
        )

    def _misfit(self, line: int, how: str = "") -> SourceError:
        return SourceError(
            f"cannot continue {self.place} after line {line}: it has changed "
            f"since the position was taken{how}. Start without the checkpoint, or restore the file"
        )
