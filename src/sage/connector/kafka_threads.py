"""The threads beside a `KafkaReader`: one waits for records to come, one looks for partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sage.common.errors import SourceError
from sage.connector.kafka_client import ClientLog
from sage.connector.kafka_partitions import list_partitions, parse_split
from sage.connector.kafka_settings import import_client
from sage.dataflow.function.context import SourceContext

if TYPE_CHECKING:
    from sage.connector.kafka_source import KafkaSource

_POLL_SECONDS: Final = 0.1
_LAG_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 3.0  # close waits for it, if it must


class ArrivalWatch:
    """Waits for the first message while there is none, and wakes the task.

    While it waits, nobody else may take messages: so they keep their order.

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
        self._closed = False
        self._found: list[Any] = []
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"sage-kafka-{name}", daemon=True)

    def wait(self) -> None:
        """Let the task be woken when there is a message, which `take` returns then."""
        self.is_waiting = True
        if not self._thread.is_alive():
            self._thread.start()
        self._asked.set()

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
            if message is not None:
                if self._fault is None:
                    self._found.append(message)
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
    """Looks now and then which partitions there are, and how many records they have.

    Args:
        source: Which topics.
        consumer: Asks the brokers.
        context: The runtime; tells which subtask this is.
        log: Takes what goes wrong: it is tried again.
        behind: Returns the partitions of which to ask how far they go: of those that are read to their
            end, the client is told by and by.
        known: The partitions that are known.

    Attributes:
        highs: How far those partitions go, by name.
    """

    def __init__(  # noqa: PLR0917 - what it watches, for whom, and whom it tells
        self,
        source: KafkaSource,
        consumer: Any,
        context: SourceContext,
        log: ClientLog,
        behind: Callable[[], list[str]],
        known: frozenset[str],
    ) -> None:
        self.highs: Mapping[str, int] = {}
        self._source = source
        self._consumer = consumer
        self._context = context
        self._log = log
        self._behind = behind
        self._known = set(known)
        self._found: list[tuple[str, int]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"sage-kafka-watch-{context.operator_name}", daemon=True
        )
        self._failure = import_client().KafkaException
        self._topic_partition = import_client().TopicPartition

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    @property
    def has_found(self) -> bool:
        """Whether there are new partitions."""
        return bool(self._found)

    def take_found(self) -> list[tuple[str, int]]:
        """Return the new partitions that are this subtask's, with their first offsets."""
        found, self._found = self._found, []
        return found

    def _run(self) -> None:
        interval = None if self._source.bounded else self._source.options["discovery_interval"]
        now = time.monotonic()
        next_lag, next_look = now, now + (interval or float("inf"))
        while not self._closed.wait(max(0.0, min(next_lag, next_look) - time.monotonic())):
            now = time.monotonic()
            try:
                if now >= next_look:
                    next_look = now + (interval or 0.0)
                    self._look_for_partitions()
                if now >= next_lag:
                    next_lag = now + _LAG_SECONDS
                    self._ask_for_highs()
            except self._failure as error:
                self._log.on_error(error.args[0])
            except SourceError as error:
                self._log.log(30, "%s", error)

    def _look_for_partitions(self) -> None:
        options, context = self._source.options, self._context
        timeout = min(_ANSWER_SECONDS, options["timeout"])
        splits = list_partitions(self._consumer, self._source.topics, timeout)
        for split in splits:
            if split in self._known:
                continue
            if self._source.subtask_of(split, 0, context.parallelism) == context.subtask_index:
                start = self._range(split)
                if start is None:
                    return  # the next look tries again
                self._found = [*self._found, (split, start[0])]
                context.wake()
            self._known.add(split)

    def _ask_for_highs(self) -> None:
        highs = {}
        for split in self._behind():
            if self._closed.is_set():
                return
            found = self._range(split)
            if found is not None:
                highs[split] = found[1]
        self.highs = {**self.highs, **highs}

    def _range(self, split: str) -> tuple[int, int] | None:
        asked = self._topic_partition(*parse_split(split))
        found: tuple[int, int] | None = self._consumer.get_watermark_offsets(
            asked, timeout=_ANSWER_SECONDS
        )
        return found

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
