"""Records for the tests of the source."""

import json
import uuid

from confluent_kafka import Producer


def topic_with(cluster, records=(), partitions=1, name=None):
    """Make a topic and write records into it; return its name."""
    name = name or f"topic-{uuid.uuid4().hex[:12]}"
    cluster.create_topic(name, partitions)
    write(cluster, name, records)
    return name


def write(cluster, topic, records, **properties):
    """Write records: a dict of what `produce` takes, or the value alone, as JSON if it is no bytes."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 5, **properties})
    failed = []
    for record in records:
        parts = record if isinstance(record, dict) and "value" in record else {"value": record}
        value = parts["value"]
        if value is not None and not isinstance(value, bytes):
            value = json.dumps(value).encode()
        while True:
            try:
                told = {**parts, "value": value}
                producer.produce(
                    topic, **told, on_delivery=lambda error, _: error and failed.append(error)
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failed, failed[:3]
