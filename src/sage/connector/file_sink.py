"""`FileSink`: records become files that appear whole, with the checkpoint that covers them.

Records go to a hidden file; `prepare_commit` brings it to disk, `commit` gives it its name. How
records become bytes is in `record_format`, how the hidden files are kept apart in `work_files`.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict, Unpack

from sage.common.suggest import did_you_mean
from sage.connector.record_format import EXTENSIONS, Format, RecordFormat
from sage.connector.sink_error import SinkError
from sage.connector.work_files import WorkFiles, cannot, finish
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, TwoPhaseWriter
from sage.kernel.checkpoint.durable_files import Step, no_step


class FileSinkOptions(TypedDict, total=False):
    """The rarer settings of a `FileSink`.

    Attributes:
        compression: `"gzip"`, or `None` for none.
        roll_bytes: Begin another file when one has grown to about so many bytes.
        fieldnames: The columns of CSV; by default the keys of the first record.
        prefix: How the names of the files begin.
    """

    compression: Literal["gzip"] | None
    roll_bytes: int | None
    fieldnames: Sequence[str] | None
    prefix: str


class FileSink(Sink[Any]):
    r"""Writes files into a directory, each record exactly once.

    A file is called `part-<subtask>-<checkpoint>-<n>.<extension>`. It appears whole, when the
    checkpoint that covers its records is complete; without checkpoints, at the end of the input.
    Until then it is hidden: its name begins with a dot and ends in `.tmp`. A job that is run again
    adds files; nothing that is there is ever replaced. A directory and prefix are for one sink.

    `"text"` writes `str(record)` and a line end, `"jsonl"` a JSON value per line, `"csv"` a header
    and rows: of dicts by their keys, of lists and tuples in their order.

    Args:
        directory: Where the files go; it is made if it is not there.
        format: `"text"`, `"jsonl"` or `"csv"`.
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
        self.roll_bytes = options.get("roll_bytes")
        self.fieldnames = options.get("fieldnames")
        self.prefix = options.get("prefix", "part")
        RecordFormat(format, encoding, self.fieldnames)

    @property
    def extension(self) -> str:
        """How the names of the files end."""
        return EXTENSIONS[self.format] + (".gz" if self.compression else "")

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
        files = WorkFiles(Path(self.directory), self.prefix, context, step)
        return FileWriter(self, files, context.subtask_index, state)

    def redistribute(self, states: Sequence[Any], parallelism: int) -> Sequence[Any]:
        """Let all know the columns, and the files that one of them commits: nobody removes those."""
        known = [state for state in states if state is not None]
        if not known:
            return [None] * parallelism
        columns = [state["fieldnames"] for state in known if state["fieldnames"] is not None]
        kept = [hidden for state in known for hidden in state["prepared"]]
        fieldnames = columns[0] if columns else None
        return [{"prepared": {}, "kept": kept, "fieldnames": fieldnames}] * parallelism


