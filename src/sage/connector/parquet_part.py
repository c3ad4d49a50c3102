"""Parquet files of a sink. Needs pyarrow (extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from sage.common.suggest import did_you_mean, shorten
from sage.connector.compression import Codec
from sage.connector.parquet_source import check_pyarrow
from sage.connector.part_file import PartFile
from sage.connector.sink_error import SinkError, cannot
from sage.connector.work_directory import WorkDirectory, finish

_GROUP_ROWS: Final = 1 << 17
_GROUP_BYTES: Final = 32 << 20  # as Arrow has them in memory, of each open file


class ParquetParts:
    """Parquet files of one schema.

    Args:
        schema: A `pyarrow.Schema`, or what makes one, or its bytes from `snapshot`; `None`: that of
            the first records.
        codec: The compression within the files; snappy by default.

    Raises:
        SinkError: pyarrow is missing, or there is no such schema.
    """

    def __init__(self, schema: Any, codec: Codec | None) -> None:
        check_pyarrow(SinkError)
        self.codec = codec or "snappy"
        self.schema = None if schema is None else _schema(schema)

    def open_part(self, work: WorkDirectory) -> PartFile:
        """Begin a file; see `PartFormat`."""
        return ParquetPart(work, self)

    def continue_part(self, work: WorkDirectory, name: str, size: int) -> PartFile:
        """Refuse: no Parquet file is held at a checkpoint."""
        raise SinkError(f"{name} was written as lines and cannot be gone on with as Parquet")

    def snapshot(self) -> Any:
        """Return the schema."""
        return None if self.schema is None else self.schema.serialize().to_pybytes()

    def to_batch(self, values: Sequence[Any]) -> Any:
        """Return records as a `pyarrow.RecordBatch`.

        Raises:
            SinkError: a record does not fit the schema.
        """
        from pyarrow import ArrowException, RecordBatch  # an extra  # noqa: PLC0415

        rows = [_as_mapping(value) for value in values]
        try:
            if self.schema is None:
                self.schema = _infer(rows)
            _check_columns(rows, self.schema.names)
            return RecordBatch.from_pylist(rows, self.schema)
        except (ArrowException, TypeError, ValueError, OverflowError) as error:
            raise SinkError(
                f"a record does not fit the schema of the Parquet files: {error}. The schema is "
                f"that of the first records unless you give one with schema=pyarrow.schema(…); it "
                f"is {_describe(self.schema)}"
            ) from error


def _schema(schema: Any) -> Any:
    import pyarrow as pa  # an extra, and slow to load  # noqa: PLC0415

    try:
        if isinstance(schema, bytes):
            return pa.ipc.read_schema(pa.py_buffer(schema))
        return schema if isinstance(schema, pa.Schema) else pa.schema(schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SinkError(
            f"schema is a pyarrow.Schema, or a list of names and types: {error}"
        ) from None


def _infer(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa  # an extra  # noqa: PLC0415

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    schema = pa.RecordBatch.from_pydict(columns).schema
    for field in schema:
        if field.type == pa.null():
            raise TypeError(f"the column {field.name!r} has no value in the first records")
    return schema


def _describe(schema: Any) -> str:
    if schema is None:
        return "not known yet"
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _as_mapping(record: Any) -> Mapping[str, Any]:
    if isinstance(record, Mapping):
        return record
    if isinstance(record, tuple) and hasattr(record, "_asdict"):
        return cast("Mapping[str, Any]", record._asdict())
    if isinstance(record, msgspec.Struct):
        return msgspec.structs.asdict(record)
    if is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in fields(record)}
    raise SinkError(
        "a row of Parquet is a dict, a dataclass, a named tuple or a Struct; the record is "
        f"{shorten(record)}"
    )


def _check_columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Demand that no column would be left out; one that a record has not is null."""
    known = set(names)
    for row in rows:
        if not row.keys() <= known:
            name = next(name for name in row if name not in known)
            raise TypeError(f"there is no column {name!r} in it.{did_you_mean(str(name), names)}")


class ParquetPart:
    """A Parquet file. Its rows are kept in memory until they make a row group.

    Args:
        work: Where it grows.
        parts: Its schema and compression.
    """

    def __init__(self, work: WorkDirectory, parts: ParquetParts) -> None:
        self._parts, self._step = parts, work.step
        self.name, self._raw = work.create()
        self._path: Path = work.directory / self.name
        self._writer: Any = None
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def write(self, values: Sequence[Any]) -> None:
        """Append records; see `PartFile`."""
        batch = self._parts.to_batch(values)
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        from pyarrow import Table  # an extra  # noqa: PLC0415
        from pyarrow.parquet import ParquetWriter  # as above  # noqa: PLC0415

        self._step("write", self._path)
        try:
            if self._writer is None:
                self._writer = ParquetWriter(
                    self._raw, self._parts.schema, compression=self._parts.codec
                )
            if self._batches:
                self._writer.write_table(Table.from_batches(self._batches), self._rows)
        except OSError as error:
            raise cannot("write to", self._path, error) from error
        self._batches, self._rows, self._bytes = [], 0, 0

    def size(self) -> int:
        """Return about how many bytes it has, those in memory as they are there."""
        return self._raw.tell() + self._bytes

    def set_aside(self) -> bool:
        """Finish it: nothing can be appended to a Parquet file."""
        self.finish()
        return False

    def hold(self) -> None:
        """Do nothing: a Parquet file cannot be written on."""

    def finish(self) -> None:
        """Write its last row group and its footer, and bring it to disk; see `PartFile`."""
        try:
            if self._batches or self._writer is None:
                self._write_group()
            self._writer.close()
        except OSError as error:
            self.abandon()
            raise cannot("write to", self._path, error) from error
        finish(self._raw, self._path, self._step)

    def abandon(self) -> None:
        """Close it."""
        if self._writer is not None:
            with suppress(OSError):  # a full disk: it is going to be removed anyway
                self._writer.close()
        with suppress(OSError):
            self._raw.close()
