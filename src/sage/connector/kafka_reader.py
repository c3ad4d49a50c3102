"""`KafkaReader`: reads partitions of Kafka in the thread of a task.

librdkafka fetches in threads of its own, ahead of the reader; taking what has come never waits. Only
while there is nothing, a thread of Python's waits for the first record and wakes the task: between
the two there is never a record in flight that a position does not know of, since the task takes
nothing while that thread waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sage.common.errors import OperatorError, SourceError
from sage.connector.kafka_client import TRANSIENT, ClientLog, Inquiry, create_consumer
from sage.connector.kafka_decoding import TopicDecoder
from sage.connector.kafka_partitions import OffsetFinder, Position, parse_split, split_name
from sage.connector.kafka_record import KafkaRecord
from sage.connector.kafka_settings import import_client
from sage.connector.kafka_threads import ArrivalWatch, PartitionWatch
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import SourceReader, SplitBatch

if TYPE_CHECKING:
    from sage.connector.kafka_source import KafkaSource

_COMMIT_MS: Final = 5_000
_LOST: Final = frozenset({"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"})


class Partition:
    """A partition that is being read.

    Attributes:
        split: Its name as a split.
        topic: Its topic.
        number: Its number.
        next: The offset of the next record that `read_batch` is to return.
        stop: The offset at which to end; `None`: there is none.
    """

    __slots__ = ("next", "number", "split", "stop", "topic")

    def __init__(self, split: str, start: int, stop: int | None) -> None:
        self.split = split
        self.topic, self.number = parse_split(split)
        self.next = start
        self.stop = stop

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is to be read any more."""
        return self.stop is not None and self.next >= self.stop


