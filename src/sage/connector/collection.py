"""`CollectionSource`: the records are in the program already, as a collection or an iterable.

It reads on the task's own thread, which is the fast way for data that comes without waiting. An
iterator that may block for long belongs into a `FunctionSource`.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Generator,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Set,
    Sized,
    ValuesView,
)
from itertools import islice
from time import perf_counter
from typing import Any, Final, TypeVar, cast

from sage.common.errors import SourceError
from sage.common.suggest import shorten
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

T = TypeVar("T")

_SLICED: Final = (list, tuple, range, str, bytes, bytearray)
_ORDER_TAKEN: Final = (Set, Mapping, KeysView, ValuesView, ItemsView)
_LARGEST_CHUNK: Final = 64
_QUICK_SECONDS: Final = 0.0001
_SLOW_SECONDS: Final = 0.001
_BATCH_SECONDS: Final = 0.001
_END: Final = object()


class CollectionSource(Source[T]):
    """Reads a collection, an iterable, or what a callable returns.

    * list, tuple, range, str (by character), bytes (as integers): read by slices.
    * set, frozenset, dict (its keys) and views of dicts: in the order they have now, so that a
      restored job and another process see the same order.
    * any other iterable: read lazily, never further ahead than one batch.
    * a callable without arguments: called when the job starts; it returns one of the above.

    A position is the number of records read. A list goes on there at once; an iterable is started
    again and that many records are skipped.

    Args:
        data: Where the records come from.

    Raises:
        SourceError: `data` is neither iterable nor callable.

    Examples:
        >>> from sage.testing import StandaloneContext
        >>> reader = CollectionSource("abc").create_reader({"": None}, StandaloneContext())
        >>> reader.read_batch(2), reader.read_batch(2), reader.read_batch(2)
        ('ab', 'c', None)
    """

    bounded = True

    def __init__(self, data: Iterable[T] | Callable[[], Iterable[T]]) -> None:
        if not (isinstance(data, Iterable) or callable(data)):
            raise SourceError(
                f"a collection source needs an iterable, or a callable that returns one, not "
                f"{shorten(data)} of type {type(data).__name__}"
            )
        self._data = list(data) if isinstance(data, _ORDER_TAKEN) else data
        self._iterator_used = False

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[T]:
        """Open a reader that begins at the position of the only split, `""`.

        Raises:
            SourceError: the iterator has been run before, or there are fewer records than the
                position says were read.
        """
        position = splits[""] or 0
        data = self._data
        if callable(data) and not isinstance(data, Iterable):
            data = data()
        if isinstance(data, _SLICED):
            return SequenceReader(cast("Sequence[T]", data), position)
        count = len(data) if isinstance(data, Sized) else None
        return IteratorReader(self._begin(data), position, count)

    def _begin(self, data: Iterable[T]) -> Iterator[T]:
        iterator = iter(data)
        if iterator is self._data:
            if self._iterator_used:
                raise SourceError(
                    f"the source is the iterator {shorten(data)}, which has been run already and "
                    "cannot start again; pass a list, or a callable that returns a fresh iterator"
                )
            self._iterator_used = True
        return iterator


class SequenceReader(SourceReader[T]):
    """Reads a sequence by slices. Its position is an index."""

    poll_interval = None

    def __init__(self, data: Sequence[T], position: int) -> None:
        if position > len(data):
            raise _too_short(position, len(data))
        self._data = data
        self._position = position

    def read_batch(self, max_records: int) -> Sequence[T] | None:
        """Return the next slice, or `None` behind the end."""
        start = self._position
        piece = self._data[start : start + max_records]
        if not piece:
            return None
        self._position = start + len(piece)
        return piece

    def snapshot(self) -> dict[str, Any]:
        """Return the index of the next record."""
        return {"": self._position}

    def total_count(self) -> int:
        """Return the length of the sequence."""
        return len(self._data)


class IteratorReader(SourceReader[T]):
    """Reads an iterator on the task's thread. Its position is the number of records read.

    How many records a batch takes follows the iterator's speed. A batch is gathered in chunks and
    handed over as soon as one of them took its time, or a millisecond has passed: an iterator that
    waits for something would otherwise hold the records it has given until the batch is full. The
    chunk doubles while the iterator is quick, so that the clock costs next to nothing, and falls
    back to a single record when it was slow.
    """

    poll_interval = None

    def __init__(self, records: Iterator[T], position: int, count: int | None = None) -> None:
        self._records = records
        self._count = count
        self._position = position
        self._chunk = 1
        self._fault: BaseException | None = None
        self._ended = False
        if position and next(islice(records, position - 1, None), _END) is _END:
            raise _too_short(position)

    def read_batch(self, max_records: int) -> list[T] | None:
        """Return what the iterator gives within about a millisecond, and at least one record.

        Raises:
            Exception: the iterator's own, once the records before it have been returned.
        """
        batch: list[T] = []
        if not (self._fault or self._ended):
            self._gather(batch, max_records)
        if batch:
            self._position += len(batch)
            return batch
        if self._fault is not None:
            raise self._fault
        return None

    def _gather(self, batch: list[T], max_records: int) -> None:
        began = before = perf_counter()
        quick = True
        while quick and (room := max_records - len(batch)) > 0:
            wanted = len(batch) + min(self._chunk, room)
            try:
                # In place, so that the records before a fault are kept.
                batch.extend(islice(self._records, wanted - len(batch)))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - raised by the next read_batch
                self._fault = error
                return
            if len(batch) < wanted:
                self._ended = True
                return
            now = perf_counter()
            self._adapt(now - before)
            quick = now - before < _QUICK_SECONDS and now - began < _BATCH_SECONDS
            before = now

    def _adapt(self, seconds: float) -> None:
        if seconds < _QUICK_SECONDS:
            self._chunk = min(2 * self._chunk, _LARGEST_CHUNK)
        elif seconds > _SLOW_SECONDS:
            self._chunk = 1

    def snapshot(self) -> dict[str, Any]:
        """Return how many records have been read."""
        return {"": self._position}

    def total_count(self) -> int | None:
        """Return what was said when the reader was made."""
        return self._count

    def close(self) -> None:
        """Close a generator, so that its `finally` runs now."""
        if isinstance(self._records, Generator):
            self._records.close()


def _too_short(position: int, length: int | None = None) -> SourceError:
    found = "it ended before that" if length is None else f"it has {length}"
    return SourceError(
        f"cannot continue after record {position} of the collection: {found}. It has changed since "
        "the position was taken; start without the checkpoint, or give the same data"
    )
