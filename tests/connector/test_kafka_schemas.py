"""Values are written with a schema that a registry knows, and can be read with it."""

import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kafka import schema_registry
from sage.connector.kafka_deserializers import SchemaDeserializer
from sage.connector.kafka_rows import RecordParts
from sage.connector.kafka_serializers import SchemaSerializer
from sage.connector.kafka_settings import SchemaRegistry
from sage.connector.sink_error import SinkError


def _avro(**fields):
    """Return the schema of a trip, given the default of each field; None: it has none."""
    told = [
        {"name": name, "type": kind, **({} if default is None else {"default": default})}
        for name, (kind, default) in fields.items()
    ]
    return json.dumps({"type": "record", "name": "Trip", "fields": told})


def _json_schema(*required, **properties):
    types = {name: {"type": kind} for name, kind in properties.items()}
    told = {"title": "Trip", "type": "object", "properties": types, "required": list(required)}
    return json.dumps(told)


def _message_class(*fields):
    """Return what `protoc` generates for a message `Trip` of such fields."""
    file = descriptor_pb2.FileDescriptorProto(name="trips.proto", syntax="proto3")
    message = file.message_type.add(name="Trip")
    for number, (name, kind) in enumerate(fields, 1):
        field = message.field.add(name=name, number=number)
        field.type, field.label = getattr(field, f"TYPE_{kind}"), field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Trip"))


AVRO = _avro(miles=("int", None))
AVRO_2 = _avro(miles=("int", None), currency=("string", "USD"))
JSON_SCHEMA = _json_schema("miles", miles="integer")
JSON_SCHEMA_2 = _json_schema("miles", miles="integer", currency="string")
Trip = _message_class(("miles", "INT32"))
Trip2 = _message_class(("miles", "INT32"), ("currency", "STRING"))

KINDS = {
    "avro": (AVRO, {"miles": 2475}, None),
    "json_schema": (JSON_SCHEMA, {"miles": 2475}, JSON_SCHEMA),
    "protobuf": (Trip, Trip(miles=2475), Trip),
}
"""The schema to write with, a record, and the schema to read with."""


@pytest.fixture
def registry():
    with schema_registry.running(schema_registry.Registry()) as server:
        yield server


