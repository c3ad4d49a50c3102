"""`FileWriter`: which file of a `FileSink` a record goes to, and when files are made visible."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sage.connector.part_file import PartFile, PartFormat
from sage.connector.partition_path import check_partition, part_records
from sage.connector.work_directory import WorkDirectory
from sage.dataflow.function.sink import TwoPhaseWriter


@dataclass(frozen=True)
class Rolling:
    """When another file is begun.

    Attributes:
        bytes: A file has about so many bytes; `None`: never for that.
        interval_ms: It was begun so many milliseconds ago; `None`: never for that.
        on_checkpoint: There is a checkpoint.
        max_open_files: So many files are open at a time.
    """

    bytes: int | None
    interval_ms: int | None
    on_checkpoint: bool
    max_open_files: int


@dataclass(frozen=True)
class FileNames:
    """What the files of a subtask are called: `<stem>-<checkpoint>-<n>.<extension>`."""

    stem: str
    extension: str

    def free(self, checkpoint_id: int, count: int, taken: Collection[str]) -> list[str]:
        """Return the first `count` names that are not taken."""
        names: list[str] = []
        number = 0
        while len(names) < count:
            name = f"{self.stem}-{checkpoint_id:010d}-{number}.{self.extension}"
            if name not in taken:
                names.append(name)
            number += 1
        return names


@dataclass
class _Growing:
    """The file of a directory that records are being written to.

    Attributes:
        part: The file.
        begun_ms: When it was begun.
        held: How many bytes of it a checkpoint covers, and whether any does.
    """

    part: PartFile
    begun_ms: int
    held: int | None = None


class FileWriter(TwoPhaseWriter[Any]):
    """Writes the files of one subtask; made by `FileSink.create_writer`.

    Args:
        work: The hidden directory.
        format: How records become files.
        names: What the files are called.
        rolling: When another file is begun.
        partition: Returns the directory of a record; `None`: there is one only.
        now_ms: The time by the job's clock.
    """

    def __init__(
        self,
        work: WorkDirectory,
        format: PartFormat,  # noqa: A002 - the word for it
        names: FileNames,
        rolling: Rolling,
        *,
        partition: Callable[[Any], str] | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._work, self._format, self._names = work, format, names
        self._rolling, self._partition, self._now_ms = rolling, partition, now_ms
        self._prepared: dict[str, str] = {}
        self._rolled: list[tuple[str, str]] = []  # hidden names and directories
        self._growing: dict[str, _Growing] = {}
        self._open: OrderedDict[str, None] = OrderedDict()  # those open, least recently used first
        self._covered: set[str] = set()  # hidden names that a checkpoint knows of
        self._ended = False

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `snapshot` returned, and remove what nobody refers to.

        Raises:
            SinkError: something cannot be removed, or a file not be gone on with.
        """
        if state is None:
            self._work.remove_abandoned(None)
            return
        self._prepared = dict(state["prepared"])
        self._covered = {name for name, *_ in state["growing"]}
        kept = state.get("kept")  # of all subtasks, when there are others than before
        self._work.remove_abandoned(
            {*self._prepared, *self._covered, *(kept or ())}, of_others=kept is not None
        )
        for name, directory, size, begun_ms in state["growing"]:
            if directory in self._growing:  # of another subtask that is no more
                self._finish(directory)
            part = self._format.continue_part(self._work, name, size)
            self._growing[directory] = _Growing(part, begun_ms, size)

    def write_batch(self, values: Sequence[Any]) -> None:
        """Append `values` to the hidden files of their directories.

        Raises:
            SinkError: a record does not fit the format, or the disk is full.
        """
        for directory, records in part_records(self._partition, values).items():
            if records:
                self._write(directory, records)

    def _write(self, directory: str, records: Sequence[Any]) -> None:
        growing = self._growing.get(directory)
        if growing is not None and self._is_full(growing):
            self._finish(directory)
            growing = None
        if growing is None:
            growing = self._begin(directory)
        self._open[directory] = None
        self._open.move_to_end(directory)
        growing.part.write(records)
        if self._is_big(growing):
            self._finish(directory)
        elif len(self._open) > self._rolling.max_open_files:
            self._set_aside()

    def _is_full(self, growing: _Growing) -> bool:
        interval = self._rolling.interval_ms
        is_old = interval is not None and self._now_ms() - growing.begun_ms >= interval
        return is_old or self._is_big(growing)

    def _is_big(self, growing: _Growing) -> bool:
        return self._rolling.bytes is not None and growing.part.size() >= self._rolling.bytes

    def _begin(self, directory: str) -> _Growing:
        if self._partition is not None:
            check_partition(directory)
        begun = self._now_ms() if self._rolling.interval_ms is not None else 0
        growing = _Growing(self._format.open_part(self._work), begun)
        self._growing[directory] = growing
        return growing

    def _set_aside(self) -> None:
        """Close the file that has not been written to for longest."""
        directory, _ = self._open.popitem(last=False)
        part = self._growing[directory].part
        if not part.set_aside():
            del self._growing[directory]
            self._rolled.append((part.name, directory))

    def _finish(self, directory: str) -> None:
        part = self._growing[directory].part
        part.finish()
        del self._growing[directory]
        self._open.pop(directory, None)
        self._rolled.append((part.name, directory))

    def end_input(self) -> None:
        """Let all files become visible with the next checkpoint."""
        self._ended = True

    def prepare_commit(self, checkpoint_id: int) -> Any:
        """Bring the files to disk, and choose the names of those that are not written on.

        Returns:
            Pairs of the hidden and the visible name; `None` if there are none.

        Raises:
            SinkError: the disk is full, say.
        """
        for directory, growing in list(self._growing.items()):
            if self._rolling.on_checkpoint or self._ended or self._is_full(growing):
                self._finish(directory)
            else:
                self._hold(directory, growing)
        if not (self._rolled or self._growing):
            return None
        self._work.sync()
        if not self._rolled:
            return None
        pairs = self._choose_names(checkpoint_id)
        self._prepared.update(pairs)
        self._rolled = []
        return pairs

    def _hold(self, directory: str, growing: _Growing) -> None:
        growing.held = growing.part.hold()
        if self._is_big(growing):  # what was being compressed counts only now
            self._finish(directory)
        else:
            self._covered.add(growing.part.name)

    def _choose_names(self, checkpoint_id: int) -> list[tuple[str, str]]:
        hidden: dict[str, list[str]] = {}
        for name, directory in self._rolled:
            hidden.setdefault(directory, []).append(name)
        waiting = set(self._prepared.values())
        pairs: list[tuple[str, str]] = []
        for directory, names in hidden.items():
            begin = f"{directory}/" if directory else ""
            taken = {name.removeprefix(begin) for name in waiting if name.startswith(begin)}
            with suppress(FileNotFoundError):
                taken.update(os.listdir(self._work.directory / directory))
            free = self._names.free(checkpoint_id, len(names), taken)
            pairs += [(name, begin + new) for name, new in zip(names, free, strict=True)]
        return pairs

    def commit(self, committable: Sequence[tuple[str, str]]) -> None:
        """Give the files their names, unless they have them.

        Raises:
            SinkError: a file is there under neither name, or its name is taken.
        """
        self._work.publish(committable)
        for hidden, _ in committable:
            self._prepared.pop(hidden, None)
            self._covered.discard(hidden)

    def snapshot(self) -> Any:
        """Return which hidden files wait for their names, which are written on, and the columns."""
        growing = [
            (file.part.name, directory, file.held, file.begun_ms)
            for directory, file in self._growing.items()
        ]
        return {
            "prepared": dict(self._prepared),
            "growing": growing,
            "format": self._format.snapshot(),
        }

    def close(self) -> None:
        """Remove what no checkpoint covers; what one does is left for the next writer."""
        names = [name for name, _ in self._rolled]
        for growing in self._growing.values():
            growing.part.abandon()
            names.append(growing.part.name)
        self._rolled, self._growing = [], {}
        self._open.clear()
        self._work.close([name for name in names if name not in self._covered])
