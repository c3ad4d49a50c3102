"""How records become bytes of a file of lines: text, JSON lines, rows of CSV."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sage.common.suggest import did_you_mean, shorten
from sage.connector.sink_error import SinkError

Format: TypeAlias = Literal["text", "jsonl", "csv", "parquet"]

EXTENSIONS: Final[Mapping[str, str]] = {
    "text": "txt",
    "jsonl": "jsonl",
    "csv": "csv",
    "parquet": "parquet",
}


class RecordFormat:
    r"""Turns batches of records into bytes.

    Args:
        format: `"text"`, `"jsonl"` or `"csv"`.
        encoding: Of the text.
        fieldnames: The columns of CSV; by default those of the first record.

    Raises:
        SinkError: the format or the encoding is unknown, or columns are given for another format.

    Examples:
        >>> RecordFormat("jsonl").encode([{"id": 7}])
        b'{"id":7}\n'
    """

    def __init__(
        self,
        format: Format,  # noqa: A002 - as users say it
        encoding: str = "utf-8",
        fieldnames: Sequence[str] | None = None,
    ) -> None:
        if format not in EXTENSIONS:
            known = "text, jsonl, csv and parquet are known"
            raise SinkError(
                f"no format {format!r}; {known}.{did_you_mean(str(format), EXTENSIONS)}"
            )
        if fieldnames is not None and (format != "csv" or isinstance(fieldnames, str)):
            raise SinkError("fieldnames are the columns of format='csv', a list of names")
        try:
            self._encoding = codecs.lookup(encoding).name
        except (LookupError, TypeError):
            raise SinkError(f"unknown encoding {encoding!r}; 'utf-8' is usual") from None
        if "\n".encode(self._encoding) != b"\n":
            raise SinkError(
                f"encoding {encoding!r} does not write ASCII as ASCII does; use 'utf-8'"
            )
        self.format = format
        self.fieldnames = None if fieldnames is None else tuple(fieldnames)
        self._to_text: Callable[[Sequence[Any]], str] = {
            "text": _text,
            "jsonl": _json_lines,
            "csv": self._rows,
        }[format]

    def encode(self, values: Sequence[Any]) -> bytes:
        """Return the bytes for `values`.

        Raises:
            SinkError: a record does not fit the format or the encoding.
        """
        try:
            return self._to_text(values).encode(self._encoding)
        except UnicodeEncodeError as error:
            raise SinkError(f"a record cannot be written as {self._encoding}: {error}") from error

    def header(self) -> bytes:
        """Return what a file begins with; to be asked for after the first `encode`."""
        if self.fieldnames is None:
            return b""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow(self.fieldnames)
        return out.getvalue().encode(self._encoding)

    def _rows(self, values: Sequence[Any]) -> str:
        if self.fieldnames is None and values and isinstance(values[0], Mapping):
            self.fieldnames = tuple(values[0])
        out = io.StringIO()
        try:
            csv.writer(out, lineterminator="\n").writerows(map(self._row, values))
        except csv.Error as error:
            raise SinkError(f"a record cannot be written as CSV: {error}") from error
        return out.getvalue()

    def _row(self, value: Any) -> Sequence[Any]:
        names = self.fieldnames
        if isinstance(value, Mapping) and names is not None:
            if value.keys() == set(names):
                return [value[name] for name in names]
        elif isinstance(value, (list, tuple)) and (names is None or len(value) == len(names)):
            return value
        fits = "dicts, or lists and tuples" if names is None else f"the columns {list(names)}"
        raise SinkError(f"a row of CSV needs {fits}; the record is {shorten(value)}")


def _text(values: Sequence[Any]) -> str:
    return "".join(f"{value}\n" for value in values)


def _json_lines(values: Sequence[Any]) -> str:
    try:
        return msgspec.json.Encoder().encode_lines(values).decode()
    except (TypeError, ValueError, OverflowError) as error:
        raise SinkError(f"a record cannot be written as JSON: {error}") from error
