"""The threads beside a `KafkaReader`: one waits for records to come, one asks the brokers all else.

A consumer is used by one thread at a time: newer clients let the others wait until its call is over.
So the second thread has a client of its own, and the first gives the reader's back when it is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from sage.common.errors import SourceError
from sage.connector.kafka_admin import GroupAdmin
from sage.connector.kafka_client import ClientLog, Inquiry
from sage.connector.kafka_partitions import list_partitions
from sage.dataflow.function.context import SourceContext

if TYPE_CHECKING:
    from sage.connector.kafka_source import KafkaSource

_POLL_SECONDS: Final = 0.1
_ASK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 3.0  # close waits for it, if it must


class ArrivalWatch:
    """Waits for the first message while there is none, and wakes the task.

    While it waits, nobody else may use the consumer: so messages keep their order.

    Args:
        consumer: Gives messages.
        wake: Wakes the task.
        name: What the thread is called after.

    Attributes:
        is_waiting: Whether it waits.
    """

    def __init__(self, consumer: Any, wake: Callable[[], None], name: str) -> None:
        self.is_waiting = False
        self._consumer = consumer
        self._wake = wake
        self._asked = threading.Event()
        self._closed = self._interrupted = False
        self._found: list[Any] = []
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"sage-kafka-{name}", daemon=True)

    def wait(self) -> None:
        """Let the task be woken when there is a message, which `take` returns then."""
        self.is_waiting = True
        if not self._thread.is_alive():
            self._thread.start()
        self._asked.set()

    def interrupt(self) -> None:
        """Let the task be woken soon, though there may be no message."""
        self._interrupted = True

    def take(self) -> list[Any]:
        """Return the message that has come, if one has."""
        if self._fault is not None:
            raise self._fault
        found, self._found = self._found, []
        return found

    def _run(self) -> None:
        while self._asked.wait() and not self._closed:
            try:
                message = self._consumer.poll(_POLL_SECONDS)
            except Exception as error:  # noqa: BLE001 - raised where it can be told
                self._fault = error
                message = error
            if message is not None or self._interrupted:
                if message is not None and self._fault is None:
                    self._found.append(message)
                self._interrupted = False
                self._asked.clear()
                self.is_waiting = False
                self._wake()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join()


class PartitionWatch:
    """Looks now and then which partitions there are and how far they go; commits offsets.

    Args:
        source: Which topics.
        context: The runtime; tells which subtask this is.
        log: Takes what goes wrong: it is tried again.
        splits: The partitions that are read.

    Attributes:
        ends: How far the partitions go that are read, by name, as the brokers have told last: for
            readers of what is committed, to the first open transaction.
    """

    def __init__(
        self,
        source: KafkaSource,
        context: SourceContext,
        log: ClientLog,
        splits: Collection[str],
    ) -> None:
        self.ends: Mapping[str, int] = {}
        self._source = source
        self._context = context
        self._log = log
        self._splits = set(splits)
        self._known = set(splits)
        self._found: deque[tuple[str, int]] = deque()
        self._commits: deque[Mapping[tuple[str, int], int]] = deque()
        self._closed = False
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        brokers = GroupAdmin(self._source.settings, self._source.group_id, self._timeout())
        name = f"sage-kafka-watch-{self._context.operator_name}"
        self._thread = threading.Thread(target=self._run, args=(brokers,), name=name, daemon=True)
        self._thread.start()

    @property
    def has_found(self) -> bool:
        """Whether there are new partitions."""
        return bool(self._found)

    def take_found(self) -> list[tuple[str, int]]:
        """Return the new partitions that are this subtask's, with their first offsets."""
        return [self._found.popleft() for _ in range(len(self._found))]

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Let offsets be committed for the group; at the latest by `close`."""
        self._commits.append(offsets)
        self._asked.set()

    def _run(self, brokers: GroupAdmin) -> None:
        interval = None if self._source.bounded else self._source.options["discovery_interval"]
        now = time.monotonic()
        next_ask, next_look = now, now + (interval or float("inf"))
        while not self._closed:
            now = time.monotonic()
            self._try(self._commit, brokers)
            if now >= next_look:
                next_look = now + (interval or 0.0)
                self._try(self._look_for_partitions, brokers)
            if now >= next_ask:
                next_ask = now + _ASK_SECONDS
                self._try(self._ask_for_ends, brokers)
            self._asked.wait(max(0.0, min(next_ask, next_look) - time.monotonic()))
        self._try(self._commit, brokers)

    def _timeout(self) -> float:
        seconds: float = self._source.options["timeout"]
        return min(_ANSWER_SECONDS, seconds)

    def _try(self, step: Callable[[GroupAdmin], None], brokers: GroupAdmin) -> None:
        try:
            step(brokers)
        except brokers.failure as error:
            self._log.on_error(error.args[0])
            brokers.renew()
        except SourceError as error:
            self._log.log(logging.WARNING, "%s", error)

    def _commit(self, brokers: GroupAdmin) -> None:
        self._asked.clear()
        offsets: dict[tuple[str, int], int] = {}
        while self._commits:
            offsets |= self._commits.popleft()
        if offsets:
            try:
                brokers.commit(offsets)
            except brokers.failure as error:
                self._log.on_commit(error.args[0])
                brokers.renew()

    def _look_for_partitions(self, brokers: GroupAdmin) -> None:
        source, context = self._source, self._context
        found = list_partitions(Inquiry(brokers.client, self._log, self._timeout()), source.topics)
        fresh = [split for split in found if split not in self._known]
        mine = [
            split
            for split in fresh
            if source.subtask_of(split, 0, context.parallelism) == context.subtask_index
        ]
        starts = brokers.bounds(mine, earliest=True)
        self._known.update(split for split in fresh if split in starts or split not in mine)
        self._splits.update(starts)
        self._found.extend(starts.items())
        if starts:
            context.wake()

    def _ask_for_ends(self, brokers: GroupAdmin) -> None:
        self.ends = {**self.ends, **brokers.bounds(self._splits)}

    def close(self) -> None:
        """Commit what is to be, and end the thread."""
        self._closed = True
        self._asked.set()
        if self._thread is not None:
            self._thread.join()
