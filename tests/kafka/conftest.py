"""A real Kafka for the tests of this directory."""

import os

import pytest

from kafka.kafka_cluster import KafkaCluster
from kafka.kafka_jars import KafkaUnavailableError


def started(make=KafkaCluster):
    """Start a cluster; where there can be none, skip, or fail if this is to be the whole truth."""
    try:
        cluster = make()
    except KafkaUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Kafka for the tests: {error}")
        pytest.skip(f"no Kafka for the tests: {error}")
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def kafka_cluster():
    """One broker for all tests of the process; a test that stops brokers starts its own."""
    cluster = started()
    yield cluster
    cluster.stop()
