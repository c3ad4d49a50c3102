"""`KafkaSource`: the records of topics of Kafka. Here is what it is told, not how it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypedDict, Unpack

from sage.common.errors import ConfigError, SourceError
from sage.common.log import get_logger
from sage.common.suggest import did_you_mean, shorten
from sage.connector.kafka_client import ClientLog, Inquiry, create_consumer
from sage.connector.kafka_deserializers import Deserializer, check_deserializer
from sage.connector.kafka_partitions import (
    Reset,
    Start,
    Stop,
    check_bound,
    list_partitions,
    owner_of,
    topics_of,
)
from sage.connector.kafka_record import KafkaRecord
from sage.connector.kafka_settings import KafkaSettings, import_client
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

_OURS: Final[Mapping[str, str]] = {
    "group.id": "write group_id=",
    "auto.offset.reset": "write auto_offset_reset=",
    "enable.auto.commit": "offsets are committed with the checkpoints; write commit_offsets=",
    "enable.auto.offset.store": "offsets are committed with the checkpoints; write commit_offsets=",
    "enable.partition.eof": "write stop= for a source that has an end",
    "logger": "the job logs what the client says",
    "error_cb": "the job logs what the client says",
    "on_commit": "the job logs what the client says",
}


class KafkaSourceOptions(TypedDict, total=False):
    """What may be said about a `KafkaSource` besides.

    Attributes:
        auto_offset_reset: Where a partition begins of which the group has committed no offset, or one
            that is not there any more: `"latest"` (the default), `"earliest"`, or `"none"`, which
            is an error.
        start: Where to begin at the first start: `"committed"` (the default): where the group left
            off; `"earliest"`, `"latest"`; a `datetime` or milliseconds since the Unix epoch; or
            offsets by partition, `{"events:0": 7}`. A job that goes on from a checkpoint begins there.
        stop: Where to end, which makes the source bounded: `"latest"`: before what comes after the
            first start; a `datetime` or milliseconds: before the first record of that time or later;
            or offsets by partition. `None` (the default): never.
        value_deserializer: `"json"` (the default), `"string"`, `"bytes"`, a function of the bytes, or
            a `SchemaDeserializer`.
        key_deserializer: The same for the key; by default `"bytes"`.
        keep_nulls: Let records without a value through, as `None`; otherwise they cannot be decoded.
        max_value_bytes: A longer value cannot be decoded; by default there is no limit.
        buffer_size: How many records the client reads ahead, 10000; then it waits.
        max_poll_records: How many records are taken from the client at once, 500.
        discovery_interval: After how many seconds to look for new partitions and topics, 30; `None`:
            never. A bounded source does not look.
        lost_offsets: What to do when records were removed from the topic before they were read:
            `"fail"` (the default), or `"skip"` them, with a line in the log and in the figure `lost`.
        commit_offsets: Commit the offsets of the group, `True`: for monitoring, and for a start
            without checkpoint. With checkpoints each time that one is complete, else every 5 seconds.
        properties: Properties of librdkafka's consumer by their names; they are passed through.
        timeout: For how many seconds to wait for the brokers when the job starts, 10.
    """

    auto_offset_reset: Reset
    start: Start
    stop: Stop
    value_deserializer: Deserializer
    key_deserializer: Deserializer
    keep_nulls: bool
    max_value_bytes: int | None
    buffer_size: int
    max_poll_records: int
    discovery_interval: float | None
    lost_offsets: str
    commit_offsets: bool
    properties: Mapping[str, Any]
    timeout: float


DEFAULTS: Final[Mapping[str, Any]] = {
    "auto_offset_reset": "latest",
    "start": "committed",
    "stop": None,
    "value_deserializer": "json",
    "key_deserializer": "bytes",
    "keep_nulls": False,
    "max_value_bytes": None,
    "buffer_size": 10_000,
    "max_poll_records": 500,
    "discovery_interval": 30.0,
    "lost_offsets": "fail",
    "commit_offsets": True,
    "timeout": 10.0,
}


class KafkaSource(Source[KafkaRecord]):
    """Reads the records of topics of Kafka as `KafkaRecord`s.

    Each partition is a split. Where the job goes on is in its checkpoints alone, so records are
    processed exactly once; the offsets that it commits for its group are for those who watch it, and
    for the first start. It takes no part in the balancing of the group: its subtasks share all
    partitions among themselves. Partitions that are added while it runs are read from their start.

    Records bring their time along: `assign_timestamps()` needs no function. Event time is kept for
    each partition by itself.

    Args:
        bootstrap_servers: `"host:port"`, several with commas between them; or `KafkaSettings`.
        topic: The name of a topic, a list of them, or a pattern: a text that begins with `^`, or what
            `re.compile` gives.
        group_id: The consumer group for which offsets are committed.
        options: See `KafkaSourceOptions`.

    Raises:
        ConfigError: an address, an option or a property cannot be one.

    Examples:
        >>> KafkaSource("broker:9092", "events", "reports", properties={"sasl.password": "pw"})
        KafkaSource(KafkaSettings('broker:9092', {'sasl.password': '***'}), 'events', 'reports')
    """

    reports_bad_records = True

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | KafkaSettings,
        topic: str | Iterable[str] | re.Pattern[str],
        group_id: str,
        **options: Unpack[KafkaSourceOptions],
    ) -> None:
        _check_options(options)
        self.settings = _settings(bootstrap_servers, options.get("properties"))
        self.settings.check_properties(_OURS)
        self.topics = topics_of(topic)
        if not group_id or type(group_id) is not str:
            raise ConfigError(f"group_id is the name of a consumer group, not {shorten(group_id)}")
        self.group_id = group_id
        self.options: dict[str, Any] = {**DEFAULTS, **options}
        self.options["start"] = check_bound("start", self.options["start"])
        self.options["stop"] = check_bound("stop", self.options["stop"])
        self.bounded = self.options["stop"] is not None

    def list_splits(self) -> Sequence[str]:
        """Return the partitions, such as `"events:0"`.

        Raises:
            ConfigError: the client is not installed, or does not know a property.
            SourceError: the brokers do not answer, or refuse; or there is no such topic.
        """
        log = ClientLog(self.settings, get_logger("kafka"))
        client = create_consumer(self.settings, self.group_id, log)
        try:
            return list_partitions(Inquiry(client, log, self.options["timeout"]), self.topics)
        except import_client().KafkaException as error:
            raise SourceError(log.unreachable(error)) from None
        finally:
            client.close()

    def subtask_of(self, split: str, place: int, parallelism: int) -> int:
        """Return which subtask reads a partition, by its name alone."""
        return owner_of(split, parallelism)

    def timestamps(self) -> Callable[[Any], int]:
        """Return what gives the time that the topic has for a record."""
        return attrgetter("timestamp")

    def create_reader(
        self, splits: Mapping[str, Any], context: SourceContext
    ) -> SourceReader[KafkaRecord]:
        """Find out where the partitions begin, and read them.

        Raises:
            ConfigError: the client is not installed, or does not know a property.
            SourceError: the brokers do not answer, or refuse.
        """
        # What reads is only needed by those who do.
        from sage.connector.kafka_reader import KafkaReader  # noqa: PLC0415

        return KafkaReader(self, splits, context)

    def __repr__(self) -> str:
        topics = self.topics if isinstance(self.topics, re.Pattern) else ",".join(self.topics)
        return f"KafkaSource({self.settings!r}, {topics!r}, {self.group_id!r})"


def _settings(
    servers: str | Iterable[str] | KafkaSettings, properties: Mapping[str, Any] | None
) -> KafkaSettings:
    if not isinstance(servers, KafkaSettings):
        return KafkaSettings(servers, properties)
    return KafkaSettings(servers.bootstrap_servers, {**servers.properties, **(properties or {})})


def _check_options(options: Mapping[str, Any]) -> None:
    known = KafkaSourceOptions.__annotations__
    for name in options:
        if name not in known:
            raise ConfigError(f"a KafkaSource has no option {name!r}.{did_you_mean(name, known)}")
    for name in ("value_deserializer", "key_deserializer"):
        check_deserializer(options.get(name, "bytes"), name)
    for name, choices in _CHOICES.items():
        if options.get(name, choices[0]) not in choices:
            told = ", ".join(map(repr, choices))
            raise ConfigError(f"{name} is one of {told}, not {options[name]!r}")
    for name in ("buffer_size", "max_poll_records", "max_value_bytes"):
        number: Any = options.get(name)
        if number is not None and (type(number) is not int or number < 1):
            raise ConfigError(f"{name} is a whole number of at least 1, not {number!r}")
    for name in ("discovery_interval", "timeout"):
        seconds: Any = options.get(name)
        if seconds is not None and (not isinstance(seconds, int | float) or not seconds > 0):
            raise ConfigError(f"{name} is a number of seconds above 0, not {seconds!r}")


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "auto_offset_reset": ("earliest", "latest", "none"),
    "lost_offsets": ("fail", "skip"),
}
