"""`KafkaTransactionWriter`: records in Kafka exactly once, with the checkpoint that covers them.

The records of an epoch, that is, between two checkpoints, are kept aside and written at the commit,
in one transaction of Kafka's. Its *marker* is in the same transaction: a committed offset of a
consumer group of the writer's own, whose number is that of the checkpoint. A commit that finds its
marker does nothing. The reasons are in ADR 011.

A transactional id is held by one producer at a time. Who takes it makes Kafka end the transaction
of whoever had it before, and refuse all that may still come of that one. So the marker is read only
by a writer that holds the id of the records in question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

from sage.common.ids import new_uuid
from sage.connector.kafka_client import create_consumer
from sage.connector.kafka_producer import TURN_SECONDS, KafkaProducer, StuckClientError
from sage.connector.kafka_rows import Row
from sage.connector.kafka_settings import KafkaSettings, import_client
from sage.connector.row_buffer import RowBuffer, Spill, open_spill, read_rows, spilled
from sage.connector.sink_error import SinkError
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import TwoPhaseWriter
from sage.kernel.checkpoint.durable_files import Step, no_step

MARKER_DAYS: Final = 6
"""Kafka keeps the marker of a writer that is no more for 7 days (`offsets.retention.minutes`)."""

_DAY_MS: Final = 24 * 3600 * 1000
_PARTITION: Final = 0


class Epoch(TypedDict):
    """What is committed: the records between two checkpoints, and what they are known by.

    Attributes:
        transactional_id: Under which they are written.
        marker: The consumer group that tells how far this writer has come.
        topic: The topic that the marker is of.
        number: That of the checkpoint.
        prepared_ms: When it was prepared.
        blocks: The rows that are in memory, pickled.
        file: The file with the rows before them; or None.
    """

    transactional_id: str
    marker: str
    topic: str
    number: int
    prepared_ms: int
    blocks: Sequence[bytes]
    file: str | None


@dataclass(frozen=True)
class TransactionSettings:
    """What transactions of a sink have in common.

    Attributes:
        settings: Where the brokers are.
        timeout: After how many seconds without an answer to give up.
        spill: Where rows go that are too many for the memory.
    """

    settings: KafkaSettings
    timeout: float
    spill: Spill | None


class KafkaTransactionWriter(TwoPhaseWriter[Any]):
    """Keeps the records of one subtask and writes them in transactions.

    Args:
        transactions: What all writers of the sink have in common.
        transactional_id: That of this subtask.
        rows: Makes rows of records.
        context: The runtime.
        state: What `snapshot` or `KafkaSink.redistribute` returned; `None` at the first start.
        step: Is called before each operation, for tests that end the process there.

    Raises:
        ConfigError: the client is not installed.
        SinkError: the brokers do not answer, or refuse.
    """

    def __init__(
        self,
        transactions: TransactionSettings,
        transactional_id: str,
        rows: Callable[[Iterable[Any]], list[Row]],
        context: RuntimeContext,
        state: Mapping[str, Any] | None = None,
        *,
        step: Step = no_step,
    ) -> None:
        self._transactions = transactions
        self._context = context
        self._rows = rows
        self._step = step
        spill = transactions.spill
        self._files = open_spill(spill, context, state, step)
        self._prepared = dict.fromkeys(state["prepared"] if state else ())
        self._buffer = RowBuffer(self._files, spill.above_bytes if spill else 0)
        self._topic: str | None = None
        self._begun: tuple[str, int] | None = None
        self._marker = f"{transactional_id}-{new_uuid()}"
        self._own = TransactionalId(transactions, transactional_id, context, step)

    def write_batch(self, values: Sequence[Any]) -> None:
        """Keep `values` for the next epoch.

        Raises:
            SinkError: a record does not fit, or the disk is full.
        """
        if rows := self._rows(values):
            self._buffer.append(rows)
            if self._topic is None:
                self._topic = rows[0][0]

    def prepare_commit(self, checkpoint_id: int) -> Epoch | None:
        """Close the epoch.

        Returns:
            Its records; `None` if there are none.

        Raises:
            SinkError: the disk is full.
        """
        if self._topic is None:
            return None
        blocks, name = self._buffer.take()
        topic, self._topic = self._topic, None
        if name is not None:
            self._prepared[name] = None
        return {
            "transactional_id": self._own.name,
            "marker": self._marker,
            "topic": topic,
            "number": checkpoint_id,
            "prepared_ms": self._context.now_ms(),
            "blocks": blocks,
            "file": name,
        }

    def commit(self, committable: Epoch) -> None:
        """Write the records of an epoch and its marker in one transaction, unless it has been done.

        Raises:
            SinkError: the brokers do not answer in time, or refuse; or it cannot be known any more
                whether it has been done.
        """
        if committable["transactional_id"] == self._own.name:
            self._commit(self._own, committable)
        else:  # of a run with another parallelism; its producer may still be alive somewhere
            other = TransactionalId(
                self._transactions, committable["transactional_id"], self._context, self._step
            )
            try:
                self._commit(other, committable)
            finally:
                other.close()
        self._remove(committable["file"])

    def _commit(self, holder: TransactionalId, epoch: Epoch) -> None:
        path = spilled(self._transactions.spill, epoch["file"])
        begun = (epoch["marker"], epoch["number"])
        fresh = epoch["marker"] == self._marker and (self._begun is None or self._begun < begun)
        if fresh:
            self._begun = begun
        elif holder.has_committed(epoch):
            return
        holder.write(epoch, lambda: read_rows(epoch["blocks"], path))

    def _remove(self, name: str | None) -> None:
        if name is not None and self._files is not None:
            self._files.discard(name)
            self._prepared.pop(name, None)

    def snapshot(self) -> Mapping[str, Any]:
        """Return the names of the files whose records wait for their commit."""
        return {"prepared": list(self._prepared)}

    def close(self) -> None:
        """Remove the records that have not been prepared, and let go of the connections."""
        unfinished = self._buffer.close()
        if self._files is not None:
            self._files.close(unfinished)
        self._own.close()


class TransactionalId:
    """A transactional id that this process holds, from the constructor on.

    Args:
        transactions: What all writers of the sink have in common.
        name: The id.
        context: The runtime.
        step: Is called before each operation.

    Raises:
        SinkError: the brokers do not answer, or refuse.
    """

    def __init__(
        self,
        transactions: TransactionSettings,
        name: str,
        context: RuntimeContext,
        step: Step = no_step,
    ) -> None:
        self.name = name
        self._settings = transactions.settings
        self._timeout = transactions.timeout
        self._context = context
        self._step = step
        self._group: tuple[str, Any] | None = None
        self._producer = self._take()

    def _take(self) -> KafkaProducer:
        properties = {"transactional.id": self.name}
        producer = KafkaProducer(self._settings, self._context, self._timeout, properties)
        self._step("init", Path(self.name))
        try:
            what = "begin with transactions"
            self._ask(producer, what, producer.init_transactions)
        except BaseException:
            producer.close()
            raise
        return producer

    def _ask(self, producer: KafkaProducer, what: str, call: Callable[[float], Any]) -> Any:
        try:
            return producer.insist(what, call)
        except producer.client_error as error:
            if error.args[0].txn_requires_abort():
                raise
            raise SinkError(f"cannot {what}: {self._explained(producer, error)}") from None

    def _explained(self, producer: KafkaProducer, error: Exception) -> str:
        text = producer.hide(error)
        if error.args[0].code() in _fenced():
            return (
                f"another run has taken the transactional id {self.name!r}, or it took longer than "
                f"transaction.timeout.ms. Is the job running twice, or two jobs of this name? ({text})"
            )
        return text

    def write(self, epoch: Epoch, rows: Callable[[], Iterable[list[Row]]]) -> None:
        """Write the rows of an epoch and its marker in one transaction.

        A transaction that Kafka gives up is tried again until the time is over.

        Raises:
            SinkError: it could not be done.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                self._write(epoch, rows())
            except StuckClientError:
                self._replace(until)
                if self.has_committed(epoch):
                    return
            except self._producer.client_error as error:
                if time.monotonic() > until:
                    why = self._producer.hide(error)
                    raise SinkError(f"cannot commit a transaction: {why}") from None
                self._abort()
                if self.has_committed(epoch):
                    return
            except BaseException:
                self._abandon()
                raise
            else:
                return

    def _write(self, epoch: Epoch, rows: Iterable[list[Row]]) -> None:
        producer, what = self._producer, "commit a transaction"
        self._step("begin", Path(self.name))
        producer.begin_transaction()
        for block in rows:
            self._step("rows", Path(self.name))
            producer.write(block)
        producer.flush()
        self._step("marker", Path(self.name))
        marker = [_marker(epoch["topic"], epoch["number"])]
        group = self._group_of(epoch["marker"]).consumer_group_metadata()
        self._ask(producer, what, partial(producer.send_offsets_to_transaction, marker, group))
        self._step("commit", Path(self.name))
        self._ask(producer, what, producer.commit_transaction)
        self._step("committed", Path(self.name))

    def _abort(self) -> None:
        producer = self._producer
        what = "abort a transaction"
        self._ask(producer, what, producer.abort_transaction)
        producer.forget_failure()

    def _replace(self, until: float) -> None:
        """Take the id again, with another producer: Kafka ends what the one before has begun.

        Raises:
            SinkError: the time is over, or the brokers do not answer.
        """
        if time.monotonic() > until:
            raise SinkError(
                f"cannot commit a transaction: Kafka has not answered for {self._timeout:g} s"
            )
        self._context.logger.warning(
            "the client of Kafka waits for a broker that is gone; a new one goes on in its place"
        )
        self._producer.forget_failure()
        self._producer.close()
        self._producer = self._take()

    def _abandon(self) -> None:
        """Abort if it goes quickly; whoever takes the id next does it else."""
        error = self._producer.client_error
        try:
            self._producer.abort_transaction(TURN_SECONDS)
        except error as failed:
            self._context.logger.debug("not aborted yet: %s", self._producer.hide(failed))

    def has_committed(self, epoch: Epoch) -> bool:
        """Say whether an epoch has been committed.

        Raises:
            SinkError: the brokers do not answer, or the marker is so old that it may be gone.
        """
        consumer = self._group_of(epoch["marker"])
        asked = [_marker(epoch["topic"])]
        self._step("look", Path(self.name))
        what = f"read the offset of the consumer group {epoch['marker']!r}"
        (found,) = self._ask(self._producer, what, partial(consumer.committed, asked))
        if found.error is not None:
            raise SinkError(f"cannot {what}: {self._producer.hide(found.error)}")
        if found.offset >= 0:
            return bool(found.offset >= epoch["number"])
        self._check_age(epoch)
        return False

    def _check_age(self, epoch: Epoch) -> None:
        days = (self._context.now_ms() - epoch["prepared_ms"]) / _DAY_MS
        if days > MARKER_DAYS:
            number = epoch["number"]
            raise SinkError(
                f"checkpoint {number} is {days:.0f} days old, and Kafka may have forgotten whether "
                f"its records are in {epoch['topic']!r}. Look there, then set the offset of the "
                f"consumer group {epoch['marker']!r} for partition {_PARTITION} of that topic to "
                f"{number} if they are, to {number - 1} if not; or start without the checkpoint"
            )

    def _group_of(self, name: str) -> Any:
        """Return a consumer of a group; it reads and sets offsets, and never joins."""
        if self._group is not None and self._group[0] != name:
            self._let_go_of_group()
        if self._group is None:
            self._group = name, create_consumer(_to_reach(self._settings), name)
        return self._group[1]

    def _let_go_of_group(self) -> None:
        if self._group is not None:
            self._group[1].close()
            self._group = None

    def close(self) -> None:
        """Let go of the connections; a transaction that is open stays so until its id is taken."""
        self._let_go_of_group()
        self._producer.forget_failure()
        self._producer.close()


def _to_reach(settings: KafkaSettings) -> KafkaSettings:
    """Return settings without those properties that are about writing."""
    kinds = (
        "security.",
        "ssl.",
        "sasl.",
        "client.",
        "socket.",
        "broker.",
        "enable.ssl",
        "enable.sasl",
    )
    properties = {k: v for k, v in settings.properties.items() if k.startswith(kinds)}
    return KafkaSettings(settings.bootstrap_servers, properties)


def _marker(topic: str, *number: int) -> Any:
    return import_client().TopicPartition(topic, _PARTITION, *number)


def _fenced() -> set[int]:
    codes = import_client().KafkaError
    return {codes._FENCED, codes.INVALID_PRODUCER_EPOCH, codes.PRODUCER_FENCED}
