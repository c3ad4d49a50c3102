"""`ParquetSource`: the rows of Parquet files as dicts. Needs pyarrow (extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from sage.common.errors import SourceError
from sage.common.suggest import did_you_mean, shorten
from sage.connector.file_parts import check_parts, name_row_groups, parse_part
from sage.connector.file_paths import Paths
from sage.connector.file_source import FileSource
from sage.connector.file_watch import Watch
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import SourceReader

_BATCH: Final = 4096  # rows that are decoded at once


def check_pyarrow(error: type[Exception]) -> None:
    """Raise `error` unless there is a package for Parquet."""
    if find_spec("pyarrow") is None:
        raise error("Parquet needs the package pyarrow; pip install 'sage-dataflow[parquet]'")


class ParquetSource(FileSource[dict[str, Any]]):
    """Reads Parquet files row by row; a row is a dict by the names of the columns.

    Values are what pyarrow makes of them: `datetime`, `Decimal`, lists and dicts for what is
    nested, `None` for null. Each file is a split; a position in it is a row group and a row.

    Args:
        paths: As in `TextFileSource`.
        columns: The columns to read; the others are not touched. All by default.
        split_row_groups: Let each row group be a split, so that several subtasks read one file.
        watch: As in `FileSource`.

    Raises:
        SourceError: pyarrow is missing, or `columns` are no names.

    Examples:
        >>> import pyarrow, pyarrow.parquet, tempfile
        >>> from sage.testing import read_all
        >>> trips = pyarrow.table({"origin": ["JFK", "EWR"], "miles": [2475, None]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pyarrow.parquet.write_table(trips, f"{folder}/trips.parquet")
        ...     read_all(ParquetSource(f"{folder}/*.parquet"))
        [{'origin': 'JFK', 'miles': 2475}, {'origin': 'EWR', 'miles': None}]
    """

    def __init__(
        self,
        paths: Paths,
        *,
        columns: Iterable[str] | None = None,
        split_row_groups: bool = False,
        watch: Watch | timedelta | float | None = None,
    ) -> None:
        super().__init__(paths, watch)
        if split_row_groups and watch is not None:
            raise SourceError("split_row_groups is for files that are not watched")
        self._split_row_groups = split_row_groups
        check_pyarrow(SourceError)
        if isinstance(columns, str) or not isinstance(columns, Iterable | None):
            raise SourceError(f"columns are a list of names, not {columns!r}")
        self._columns = None if columns is None else list(columns)

    def list_splits(self) -> Sequence[str]:
        """Return the files, or their row groups.

        Raises:
            SourceError: as in `FileSource.list_splits`, or a file is no whole Parquet file.
        """
        paths = super().list_splits()
        if not self._split_row_groups:
            return paths
        return [part for path in paths for part in name_row_groups(path, _count_groups(path))]

    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[dict[str, Any]]:
        """Return a reader of the files or row groups `splits`.

        Raises:
            SourceError: `split_row_groups` was set otherwise when the positions were taken.
        """
        check_parts(splits)
        return super().create_reader(splits, context)

    def open_file(self, split: str, position: Any) -> _ParquetFile:
        """Open a file at a position; see `FileSource.open_file`."""
        return _ParquetFile(split, self._columns, position)


class _ParquetFile:
    """One Parquet file, or a part. A position is a row group, a row in it, and the rows of the file."""

    def __init__(self, split: str, columns: Sequence[str] | None, position: Any) -> None:
        self._path, part = parse_part(split)
        self._raw, self._file = _open(self._path)
        try:
            metadata = self._file.metadata
            self._begin = 0 if part is None else part[0]
            self._groups: int = metadata.num_row_groups if part is None else part[1]
            self._total = metadata.num_rows
            self._columns = columns
            self._check_columns(self._file.schema_arrow.names)
            self._group, self._row = self._check_position(position)
        except BaseException:
            self.close()
            raise
        self._skip = self._row
        self._decoded: Any = None  # a RecordBatch, and how many rows of it have been returned
        self._used = 0
        self._fault: SourceError | None = None
        self._batches = self._read_groups()

    def _check_position(self, position: Sequence[int] | None) -> tuple[int, int]:
        group, row, total = position or (self._begin, 0, self._total)
        if total != self._total:
            raise SourceError(
                f"cannot continue {self._path} after row {row} of row group {group}: it had "
                f"{total} rows when the position was taken, and has {self._total} now. Start "
                "without the checkpoint, or restore the file"
            )
        return group, row

    def _check_columns(self, names: Sequence[str]) -> None:
        for column in self._columns or ():
            if column not in names and column.partition(".")[0] not in names:
                raise SourceError(
                    f"{self._path} has no column {column!r}.{did_you_mean(column, names)}"
                )

    def _read_groups(self) -> Iterator[Any]:
        """Decode batch by batch, from the position on."""
        while self._group < self._groups:
            yield from self._read_group(self._skip)
            self._group, self._row, self._skip = self._group + 1, 0, 0

    def _read_group(self, skip: int) -> Iterator[Any]:
        for batch in self._file.iter_batches(
            _BATCH, row_groups=[self._group], columns=self._columns, use_threads=False
        ):
            if skip < batch.num_rows:
                yield batch.slice(skip)
            skip = max(0, skip - batch.num_rows)

    def read(self, max_records: int) -> list[dict[str, Any]]:
        """Return the next rows, none at the end.

        Raises:
            SourceError: the file is damaged; the rows before that have been returned.
        """
        if self._fault is not None:
            raise self._fault
        try:
            if self._decoded is None or self._used == self._decoded.num_rows:
                self._decoded, self._used = next(self._batches, None), 0
            if self._decoded is None:
                return []
            rows: list[dict[str, Any]] = self._decoded.slice(self._used, max_records).to_pylist()
        except (OSError, ValueError, ArithmeticError, NotImplementedError) as error:
            self._fault = self._unreadable(error)
            raise self._fault from error
        self._used += len(rows)
        self._row += len(rows)
        return rows

    def _unreadable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._path}, row group {self._group}, after row {self._row}: cannot be read on: "
            f"{error}. Its rows so far have been read; fetch the file again if it is damaged"
        )

    def position(self) -> tuple[int, int, int]:
        """Return the position behind the last row that was returned."""
        return self._group, self._row, self._total

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


def _count_groups(path: str) -> int:
    raw, file = _open(path)
    groups: int = file.metadata.num_row_groups
    file.close()
    raw.close()
    return groups


def _open(path: str) -> tuple[Any, Any]:
    from pyarrow import ArrowException, OSFile  # an extra, and slow to load  # noqa: PLC0415
    from pyarrow.parquet import ParquetFile  # as above  # noqa: PLC0415

    try:
        raw = OSFile(path)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    try:
        return raw, ParquetFile(raw)
    except (ArrowException, OSError) as error:
        raw.close()
        raise SourceError(
            f"{path} is no whole Parquet file: {error}. Was it still being written, or is it of "
            "another format?"
        ) from error


class RowConverter:
    """Turns a row into an object of a type, and checks it; made by `row_converter`."""

    def __init__(self, type: Any) -> None:  # noqa: A002 - as in msgspec
        self.type = type

    def __call__(self, row: dict[str, Any]) -> Any:
        """Return the object for `row`.

        Raises:
            ValueError: the row does not fit the type.
        """
        try:
            return msgspec.convert(row, self.type)
        except msgspec.ValidationError as error:
            raise ValueError(f"not of the type asked for: {error}; it is {shorten(row)}") from error


def row_converter(type: Any) -> RowConverter:  # noqa: A002 - as in msgspec
    """Return a function from a row to an object.

    Args:
        type: What a row must be: a `msgspec.Struct`, a dataclass, a `TypedDict` ….

    Raises:
        TypeError: rows cannot be turned into `type`.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Trip:
        ...     origin: str
        >>> row_converter(Trip)({"origin": "JFK"})
        Trip(origin='JFK')
    """
    msgspec.json.Decoder(type)  # tells of types that it does not know
    return RowConverter(type)
