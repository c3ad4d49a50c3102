"""Values are written with a schema that a registry knows, and can be read with it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sage.connector.kafka_deserializers import SchemaDeserializer
from sage.connector.kafka_rows import RecordParts
from sage.connector.kafka_serializers import SchemaSerializer
from sage.connector.kafka_settings import SchemaRegistry
from sage.connector.sink_error import SinkError

AVRO = json.dumps({"type": "record", "name": "Trip", "fields": [{"name": "miles", "type": "int"}]})
JSON_SCHEMA = json.dumps(
    {
        "title": "Trip",
        "type": "object",
        "properties": {"miles": {"type": "integer"}},
        "required": ["miles"],
    }
)


def _message_class():
    """Return what `protoc` generates for `message Trip { int32 miles = 1; }`."""
    file = descriptor_pb2.FileDescriptorProto(name="trips.proto", syntax="proto3")
    field = file.message_type.add(name="Trip").field.add(name="miles", number=1)
    field.type, field.label = field.TYPE_INT32, field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Trip"))


Trip = _message_class()


class Registry(ThreadingHTTPServer):
    """A schema registry that takes any schema.

    Attributes:
        schemas: What has been registered: bodies of requests.
        subjects: For which subjects, in order.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.schemas, self.subjects = [], []


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        subject = self.path.split("/")[2]
        if schema not in self.server.schemas:
            self.server.schemas.append(schema)
        self.server.subjects.append(subject)
        number = self.server.schemas.index(schema) + 1
        self._answer({"id": number, "version": 1, "subject": subject, **schema})

    def do_GET(self):
        *_, of, last = self.path.partition("?")[0].split("/")
        if of == "ids":
            self._answer(self.server.schemas[int(last) - 1])
        else:  # newer clients ask for more, and do without
            self._answer({"error_code": 40404, "message": f"no {self.path}"}, 404)

    def _answer(self, answer, status=200):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def registry():
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def value_bytes(serializer, record, **parts):
    """Return the bytes that become of a record."""
    (row,) = RecordParts("trips", value_serializer=serializer, **parts).row_maker()([record])
    return row[1]


@pytest.mark.parametrize(
    ("kind", "schema", "record", "reading"),
    [
        ("avro", AVRO, {"miles": 2475}, None),
        ("json_schema", JSON_SCHEMA, {"miles": 2475}, JSON_SCHEMA),
        ("protobuf", Trip, Trip(miles=2475), Trip),
    ],
    ids=["avro", "json_schema", "protobuf"],
)
def test_what_is_written_can_be_read(registry, kind, schema, record, reading):
    """By whoever knows the registry: the bytes name the schema."""
    known = SchemaRegistry(registry.url)
    data = value_bytes(SchemaSerializer(kind, known, schema), record)
    assert data[:5] == b"\0\0\0\0\1"
    assert registry.subjects == ["trips-value"]
    assert SchemaDeserializer(kind, known, reading).create("trips", "value")(data) == record


def test_a_key_may_have_a_schema_too(registry):
    """Of a subject of its own."""
    serializer = SchemaSerializer("avro", SchemaRegistry(registry.url), '{"type": "string"}')
    parts = RecordParts("trips", key="id", key_serializer=serializer)
    ((topic, value, key, _),) = parts.row_maker()([{"id": "a"}])
    assert (topic, value, key) == ("trips", b'{"id":"a"}', b"\0\0\0\0\1\2a")
    assert registry.subjects == ["trips-key"]


def test_a_value_that_does_not_fit_is_told(registry):
    with pytest.raises(SinkError, match=r"'none'.* cannot be written to Kafka as avro: "):
        value_bytes(SchemaSerializer("avro", SchemaRegistry(registry.url), AVRO), {"miles": "none"})


def test_a_registry_that_is_away_is_told_without_its_password():
    away = SchemaRegistry("http://ada:opensesame@127.0.0.1:1", {"max.retries": 0})
    with pytest.raises(SinkError, match="cannot be written") as caught:
        value_bytes(SchemaSerializer("avro", away, AVRO), {"miles": 1})
    assert "opensesame" not in str(caught.value)
