"""`FileSource`: what all sources of files share.

Which files a pattern stands for is in `file_paths`, reading them one after another in `files_reader`,
looking for more of them in `file_watch`; how a file becomes records is said by each source.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sage.connector.file_paths import Paths, find_files, list_paths
from sage.connector.file_watch import (
    Watch,
    WatchingReader,
    as_watch,
    check_watched,
    group_names,
)
from sage.connector.files_reader import FilesReader, RecordFile
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

T_co = TypeVar("T_co", covariant=True)


class FileSource(Source[T_co]):
    """Reads files one after another; each is a split.

    Args:
        paths: A path, a pattern such as `"logs/*.log"` or `"logs/**/*.log"`, or several of them; of a
            source that watches, directories too.
        watch: Go on for ever, and read files that appear: seconds between two looks, or a `Watch`.

    Raises:
        SourceError: a setting cannot be used.
    """

    def __init__(self, paths: Paths, watch: Watch | timedelta | float | None = None) -> None:
        self._paths = list_paths(paths)
        self._watch = as_watch(watch)
        self.bounded = watch is None

    def list_splits(self) -> Sequence[str]:
        """Return the files; where they are watched, the groups that they are parted into.

        Raises:
            SourceError: a file is missing, a directory, or nothing matches a pattern; where they are
                watched, a directory is missing.
        """
        if self._watch is None:
            return find_files(self._paths)
        check_watched(self._paths)
        return group_names()

    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[T_co]:
        """Return a reader of the files `splits`; each is opened when its turn comes."""
        if self._watch is None:
            return FilesReader(splits, self.open_file)
        return WatchingReader(self._paths, self._watch, splits, context, self.open_file)

    @abstractmethod
    def open_file(self, split: str, position: Any) -> RecordFile[T_co]:
        """Open a file at a position, `None` being its start; leave none open when it raises.

        Raises:
            SourceError: it cannot be opened, or the position does not fit it.
        """
