"""`KafkaWriter`: hands records to Kafka as they come; at least once, or without any promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sage.connector.kafka_producer import KafkaProducer
from sage.connector.kafka_rows import Row
from sage.dataflow.function.sink import SinkWriter


class KafkaWriter(SinkWriter[Any]):
    """Writes records at once; made by `KafkaSink.create_writer`.

    Args:
        producer: Where they go.
        rows: Makes rows of records.
        waits: Whether `flush` waits until the brokers have all of them.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        rows: Callable[[Iterable[Any]], list[Row]],
        *,
        waits: bool,
    ) -> None:
        self._producer = producer
        self._rows = rows
        self._waits = waits

    def write_batch(self, values: Sequence[Any]) -> None:
        """Hand `values` to the client, which sends them in the background.

        Raises:
            SinkError: a record does not fit, or one before it could not be delivered.
        """
        self._producer.write(self._rows(values))

    def flush(self) -> None:
        """Wait until the brokers have all records, if that is promised.

        Raises:
            SinkError: a record could not be delivered.
        """
        if self._waits:
            self._producer.flush()
        else:
            self._producer.write(())

    def close(self) -> None:
        """Let go of the connections; without any promise, what is on its way gets its time here.

        Raises:
            SinkError: a record has not been delivered.
        """
        self._producer.close(deliver=not self._waits)
