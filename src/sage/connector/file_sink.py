"""`FileSink`: records become files that appear whole, with the checkpoint that covers them.

Here are its settings. Records go to hidden files, `prepare_commit` brings them to disk, `commit`
gives them their names: that is in `file_writer`. How a file is written is in `part_file` and
`parquet_part`, where hidden files are in `work_directory`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from sage.common.suggest import did_you_mean
from sage.connector.compression import SUFFIXES, Codec, check_zstd
from sage.connector.file_writer import FileNames, FileWriter, Rolling
from sage.connector.part_file import PartFormat, TextParts
from sage.connector.partition_path import PartitionBy, partition_function
from sage.connector.record_format import EXTENSIONS, Format, RecordFormat
from sage.connector.sink_error import SinkError
from sage.connector.work_directory import WorkDirectory, made_by
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, TwoPhaseWriter
from sage.dataflow.time import to_ms
from sage.kernel.checkpoint.durable_files import Step, no_step

if TYPE_CHECKING:
    import pyarrow as pa


class FileSinkOptions(TypedDict, total=False):
    """The rarer settings of a `FileSink`.

    Attributes:
        compression: `"gzip"`, `"zstd"` (extra `zstd`), or `None` for none. Parquet compresses
            within the file, with snappy by default.
        roll_bytes: Begin another file when one has grown to about so many bytes.
        roll_interval: Begin another file when one was begun so long ago: a `timedelta`, or seconds.
        roll_on_checkpoint: Begin another file at each checkpoint, the default. `False` writes on, so
            files may be bigger, and appear later: with the checkpoint after they have become big or
            old, or at the end of input. Not for Parquet.
        partition_by: Let the files go into directories by record: the name of a field, or several
            (`day=2026-11-21/origin=JFK`), or a function from a record to such a path.
        max_open_files: How many files are open at a time in a subtask, 64 by default. The one that
            has not been written to for longest is closed first. It is opened again when there is
            more for it; a Parquet file is finished instead, and another one begun.
        fieldnames: The columns of CSV; by default the keys of the first record.
        schema: The `pyarrow.Schema` of Parquet; by default that of the first records.
        prefix: How the names of the files begin.
    """

    compression: Codec | None
    roll_bytes: int | None
    roll_interval: timedelta | float | None
    roll_on_checkpoint: bool
    partition_by: PartitionBy | None
    max_open_files: int
    fieldnames: Sequence[str] | None
    schema: pa.Schema | None
    prefix: str


class FileSink(Sink[Any]):
    r"""Writes files into a directory, each record exactly once.

    A file is called `part-<subtask>-<checkpoint>-<n>.<extension>`. It appears whole, when the
    checkpoint that covers its records is complete; without checkpoints, at the end of the input.
    Until then it is in a hidden directory, whose name begins with a dot and ends in `.tmp`. A job
    that is run again adds files; nothing that is there is ever replaced. A directory and prefix are
    for one sink.

    `"text"` writes `str(record)` and a line end, `"jsonl"` a JSON value per line, `"csv"` a header
    and rows: of dicts by their keys, of lists and tuples in their order. `"parquet"` (extra
    `parquet`) writes rows of dicts, dataclasses, named tuples or msgspec
    Structs.

    Args:
        directory: Where the files go; it is made if it is not there.
        format: `"text"`, `"jsonl"`, `"csv"` or `"parquet"`.
        encoding: Of the text.
        options: See `FileSinkOptions`.

    Raises:
        SinkError: a setting is not usable.

    Examples:
        >>> import tempfile, pathlib
        >>> from sage.testing import StandaloneContext
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = FileSink(folder, "jsonl").create_writer(StandaloneContext(), None)
        ...     writer.write_batch([{"id": 7}])
        ...     writer.commit(writer.prepare_commit(1))
        ...     writer.close()
        ...     [(file.name, file.read_text()) for file in pathlib.Path(folder).iterdir()]
        [('part-0-0000000001-0.jsonl', '{"id":7}\n')]
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        format: Format = "text",  # noqa: A002 - as users say it
        encoding: str = "utf-8",
        **options: Unpack[FileSinkOptions],
    ) -> None:
        _check_options(options)
        self.directory = os.fspath(directory)
        self.format = format
        self.encoding = encoding
        self.compression = options.get("compression")
        self.partition_by = options.get("partition_by")
        self.fieldnames = options.get("fieldnames")
        self.schema = options.get("schema")
        self.prefix = options.get("prefix", "part")
        self.rolling = _rolling(options)
        self._check_rolling()
        self._format(None)
        if self.partition_by is not None:
            partition_function(self.partition_by)

    def _check_rolling(self) -> None:
        if self.rolling.on_checkpoint:
            return
        if self.format == "parquet":
            raise SinkError(
                "a Parquet file cannot be written on after a checkpoint: leave out "
                "roll_on_checkpoint=False, and take checkpoints less often for bigger files"
            )
        if self.rolling.bytes is None and self.rolling.interval_ms is None:
            raise SinkError(
                "with roll_on_checkpoint=False say when a file is to appear: roll_bytes=, "
                "roll_interval= or both"
            )

    @property
    def extension(self) -> str:
        """How the names of the files end."""
        packed = self.compression if self.format != "parquet" else None
        return EXTENSIONS[self.format] + (SUFFIXES[packed] if packed else "")

    def create_writer(
        self, context: RuntimeContext, state: Any, *, step: Step = no_step
    ) -> TwoPhaseWriter[Any]:
        """Open a writer and remove what earlier runs of this subtask have left half done.

        Args:
            context: Tells the job, the operator and the subtask.
            state: What `snapshot` returned; `None` at the first start.
            step: Is called before each operation on files, for tests that end the process there.

        Raises:
            SinkError: the directory cannot be written to.
        """
        work = WorkDirectory(Path(self.directory), self.prefix, context, step)
        by = self.partition_by
        writer = FileWriter(
            work,
            self._format(state["format"] if state else None),
            FileNames(f"{self.prefix}-{context.subtask_index}", self.extension),
            self.rolling,
            partition=None if by is None else partition_function(by),
            now_ms=context.now_ms,
        )
        try:
            writer.restore(state)
        except BaseException:
            writer.close()
            raise
        return writer

    def redistribute(self, states: Sequence[Any], parallelism: int) -> Sequence[Any]:
        """Deal out the files that are written on, and let all know those that nobody may remove."""
        known = [state for state in states if state is not None]
        if not known:
            return [None] * parallelism
        formats = [state["format"] for state in known if state["format"] is not None]
        growing = [file for state in known for file in state["growing"]]
        kept = [name for state in known for name in state["prepared"]]
        kept += [name for name, *_ in growing]
        common: dict[str, Any] = {
            "prepared": {},
            "kept": kept,
            "format": formats[0] if formats else None,
        }
        return [
            {**common, "growing": [f for f in growing if (made_by(f[0]) or 0) % parallelism == n]}
            for n in range(parallelism)
        ]

    def _format(self, restored: Any) -> PartFormat:
        if self.format == "parquet":
            if self.fieldnames is not None:
                raise SinkError("the columns of format='parquet' are given by schema=")
            # It makes use of an extra, and only this format needs it.
            from sage.connector.parquet_part import ParquetParts  # noqa: PLC0415

            return ParquetParts(restored or self.schema, self.compression)
        if self.schema is not None:
            raise SinkError(f"schema is for format='parquet', not for {self.format!r}")
        text = RecordFormat(self.format, self.encoding, restored or self.fieldnames)
        return TextParts(text, self.compression)


