"""What is in a topic, for those who read only what is committed, or all of it."""

import time

from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

PATIENCE = 60


def read_topic(bootstrap, topic, isolation="read_committed", patience=PATIENCE):
    """Return the messages of a topic from its start to its end, partition after partition.

    A transaction is committed a moment before readers see it; they are let wait until none is open.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "nobody",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "fetch.wait.max.ms": 10,  # at the end there is nothing to wait for
            "reconnect.backoff.ms": 10,
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=patience).topics[topic]
        assert found.error is None, found.error
        if isolation == "read_committed":
            _wait_until_settled(bootstrap, [TopicPartition(topic, n) for n in found.partitions])
        consumer.assign([TopicPartition(topic, number, 0) for number in found.partitions])
        return _read_to_the_end(consumer, len(found.partitions), patience)
    finally:
        consumer.close()


def _wait_until_settled(bootstrap, partitions, patience=PATIENCE):
    admin, until = AdminClient({"bootstrap.servers": bootstrap}), time.monotonic() + patience
    asked = dict.fromkeys(partitions, OffsetSpec.latest())
    while True:
        ends = [
            {place: future.result(patience).offset for place, future in answer.items()}
            for answer in (
                admin.list_offsets(asked, isolation_level=level)
                for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            )
        ]
        if ends[0] == ends[1]:
            return
        assert time.monotonic() < until, f"a transaction is open: {ends}"


def _read_to_the_end(consumer, partitions, patience):
    messages, until = {}, time.monotonic() + patience
    while partitions:
        assert time.monotonic() < until, "the end of the topic has not come"
        for message in consumer.consume(1000, 0.02):
            if message.error() is None:
                messages.setdefault(message.partition(), []).append(message)
            elif message.error().code() == -191:  # the end of a partition
                partitions -= 1
            else:
                raise AssertionError(message.error())
    return [message for number in sorted(messages) for message in messages[number]]


def values(bootstrap, topic, isolation="read_committed"):
    """Return the values of a topic as text."""
    return [message.value().decode() for message in read_topic(bootstrap, topic, isolation)]
