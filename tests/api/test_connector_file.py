"""Sources and sinks that a YAML file describes."""

import json
import re
from datetime import UTC, datetime

import pytest

from sage import ConfigError, LocalEnvironment
from sage.connector.kafka_deserializers import SchemaDeserializer
from sage.connector.kafka_serializers import SchemaSerializer
from sage.connector.kafka_sink import KafkaSink
from sage.connector.row_buffer import Spill
from sage.core.api.connector_file import read_connectors
from sage.dataflow.operator.batch_wise import WriteSink
from sage.dataflow.operator.source import ReadSource

PASSWORD = "opensesame"

KAFKA = """
x-kafka: &kafka
  type: kafka
  bootstrap_servers: [a:9093, b:9093]
  properties:
    security.protocol: SASL_SSL
    sasl.username: ${KAFKA_USER:-reports}
    sasl.password: "${KAFKA_PASSWORD}"
sources:
  orders:
    <<: *kafka
    topic: orders
    group_id: reports
    start: 2026-11-01T00:00:00Z
    stop: latest
    parallelism: 2
    value_deserializer:
      type: avro
      schema: avro.json
      registry: {url: "http://localhost:8081", properties: {basic.auth.user.info: "${REGISTRY}"}}
sinks:
  counts:
    <<: *kafka
    topic: counts
    key: word
    guarantee: exactly_once
    spill: {directory: rows}
    value_serializer: {type: json_schema, registry: {url: "http://r:8081"}, schema: "{}"}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a text into a new environment."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("REGISTRY", f"ada:{PASSWORD}")
    file = tmp_path / "connectors.yaml"

    def load(text, env=None):
        file.write_text(text)
        env = env or LocalEnvironment("configured")
        env.load_connectors(file)
        return env

    return load


def operator(env, kind):
    """Return the one operator of a kind."""
    (found,) = [step for step in env.pipeline if isinstance(step.operator, kind)]
    return found


def told(load, text, use=lambda env: env):
    """Return the line at which something is wrong with a text, and what it is."""
    with pytest.raises(ConfigError) as caught:
        use(load(text))
    assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r}"
    _, line, problem = re.split(r"connectors\.yaml:(\d+): ", str(caught.value), maxsplit=1)
    return int(line), problem


def test_a_job_reads_and_writes_what_a_file_says(load, tmp_path):
    (tmp_path / "trips.csv").write_text("miles\n100\n200\n")
    env = load(
        f"""
sources:
  trips: {{type: csv, paths: "{tmp_path}/*.csv"}}
sinks:
  miles: {{type: files, directory: "{tmp_path}/out", prefix: miles}}
