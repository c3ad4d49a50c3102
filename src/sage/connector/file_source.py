"""What all sources of files share: which files they read, and reading them one after another.

Which files a pattern stands for is in `file_paths`; how a file becomes records is said by each
source for itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from sage.connector.file_paths import Paths, find_files, list_paths
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

END: Final = "end"
"""The position of a file that has been read to its end."""


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


class FileSource(Source[T_co]):
    """Reads files one after another; each is a split.

    Args:
        paths: A path, a pattern such as `"logs/*.log"` or `"logs/**/*.log"`, or several of them.
    """

    bounded = True

    def __init__(self, paths: Paths) -> None:
        self._paths = list_paths(paths)

    def list_splits(self) -> Sequence[str]:
        """Return the files.

        Raises:
            SourceError: a file is missing, a directory, or nothing matches a pattern.
        """
        return find_files(self._paths)

    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[T_co]:
        """Return a reader of the files `splits`; each is opened when its turn comes."""
        return FilesReader(splits, self.open_file)

    @abstractmethod
    def open_file(self, split: str, position: Any) -> RecordFile[T_co]:
        """Open a file at a position, `None` being its start; leave none open when it raises.

        Raises:
            SourceError: it cannot be opened, or the position does not fit it.
        """


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
