"""How values become the bytes of a Kafka record: JSON, text, bytes, a function, a registered schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sage.common.suggest import did_you_mean, shorten
from sage.connector.kafka_settings import SchemaRegistry
from sage.connector.sink_error import SinkError

_NAMES: Final = ("json", "string", "bytes")


class SchemaSerializer:
    """Writes values with a schema that a schema registry knows: Avro, Protobuf or JSON Schema.

    It is a description: the client of the registry is made in the worker, by `create`.

    Args:
        kind: `"avro"`, `"protobuf"` or `"json_schema"`.
        registry: Where the schemas are.
        schema: Avro and JSON Schema: the text of the schema. Protobuf: the generated class of the
            message; the values are its instances.
        options: Settings of confluent-kafka's serializer, such as `{"auto.register.schemas": False}`.

    Raises:
        SinkError: the kind is unknown.

    Examples:
        >>> registry = SchemaRegistry("http://localhost:8081")
        >>> SchemaSerializer("avro", registry, '{"type": "string"}')
        SchemaSerializer('avro', SchemaRegistry('http://localhost:8081', {}))
    """

    KINDS: Final = ("avro", "protobuf", "json_schema")

    def __init__(
        self,
        kind: Literal["avro", "protobuf", "json_schema"],
        registry: SchemaRegistry,
        schema: Any,
        options: dict[str, Any] | None = None,
    ) -> None:
        if kind not in self.KINDS:
            raise SinkError(
                f"no kind of schema {kind!r}; {', '.join(self.KINDS)} are known."
                f"{did_you_mean(str(kind), self.KINDS)}"
            )
        self.kind = kind
        self.registry = registry
        self.schema = schema
        self.options = options

    def create(self, field: Literal["key", "value"]) -> Callable[[Any, str], bytes | None]:
        """Return a function that makes bytes of a value for a topic.

        Args:
            field: Which part of the record it is.

        Raises:
            ConfigError: what it needs is not installed.
            SinkError: (the function) the value does not fit, or the registry refuses or is away.
        """
        client = self.registry.create_client()
        from confluent_kafka.serialization import (  # noqa: PLC0415 - an extra, and slow
            MessageField,
            SerializationContext,
        )

        serializer, part = self._serializer(client), getattr(MessageField, field.upper())

        def serialize(value: Any, topic: str) -> bytes | None:
            try:
                data: bytes | None = serializer(value, SerializationContext(topic, part))
            except Exception as error:  # noqa: BLE001 - each kind of schema has its own
                # The texts of the registry's errors may hold its address with the password.
                raise _cannot(value, self.kind, self.registry.hide(error)) from None
            return data

        return serialize

    def _serializer(self, client: Any) -> Any:
        # each needs packages that the others do not
        if self.kind == "avro":
            from confluent_kafka.schema_registry.avro import AvroSerializer  # noqa: PLC0415

            return AvroSerializer(client, self.schema, conf=self.options)
        if self.kind == "protobuf":
            from confluent_kafka.schema_registry.protobuf import (  # noqa: PLC0415
                ProtobufSerializer,
            )

            return ProtobufSerializer(self.schema, client, conf=self.options)
        from confluent_kafka.schema_registry.json_schema import JSONSerializer  # noqa: PLC0415

        return JSONSerializer(self.schema, client, conf=self.options)

    def __repr__(self) -> str:
        return f"SchemaSerializer({self.kind!r}, {self.registry!r})"


Serializer: TypeAlias = (
    Literal["json", "string", "bytes"] | Callable[[Any], bytes | None] | SchemaSerializer
)
"""A name, a function of the value, or a schema."""


def check_serializer(serializer: Any, option: str) -> None:
    """Check that it is a serializer.

    Raises:
        SinkError: it is none; the text names the option.
    """
    known = isinstance(serializer, str) and serializer in _NAMES
    if not known and (isinstance(serializer, str) or not callable(serializer)):
        if isinstance(serializer, SchemaSerializer):
            return
        near = did_you_mean(str(serializer), _NAMES)
        raise SinkError(
            f"{option} is {', '.join(map(repr, _NAMES))}, a function that returns bytes, or a "
            f"SchemaSerializer, not {shorten(serializer)}.{near}"
        )


def serializer_of(
    serializer: Serializer, field: Literal["key", "value"]
) -> tuple[Callable[..., bytes | None], bool]:
    """Return the function that makes the bytes, and whether it is given the topic as well.

    Values that are `None` are not handed to it: they are a record without a key, or without a value.

    Examples:
        >>> serialize, _ = serializer_of("json", "value")
        >>> serialize({"id": 7})
        b'{"id":7}'
    """
    if isinstance(serializer, SchemaSerializer):
        return serializer.create(field), True
    if isinstance(serializer, str):
        return {"json": _json, "string": _string, "bytes": _bytes}[serializer], False
    return serializer, False


_encode_json: Final = msgspec.json.Encoder().encode


def _json(value: Any) -> bytes:
    try:
        return _encode_json(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _cannot(value, "json", error) from error


def _string(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _cannot(value, "string", "it is bytes; use the serializer 'bytes'")
    try:
        return str(value).encode()
    except UnicodeEncodeError as error:
        raise _cannot(value, "string", error) from error


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)  # it may be changed before it is sent
    raise _cannot(
        value, "bytes", "it is none; use the serializer 'json' or 'string', or a function"
    )


def _cannot(value: Any, serializer: str, why: object) -> SinkError:
    return SinkError(f"{shorten(value)} cannot be written to Kafka as {serializer}: {why}")
