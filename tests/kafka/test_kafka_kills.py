"""A short slice of `kill_exactly_once`, which `make fuzz` runs for long; three brokers are at hand."""

import gc
import threading
import uuid

import pytest

from kafka.conftest import started
from kafka.kafka_cluster import KafkaCluster
from kafka.kafka_reading import values
from kafka.kill_exactly_once import run
from kafka.test_kafka_source import PATIENCE, wait_for
from kafka.writing import topic_with
from sage.connector import kafka_producer
from sage.connector.kafka_admin import GroupAdmin
from sage.connector.kafka_settings import KafkaSettings
from sage.connector.kafka_sink import KafkaSink
from sage.testing import StandaloneContext


@pytest.fixture
def three_brokers():
    cluster = started(lambda: KafkaCluster(3))
    yield cluster
    cluster.stop()


def test_killed_workers_and_killed_brokers_cost_no_result(three_brokers, monkeypatch):
    """Readers of what is committed see every result once; the job goes on with the other brokers."""
    outcome = run(
        three_brokers, 60_000, "exactly_once", seed=7, kills=2, restarts=1, pause=0.1, brokers=3
    )
    assert outcome.kills >= 1  # how many there is time for depends on the machine
    assert outcome.without >= 1
    assert (outcome.missing, outcome.doubled) == (0, 0)
    monkeypatch.setattr(kafka_producer, "STUCK_SECONDS", 2.0)
    nobody_waits_for_a_broker_that_is_gone(three_brokers)
    wait_for(lambda: not any(t.name == "sage-kafka-offsets" for t in threading.enumerate()))


def nobody_waits_for_a_broker_that_is_gone(cluster):
    """The client does, if it is the one that knew the marker, or led a partition."""
    topic = topic_with(cluster, partitions=3)
    sink = KafkaSink(
        cluster.bootstrap,
        topic,
        "exactly_once",
        transactional_id_prefix=uuid.uuid4().hex,
        properties={"connections.max.idle.ms": 4000, "metadata.max.age.ms": 2000},
    )  # so that a client which is left alone lets go of its files while the test looks
    writer = sink.create_writer(StandaloneContext(), None)
    brokers = GroupAdmin(KafkaSettings(cluster.bootstrap), "any", 1.0)
    splits = [f"{topic}:{number}" for number in range(3)]
    try:
        for number in range(1, 4):
            writer.write_batch([number])
            writer.commit(writer.prepare_commit(number))
        wait_for(lambda: ends(brokers, splits) == 3)
        cluster.kill(coordinator(cluster, writer._marker))
        for number in range(4, 8):
            writer.write_batch([number])
            writer.commit(writer.prepare_commit(number))
        wait_for(lambda: ends(brokers, splits) == 3)
    finally:  # a client that is left alone disturbs the tests that follow
        writer.close()
        brokers.renew()
    assert sorted(map(int, values(cluster.bootstrap, topic))) == list(range(1, 8))


def ends(brokers, splits):
    """Return how many partitions have told their end; none while nobody answers within a second."""
    try:
        return len(brokers.bounds(splits))
    except brokers.failure:
        return 0


def coordinator(cluster, group):
    """Return the number of the broker that keeps the offsets of a group."""
    admin = cluster.admin()
    found = admin.describe_consumer_groups([group])[group].result(PATIENCE).coordinator.id
    del admin
    gc.collect()  # it is in a cycle with its answer
    return found
