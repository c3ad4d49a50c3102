"""Where records come from: the simple functions users write, and the contract connectors implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.context import SourceContext

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StopSignal(Exception):  # noqa: N818 - the name that the requirement documents give it
    """Ends a `SourceFunction`: return it, return the class, or raise it from `execute`."""


class SourceFunction(BaseFunction, Generic[T]):
    """The simple way to write a source: implement one of two methods.

    * `get_data_iterator()` returns an iterator over the records; or
    * `execute()` is called once per record and ends with `StopSignal`.

    Both may block while they wait for data: they run on a thread of their own, so that timers,
    checkpoints and `stop` are not held up. What they yield travels on at once, without waiting for a
    batch to fill. `None` is a record like any other.

    Not guaranteed: that a restarted job goes on where it was. For that, implement `Source`.

    Examples:
        >>> class Countdown(SourceFunction[int]):
        ...     left = 3
        ...     def execute(self):
        ...         self.left -= 1
        ...         return self.left if self.left >= 0 else StopSignal
    """

    def get_data_iterator(self) -> Iterator[T]:
        """Return an iterator over the records; by default one that calls `execute`."""
        return call_until_stop(self.execute)

    def execute(self) -> T | StopSignal | type[StopSignal]:
        """Return the next record, or `StopSignal` when there is none any more."""
        raise NotImplementedError(
            f"{type(self).__name__} must define get_data_iterator() or execute()"
        )


def call_until_stop(execute: Callable[[], Any]) -> Iterator[Any]:
    """Yield what `execute` returns, call by call, until it returns or raises `StopSignal`."""
    while True:
        try:
            value = execute()
        except StopSignal:
            return
        if value is StopSignal or isinstance(value, StopSignal):
            return
        yield value


class BatchFunction(SourceFunction[T]):
    """A `SourceFunction` with an end, which may know how many records it will give."""

    def get_total_count(self) -> int | None:
        """Return how many records there will be, for the progress bar; `None` if unknown."""
        return None


class SplitBatch(list[T]):
    """A batch whose records are all of one split: event time is then kept for each split by itself.

    Args:
        split: The name of the split, one of the reader's `open_splits`.
        records: The records, in order.

    Examples:
        >>> batch = SplitBatch("events:0", [1, 2])
        >>> batch.split, batch
        ('events:0', [1, 2])
    """

    __slots__ = ("split",)

    def __init__(self, split: str, records: Iterable[T]) -> None:
        super().__init__(records)
        self.split = split


class SourceReader(ABC, Generic[T]):
    """Reads the records of some splits of a `Source`; made by `Source.create_reader`.

    All methods are called from the one thread that runs the task, unless they say otherwise. They may
    read from a disk, but not wait for something to happen: a reader that must wait does so on a thread
    of its own and calls `context.wake` when data has come. The wake-up is the task's: it then asks all
    of its readers.

    A reader may find further splits while it runs: files that appear, partitions that are added. It
    takes those that are its own (`Source.subtask_of` says which), reads them from their start, and
    names them in `snapshot` from then on. No other reader has to be told: all see the same splits.
    """

    poll_interval: float | None = 0.01
    """After an empty batch, ask again after so many seconds; `None`: only when woken."""

    open_splits: frozenset[str] | None = None
    """The splits that may still give records, of a reader whose batches are `SplitBatch`es.

    Event time behind the source then is that of the split that is furthest behind, however quickly
    the others are read; those that have given nothing for the `idleness` that `assign_timestamps`
    says do not count. Looked at before and after each call of `read_batch`: a reader that finds a
    split, or has read one to its end, puts another set here. `None`: all records are of one stream.
    """

    @abstractmethod
    def read_batch(self, max_records: int) -> Sequence[T] | None:
        """Return the records that are there now, at most `max_records`, in order.

        Returns:
            A sequence that does not change afterwards: a fresh list, a slice, a `range`. An empty
            one if there is nothing at the moment; `None` once all splits have ended (then it is
            not called again).

        Raises:
            Exception: the source is broken. Records read before the fault are returned first, and
                the fault is raised by the next call: nothing that was read is lost. Where a
                record alone is broken, not the source, it goes to `context.fail_record`.
        """

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """Return a position for each split of this reader, including those that have ended.

        A reader created with these positions continues with the record after the last one that
        `read_batch` returned: none twice, none left out. A position is plain data (numbers, strings,
        tuples, dicts of them) and stays meaningful in another process; `None` is the beginning.
        """

    def checkpoint_complete(self, positions: Mapping[str, Any]) -> None:
        """Take note that a checkpoint is complete: the job will never go back behind it.

        For those who tell the outside how far they are: offsets committed for monitoring, messages
        acknowledged. Not called where no checkpoints are taken, and not for each: a later one stands
        for all before it. The last call may never come: the process may die before it.

        Args:
            positions: What `snapshot` had returned for it.
        """

    def gauges(self) -> Mapping[str, int]:
        """Return figures of this reader as they are now, by name: `job.metrics[...].gauges` sums them.

        Called from any thread at any time, some times a second: it answers at once from what is known
        already. Names are `"lag"` for records that are there and not read yet, of the whole reader;
        with a split, `"lag{split=events:0}"`.
        """
        return {}

    def stop(self) -> bool:
        """Take nothing more from outside: the job is to end here.

        Returns:
            Whether records have been taken already that `read_batch` has yet to return. If so, it is
            called until it returns `None`; otherwise not any more.
        """
        return False

    def total_count(self) -> int | None:
        """Return how many records there will be in all, for the progress bar; `None` if unknown.

        Called from any thread at any time: it answers at once from what is known already.
        """
        return None

    def close(self) -> None:
        """Let go of connections and files; called once, whatever happened."""


class Source(ABC, Generic[T_co]):
    """Where records come from: the contract that connectors implement.

    A `Source` is a description that travels to the workers (it is pickled): its constructor keeps
    settings and opens nothing. A *split* is a part that can be read independently of the others: a
    file, a partition of a topic. A source that has no parts has the one split `""`.

    `sage.testing.check_source` tells whether a source keeps this contract and that of its readers.
    """

    bounded: bool = True
    """Whether the source has an end."""

    reports_bad_records: bool = False
    """Whether readers give records that they cannot decode to `context.fail_record`.

    The source then takes `on_error=`: whether such a record ends the job, is skipped, or becomes a
    dead letter.
    """

    def list_splits(self) -> Sequence[str]:
        """Return the names of all splits, stable from call to call. May do I/O; may raise.

        Splits that appear later may be added anywhere; those that a job has begun to read may leave.
        """
        return ("",)

    def subtask_of(self, split: str, place: int, parallelism: int) -> int:
        """Return which subtask reads a split: a pure function, alike in every process.

        A source whose readers find further splits goes by the name of the split alone, since places
        change when splits are added.

        Args:
            split: Its name.
            place: Its place in `list_splits`, from 0.
            parallelism: How many subtasks there are.

        Returns:
            The index of the subtask, from 0. One that is given no split at the start is made a
            reader of none, if others have some.
        """
        return place % parallelism

    def timestamps(self) -> Callable[[Any], datetime | int] | None:
        """Return a function that gives the event time that a record brings along.

        It is what `assign_timestamps()` takes that is given no function of its own. `None`: records
        bring no time along.
        """
        return None

    @abstractmethod
    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[T_co]:
        """Open a reader of `splits`.

        Args:
            splits: For each split to read the position from `SourceReader.snapshot` to continue
                from, or `None` to start at the beginning. Where `context.is_restored`, a split with
                `None` has appeared since, or nothing of it had been read. It is empty only for a
                reader whose splits may still appear.
            context: The runtime: where to log, how to wake the task.

        Raises:
            Exception: a split cannot be opened, or a position does not fit it.
        """


def deal_splits(
    source: Source[Any], splits: Sequence[str], parallelism: int
) -> tuple[tuple[str, ...], ...]:
    """Return which splits each subtask reads; the one place where this is decided.

    Raises:
        ValueError: the source names a subtask that there is not.

    Examples:
        >>> from sage.connector.collection import CollectionSource
        >>> deal_splits(CollectionSource([]), ["a", "b", "c"], 2)
        (('a', 'c'), ('b',))
    """
    dealt: list[list[str]] = [[] for _ in range(parallelism)]
    for place, split in enumerate(splits):
        subtask = source.subtask_of(split, place, parallelism)
        if not 0 <= subtask < parallelism:
            raise ValueError(
                f"{type(source).__name__}.subtask_of() gave {subtask} for the split {split!r}, where "
                f"there are {parallelism} subtasks"
            )
        dealt[subtask].append(split)
    return tuple(map(tuple, dealt))
