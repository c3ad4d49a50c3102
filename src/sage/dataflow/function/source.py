"""Where records come from: the simple functions users write, and the contract connectors implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class SourceReader(ABC, Generic[T]):
    """Reads the records of some splits of a `Source`; made by `Source.create_reader`.

    All methods are called from the one thread that runs the task. They may read from a disk, but not
    wait for something to happen: a reader that must wait does so on a thread of its own and calls
    `context.wake` when data has come. The wake-up is the task's: it then asks all of its readers.
    """

    poll_interval: float | None = 0.01
    """After an empty batch, ask again after so many seconds; `None`: only when woken."""

    @abstractmethod
    def read_batch(self, max_records: int) -> Sequence[T] | None:
        """Return the records that are there now, at most `max_records`, in order.

        Returns:
            A sequence that does not change afterwards: a fresh list, a slice, a `range`. An empty
            one if there is nothing at the moment; `None` once all splits have ended (then it is
            not called again).

        Raises:
            Exception: the source is broken. Records read before the fault are returned first, and
                the fault is raised by the next call: nothing that was read is lost.
        """

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """Return a position for each split of this reader, including those that have ended.

        A reader created with these positions continues with the record after the last one that
        `read_batch` returned: none twice, none left out. A position is plain data (numbers, strings,
        tuples, dicts of them) and stays meaningful in another process; `None` is the beginning.
        """

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
    """

    bounded: bool = True
    """Whether the source has an end."""

    def list_splits(self) -> Sequence[str]:
        """Return the names of all splits, stable from call to call. May do I/O; may raise."""
        return ("",)

    @abstractmethod
    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[T_co]:
        """Open a reader of `splits`.

        Args:
            splits: For each split to read, at least one, the position from `SourceReader.snapshot`
                to continue from, or `None` to start at the beginning.
            context: The runtime: where to log, how to wake the task.

        Raises:
            Exception: a split cannot be opened, or a position does not fit it.
        """