def value_bytes(serializer, record, **parts):
    """Return the bytes that become of a record."""
    (row,) = RecordParts("trips", value_serializer=serializer, **parts).row_maker()([record])
    return row[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_can_be_read(registry, kind):
    """By whoever knows the registry: the bytes name the schema."""
    known, (schema, record, reading) = SchemaRegistry(registry.url), KINDS[kind]
    data = value_bytes(SchemaSerializer(kind, known, schema), record)
    assert data[:5] == b"\0\0\0\0\1"
    assert registry.registered == ["trips-value"]
    assert SchemaDeserializer(kind, known, reading).create("trips", "value")(data) == record


def decoder(registry, kind, schema):
    return SchemaDeserializer(kind, SchemaRegistry(registry.url), schema).create("trips", "value")


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_that_the_registry_does_not_know_is_told(registry, kind):
    """It is not asked again for each record of such a schema."""
    schema, record, reading = KINDS[kind]
    data = value_bytes(SchemaSerializer(kind, SchemaRegistry(registry.url), schema), record)
    decode, wrong = decoder(registry, kind, reading), data[:4] + b"\x63" + data[5:]
    with pytest.raises(ValueError, match="Schema 99 not found"):
        decode(wrong)
    asked = registry.asked
    for _ in range(10):
        with pytest.raises(ValueError, match="Schema 99 not found"):
            decode(wrong)
    assert registry.asked == asked
    assert decode(data) == record


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_name_no_schema_cannot_be_decoded(registry, kind):
    decode = decoder(registry, kind, KINDS[kind][2])
    for data in (b'{"miles": 2475}', b"\0\0", b""):
        with pytest.raises(ValueError, match=r"\S"):
            decode(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_that_is_not_there_is_told(registry, kind):
    """If schemas are not registered by those who write; then nothing is written."""
    schema, record, _ = KINDS[kind]
    known = SchemaRegistry(registry.url)
    strict = SchemaSerializer(kind, known, schema, {"auto.register.schemas": False})
    with pytest.raises(SinkError, match=rf"as {kind}: .*Subject 'trips-value' not found"):
        value_bytes(strict, record)
    value_bytes(SchemaSerializer(kind, known, schema), record)
    assert value_bytes(strict, record)[:5] == b"\0\0\0\0\1"
    assert registry.registered == ["trips-value"]


@pytest.mark.parametrize(
    ("kind", "old", "new", "read_as_new"),
    [
        ("avro", AVRO, AVRO_2, {"miles": 1, "currency": "USD"}),
        ("json_schema", JSON_SCHEMA, JSON_SCHEMA_2, {"miles": 1}),
        ("protobuf", Trip, Trip2, {"miles": 1, "currency": ""}),
    ],
)
def test_a_field_may_be_added(registry, kind, old, new, read_as_new):
    """Who reads with the new schema finds its default in old records; Protobuf's is an empty one, and
    JSON Schema puts none in. Who reads with the old schema does not see it, or does not mind."""
    known, fields = SchemaRegistry(registry.url), {"miles": 1, "currency": "EUR"}

    def written(schema, **fields):
        record = schema(**fields) if kind == "protobuf" else fields
        return value_bytes(SchemaSerializer(kind, known, schema), record)

    def read(schema, data):
        found = decoder(registry, kind, schema)(data)
        if kind != "protobuf":
            return found
        return {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}

    first, second = written(old, miles=1), written(new, **fields)
    assert (first[4], second[4]) == (1, 2)
    assert read(new, first) == read_as_new
    assert read(new, second) == fields
    assert read(old, second) == (fields if kind == "json_schema" else {"miles": 1})


def test_a_record_that_the_schema_of_the_reader_forbids_cannot_be_decoded(registry):
    """JSON Schema is checked when it is read, too."""
    data = value_bytes(
        SchemaSerializer("json_schema", SchemaRegistry(registry.url), JSON_SCHEMA), {"miles": 1}
    )
    strict = _json_schema("miles", "currency", miles="integer", currency="string")
    with pytest.raises(ValueError, match="'currency' is a required property"):
        decoder(registry, "json_schema", strict)(data)


def test_a_key_may_have_a_schema_too(registry):
    """Of a subject of its own."""
    serializer = SchemaSerializer("avro", SchemaRegistry(registry.url), '{"type": "string"}')
    parts = RecordParts("trips", key="id", key_serializer=serializer)
    ((topic, value, key, _),) = parts.row_maker()([{"id": "a"}])
    assert (topic, value, key) == ("trips", b'{"id":"a"}', b"\0\0\0\0\1\2a")
    assert registry.registered == ["trips-key"]


@pytest.mark.parametrize(
    ("kind", "record"),
    [("avro", {"miles": "none"}), ("json_schema", {"miles": "none"}), ("protobuf", {"miles": 1})],
)
def test_a_value_that_does_not_fit_is_told(registry, kind, record):
    serializer = SchemaSerializer(kind, SchemaRegistry(registry.url), KINDS[kind][0])
    with pytest.raises(SinkError, match=rf"'miles': .* cannot be written to Kafka as {kind}: "):
        value_bytes(serializer, record)


def test_a_registry_that_is_away_is_told_without_its_password():
    away = SchemaRegistry("http://ada:opensesame@127.0.0.1:1", {"max.retries": 0})
    with pytest.raises(SinkError, match="cannot be written") as caught:
        value_bytes(SchemaSerializer("avro", away, AVRO), {"miles": 1})
    assert "opensesame" not in str(caught.value)
