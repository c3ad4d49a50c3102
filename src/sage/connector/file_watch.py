"""Watching directories: files that appear while the job runs are read, each once.

The files are parted into groups by their names, and the groups are the splits: so every subtask knows
by itself which files are its own, at any parallelism. The position of a group says which of its files
have been read, and how far.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatch
from glob import glob, has_magic
from stat import S_ISREG
from typing import Any, Final, TypeVar

from sage.common.errors import SourceError
from sage.connector.file_paths import looked_from, natural_key
from sage.connector.files_reader import FilesReader, RecordFile
from sage.dataflow.function.context import SourceContext
from sage.dataflow.key_group import stable_hash
from sage.dataflow.time import to_ms

T = TypeVar("T")

GROUPS: Final = 128
"""How many groups the files are parted into: so many subtasks at most can read them."""

_GROUP: Final = "files "


@dataclass(frozen=True)
class Watch:
    """How directories are watched for new files.

    Attributes:
        discover_interval: How long to wait between two looks: a `timedelta`, or seconds.
        stable_for: Read a file once its size and its time of change have been the same for so long,
            a `timedelta` or seconds. 0 is for files that are written elsewhere and renamed into
            place, as they should be: such a file is complete as soon as it is there.
        ignore: Patterns of names that are passed over.

    Raises:
        SourceError: a setting cannot be used.
    """

    discover_interval: timedelta | float = 1.0
    stable_for: timedelta | float = 0.0
    ignore: Sequence[str] = (".*", "_*", "*.tmp")

    def __post_init__(self) -> None:
        if self.interval_ms < 1:
            raise SourceError(
                f"watch looks at most once in a millisecond, not every {self.discover_interval!r}"
            )
        if self.stable_ms < 0:
            raise SourceError(f"stable_for is not negative, as {self.stable_for!r} is")
        if isinstance(self.ignore, str):
            raise SourceError(f"ignore is a list of patterns, not {self.ignore!r}")

    @property
    def interval_ms(self) -> int:
        """Milliseconds between two looks."""
        return _ms(self.discover_interval, "watch")

    @property
    def stable_ms(self) -> int:
        """For how many milliseconds a file must not have changed."""
        return _ms(self.stable_for, "stable_for")

    def find(self, paths: Iterable[str]) -> Iterator[str]:
        """Give the files that are there now: of directories those in them, of patterns the matches."""
        for path in paths:
            if has_magic(path) and not os.path.lexists(path):
                found = glob(path, recursive=True)
            else:
                found = list_directory(path) if os.path.isdir(path) else [path]
            for file in found:
                name = os.path.basename(file)
                if not any(fnmatch(name, pattern) for pattern in self.ignore):
                    yield file


def _ms(duration: timedelta | float, name: str) -> int:
    try:
        return to_ms(duration, name=name)
    except (TypeError, ValueError) as error:
        raise SourceError(str(error)) from None


def list_directory(path: str) -> list[str]:
    """Return the files and directories in a directory.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries]
    except OSError as error:
        raise SourceError(f"cannot look into {path}: {error.strerror or error}") from error


def as_watch(watch: Watch | timedelta | float | None) -> Watch | None:
    """Return how to watch: a number is the interval.

    Raises:
        SourceError: it is neither.
    """
    return watch if isinstance(watch, Watch | None) else Watch(watch)


def group_names() -> list[str]:
    """Return the names of the groups of files."""
    return [f"{_GROUP}{number}" for number in range(GROUPS)]


def group_of(path: str) -> str:
    """Return the group that a file belongs to."""
    return f"{_GROUP}{stable_hash(path) % GROUPS}"


def check_watched(paths: Iterable[str]) -> None:
    """Demand that there is something to watch.

    Raises:
        SourceError: a directory is not there.
    """
    for path in paths:
        plain = path
        while has_magic(plain) and not os.path.lexists(plain):
            plain = os.path.dirname(plain)
        if not os.path.exists(plain or "."):
            raise SourceError(
                f"cannot watch {path!r}: there is no directory {plain!r} {looked_from(path)}"
            )


class WatchingReader(FilesReader[T]):
    """Reads the files of some groups, and looks for more of them; never ends by itself.

    Args:
        paths: Directories and patterns.
        watch: How they are watched.
        groups: The groups, and the position in each: that of each of its files.
        context: Tells the time.
        open_file: Opens a file at a position.
    """

    def __init__(
        self,
        paths: Sequence[str],
        watch: Watch,
        groups: Mapping[str, Any],
        context: SourceContext,
        open_file: Callable[[str, Any], RecordFile[T]],
    ) -> None:
        super().__init__(_in_order(groups), open_file)
        self.poll_interval = watch.interval_ms / 1000
        self._paths, self._watch, self._groups = paths, watch, dict.fromkeys(groups)
        self._now_ms = context.now_ms
        self._next_look: int | None = None
        self._changing: dict[str, tuple[tuple[int, int], int]] = {}

    def read_batch(self, max_records: int) -> list[T]:
        """Return records of one file; none if all files that are there have been read.

        Raises:
            SourceError: a directory or a file cannot be read.
        """
        now = self._now_ms()
        if self._next_look is None or now >= self._next_look:
            self._next_look = now + self._watch.interval_ms
            self.add_files(dict.fromkeys(self._look(now)))
        return super().read_batch(max_records) or []

    def _look(self, now: int) -> list[str]:
        """Return the files that are new, and complete, in their order."""
        check_watched(self._paths)
        found = {
            path
            for path in self._watch.find(self._paths)
            if path not in self.positions and group_of(path) in self._groups
        }
        self._changing = {p: seen for p, seen in self._changing.items() if p in found}
        return sorted((path for path in found if self._is_complete(path, now)), key=natural_key)

    def _is_complete(self, path: str, now: int) -> bool:
        try:
            stat = os.stat(path)
        except FileNotFoundError:  # it has been taken away again
            return False
        except OSError as error:
            raise SourceError(f"cannot look at {path}: {error.strerror or error}") from error
        if not S_ISREG(stat.st_mode):
            return False
        state = stat.st_size, stat.st_mtime_ns
        before, since = self._changing.get(path, (None, now))
        if state != before:
            since = now
        self._changing[path] = state, since
        if now - since < self._watch.stable_ms:
            return False
        del self._changing[path]
        return True

    def snapshot(self) -> dict[str, Any]:
        """Return the position of each group: of each of its files that have been found."""
        groups: dict[str, Any] = dict(self._groups)
        for path, position in super().snapshot().items():
            files = groups[group_of(path)] = groups[group_of(path)] or {}
            files[path] = position
        return groups


def _in_order(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files of groups: the one that has been begun first, then as they are discovered."""
    files = {path: at for group in groups.values() for path, at in (group or {}).items()}
    order = sorted(files, key=lambda path: (files[path] is None, natural_key(path)))
    return {path: files[path] for path in order}
