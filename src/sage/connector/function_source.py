"""`FunctionSource`: runs a live source, an iterator that may block, on a thread of its own.

Here is the hand-over between that thread and the task: a bounded queue of records with one producer
and one consumer. What the iterator does (a user's function, a socket) is said elsewhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sage.common.clock import Doorbell
from sage.common.errors import SourceError
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

T = TypeVar("T")

_END: Final = object()


def do_nothing() -> None:
    """Close or interrupt what needs neither."""


@dataclass(frozen=True)
class Feed(Generic[T]):
    """A live source that has been opened.

    Attributes:
        records: Gives the records; may block while it waits for the next one.
        close: Lets go of what the source holds. Called once, on the source's thread, after the last
            record, whatever happened; a generator in `records` has been closed before.
        interrupt: Makes a blocked iterator return or raise. Called at most once, from the thread of
            the task, when the job ends before the source has.
        count: How many records there will be, if that is known.
    """

    records: Iterable[T]
    close: Callable[[], None] = do_nothing
    interrupt: Callable[[], None] = do_nothing
    count: int | None = None


class FunctionSource(Source[T]):
    """Runs a live source on a daemon thread of its own, named `sage-source-<operator>`.

    Each record can be read by the task as soon as the iterator has given it: nothing waits for a
    batch to fill. When `context.buffer_size` records have not been taken yet, the thread waits
    until half of them have been.

    A position is the number of records that the task has read. A restored reader runs the iterator
    from its start and skips that many, unless the source is not `replayable`.

    Args:
        open_feed: Opens the source. Called on its thread, as everything of the source is.
        bounded: Whether the source has an end.
        replayable: Whether running the source again gives the same records again. If not, a
            restored reader goes on with what comes; what came while nobody read is lost.
        close_timeout: For how many seconds `close` waits for an iterator that does not return.
            After that its thread is left behind, with a warning: Python cannot stop it.

    Examples:
        >>> from sage.testing import StandaloneContext, read_all
        >>> source = FunctionSource(lambda context: Feed(iter([1, None, 2])))
        >>> read_all(source)
        [1, None, 2]
    """

    def __init__(
        self,
        open_feed: Callable[[SourceContext], Feed[T]],
        *,
        bounded: bool = False,
        replayable: bool = True,
        close_timeout: float = 1.0,
    ) -> None:
        self.open_feed = open_feed
        self.bounded = bounded
        self.replayable = replayable
        self.close_timeout = close_timeout

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[T]:
        """Start the thread; what fails while the source opens is raised by `read_batch`."""
        reader = FeedReader(self, splits[""] or 0, context)
        reader.start()
        return reader


class FeedReader(SourceReader[T]):
    """Reads what the source's thread has put into the queue.

    Why no wake-up is missed. The task raises `_waiting` after it found the queue empty, then looks
    again; the thread appends, then looks at `_waiting`. Whichever comes first, one of the two sees
    the other: the task finds the record, or the thread finds the flag and wakes the task. The task
    waits only later, but its doorbell keeps a ring that comes before the wait. The thread lowers
    the flag *before* it wakes: if by that it undoes a flag that was raised in between, the wake-up
    that follows makes the task look again.

    The same holds the other way round for the space in the queue: the thread raises `_blocked`,
    then looks; the task takes records, then looks at `_blocked`. Only the thread writes that flag,
    so a ring that comes late cannot undo it.

    Attributes:
        lost: How many records the source has given after it was stopped, or left behind: nobody
            takes them any more.
    """

    poll_interval = None

    def __init__(self, source: FunctionSource[T], position: int, context: SourceContext) -> None:
        self._source = source
        self._context = context
        self._position = position
        self._limit = context.buffer_size
        self._queue: deque[T] = deque()
        self._space = Doorbell()
        self._waiting = self._blocked = self._ended = self._closed = self._stopped = False
        self._left_behind = False
        self.lost = 0
        self._fault: BaseException | None = None
        self._interrupt = do_nothing
        self._count: int | None = None
        self._thread = threading.Thread(
            target=self._run,
            args=(position if source.replayable else 0,),
            name=f"sage-source-{context.operator_name}",
            daemon=True,
        )

    def start(self) -> None:
        """Let the source run."""
        self._thread.start()

    # ---- on the thread of the task

    def read_batch(self, max_records: int) -> list[T] | None:
        """Return the records that are in the queue; never waits.

        Raises:
            Exception: what the source raised, once the records before it have been returned.
            SourceError: the source tried to end the process.
        """
        # Read before the queue, which then holds all that came before the end.
        ended = self._ended or self._stopped
        if self._queue:
            return self._take(max_records)
        if ended:
            self._raise_fault()
            return None
        self._waiting = True
        if self._queue or self._ended:
            self._waiting = False
            return self.read_batch(max_records)
        return []

    def _take(self, max_records: int) -> list[T]:
        queue = self._queue
        pop = queue.popleft
        batch = [pop() for _ in range(min(len(queue), max_records))]
        self._position += len(batch)
        if self._blocked and len(queue) <= self._limit // 2:
            self._space.ring()
        return batch

    def _raise_fault(self) -> None:
        fault = self._fault
        if fault is None:
            return
        if isinstance(fault, Exception):
            raise fault
        raise SourceError(
            f"the source of {self._context.operator_name!r} raised {type(fault).__name__}; to end "
            "the stream, return from the iterator"
        ) from fault

    def snapshot(self) -> dict[str, Any]:
        """Return how many records the task has read."""
        return {"": self._position}

    def stop(self) -> bool:
        """Let the thread take no more than the record it may be waiting for, which is lost."""
        self._stopped = True
        return True

    def total_count(self) -> int | None:
        """Return what the source said when it was opened; `None` before."""
        return self._count

    def close(self) -> None:
        """Stop the source, and wait for its thread for at most `close_timeout` seconds."""
        if self._closed:
            return
        self._closed = True
        self._waiting = True  # makes the thread look up after its next record
        self._space.ring()
        try:
            if not self._ended:
                self._interrupt()
        finally:
            self._thread.join(self._source.close_timeout)
        if self._thread.is_alive():
            self._left_behind = True
            self._context.logger.warning(
                "the source of %r has not returned within %g s of being closed; its thread %s is "
                "left behind, and may take one more record that nobody will see. Let its iterator "
                "wait with a time-out, and end when self.ctx.is_cancelled.",
                self._context.operator_name,
                self._source.close_timeout,
                self._thread.name,
            )

    # ---- on the thread of the source

    def _run(self, skip: int) -> None:
        try:
            self._read(skip)
        except BaseException as error:  # noqa: BLE001 - raised by read_batch, or logged
            self._fault = error
        self._ended = True
        if not self._closed:
            self._context.wake()
        elif self._fault is not None:
            self._context.logger.warning(
                "the source of %r failed while it was being closed",
                self._context.operator_name,
                exc_info=self._fault,
            )

    def _read(self, skip: int) -> None:
        feed = self._source.open_feed(self._context)
        try:
            self._interrupt, self._count = feed.interrupt, feed.count
            records = iter(feed.records)
            # `close` raises _closed, then looks for _interrupt; here it is the other way round.
            if not self._closed and self._skip(records, skip):
                self._hand_over(records)
        finally:
            try:
                if isinstance(feed.records, Generator):
                    feed.records.close()
            finally:
                feed.close()

    def _skip(self, records: Iterator[T], count: int) -> bool:
        """Pass over `count` records; say whether to go on."""
        for passed in range(count):
            if next(records, _END) is _END:
                raise SourceError(
                    f"cannot continue after record {count} of {self._context.operator_name!r}: its "
                    f"source ended after {passed}. It does not give the same records again; start "
                    "without the checkpoint"
                )
            if self._closed:
                return False
        return True

    def _hand_over(self, records: Iterator[T]) -> None:
        queue, limit = self._queue, self._limit
        append = queue.append
        for record in records:
            if self._stopped:
                self._lose()
                return
            append(record)
            if self._waiting:
                if self._closed:
                    if self._left_behind:
                        self._lose()
                    return
                self._waiting = False
                self._context.wake()
            if len(queue) >= limit:
                self._wait_for_space()
                if self._closed:
                    return

    def _lose(self) -> None:
        self.lost += 1
        self._context.logger.warning(
            "the source of %r gave a record after it had been stopped; it is lost",
            self._context.operator_name,
        )

    def _wait_for_space(self) -> None:
        self._blocked = True
        while len(self._queue) > self._limit // 2 and not self._closed:
            self._space.wait()
        self._blocked = False
