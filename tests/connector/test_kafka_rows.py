"""What a `KafkaSink` accepts, and what it makes of records; no broker is needed for it."""

import pytest

from sage.common.errors import ConfigError
from sage.connector.kafka_rows import RecordParts
from sage.connector.kafka_sink import KafkaSink
from sage.connector.sink_error import SinkError


def rows(records, topic="t", **parts):
    return RecordParts(topic, **parts).row_maker()(records)


def test_a_row_is_as_short_as_it_can_be():
    assert rows([{"id": 7}, None]) == [("t", b'{"id":7}', None), ("t", None, None)]
    assert rows([("a", 1)], key=lambda r: r[0]) == [("t", b'["a",1]', b"a")]
    assert rows([{"id": 7}], key="id", value="id") == [("t", b"7", b"7", -1)]
    assert rows([5], partition=lambda n: n) == [("t", b"5", None, 5)]
    assert rows([5], headers=lambda n: [("n", b"5")]) == [
        ("t", b"5", None, -1, None, None, 0, [("n", b"5")])
    ]


def test_serializers_have_names_or_are_functions():
    assert rows(["é"], value_serializer="string") == [("t", "é".encode(), None)]
    assert rows([bytearray(b"x")], value_serializer="bytes") == [("t", b"x", None)]
    assert rows([{"id": 7}], key="id", key_serializer="json") == [("t", b'{"id":7}', b"7")]
    assert rows([7], value_serializer=lambda n: bytes([n])) == [("t", b"\x07", None)]


@pytest.mark.parametrize(
    ("record", "parts", "words"),
    [
        (object(), {}, "as json"),
        (b"x", {"value_serializer": "string"}, "use the serializer 'bytes'"),
        ("\ud800", {"value_serializer": "string"}, "surrogates"),
        ("x", {"value_serializer": "bytes"}, "use the serializer 'json' or 'string'"),
        ({"id": 7}, {"key": "name"}, "no field 'name' in"),
        (7, {"key": "name"}, "no field 'name' in 7"),
        (7, {"topic": lambda n: n}, "the topic of a record is its name, not 7"),
        (-1, {"partition": lambda n: n}, "at least 0, or None for any, not -1"),
        (1.0, {"partition": lambda n: n}, "not 1.0"),
    ],
)
def test_a_record_that_does_not_fit_is_told(record, parts, words):
    with pytest.raises(SinkError, match=words):
        rows([record], **parts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guarantee": "exactly-once"}, "Did you mean 'exactly_once'"),
        ({"topic": ""}, "topic is its name or a function"),
        ({"topic": 7}, "topic is its name or a function"),
        ({"keys": "id"}, "no option 'keys'.* 'key'"),
        ({"key": 7}, "key is a function of the record or a field, not 7"),
        ({"partition": 7}, "partition is a function of the record, not 7"),
        ({"headers": {}}, "headers is a function of the record"),
        ({"value_serializer": "jsno"}, "Did you mean 'json'"),
        ({"key_serializer": 7}, "key_serializer is 'json'"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(options, words):
    arguments = {"bootstrap_servers": "broker:9092", "topic": "t", **options}
    with pytest.raises(SinkError, match=words):
        KafkaSink(**arguments)


def test_properties_that_are_the_sinks_own_are_refused():
    with pytest.raises(ConfigError, match="transactional_id_prefix="):
        KafkaSink("broker:9092", "t", properties={"transactional.id": "x"})
