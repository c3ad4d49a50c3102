"""`TextFileSource`: the lines of text files; and what all sources of files share.

That is: which files a path or a pattern stands for, and reading them one after another. How one
file becomes lines is in `text_lines`, rows are in `csv_file`, JSON in `json_lines`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob, has_magic
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from sage.common.errors import SourceError
from sage.common.suggest import did_you_mean
from sage.connector.text_lines import Compression, LineFile, check_encoding
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

T = TypeVar("T")

Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

END: Final = "end"
"""The position of a file that has been read to its end."""


class TextFileSource(Source[str]):
    r"""Reads text files line by line.

    A record is a line without its line end (`\n` or `\r\n`); empty lines are records; the last
    line needs no line end. Each file is a split; a reader opens its files one after another.

    Args:
        paths: A path, a pattern such as `"logs/*.log"` or `"logs/**/*.log"`, or several of them.
            The matches of a pattern are sorted, `part-2` before `part-10`; a file named twice is
            read once.
        encoding: Any that writes ASCII as ASCII does; `"utf-8-sig"` drops a byte order mark.
        compression: `"infer"` decompresses files called `*.gz`; `"gzip"` all; `"none"` none.

    Raises:
        SourceError: the encoding cannot be used.

    Examples:
        >>> import tempfile, pathlib
        >>> from sage.testing import read_all
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "greetings.txt")
        ...     _ = path.write_text("hello\n\nworld")
        ...     read_all(TextFileSource(path))
        ['hello', '', 'world']
    """

    bounded = True

    def __init__(
        self, paths: Paths, *, encoding: str = "utf-8", compression: Compression = "infer"
    ) -> None:
        self._paths = list_paths(paths)
        self._encoding = check_encoding(encoding)
        self._compression = compression

    def list_splits(self) -> Sequence[str]:
        """Return the files.

        Raises:
            SourceError: a file is missing, a directory, or nothing matches a pattern.
        """
        return find_files(self._paths)

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[str]:
        """Return a reader of the files `splits`; each is opened when its turn comes."""
        return FilesReader(splits, self._open)

    def _open(self, path: str, position: Any) -> RecordFile[str]:
        return _TextFile(LineFile(path, self._encoding, self._compression), position)


class RecordFile(Protocol[T]):
    """One open file, as a sequence of records."""

    def read(self, max_records: int) -> list[T]:
        """Return the next records in a new list, at most `max_records`; none at the end."""
        ...

    def position(self) -> Any:
        """Return the position behind the last record that was returned."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class FilesReader(SourceReader[T]):
    """Reads files one after another, only one being open at a time.

    Args:
        splits: The files and the positions to begin at.
        open_file: Opens a file at a position; `None` is its start. It leaves no file open when it
            raises.
    """

    poll_interval = None

    def __init__(
        self, splits: Mapping[str, Any], open_file: Callable[[str, Any], RecordFile[T]]
    ) -> None:
        self._positions = dict(splits)
        self._open_file = open_file
        self._to_read = [path for path, position in splits.items() if position != END]
        self._to_read.reverse()
        self._path = ""
        self._file: RecordFile[T] | None = None

    def read_batch(self, max_records: int) -> list[T] | None:
        """Return records of one file, `None` behind the last file.

        Raises:
            SourceError: a file cannot be opened or read on.
        """
        while (file := self._file or self._open_next()) is not None:
            if batch := file.read(max_records):
                return batch
            self.close()
            self._positions[self._path] = END
        return None

    def _open_next(self) -> RecordFile[T] | None:
        if not self._to_read:
            return None
        self._path = path = self._to_read[-1]
        self._file = self._open_file(path, self._positions[path])
        self._to_read.pop()
        return self._file

    def snapshot(self) -> dict[str, Any]:
        """Return the position in each file: `None` before, `END` behind."""
        if self._file is not None:
            self._positions[self._path] = self._file.position()
        return dict(self._positions)

    def close(self) -> None:
        """Close the file that is open."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class _TextFile:
    def __init__(self, file: LineFile, position: Any) -> None:
        self._file = file
        self._lines: list[str] = []
        self._next = 0
        if position is not None:
            try:
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


def list_paths(paths: Paths) -> list[str]:
    """Return `paths` as a list of strings.

    Raises:
        SourceError: something in it is no path.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    try:
        return [os.fspath(path) for path in several]
    except TypeError as error:
        raise SourceError(
            f"a file source needs a path, a pattern or a list of them: {error}"
        ) from None


def find_files(paths: Sequence[str]) -> list[str]:
    """Return the files that `paths` name, patterns expanded, each file once.

    Raises:
        SourceError: a file is missing, a directory, or nothing matches a pattern.
    """
    found: dict[str, None] = {}
    for path in paths:
        if has_magic(path) and not os.path.lexists(path):
            found.update(dict.fromkeys(_expand(path)))
        else:
            _check_is_file(path)
            found[path] = None
    if not found:
        raise SourceError("a file source was given an empty list of paths; name at least one file")
    return list(found)


def _expand(pattern: str) -> list[str]:
    matches = [path for path in glob(pattern, recursive=True) if not os.path.isdir(path)]
    if not matches:
        raise SourceError(f"no file matches {pattern!r} {_looked_from(pattern)}")
    return sorted(matches, key=natural_key)


def natural_key(path: str) -> list[tuple[int, str]]:
    """Return a sort key that takes runs of digits as numbers: `part-2` before `part-10`.

    Examples:
        >>> sorted(["part-10", "part-2"], key=natural_key)
        ['part-2', 'part-10']
    """
    parts = re.split(r"([0-9]+)", path)
    return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]


def _check_is_file(path: str) -> None:
    if os.path.isdir(path):
        pattern = os.path.join(path, "*")
        raise SourceError(f"{path} is a directory; name the files in it, for example {pattern!r}")
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        near = did_you_mean(name, os.listdir(folder or ".")) if os.path.isdir(folder or ".") else ""
        raise SourceError(f"there is no file {path!r} {_looked_from(path)}.{near}")


def _looked_from(path: str) -> str:
    return "" if os.path.isabs(path) else f"(looked from {os.getcwd()})"