class KafkaReader(SourceReader[KafkaRecord]):
    """Reads partitions; see `KafkaSource`.

    Args:
        source: What to read, and how.
        splits: The partitions, with their positions.
        context: The runtime.

    Raises:
        ConfigError: the client cannot be made.
        SourceError: the brokers do not answer, or refuse.
    """

    poll_interval = None

    def __init__(
        self, source: KafkaSource, splits: Mapping[str, Any], context: SourceContext
    ) -> None:
        self._source = source
        self._context = context
        self._options = source.options
        client = self._kafka = import_client()
        self._make, self._error_of = client.TopicPartition, client.Message.error
        self._number_of, self._topic_of = client.Message.partition, client.Message.topic
        self._log = ClientLog(source.settings, context.logger)
        self._consumer = self._create_consumer(len(splits))
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._topic: str | None = None  # if there is but one
        self._decoders: dict[str, TopicDecoder] = {}
        self._ready: deque[tuple[Partition, Sequence[Any]]] = deque()
        self._fault: Exception | None = None
        self._committed: dict[tuple[str, int], int] = {}
        self._next_commit_ms = context.now_ms() + _COMMIT_MS
        self._lost = 0
        self._last_gauges: Mapping[str, int] | None = None
        self._arrivals = ArrivalWatch(self._consumer, context.wake, context.operator_name)
        self._watch = PartitionWatch(source, context, self._log, splits)
        try:
            self._begin(splits)
            self._watch.start()
        except client.KafkaException as error:
            self.close()
            raise SourceError(self._log.unreachable(error)) from None
        except BaseException:
            self.close()
            raise

    def _create_consumer(self, partitions: int) -> Any:
        context, ahead = self._context, self._options["buffer_size"]
        return create_consumer(
            self._source.settings,
            self._source.group_id,
            self._log,
            client_id=f"sage-{context.job_name}-{context.operator_name}-{context.subtask_index}",
            enable_partition_eof=self._source.bounded,
            queued_min_messages=max(1, ahead // max(1, partitions)),
            fetch_queue_backoff_ms=10,  # a second otherwise, which a quick pipeline waits for
        )

    # ---- the beginning

    def _begin(self, splits: Mapping[str, Position | None]) -> None:
        options = self._options
        finder = OffsetFinder(Inquiry(self._consumer, self._log, options["timeout"]))
        fresh = [split for split, position in splits.items() if position is None]
        # One without position in a job that goes on was added since: it is read from its start.
        start = "earliest" if self._context.is_restored else options["start"]
        starts = finder.starts(fresh, start, options["auto_offset_reset"])
        stops = finder.stops(fresh, options["stop"]) if self._source.bounded else {}
        for split, position in splits.items():
            if position is None:
                self._add(Partition(split, starts[split], stops.get(split)))
            else:
                stop = position[1]
                if stop is None and self._source.bounded:
                    stop = finder.stops([split], options["stop"])[split]
                self._add(Partition(split, position[0], stop if self._source.bounded else None))
        for note in finder.notes:
            self._context.logger.warning("%s", note)
        self._consumer.assign(
            [
                self._make(p.topic, p.number, p.next)
                for p in self._partitions.values()
                if not p.has_ended
            ]
        )
        self._note_open()

    def _add(self, partition: Partition) -> None:
        self._partitions[partition.topic, partition.number] = partition
        topics = {topic for topic, _ in self._partitions}
        self._topic = topics.pop() if len(topics) == 1 else None

    def _note_open(self) -> None:
        self.open_splits = frozenset(p.split for p in self._partitions.values() if not p.has_ended)

    def _take_found(self) -> None:
        """Begin to read the partitions that have been added."""
        if self._arrivals.is_waiting:
            self._arrivals.interrupt()
            return
        found = [Partition(split, start, None) for split, start in self._watch.take_found()]
        for partition in found:
            self._context.logger.info("%s was added; it is read from its start", partition.split)
            self._add(partition)
        self._consumer.incremental_assign([self._make(p.topic, p.number, p.next) for p in found])
        self._note_open()

    # ---- reading

    def read_batch(self, max_records: int) -> Sequence[KafkaRecord] | None:
        """Return records of one partition.

        Raises:
            SourceError: a partition cannot be read on.
            OperatorError: a record cannot be decoded, under the policy `"fail"`.
        """
        self._commit_now_and_then()
        if self._watch.has_found:
            self._take_found()
        waits = not self._ready and self._fault is None and not self._fetch(max_records)
        while self._ready:
            batch = self._next_batch(max_records)
            if batch:
                return batch
        if self._fault is not None:
            raise self._fault
        if self._source.bounded and not self.open_splits:
            self.stop()
            return None
        if not waits:  # what has come was no record: there may be more behind it
            self._context.wake()
        return []

    def _fetch(self, max_records: int) -> bool:
        """Take what has come; if nothing has, let the task be woken when something does."""
        if self._arrivals.is_waiting or not self.open_splits:
            return False
        try:
            messages = self._take(max_records)
        except self._kafka.KafkaException as error:
            raise SourceError(self._log.unreachable(error)) from None
        if self._log.fault is not None:
            raise SourceError(f"the client of Kafka has failed: {self._log.fault}")
        if not messages:
            self._arrivals.wait()
            return False
        self._log.on_message()
        if any(map(self._error_of, messages)):
            self._sort_out(messages)
        else:
            self._part(messages)
        return True

    def _take(self, max_records: int) -> list[Any]:
        messages = self._arrivals.take()
        asked = min(max_records, self._options["max_poll_records"]) - len(messages)
        if asked > 0:
            messages += self._consumer.consume(asked, 0)
        return messages

    def _part(self, messages: list[Any]) -> None:
        """Part messages by their partitions; those of one mostly come in a row."""
        if len(self._partitions) == 1:
            for partition in self._partitions.values():
                self._queue(partition, messages)
            return
        places: Iterable[Any] = map(self._number_of, messages)
        if self._topic is None:
            places = zip(map(self._topic_of, messages), places, strict=True)
        parts: dict[Any, list[Any]] = {}
        begin = 0
        for place, run in groupby(places):
            end = begin + len(list(run))
            parts.setdefault(place, []).extend(messages[begin:end])
            begin = end
        for place, part in parts.items():
            where = place if self._topic is None else (self._topic, place)
            if where in self._partitions:
                self._queue(self._partitions[where], part)

    def _queue(self, partition: Partition, messages: list[Any]) -> None:
        stop = partition.stop
        if stop is not None and messages and messages[-1].offset() >= stop:
            messages = [message for message in messages if message.offset() < stop]
            self._ready.append((partition, messages))
            self._ready.append((partition, ()))  # what is before the end has been returned by then
        elif messages:
            self._ready.append((partition, messages))

    def _next_batch(self, max_records: int) -> SplitBatch[KafkaRecord] | None:
        partition, messages = self._ready.popleft()
        if not messages:
            self._end(partition)
            return None
        if len(messages) > max_records:
            self._ready.appendleft((partition, messages[max_records:]))
            messages = messages[:max_records]
        batch = SplitBatch(partition.split, self._decode(partition, messages))
        if partition.has_ended:
            self._end(partition)
        return batch

    def _end(self, partition: Partition) -> None:
        if partition.stop is not None:
            partition.next = max(partition.next, partition.stop)
            self._consumer.pause([self._make(partition.topic, partition.number)])
            self._note_open()

    # ---- decoding

    def _decoder(self, topic: str) -> TopicDecoder:
        if topic not in self._decoders:
            self._decoders[topic] = TopicDecoder(self._options, topic)
        return self._decoders[topic]

    def _decode(self, partition: Partition, messages: Sequence[Any]) -> Iterable[KafkaRecord]:
        decoder, topic = self._decoder(partition.topic), partition.topic
        behind = messages[-1].offset() + 1
        message = self._kafka.Message
        try:
            # One column after the other, so that the interpreter has nothing to do per record.
            records = list(
                map(
                    KafkaRecord,
                    decoder.values(map(message.value, messages)),
                    decoder.keys(map(message.key, messages)),
                    repeat(topic),
                    repeat(partition.number),
                    map(message.offset, messages),
                    map(itemgetter(1), map(message.timestamp, messages)),
                    map(message.headers, messages),
                )
            )
        except Exception:  # noqa: BLE001 - which record it is, and why, is found out one by one
            return self._decode_one_by_one(partition, messages)
        partition.next = behind
        return records

    def _decode_one_by_one(
        self, partition: Partition, messages: Sequence[Any]
    ) -> list[KafkaRecord]:
        """Decode what can be, and give the others to the error policy.

        What was decoded before a fault is returned; the fault is raised by the next call.
        """
        decoder, records = self._decoder(partition.topic), list[KafkaRecord]()
        for message in messages:
            try:
                record, error = decoder.decode(message)
                if error is not None:
                    self._context.fail_record(record, error)
                else:
                    records.append(record)
            except (OperatorError, SourceError) as fault:
                self._fault = fault
                self._ready.clear()
                break
            partition.next = message.offset() + 1
        return records

    # ---- what the client says in place of a record

    def _sort_out(self, messages: Sequence[Any]) -> None:
        """Take errors out of messages, and the ends of partitions: what is before them goes first."""
        self._part([message for message in messages if message.error() is None])
        for message in messages:
            error = message.error()
            if error is not None:
                self._take_error(message, error)

    def _take_error(self, message: Any, error: Any) -> None:
        name, place = error.name(), (message.topic(), message.partition())
        partition = self._partitions.get(place)
        if name == "_PARTITION_EOF":
            self._reach(partition, message.offset())
        elif name in _LOST and partition is not None:
            self._skip_lost(partition)
        elif name in TRANSIENT:
            self._log.on_error(error)
        else:
            where = split_name(*place) if place[0] else "Kafka"
            told = self._source.settings.hide(error.str())
            self._fault = SourceError(f"{where} cannot be read on: {told}")

    def _reach(self, partition: Partition | None, offset: int) -> None:
        """Take note that there is nothing before an offset: the last ones need not be records."""
        if partition is not None and partition.stop is not None and offset >= partition.stop:
            self._ready.append((partition, ()))

    def _skip_lost(self, partition: Partition) -> None:
        """Go on at the oldest record that there is, if the program says so."""
        at = self._make(partition.topic, partition.number)
        timeout = self._options["timeout"]
        low, _ = self._consumer.get_watermark_offsets(at, timeout=timeout) or (0, 0)
        told = (
            f"{partition.split} has no record at offset {partition.next} any more; the oldest is at "
            f"{low}, so {max(0, low - partition.next)} were removed before they were read"
        )
        if self._options["lost_offsets"] == "fail":
            self._fault = SourceError(
                f"{told}. lost_offsets='skip' goes on behind them; longer retention keeps them"
            )
            return
        self._context.logger.error("%s: they are skipped", told)
        self._lost += max(0, low - partition.next)
        partition.next = low
        # The client has given the partition up: it cannot seek in it.
        self._consumer.incremental_unassign([at])
        self._consumer.incremental_assign([self._make(partition.topic, partition.number, low)])

    # ---- positions

    def snapshot(self) -> dict[str, Any]:
        """Return for each partition the next offset, and that at which to end."""
        return {p.split: (p.next, p.stop) for p in self._partitions.values()}

    def checkpoint_complete(self, positions: Mapping[str, Any]) -> None:
        """Commit the offsets of a checkpoint for the group."""
        self._commit({parse_split(split): p[0] for split, p in positions.items()})

    def _commit_now_and_then(self) -> None:
        """Commit what has been processed, in a job without checkpoints."""
        if self._context.takes_checkpoints or self._context.now_ms() < self._next_commit_ms:
            return
        self._next_commit_ms = self._context.now_ms() + _COMMIT_MS
        self._commit_read()

    def _commit_read(self) -> None:
        self._commit({place: p.next for place, p in self._partitions.items()})

    def _commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if not self._options["commit_offsets"]:
            return
        moved = {place: at for place, at in offsets.items() if self._committed.get(place) != at}
        if moved:
            self._committed.update(moved)
            self._watch.commit(moved)

    def stop(self) -> bool:
        """Read no more; what has come and was not returned stays in the topic."""
        if not self._context.takes_checkpoints:
            self._commit_read()
        return False

    # ---- figures, and the end

    def gauges(self) -> Mapping[str, int]:
        """Return the lag of each partition and of all, errors, and whether the brokers are away."""
        if self._last_gauges is not None:
            return self._last_gauges
        lags = {p.split: self._lag(p) for p in tuple(self._partitions.values())}
        return {
            "lag": sum(lags.values()),
            **{f"lag{{split={split}}}": lag for split, lag in lags.items()},
            "broker_errors": self._log.errors,
            "brokers_down": int(self._log.is_down),
            "lost": self._lost,
        }

    def _lag(self, partition: Partition) -> int:
        """Return how many offsets are there and not read, as the brokers have told last."""
        return max(0, self._watch.ends.get(partition.split, 0) - partition.next)

    def close(self) -> None:
        """End the threads and leave the brokers."""
        if self._last_gauges is not None:
            return
        try:
            self._last_gauges = self.gauges()
        finally:
            self._arrivals.close()
            self._watch.close()
            self._consumer.close()