def _check_options(options: FileSinkOptions) -> None:
    known: Collection[str] = FileSinkOptions.__annotations__
    for name in options:
        if name not in known:
            raise SinkError(f"a FileSink has no option {name!r}.{did_you_mean(name, known)}")
    compression = options.get("compression")
    if compression not in {None, *SUFFIXES}:
        raise SinkError(f"compression is None, 'gzip' or 'zstd', not {compression!r}")
    if compression == "zstd":
        check_zstd(SinkError)
    prefix = options.get("prefix", "part")
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", prefix):
        raise SinkError(f"a prefix has letters, digits, '_' and '-' only, not {prefix!r}")


def _rolling(options: FileSinkOptions) -> Rolling:
    roll, max_open = options.get("roll_bytes"), options.get("max_open_files", 64)
    if roll is not None and (type(roll) is not int or roll < 1):
        raise SinkError(f"roll_bytes is a whole number of at least 1, or None, not {roll!r}")
    if type(max_open) is not int or max_open < 1:
        raise SinkError(f"max_open_files is a whole number of at least 1, not {max_open!r}")
    interval_ms = _interval_ms(options.get("roll_interval"))
    return Rolling(roll, interval_ms, options.get("roll_on_checkpoint", True), max_open)


def _interval_ms(interval: timedelta | float | None) -> int | None:
    if interval is None:
        return None
    try:
        interval_ms = to_ms(interval, name="roll_interval")
    except (TypeError, ValueError) as error:
        raise SinkError(str(error)) from None
    if interval_ms < 1:
        raise SinkError(f"roll_interval is at least a millisecond, or None, not {interval!r}")
    return interval_ms
