"""How the bytes of a Kafka record become values: JSON, text, bytes, a function, a registered schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sage.common.errors import ConfigError, SourceError
from sage.common.suggest import did_you_mean, shorten
from sage.connector.kafka_settings import SchemaRegistry

Field: TypeAlias = Literal["key", "value"]
Decode: TypeAlias = Callable[[bytes], Any]

_NAMES: Final = ("json", "string", "bytes")
_KINDS: Final = ("avro", "protobuf", "json_schema")
_OF_THE_SERVER: Final = 500
_REFUSED: Final = (401, 403, 429)
_NOT_FOUND: Final = 404
_HEAD: Final = 5  # a magic byte, and the number of the schema
_ASK_AGAIN_SECONDS: Final = 30.0
_MOST_UNKNOWN: Final = 1000


class DeserializationError(SourceError):
    """A record cannot be decoded; the cause is what the deserializer raised.

    Attributes:
        topic: The topic that it is of.
        partition: The number of the partition.
        offset: Its place in the partition.
        field: `"key"` or `"value"`.
        reason: What is wrong with it.
    """

    def __init__(self, topic: str, partition: int, offset: int, field: Field, reason: str) -> None:
        super().__init__(f"{topic}:{partition} at offset {offset}: the {field} {reason}")
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.topic, self.partition, self.offset, self.field, self.reason))


class SchemaDeserializer:
    """Reads values with the schema that they name, from a schema registry: Avro, Protobuf, JSON Schema.

    It is a description: the client of the registry is made in the worker, by `create`. A value whose
    schema the registry does not know cannot be decoded; a registry that does not answer ends the job,
    which goes on from there under its restart strategy.

    Args:
        kind: `"avro"`, `"protobuf"` or `"json_schema"`.
        registry: Where the schemas are.
        schema: Avro: the text of the schema to read as, or `None` for that of the record. JSON Schema:
            its text. Protobuf: the generated class of the message.
        options: Settings of confluent-kafka's deserializer.

    Raises:
        ConfigError: the kind is unknown, or it needs a schema.

    Examples:
        >>> SchemaDeserializer("avro", SchemaRegistry("http://localhost:8081"))
        SchemaDeserializer('avro', SchemaRegistry('http://localhost:8081', {}))
    """

    def __init__(
        self,
        kind: Literal["avro", "protobuf", "json_schema"],
        registry: SchemaRegistry,
        schema: Any = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        if kind not in _KINDS:
            near = did_you_mean(str(kind), _KINDS)
            raise ConfigError(f"no kind of schema {kind!r}; {', '.join(_KINDS)} are known.{near}")
        if schema is None and kind != "avro":
            raise ConfigError(f"a SchemaDeserializer for {kind} needs a schema")
        self.kind = kind
        self.registry = registry
        self.schema = schema
        self.options = options

    def create(self, topic: str, field: Field) -> Decode:
        """Return a function that makes values of the bytes of a topic.

        Raises:
            ConfigError: what it needs is not installed.
            SourceError: (the function) the registry is away, or refuses.
            Exception: (the function) the bytes cannot be decoded.
        """
        client = self.registry.create_client()
        from confluent_kafka.serialization import (  # noqa: PLC0415 - an extra, and slow
            MessageField,
            SerializationContext,
        )

        context = SerializationContext(topic, getattr(MessageField, field.upper()))
        deserializer = self._deserializer(client)
        unknown = _UnknownSchemas()

        def decode(data: bytes) -> Any:
            unknown.check(data)
            try:
                return deserializer(data, context)
            except Exception as error:  # noqa: BLE001 - each kind of schema has its own
                reason = self.registry.hide(error)
                if _is_fault_of_registry(error):
                    raise SourceError(f"the schema registry does not serve: {reason}") from None
                unknown.note(data, error, reason)
                raise ValueError(reason) from None  # its own text may hold a password

        return decode

    def _deserializer(self, client: Any) -> Any:
        # each needs packages that the others do not
        if self.kind == "avro":
            from confluent_kafka.schema_registry.avro import AvroDeserializer  # noqa: PLC0415

            return AvroDeserializer(client, self.schema, conf=self.options)
        if self.kind == "protobuf":
            from confluent_kafka.schema_registry.protobuf import (  # noqa: PLC0415
                ProtobufDeserializer,
            )

            return ProtobufDeserializer(self.schema, self.options, client)
        from confluent_kafka.schema_registry.json_schema import JSONDeserializer  # noqa: PLC0415

        return JSONDeserializer(self.schema, schema_registry_client=client, conf=self.options)

    def __repr__(self) -> str:
        return f"SchemaDeserializer({self.kind!r}, {self.registry!r})"


class _UnknownSchemas:
    """The schemas that the registry has said it does not know: it is not asked for each record."""

    def __init__(self) -> None:
        self._reasons: dict[bytes, tuple[float, str]] = {}

    def note(self, data: bytes, error: BaseException, reason: str) -> None:
        """Take note of an answer of the registry."""
        if getattr(error, "http_status_code", None) == _NOT_FOUND:
            if (
                len(self._reasons) >= _MOST_UNKNOWN
            ):  # numbers that are none, in records that are bad
                self._reasons.clear()
            self._reasons[data[:_HEAD]] = (time.monotonic() + _ASK_AGAIN_SECONDS, reason)

    def check(self, data: bytes) -> None:
        """Check that the registry has not said lately that it does not know the schema.

        Raises:
            ValueError: it has.
        """
        if self._reasons:
            until, reason = self._reasons.get(data[:_HEAD], (0.0, ""))
            if time.monotonic() < until:
                raise ValueError(reason)


def _is_fault_of_registry(error: BaseException) -> bool:
    """Say whether it is the registry that is at fault: then the record may be a good one."""
    step: BaseException | None = error
    while step is not None:
        status = getattr(step, "http_status_code", None)
        if status is not None:
            return bool(status >= _OF_THE_SERVER or status in _REFUSED)
        # The client of the registry asks over httpx; whose errors of transport are no OSErrors.
        if isinstance(step, OSError) or type(step).__module__.split(".")[0] in (
            "httpx",
            "httpcore",
        ):
            return True
        step = step.__cause__ or step.__context__
    return False


Deserializer: TypeAlias = (
    Literal["json", "string", "bytes"] | Callable[[bytes], Any] | SchemaDeserializer
)
"""A name, a function of the bytes, or a schema."""


def check_deserializer(deserializer: Any, option: str) -> None:
    """Check that it is a deserializer.

    Raises:
        ConfigError: it is none; the text names the option.
    """
    if isinstance(deserializer, SchemaDeserializer) or deserializer in _NAMES:
        return
    if isinstance(deserializer, str) or not callable(deserializer):
        near = did_you_mean(str(deserializer), _NAMES)
        raise ConfigError(
            f"{option} is {', '.join(map(repr, _NAMES))}, a function of the bytes, or a "
            f"SchemaDeserializer, not {shorten(deserializer)}.{near}"
        )


def decoder_of(deserializer: Deserializer, topic: str, field: Field) -> Decode | None:
    """Return the function that makes values of bytes; `None`: they stay bytes.

    Examples:
        >>> decoder_of("json", "events", "value")(b'{"id": 7}')
        {'id': 7}
    """
    if isinstance(deserializer, SchemaDeserializer):
        return deserializer.create(topic, field)
    if deserializer == "bytes":
        return None
    if deserializer == "json":
        return msgspec.json.Decoder().decode
    if deserializer == "string":
        return bytes.decode
    return deserializer
