"""`CsvSource`: the rows of CSV files as they stand; and `csv_row_to_dict`: columns with names.

They are two steps so that a row with a column too many is the business of a map operator, where the
pipeline says what becomes of records that fail.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Unpack, cast

import msgspec

from sage.common.errors import SourceError
from sage.connector.file import LinesSource, TextFileOptions
from sage.connector.file_parts import parse_part
from sage.connector.file_paths import Paths
from sage.connector.text_lines import LineFile


class CsvRow(msgspec.Struct, frozen=True, gc=False):
    """A row of a CSV file.

    Attributes:
        path: The file; of a part of a file with the byte from which its lines are counted, as in
            `"big.csv from byte 4096 on"`.
        line: The number of the line on which the row begins, counted from 1.
        values: The columns, as text.
        header: The names of the columns, or `None`.
    """

    path: str
    line: int
    values: list[str]
    header: tuple[str, ...] | None


def csv_row_to_dict(row: CsvRow) -> dict[str, str]:
    """Return the columns of `row` by their names; by their numbers, "0" first, without a header.

    Raises:
        ValueError: the row has more or fewer columns than the header.

    Examples:
        >>> csv_row_to_dict(CsvRow("trips.csv", 2, ["JFK", "LAX"], ("origin", "dest")))
        {'origin': 'JFK', 'dest': 'LAX'}
    """
    header, values = row.header, row.values
    if header is None:
        return {str(number): value for number, value in enumerate(values)}
    if len(values) != len(header):
        raise ValueError(
            f"{row.path}, line {row.line}: expected {len(header)} columns "
            f"({', '.join(header)}), found {len(values)}"
        )
    return dict(zip(header, values))  # noqa: B905 - the lengths are equal, and strict= takes time


class CsvSource(LinesSource[CsvRow]):
    r"""Reads CSV files row by row.

    A quoted value may hold the delimiter, quotes (doubled) and line ends. Blank lines are passed
    over. Rows come as they stand: map them with `csv_row_to_dict`.

    Args:
        paths: As in `TextFileSource`.
        header: `True`: the first row of each file names the columns; `False`: they have no names;
            or the names, when the files have no header row.
        delimiter: The character between two columns.
        quotechar: The character around a value that holds a delimiter or a line end.
        encoding: As in `TextFileSource`; a byte order mark is dropped by default.
        options: See `TextFileOptions`. `split_bytes` is for files in which no value holds a line
            end.

    Raises:
        SourceError: the encoding, the delimiter or the quote character cannot be used.

    Examples:
        >>> import tempfile, pathlib
        >>> from sage.testing import read_all
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "trips.csv")
        ...     _ = path.write_text('origin,note\nJFK,"late, very"\n')
        ...     [csv_row_to_dict(row) for row in read_all(CsvSource(path))]
        [{'origin': 'JFK', 'note': 'late, very'}]
    """

    def __init__(
        self,
        paths: Paths,
        *,
        header: bool | Sequence[str] = True,
        delimiter: str = ",",
        quotechar: str = '"',
        encoding: str = "utf-8-sig",
        **options: Unpack[TextFileOptions],
    ) -> None:
        super().__init__(paths, encoding, options)
        if not isinstance(header, (bool, Iterable)):
            raise SourceError(f"header is True, False or the names of the columns, not {header!r}")
        self._header = header if isinstance(header, bool) else tuple(header)
        self._format = {"delimiter": delimiter, "quotechar": quotechar}
        try:
            csv.reader((), **cast("Any", self._format))
        except (TypeError, ValueError) as error:
            raise SourceError(f"CSV files cannot be read this way: {error}") from None

    def open_file(self, split: str, position: Any) -> _CsvFile:
        """Open a file at a position; see `FileSource.open_file`."""
        lines = self.open_lines(split, keep_ends=True)
        try:
            file = _CsvFile(lines, self._format, position)
            if position is None:
                file.name_columns(self._names(split) if lines.begin else self._header)
        except BaseException:
            lines.close()
            raise
        return file

    def _names(self, split: str) -> bool | tuple[str, ...]:
        """Return the names of the columns of a file that is begun in its midst."""
        if self._header is not True:
            return self._header
        whole = self.open_file(parse_part(split)[0], None)
        whole.close()
        return whole.header or False


class _CsvFile:
    """One CSV file. Its position is that of the lines, and the header.

    The parser takes lines from an iterator over the pieces of the file, one row's worth at a time;
    the number of lines it has taken tells how far into the present piece it is.
    """

    def __init__(self, file: LineFile, style: Mapping[str, Any], position: Any) -> None:
        self._file = file
        lines: list[str] = []
        self.header: tuple[str, ...] | None = None
        self._lines_before = 0
        if position is None:
            file.begin_part()
        else:
            *at, header = position
            lines = file.seek(at)
            self.header = None if header is None else tuple(header)
            self._lines_before = at[1] + at[2]
        self._piece_begin = 0
        self._ended = False
        self._row_line = 1
        self._fault: SourceError | None = None
        self._fault_position: tuple[Any, ...] | None = None
        self._rows = csv.reader(chain(lines, chain.from_iterable(self._pieces())), **style)

    def _pieces(self) -> Iterator[list[str]]:
        while not self._ended:
            lines = self._file.read_lines()
            self._piece_begin = self._rows.line_num
            self._ended = not lines
            yield lines

    def name_columns(self, header: bool | tuple[str, ...]) -> None:
        """Take the names of the columns as given, or from the first row."""
        if header is True:
            first = self.read(1)
            self.header = tuple(first[0].values) if first else None
        elif header is not False:
            self.header = header
        names = self.header or ()
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise SourceError(
                f"{self._file.path}: the column name {twice[0]!r} occurs {names.count(twice[0])} "
                "times in the header; give the names with header=[…] and drop the first row"
            )

    def read(self, max_records: int) -> list[CsvRow]:
        """Return the next rows, none at the end.

        Raises:
            SourceError: the file is damaged; the rows before that have been returned.
        """
        if self._fault is not None:
            raise self._fault
        rows: list[CsvRow] = []
        begin = self.position()
        try:
            while not (rows or self._ended):
                self._parse(rows, max_records)
        except SourceError as error:
            offset, line, _, header = begin
            self._fault = error
            self._fault_position = (offset, line, self._row_line - line - 1, header)
            if not rows:
                raise
        return rows

    def _parse(self, rows: list[CsvRow], max_records: int) -> None:
        reader, path, header = self._rows, self._file.place, self.header
        line = self._lines_before + reader.line_num + 1
        try:
            for values in islice(reader, max_records):
                if self._ended:  # the parser asked for more lines in the middle of this row
                    raise self._wrong(line, "a quoted value begins here and never ends")
                if values:
                    rows.append(CsvRow(path, line, values, header))
                line = self._lines_before + reader.line_num + 1
        except csv.Error as error:
            raise self._wrong(line, str(error)) from error
        finally:
            self._row_line = line

    def _wrong(self, line: int, what: str) -> SourceError:
        return SourceError(
            f"{self._file.place}, line {line}: {what}; mend the file, or give the delimiter and "
            "quotechar that it is written with"
        )

    def position(self) -> tuple[Any, ...]:
        """Return the position of the next row."""
        if self._fault_position is not None:
            return self._fault_position
        return (*self._file.position(self._rows.line_num - self._piece_begin), self.header)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
