"""`TextFileSource`: the lines of text files.

How one file becomes lines is in `text_lines`; what all sources of files share is in `file_source`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from sage.common.errors import SourceError
from sage.common.suggest import did_you_mean
from sage.connector.compression import Compression, codec_of
from sage.connector.file_parts import all_parts, check_parts, check_split_bytes, parse_part
from sage.connector.file_paths import Paths
from sage.connector.file_source import FileSource
from sage.connector.file_watch import Watch
from sage.connector.text_lines import MAX_LINE_BYTES, LineFile, TextFormat
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import SourceReader

T_co = TypeVar("T_co", covariant=True)


class TextFileOptions(TypedDict, total=False):
    """The rarer settings of sources that read lines.

    Attributes:
        compression: `"infer"` decompresses files called `*.gz`, `*.zst` and `*.zstd`; `"gzip"` and
            `"zstd"` (extra `zstd`) all of them; `"none"` none.
        max_line_bytes: A longer line is an error, 64 MiB by default: a file that has no lines is
            found out before it fills the memory.
        split_bytes: Cut files that are bigger than that, and not compressed, into parts of so many
            bytes, at line ends. Several subtasks then read one file, and its lines keep their
            order within a part only.
        watch: Go on for ever, and read files that appear: seconds between two looks, or a `Watch`.
    """

    compression: Compression
    max_line_bytes: int
    split_bytes: int | None
    watch: Watch | timedelta | float | None


class LinesSource(FileSource[T_co]):
    """Reads files of lines; what text and CSV share.

    Args:
        paths: As in `FileSource`.
        encoding: Of the text.
        options: See `TextFileOptions`.

    Raises:
        SourceError: a setting cannot be used.
    """

    def __init__(self, paths: Paths, encoding: str, options: TextFileOptions) -> None:
        known: Collection[str] = TextFileOptions.__annotations__
        for name in options:
            if name not in known:
                raise SourceError(
                    f"{type(self).__name__} has no option {name!r}.{did_you_mean(name, known)}"
                )
        super().__init__(paths, options.get("watch"))
        self._text = TextFormat(
            encoding,
            options.get("compression", "infer"),
            options.get("max_line_bytes", MAX_LINE_BYTES),
        )
        self._split_bytes = check_split_bytes(options.get("split_bytes"))
        if self._split_bytes is not None and not self.bounded:
            raise SourceError("split_bytes is for files that are not watched")

    def list_splits(self) -> Sequence[str]:
        """Return the files, or the parts of them.

        Raises:
            SourceError: a file is missing, a directory, or nothing matches a pattern.
        """
        paths = super().list_splits()
        if self._split_bytes is None:
            return paths
        packed = [path for path in paths if codec_of(path, self._text.compression) is not None]
        return all_parts(paths, self._split_bytes, packed)

    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[T_co]:
        """Return a reader of the files or parts `splits`; each is opened when its turn comes.

        Raises:
            SourceError: files were cut in another way when the positions were taken.
        """
        check_parts(splits)
        return super().create_reader(splits, context)

    def open_lines(self, split: str, *, keep_ends: bool = False) -> LineFile:
        """Open a file or a part of one.

        Raises:
            SourceError: it cannot be opened.
        """
        path, part = parse_part(split)
        return LineFile(path, self._text, keep_ends=keep_ends, part=part)


class TextFileSource(LinesSource[str]):
    r"""Reads text files line by line.

    A record is a line without its line end (`\n` or `\r\n`); empty lines are records; the last
    line needs no line end. Each file is a split; a reader opens its files one after another.

    Args:
        paths: A path, a pattern such as `"logs/*.log"` or `"logs/**/*.log"`, or several of them.
            The matches of a pattern are sorted, `part-2` before `part-10`; a file named twice is
            read once.
        encoding: Any that writes ASCII as ASCII does; `"utf-8-sig"` drops a byte order mark.
        options: See `TextFileOptions`.

    Raises:
        SourceError: a setting cannot be used.

    Examples:
        >>> import tempfile, pathlib
        >>> from sage.testing import read_all
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "greetings.txt")
        ...     _ = path.write_text("hello\n\nworld")
        ...     read_all(TextFileSource(path))
        ['hello', '', 'world']
    """

    def __init__(
        self, paths: Paths, *, encoding: str = "utf-8", **options: Unpack[TextFileOptions]
    ) -> None:
        super().__init__(paths, encoding, options)

    def open_file(self, split: str, position: Any) -> _TextFile:
        """Open a file at a position; see `FileSource.open_file`."""
        return _TextFile(self.open_lines(split), position)


class _TextFile:
    def __init__(self, file: LineFile, position: Any) -> None:
        self._file = file
        self._lines: list[str] = []
        self._next = 0
        try:
            if position is None:
                file.begin_part()
            else:
                self._lines = file.seek(position)
        except BaseException:
            file.close()
            raise

    def read(self, max_records: int) -> list[str]:
        begin = self._next
        if begin == len(self._lines):
            self._lines = self._file.read_lines()
            begin = 0
        batch = self._lines[begin : begin + max_records]
        self._next = begin + len(batch)
        return batch

    def position(self) -> tuple[int, int, int]:
        return self._file.position(self._next)

    def close(self) -> None:
        self._file.close()
