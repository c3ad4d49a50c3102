"""`FilesReader`: reads files one after another, whatever they are made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from sage.dataflow.function.source import SourceReader

T = TypeVar("T")

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


class FilesReader(SourceReader[T]):
    """Reads files one after another, only one being open at a time.

    Args:
        splits: The files and the positions to begin at.
        open_file: Opens a file at a position; `None` is its start. It leaves no file open when it
            raises.
    """

    poll_interval: float | None = None

    def __init__(
        self, splits: Mapping[str, Any], open_file: Callable[[str, Any], RecordFile[T]]
    ) -> None:
        self.positions: dict[str, Any] = {}
        self._open_file = open_file
        self._to_read: deque[str] = deque()
        self._path = ""
        self._file: RecordFile[T] | None = None
        self.add_files(splits)

    def add_files(self, positions: Mapping[str, Any]) -> None:
        """Read these files, too, after the others."""
        self.positions.update(positions)
        self._to_read.extend(path for path, position in positions.items() if position != END)

    def read_batch(self, max_records: int) -> list[T] | None:
        """Return records of one file, `None` behind the last file.

        Raises:
            SourceError: a file cannot be opened or read on.
        """
        while (file := self._file or self._open_next()) is not None:
            if batch := file.read(max_records):
                return batch
            self.close()
            self.positions[self._path] = END
        return None

    def _open_next(self) -> RecordFile[T] | None:
        if not self._to_read:
            return None
        self._path = path = self._to_read[0]
        self._file = self._open_file(path, self.positions[path])
        self._to_read.popleft()
        return self._file

    def snapshot(self) -> dict[str, Any]:
        """Return the position in each file: `None` before, `END` behind."""
        if self._file is not None:
            self.positions[self._path] = self._file.position()
        return dict(self.positions)

    def gauges(self) -> dict[str, int]:
        """Return how many files there are still to begin."""
        return {"files_waiting": len(self._to_read)}

    def close(self) -> None:
        """Close the file that is open."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