"""
    )
    trips = env.from_config("trips", uid="trips")
    trips.map(lambda trip: int(trip["miles"])).to_config("miles")
    env.execute(progress=False)
    (file,) = (tmp_path / "out").iterdir()
    assert file.name.startswith("miles-")
    assert [json.loads(line) for line in file.read_text().splitlines()] == [100, 200]
    assert {"trips", "miles"} <= set(env.job.metrics.operators)


def test_all_of_kafka_can_be_said(load):
    env = load(KAFKA)
    env.from_config("orders").to_config("counts", headers=lambda record: {"n": "1"})
    read, written = operator(env, ReadSource), operator(env, WriteSink)
    source, sink = read.operator.source, written.operator.sink
    assert (read.name, read.parallelism, written.name) == ("orders", 2, "counts")
    assert source.settings.bootstrap_servers == "a:9093,b:9093"
    assert source.settings.properties == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "reports",
        "sasl.password": PASSWORD,
    }
    assert (source.topics, source.group_id) == (("orders",), "reports")
    assert source.options["start"] == int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
    assert isinstance(source.options["value_deserializer"], SchemaDeserializer)
    assert isinstance(sink, KafkaSink)
    assert sink.settings == source.settings
    assert (sink.guarantee, sink.spill) == ("exactly_once", Spill("rows"))
    assert isinstance(sink.parts.value_serializer, SchemaSerializer)
    for shown in (repr(source), repr(sink), repr(source.options), env.explain()):
        assert PASSWORD not in shown


def test_what_comes_from_the_environment_is_not_shown(load):
    env = load(KAFKA.replace("reports}", "reports}\n    client.id: ${KAFKA_PASSWORD}"))
    env.from_config("orders")
    assert PASSWORD not in repr(operator(env, ReadSource).operator.source)


@pytest.mark.parametrize(
    ("said", "instead", "expected"),
    [
        (
            "topic: orders",
            "topik: orders",
            "sources.orders.topik: unknown key. Did you mean 'topic'",
        ),
        (
            "type: kafka",
            "type: kafak",
            "sources.orders.type: a source is one of csv, jsonl, kafka, parquet, socket, text, not",
        ),
        (
            "  type: kafka",
            "  name: kafka",
            "sources.orders: the key 'type' is missing; a source is one of csv, ",
        ),
        ("sources:", "source:", "source: unknown key. Did you mean 'sources'"),
        (
            "spill:",
            "headers: {a: b}\n    spill:",
            "sinks.counts.headers: 'headers' cannot be said in a file",
        ),
        ("${KAFKA_PASSWORD}", "${NOBODY_SETS_THIS}", "x-kafka.properties.sasl.password: "),
    ],
)
def test_what_cannot_be_is_told_when_the_file_is_read(load, said, instead, expected):
    text = KAFKA.replace(said, instead)
    line, problem = told(load, text)
    assert problem.startswith(expected)
    assert instead.partition("\n")[0] in text.splitlines()[line - 1] or "missing" in problem


@pytest.mark.parametrize(
    ("said", "instead", "expected"),
    [
        ("stop: latest", "stop: lates", "stop: stop is one of 'latest', not 'lates'. Did you mean"),
        ("parallelism: 2", "parallelism: two", "parallelism: parallelism is a whole number"),
        ("stop: latest", "stop: ${KAFKA_PASSWORD}", "stop: stop is one of 'latest', not '***'."),
        ("type: avro", "type: arvo", "value_deserializer.type: must be one of avro, json_schema"),
        (
            "schema: avro.json",
            "schema_file: no.json",
            "value_deserializer.schema_file: cannot be read: No such file",
        ),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(load, said, instead, expected):
    text = KAFKA.replace(said, instead)
    line, problem = told(load, text, lambda env: env.from_config("orders"))
    assert problem.startswith(f"sources.orders.{expected}")
    assert instead in text.splitlines()[line - 1]


def test_what_is_missing_is_told(load):
    text = KAFKA.replace("    group_id: reports\n", "")
    _, problem = told(load, text, lambda env: env.from_config("orders"))
    assert problem.startswith("sources.orders: the key 'group_id' is missing, in the file and in")


def test_properties_are_checked(load):
    text = KAFKA.replace("sasl.username", "sasl_username")
    line, problem = told(load, text, lambda env: env.from_config("orders"))
    assert problem.startswith(
        "sources.orders.properties: properties of Kafka are written with dots"
    )
    assert "properties:" in text.splitlines()[line - 1]


def test_a_sink_tells_its_line_as_well(load):
    def write(env):
        env.from_batch([1]).to_config("counts")

    text = KAFKA.replace("exactly_once", "exactly_onec")
    _, problem = told(load, text, write)
    assert problem.startswith("sinks.counts.guarantee: guarantee is one of 'exactly_once', ")


def test_what_is_said_twice_is_refused(load):
    def read(env):
        env.from_config("orders", topic="returns")

    _, problem = told(load, KAFKA, read)
    assert problem.startswith("sources.orders.topic: 'topic' is given in the program as well")
    env = load(KAFKA)
    _, problem = told(lambda text: load(text, env), KAFKA)
    assert problem.startswith("sources.orders: there is one of this name already, in ")


def test_a_name_that_no_file_has_is_told(load):
    with pytest.raises(ConfigError, match=r"env\.load_connectors\(file\) reads the sources"):
        LocalEnvironment("empty").from_config("orders")
    env = load(KAFKA)
    with pytest.raises(ConfigError, match=r"no source is called 'ordres'\. Did you mean 'orders'"):
        env.from_config("ordres")
    with pytest.raises(ConfigError, match=r"no sink is called 'orders'\. There are 'counts'"):
        env.from_batch([1]).to_config("orders")


def test_one_file_may_have_services_too(load, tmp_path):
    env = load(KAFKA + "services: {counts: {class: collections.Counter}}\n")
    assert [s.name for s in env.load_services(tmp_path / "connectors.yaml")] == ["counts"]


def test_rows_may_be_of_a_type_of_the_program(load, tmp_path):
    """`type` is another thing there."""
    (tmp_path / "n.jsonl").write_text("1\n2\n")
    env = load(f'sources: {{numbers: {{type: jsonl, paths: "{tmp_path}/n.jsonl"}}}}')
    numbers = env.from_config("numbers", type=int).collect()
    env.execute(progress=False)
    assert list(numbers) == [1, 2]


def test_a_file_says_what_it_has(tmp_path):
    file = tmp_path / "connectors.yaml"
    file.write_text(KAFKA)
    found = read_connectors(file, {"KAFKA_PASSWORD": "x", "REGISTRY": "y"})
    assert [(connector.role, connector.name) for connector in found] == [
        ("source", "orders"),
        ("sink", "counts"),
    ]
