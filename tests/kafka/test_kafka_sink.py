"""`KafkaSink` against a real broker."""

import uuid

import pytest

from kafka.kafka_reading import values
from sage.connector.kafka_sink import KafkaSink
from sage.testing.sink_conformance import check_sink


def fresh_topic(cluster, partitions=1, **config):
    return cluster.create_topic(f"topic-{uuid.uuid4().hex}", partitions, **config)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_it_keeps_the_contract_of_sinks(kafka_cluster, guarantee):
    """Whatever it promises, as all sinks do it."""

    def make():
        topic = fresh_topic(kafka_cluster)
        return KafkaSink(
            kafka_cluster.bootstrap,
            topic,
            guarantee,
            value_serializer="string",
            transactional_id_prefix=topic,
        )

    check_sink(make, lambda sink: values(kafka_cluster.bootstrap, sink.parts.topic))
