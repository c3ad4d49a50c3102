"""Jobs that log in over TLS, against a broker that demands it."""

from typing import get_args

import pytest

from kafka.conftest import started
from kafka.kafka_reading import values
from kafka.secure_kafka import USER, SecureKafka
from kafka.test_kafka_source import PATIENCE, group
from kafka.writing import topic_with
from sage import GraphError, LocalEnvironment, OperatorError
from sage.connector.kafka_sink import Guarantee

WRONG = "opensesame"


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificate")
    cluster = started(lambda: SecureKafka(directory))
    yield cluster
    cluster.stop()


def told(env):
    """Run a job that fails; return what its user and its log are told."""
    with pytest.raises(OperatorError) as caught:
        env.execute(progress=False, timeout=PATIENCE)
    return f"{caught.value!r} {caught.value.__cause__!r}"


def reading(cluster, topic, login):
    env = LocalEnvironment("reads")
    env.from_kafka_source(
        cluster.secure_bootstrap, topic, group(), "earliest", stop="latest", properties=login
    ).sink(print)
    return env


def writing(cluster, topic, login, guarantee):
    env = LocalEnvironment("writes")
    env.from_batch(range(5)).to_kafka(cluster.secure_bootstrap, topic, guarantee, properties=login)
    return env


SINK = """
sinks:
  results:
    type: kafka
    bootstrap_servers: ${SERVERS}
    topic: ${RESULTS}
    guarantee: exactly_once
    properties:
      security.protocol: SASL_SSL
      ssl.ca.location: ${CERTIFICATE}
      sasl.mechanism: SCRAM-SHA-512
      sasl.username: ${KAFKA_USER}
      sasl.password: "${KAFKA_PASSWORD}"
"""


def configured(directory, cluster, results, monkeypatch):
    """Return a file that says where results go, to be read with variables of the environment."""
    login = cluster.login()
    variables = {
        "SERVERS": cluster.secure_bootstrap,
        "RESULTS": results,
        "CERTIFICATE": login["ssl.ca.location"],
        "KAFKA_USER": login["sasl.username"],
        "KAFKA_PASSWORD": login["sasl.password"],
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = directory / "connectors.yaml"
    file.write_text(SINK)
    return file


def test_a_job_reads_and_writes_exactly_once(secure_kafka, tmp_path, monkeypatch):
    """With a login of each kind, one of them from a file."""
    servers = secure_kafka.secure_bootstrap
    topic, results = topic_with(secure_kafka, range(1000), 2), topic_with(secure_kafka)
    failures = ["once"]

    def unlucky(record):
        if record.value == 700 and failures:
            raise RuntimeError(failures.pop())
        return record.value

    env = LocalEnvironment(f"secure {results}", {"batch_size": 100})
    env.load_connectors(configured(tmp_path, secure_kafka, results, monkeypatch))
    env.enable_checkpointing(0.05, tmp_path / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=3, restart_delay=0)
    records = env.from_kafka_source(
        servers, topic, group(), "earliest", stop="latest", properties=secure_kafka.login("PLAIN")
    )
    records.map(unlucky).to_config("results")
    env.execute(progress=False, timeout=PATIENCE)
    assert not failures
    assert sorted(map(int, values(secure_kafka.bootstrap, results))) == list(range(1000))


def test_a_wrong_password_is_told_and_not_shown(secure_kafka, caplog):
    """At once, whoever notices it; with what to check."""
    caplog.set_level("DEBUG")
    topic = topic_with(secure_kafka, range(5))
    plain, scram = (
        secure_kafka.login(mechanism, sasl_password=WRONG)
        for mechanism in ("PLAIN", "SCRAM-SHA-512")
    )
    jobs = [writing(secure_kafka, topic, scram, kind) for kind in get_args(Guarantee)]
    for env in (reading(secure_kafka, topic, plain), *jobs):
        text = told(env)
        assert f"Kafka at {secure_kafka.secure_bootstrap} does not serve" in text
        assert "SASL authentication error" in text
        assert "check sasl.mechanism, sasl.username and sasl.password" in text
        assert WRONG not in text
    assert any("SASL authentication error" in line for line in caplog.messages)
    assert not any(WRONG in line for line in caplog.messages)


def test_a_parallel_job_is_refused_before_it_starts(secure_kafka):
    topic = topic_with(secure_kafka, range(5), 2)
    env = reading(secure_kafka, topic, secure_kafka.login(sasl_username="nobody"))
    env.set_parallelism(2)
    with pytest.raises(GraphError, match=r"check sasl\.mechanism, sasl\.username"):
        env.execute(progress=False)


def test_a_certificate_that_nobody_vouches_for_is_told(secure_kafka):
    topic = topic_with(secure_kafka, range(5))
    login = secure_kafka.login()
    del login["ssl.ca.location"]
    for env in (
        reading(secure_kafka, topic, login),
        writing(secure_kafka, topic, login, "exactly_once"),
    ):
        text = told(env)
        assert "certificate verify failed" in text
        assert "check ssl.ca.location" in text
        assert USER not in text