class FileWriter(TwoPhaseWriter[Any]):
    """Writes the files of one subtask; made by `FileSink.create_writer`.

    Args:
        sink: The settings.
        files: The hidden files.
        subtask: The number of the subtask.
        state: What `snapshot` returned; `None` at the first start.
    """

    def __init__(
        self, sink: FileSink, files: WorkFiles, subtask: int, state: Mapping[str, Any] | None
    ) -> None:
        self._sink = sink
        self._files = files
        self._stem = f"{sink.prefix}-{subtask}"
        self._format = RecordFormat(
            sink.format, sink.encoding, state["fieldnames"] if state else sink.fieldnames
        )
        self._prepared: dict[str, str] = dict(state["prepared"]) if state else {}
        self._rolled: list[str] = []
        self._open: _OpenFile | None = None
        kept = state.get("kept") if state else None
        files.remove_abandoned(
            kept if kept is not None else self._prepared if state else None,
            of_others=kept is not None,
        )

    def write_batch(self, values: Sequence[Any]) -> None:
        """Append `values` to the hidden file.

        Raises:
            SinkError: a record does not fit the format, or the disk is full.
        """
        data = self._format.encode(values)
        if not data:
            return
        file = self._open
        if file is None:
            file = self._open = _OpenFile(self._files, compressed=self._sink.compression == "gzip")
            data = self._format.header() + data
        file.write(data)
        if self._sink.roll_bytes is not None and file.size() >= self._sink.roll_bytes:
            self._finish()

    def _finish(self) -> None:
        if self._open is not None:
            self._open.finish()
            self._rolled.append(self._open.name)
            self._open = None

    def prepare_commit(self, checkpoint_id: int) -> Any:
        """Bring the files to disk and choose their names.

        Returns:
            Pairs of the hidden and the visible name; `None` if there are no records.

        Raises:
            SinkError: the disk is full, say.
        """
        self._finish()
        if not self._rolled:
            return None
        self._files.sync()
        names = self._free_names(checkpoint_id, len(self._rolled))
        pairs = list(zip(self._rolled, names, strict=True))
        self._prepared.update(pairs)
        self._rolled = []
        return pairs

    def _free_names(self, checkpoint_id: int, count: int) -> list[str]:
        taken = {*os.listdir(self._files.directory), *self._prepared.values()}
        names: list[str] = []
        number = 0
        while len(names) < count:
            name = f"{self._stem}-{checkpoint_id:010d}-{number}.{self._sink.extension}"
            if name not in taken:
                names.append(name)
            number += 1
        return names

    def commit(self, committable: Sequence[tuple[str, str]]) -> None:
        """Give the files their names, unless they have them.

        Raises:
            SinkError: a file is there under neither name, or its name is taken.
        """
        for hidden, name in committable:
            self._rename(self._files.directory / hidden, self._files.directory / name)
        self._files.sync()  # also if nothing was left to do: the renames may not be on disk yet
        for hidden, _ in committable:
            self._files.release(hidden)
            self._prepared.pop(hidden, None)

    def _rename(self, hidden: Path, visible: Path) -> None:
        if not hidden.exists():
            if visible.exists():
                return
            raise SinkError(
                f"{visible} cannot be committed: neither it nor {hidden.name} is there. Was it "
                "moved, or the directory of the sink changed? Put it back, or start without the "
                "checkpoint"
            )
        if visible.exists():
            raise SinkError(
                f"{hidden} cannot be committed: there is another {visible.name} already. Give each "
                "sink a directory or prefix of its own, move that file away and go on"
            )
        self._files.step("rename", visible)
        try:
            hidden.rename(visible)
        except OSError as error:
            raise cannot("rename to", visible, error) from error

    def snapshot(self) -> Any:
        """Return which hidden files are waiting for their names, and the columns."""
        return {"prepared": dict(self._prepared), "fieldnames": self._format.fieldnames}

    def close(self) -> None:
        """Remove what has not been prepared; what has been is left for `commit`."""
        names, self._rolled = self._rolled, []
        if self._open is not None:
            self._open.abandon()
            names.append(self._open.name)
            self._open = None
        self._files.close(names)


class _OpenFile:
    """The hidden file that is being written."""

    def __init__(self, files: WorkFiles, *, compressed: bool) -> None:
        self.name, self._raw = files.create()
        self._path = files.directory / self.name
        self._step = files.step
        self._file: BinaryIO | gzip.GzipFile = self._raw
        if compressed:  # without time and name: the same records make the same bytes
            self._file = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0)

    def write(self, data: bytes) -> None:
        self._step("write", self._path)
        try:
            self._file.write(data)
        except OSError as error:
            raise cannot("write to", self._path, error) from error

    def size(self) -> int:
        return self._raw.tell()

    def finish(self) -> None:
        try:
            if self._file is not self._raw:
                self._file.close()  # writes the end of the compressed data
        except OSError as error:
            self.abandon()
            raise cannot("write to", self._path, error) from error
        finish(self._raw, self._path, self._step)

    def abandon(self) -> None:
        for file in (self._file, self._raw):
            with suppress(OSError):  # a full disk: it is going to be removed anyway
                file.close()


def _check_options(options: FileSinkOptions) -> None:
    known: Collection[str] = FileSinkOptions.__annotations__
    for name in options:
        if name not in known:
            raise SinkError(f"a FileSink has no option {name!r}.{did_you_mean(name, known)}")
    compression, roll = options.get("compression"), options.get("roll_bytes")
    if compression not in {None, "gzip"}:
        raise SinkError(f"compression is None or 'gzip', not {compression!r}")
    if roll is not None and (type(roll) is not int or roll < 1):
        raise SinkError(f"roll_bytes is a whole number of at least 1, or None, not {roll!r}")
    prefix = options.get("prefix", "part")
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", prefix):
        raise SinkError(f"a prefix has letters, digits, '_' and '-' only, not {prefix!r}")
