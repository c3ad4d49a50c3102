"""Records that cannot be decoded go to the error policy, and nothing else of the job minds."""

import json
import struct

import pytest

from kafka import schema_registry
from kafka.test_kafka_source import PATIENCE, group, read, running, values, wait_for
from kafka.writing import topic_with, write
from sage import ConfigError, LocalEnvironment, OperatorError
from sage.connector.kafka_deserializers import DeserializationError, SchemaDeserializer
from sage.connector.kafka_settings import SchemaRegistry

AVRO = {"type": "record", "name": "Trip", "fields": [{"name": "miles", "type": "int"}]}


@pytest.fixture
def registry():
    with schema_registry.running(schema_registry.Registry({"schema": json.dumps(AVRO)})) as server:
        yield server


def avro(miles, schema=1):
    """Encode a trip: a magic byte, the number of the schema, and a zigzag varint."""
    return b"\0" + struct.pack(">I", schema) + bytes([miles << 1])


def with_letters(cluster, topic, **options):
    env = LocalEnvironment("letters")
    stream = env.from_kafka_source(
        cluster.bootstrap,
        topic,
        group(),
        "earliest",
        stop="latest",
        on_error="dead_letter",
        **options,
    )
    letters, out = stream.dead_letters().collect(), stream.collect()
    result = env.execute(progress=False, timeout=PATIENCE)
    return list(out), list(letters), result


def test_ten_thousand_bad_records_of_every_kind_are_dead_letters(kafka_cluster, registry):
    kinds = [b"\0not avro", avro(1, schema=7), None, b"x" * 2000, avro(3)[:-1]]
    records = [{"value": kinds[n % 5], "key": str(n).encode()} for n in range(10_000)]
    good = [{"value": avro(n)} for n in range(60)]
    mixed = [r for n in range(60) for r in (good[n], *records[n * 160 : (n + 1) * 160])] + records[
        9600:
    ]
    topic = topic_with(kafka_cluster, mixed, partitions=3)
    deserializer = SchemaDeserializer("avro", SchemaRegistry(registry.url))
    out, letters, result = with_letters(
        kafka_cluster, topic, value_deserializer=deserializer, max_value_bytes=1000
    )
    assert sorted(record.value["miles"] for record in out) == list(range(60))
    assert len(letters) == result.metrics["from_kafka_source"].errors == 10_000
    assert {letter.value.key for letter in letters} == {record["key"] for record in records}
    for letter in letters:
        error, raw = letter.error, letter.value
        assert isinstance(error, DeserializationError)
        assert (error.topic, error.partition, error.offset) == (topic, raw.partition, raw.offset)
        assert raw.value == kinds[int(raw.key) % 5]
        assert _REASONS[int(raw.key) % 5] in str(error)


_REASONS = [
    "cannot be decoded",
    "the value cannot be decoded",
    "the value is null",
    "the value has 2000 bytes, more than max_value_bytes=1000",
    "cannot be decoded",
]


def test_bad_json_is_told_with_its_place(kafka_cluster):
    topic = topic_with(kafka_cluster, [1, {"value": b'{"id": 7'}, 2])
    with pytest.raises(
        OperatorError, match=rf"{topic}:0 at offset 1: the value cannot be decoded"
    ) as e:
        read(kafka_cluster, topic)
    assert "its 8 bytes begin" in str(e.value)
    assert e.value.record.value == b'{"id": 7'
    out, letters, _ = with_letters(kafka_cluster, topic)
    assert values(out) == [1, 2]
    assert [letter.value.offset for letter in letters] == [1]


def test_what_came_before_a_bad_record_is_processed(kafka_cluster):
    topic = topic_with(kafka_cluster, [1, 2, {"value": b"{"}, 3])
    env = LocalEnvironment("before")
    out = env.from_kafka_source(
        kafka_cluster.bootstrap, topic, group(), "earliest", stop="latest"
    ).collect()
    with pytest.raises(OperatorError):
        env.execute(progress=False, timeout=PATIENCE)
    assert values(out) == [1, 2]


def test_a_bad_key_is_told_as_one(kafka_cluster):
    topic = topic_with(kafka_cluster, [{"value": 1, "key": b"\xff"}, {"value": 2}])
    out, (letter,), _ = with_letters(kafka_cluster, topic, key_deserializer="string")
    assert values(out) == [2]
    assert letter.error.field == "key"


def test_nulls_are_kept_if_wanted(kafka_cluster):
    topic = topic_with(kafka_cluster, [{"value": None, "key": b"gone"}, {"value": 1}])
    for deserializer in ("json", json.loads):
        options = {"keep_nulls": True, "value_deserializer": deserializer}
        assert values(read(kafka_cluster, topic, **options)) == [None, 1]
        out, letters, _ = with_letters(kafka_cluster, topic, value_deserializer=deserializer)
        assert (values(out), len(letters)) == ([1], 1)


def test_only_bad_records_hold_nobody_up(kafka_cluster):
    topic = topic_with(kafka_cluster, [{"value": b"{"}] * 1200)
    env = LocalEnvironment("bad", {"on_error": "skip"})
    out = env.from_kafka_source(kafka_cluster.bootstrap, topic, group(), "earliest").collect()
    with running(env) as job:
        wait_for(lambda: job.metrics["from_kafka_source"].errors == 1200)
        write(kafka_cluster, topic, [7])
        wait_for(lambda: values(out) == [7])


def test_a_registry_that_is_away_makes_no_dead_letters(kafka_cluster):
    topic = topic_with(kafka_cluster, [{"value": avro(1)}])
    nobody = SchemaRegistry("http://ada:opensesame@127.0.0.1:9", {"max.retries": 0})
    with pytest.raises(OperatorError, match="the schema registry does not serve") as caught:
        with_letters(kafka_cluster, topic, value_deserializer=SchemaDeserializer("avro", nobody))
    assert "opensesame" not in str(caught.value)


def test_protobuf_and_json_schema_need_a_schema():
    registry = SchemaRegistry("http://localhost:1")
    with pytest.raises(ConfigError, match="for protobuf needs a schema"):
        SchemaDeserializer("protobuf", registry)
    with pytest.raises(ConfigError, match="Did you mean 'avro'"):
        SchemaDeserializer("avr", registry)
