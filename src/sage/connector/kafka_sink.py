"""`KafkaSink`: records go to topics of Kafka. Here is what it is told, not how it writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, Unpack, get_args

from sage.common.suggest import did_you_mean, shorten
from sage.connector.kafka_producer import KafkaProducer
from sage.connector.kafka_rows import Headers, RecordParts
from sage.connector.kafka_serializers import Serializer, check_serializer
from sage.connector.kafka_settings import KafkaSettings
from sage.connector.kafka_transactions import (
    KafkaTransactionWriter,
    TransactionalId,
    TransactionSettings,
)
from sage.connector.kafka_writer import KafkaWriter
from sage.connector.row_buffer import Spill, kept_by_all
from sage.connector.sink_error import SinkError
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, SinkWriter
from sage.kernel.checkpoint.durable_files import Step, no_step

Guarantee: TypeAlias = Literal["exactly_once", "at_least_once", "none"]

_OURS: Final[Mapping[str, str]] = {
    "transactional.id": "write transactional_id_prefix= and guarantee='exactly_once'",
    "on_delivery": "what is not delivered fails the job",
    "delivery.report.only.error": "what is not delivered fails the job",
    "logger": "the job logs what the client says",
    "error_cb": "the job logs what the client says",
}


class KafkaSinkOptions(TypedDict, total=False):
    """What may be said about a `KafkaSink` besides.

    Attributes:
        key: The key of a record: a function of it, or the name of a field; `None` (the default, and
            what the function may return) is no key.
        value: Its value: a function of it, or the name of a field; by default the record itself. A
            value that is `None` is written as Kafka's null, which deletes a key of a compacted topic.
        partition: A function of the record that returns the number of the partition, or `None` to
            leave it to the client, which goes by the key as Java clients do.
        headers: A function of the record that returns a dict, or a list of pairs.
        timestamp: A function of the record that returns milliseconds since the Unix epoch, or `None`
            for now.
        key_serializer: `"string"` (the default), `"json"`, `"bytes"`, a function of the key that
            returns bytes, or a `SchemaSerializer`.
        value_serializer: The same for the value; by default `"json"`.
        properties: Properties of librdkafka's producer by their names, such as
            `{"compression.type": "lz4"}`; they are passed through.
        transactional_id_prefix: How the names begin under which transactions are written, and of the
            consumer groups that note them; by default `"<job>/<operator>"`. A subtask adds its number.
        timeout: After how many seconds without an answer of Kafka to fail; 60.
        spill: Where records go that are too many to be kept in memory until their commit.
    """

    key: Callable[[Any], Any] | str | None
    value: Callable[[Any], Any] | str | None
    partition: Callable[[Any], int | None] | None
    headers: Callable[[Any], Headers | None] | None
    timestamp: Callable[[Any], int | None] | None
    key_serializer: Serializer
    value_serializer: Serializer
    properties: Mapping[str, Any]
    transactional_id_prefix: str
    timeout: float
    spill: Spill


class KafkaSink(Sink[Any]):
    """Writes records to topics of Kafka.

    With `guarantee="exactly_once"`, a reader with `isolation.level=read_committed` sees each record
    once, with the checkpoint that covers it; without checkpoints, at the end of the input. The
    records are kept in the checkpoint (or in files, see `spill`) and written at its commit, in one
    transaction of Kafka's. With `"at_least_once"`, records are sent as they come, and a checkpoint
    waits until the brokers have them; after a failure, what came after the checkpoint is written
    again. With `"none"` nobody waits, and what was on its way may be lost.

    A record that cannot be delivered fails the job; the error shows it.

    Args:
        bootstrap_servers: `"host:port"`, several with commas between them; or `KafkaSettings`.
        topic: The topic, or a function of the record that returns its name.
        guarantee: What is promised when the job fails and goes on.
        options: See `KafkaSinkOptions`.

    Raises:
        ConfigError: an address, or a property, cannot be one.
        SinkError: an option is not known, or its value not usable.

    Examples:
        >>> sink = KafkaSink("broker:9092", "counts", key="word", properties={"sasl.password": "pw"})
        >>> sink
        KafkaSink(KafkaSettings('broker:9092', {'sasl.password': '***'}), 'counts', 'at_least_once')
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | KafkaSettings,
        topic: str | Callable[[Any], str],
        guarantee: Guarantee = "at_least_once",
        **options: Unpack[KafkaSinkOptions],
    ) -> None:
        _check_options(options)
        if guarantee not in get_args(Guarantee):
            known = ", ".join(map(repr, get_args(Guarantee)))
            near = did_you_mean(str(guarantee), get_args(Guarantee))
            raise SinkError(f"guarantee is one of {known}, not {guarantee!r}.{near}")
        _check_topic(topic)
        self.settings = _settings(bootstrap_servers, options.get("properties"))
        self.settings.check_properties(_OURS)
        self.guarantee = guarantee
        self.parts = RecordParts(topic, **{name: options[name] for name in _PARTS & options.keys()})  # type: ignore[literal-required]
        self.transactional_id_prefix = options.get("transactional_id_prefix")
        self.timeout = options.get("timeout", 60.0)
        self.spill = options.get("spill")

    def create_writer(
        self, context: RuntimeContext, state: Any, *, step: Step = no_step
    ) -> SinkWriter[Any]:
        """Open a writer; with `"exactly_once"`, end what a run before it may have left open.

        Args:
            context: Tells the job, the operator and the subtask.
            state: What `snapshot` returned; `None` at the first start.
            step: Is called before each step of a transaction, for tests that end the process there.

        Raises:
            ConfigError: the client is not installed.
            SinkError: the brokers do not answer, or refuse.
        """
        rows = self.parts.row_maker()
        if self.guarantee != "exactly_once":
            producer = KafkaProducer(self.settings, context, self.timeout)
            return KafkaWriter(producer, rows, waits=self.guarantee == "at_least_once")
        prefix = self.transactional_id_prefix or f"{context.job_name}/{context.operator_name}"
        transactions = TransactionSettings(self.settings, self.timeout, self.spill)
        for number in () if state is None else state.get("gone", ()):
            TransactionalId(transactions, f"{prefix}-{number}", context, step).close()
        name = f"{prefix}-{context.subtask_index}"
        return KafkaTransactionWriter(transactions, name, rows, context, state, step=step)

    def redistribute(self, states: Sequence[Any], parallelism: int) -> Sequence[Any]:
        """Let all know the files that one of them commits, and end what subtasks that are gone began.

        Whoever takes the id of such a subtask also commits what it has prepared.
        """
        known = [state for state in states if state is not None]
        if not known:
            return [None] * parallelism
        kept = kept_by_all(known)
        gone = [
            range(parallelism + first, len(states), parallelism) for first in range(parallelism)
        ]
        return [{"prepared": [], "kept": kept, "gone": list(numbers)} for numbers in gone]

    def __repr__(self) -> str:
        return f"KafkaSink({self.settings!r}, {self.parts.topic!r}, {self.guarantee!r})"


