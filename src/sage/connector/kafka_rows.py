"""How the records of a stream become *rows*: the arguments of `Producer.produce`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from sage.common.suggest import shorten
from sage.connector.kafka_serializers import Serializer, serializer_of
from sage.connector.sink_error import SinkError

Row: TypeAlias = tuple[Any, ...]
"""Topic, value and key; perhaps also the partition; perhaps also two times None, timestamp, headers."""

Headers: TypeAlias = Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes | None]]

ANY_PARTITION = -1


@dataclass(frozen=True)
class RecordParts:
    """Where the parts of a Kafka record come from.

    Attributes:
        topic: The topic, or a function of the record.
        key: A function of the record, or the name of a field; None for no key.
        value: A function of the record, or the name of a field; None for the record itself.
        partition: A function of the record that returns a number, or None to leave it to the client.
        headers: A function of the record.
        timestamp: A function of the record: milliseconds since the Unix epoch, or None for now.
        key_serializer: How a key becomes bytes.
        value_serializer: How a value becomes bytes.
    """

    topic: str | Callable[[Any], str]
    key: Callable[[Any], Any] | str | None = None
    value: Callable[[Any], Any] | str | None = None
    partition: Callable[[Any], int | None] | None = None
    headers: Callable[[Any], Headers | None] | None = None
    timestamp: Callable[[Any], int | None] | None = None
    key_serializer: Serializer = "string"
    value_serializer: Serializer = "json"

    def row_maker(self) -> Callable[[Iterable[Any]], list[Row]]:
        """Return a function that makes rows of records; called in the worker.

        Raises:
            ConfigError: what a serializer needs is not installed.
            SinkError: (the function) a record has no such field, or does not fit.
        """
        value, value_needs_topic = serializer_of(self.value_serializer, "value")
        key, key_needs_topic = serializer_of(self.key_serializer, "key")
        plain = not (value_needs_topic or (key_needs_topic and self.key is not None))
        others = self.partition or self.headers or self.timestamp or self.value
        if plain and not others and isinstance(self.topic, str):
            return _simple_rows(self.topic, _part(self.key), key, value)
        values = value if value_needs_topic else _without_topic(value)
        keys = key if key_needs_topic else _without_topic(key)
        return self._rows(keys, values)

    def _rows(
        self, key: Callable[[Any, str], Any], value: Callable[[Any, str], Any]
    ) -> Callable[[Iterable[Any]], list[Row]]:
        topic_of, key_of, value_of = self.topic, _part(self.key), _part(self.value)
        partition_of, headers_of, timestamp_of = self.partition, self.headers, self.timestamp
        extras = headers_of is not None or timestamp_of is not None

        def make_row(record: Any) -> Row:
            topic = topic_of if isinstance(topic_of, str) else _topic(topic_of(record))
            the_key = None if key_of is None else key_of(record)
            the_value = record if value_of is None else value_of(record)
            row: Row = (
                topic,
                None if the_value is None else value(the_value, topic),
                None if the_key is None else key(the_key, topic),
                ANY_PARTITION if partition_of is None else _partition(partition_of(record)),
            )
            if not extras:
                return row
            timestamp = None if timestamp_of is None else timestamp_of(record)
            headers = None if headers_of is None else headers_of(record)
            return (*row, None, None, timestamp or 0, _plain_headers(headers))

        return lambda records: list(map(make_row, records))


def _simple_rows(
    topic: str,
    key_of: Callable[[Any], Any] | None,
    key: Callable[[Any], bytes | None],
    value: Callable[[Any], bytes | None],
) -> Callable[[Iterable[Any]], list[Row]]:
    """Return what is quickest for the usual case: one topic, perhaps a key, and nothing else."""
    if key_of is None:
        return lambda records: [(topic, None if r is None else value(r), None) for r in records]

    return lambda records: [
        (
            topic,
            None if r is None else value(r),
            None if (k := key_of(r)) is None else key(k),
        )
        for r in records
    ]


def _part(part: Callable[[Any], Any] | str | None) -> Callable[[Any], Any] | None:
    if not isinstance(part, str):
        return part
    field = itemgetter(part)

    def get(record: Any) -> Any:
        try:
            return field(record)
        except (KeyError, TypeError, IndexError):
            raise SinkError(f"there is no field {part!r} in {shorten(record)}") from None

    return get


def _without_topic(serialize: Callable[[Any], bytes | None]) -> Callable[[Any, str], bytes | None]:
    return lambda value, topic: serialize(value)


def _topic(topic: Any) -> str:
    if isinstance(topic, str) and topic:
        return topic
    raise SinkError(f"the topic of a record is its name, not {shorten(topic)}")


def _partition(partition: Any) -> int:
    if partition is None:
        return ANY_PARTITION
    if type(partition) is int and partition >= 0:
        return partition
    raise SinkError(
        f"a partition is a whole number of at least 0, or None for any, not {shorten(partition)}"
    )


def _plain_headers(headers: Headers | None) -> list[tuple[str, Any]] | None:
    if headers is None:
        return None
    return list(headers.items() if isinstance(headers, Mapping) else headers)