_PARTS: Final = KafkaSinkOptions.__annotations__.keys() & RecordParts.__annotations__.keys()


def _check_topic(topic: Any) -> None:
    if not callable(topic) and (not isinstance(topic, str) or not topic):
        raise SinkError(f"topic is its name or a function of the record, not {shorten(topic)}")


def _settings(
    servers: str | Iterable[str] | KafkaSettings, properties: Mapping[str, Any] | None
) -> KafkaSettings:
    if not isinstance(servers, KafkaSettings):
        return KafkaSettings(servers, properties)
    return KafkaSettings(servers.bootstrap_servers, {**servers.properties, **(properties or {})})


def _check_options(options: Mapping[str, Any]) -> None:
    known: Collection[str] = KafkaSinkOptions.__annotations__
    for name in options:
        if name not in known:
            raise SinkError(f"a KafkaSink has no option {name!r}.{did_you_mean(name, known)}")
    for option in ("key_serializer", "value_serializer"):
        if option in options:
            check_serializer(options[option], option)
    for option in ("partition", "headers", "timestamp"):
        function = options.get(option)
        if function is not None and not callable(function):
            raise SinkError(f"{option} is a function of the record, not {shorten(function)}")
    for option in ("key", "value"):
        part = options.get(option)
        if part is not None and not isinstance(part, str) and not callable(part):
            raise SinkError(f"{option} is a function of the record or a field, not {shorten(part)}")
    timeout: Any = options.get("timeout", 60.0)
    if not isinstance(timeout, (int, float)) or not timeout > 0:
        raise SinkError(f"timeout is a number of seconds above 0, not {timeout!r}")
