"""JSON records from Kafka through a map and a filter into a count: SAGE, Quix Streams, a bare loop.

    python -m benchmarks kafka

A real broker on loopback; its Java takes its part of the processors, for all alike. Each run reads all
of the topic as a new group, and is measured from its start, which takes SAGE a few tenths of a second,
to its end. The bare loop is what a program costs that has nothing but `consume()` of confluent-kafka,
in batches of 10,000, and orjson; it keeps no offsets and knows no errors.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.measure import ratio, table, take_turns
from sage import LocalEnvironment

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the broker is started

from kafka.kafka_cluster import KafkaCluster

RECORDS = 300_000
PARTITIONS = 4
ROUNDS = 3
Engine = Callable[[KafkaCluster, str, int], int]


def fill(cluster: KafkaCluster, topic: str, count: int) -> None:
    """Write the records, of about 60 bytes."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 50})
    for number in range(count):
        value = {"id": number, "name": f"user{number % 1000}", "value": 1.5 * number}
        producer.produce(topic, json.dumps({**value, "ok": number % 3 > 0}), str(number % 1000))
        if number % 10_000 == 0:
            producer.flush()
    producer.flush()


def double(value: dict[str, Any]) -> dict[str, Any]:
    """Map."""
    value["value"] *= 2
    return value


def is_ok(value: dict[str, Any]) -> bool:
    """Filter."""
    return bool(value["ok"])


def double_value(record: Any) -> dict[str, Any]:
    """Map what SAGE gives."""
    return double(record.value)


class Count:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, _: object) -> None:
        """Count one."""
        self.total += 1


def bare(cluster: KafkaCluster, topic: str, count: int) -> int:
    """A loop over `consume()`, with the same functions."""
    consumer = Consumer(_properties(cluster, "auto.offset.reset", "earliest"))
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    seen, counted = 0, Count()
    while seen < count:
        messages = consumer.consume(10_000, 1.0)
        for message in messages:
            if message.error():
                raise AssertionError(message.error())
            value = double(orjson.loads(message.value()))
            if is_ok(value):
                counted(value)
        seen += len(messages)
    consumer.close()
    return counted.total


def _properties(cluster: KafkaCluster, *more: str) -> dict[str, Any]:
    group = f"bare-{uuid.uuid4()}"
    return {"bootstrap.servers": cluster.bootstrap, "group.id": group, more[0]: more[1]}


def sage(cluster: KafkaCluster, topic: str, count: int) -> int:
    """SAGE as it is."""
    env, counted = LocalEnvironment("kafka"), Count()
    records = env.from_kafka_source(
        cluster.bootstrap, topic, f"sage-{uuid.uuid4()}", start="earliest", stop="latest"
    )
    records.map(double_value).filter(is_ok).sink(counted)
    env.execute(progress=False)
    return counted.total


def quix(cluster: KafkaCluster, topic: str, count: int) -> int:
    """Quix Streams; the application ends when so many records have come out."""
    from quixstreams import Application  # slow, and it warns  # noqa: PLC0415

    counted = Count()
    with tempfile.TemporaryDirectory() as directory:
        app = Application(
            cluster.bootstrap,
            consumer_group=f"quix-{uuid.uuid4()}",
            auto_offset_reset="earliest",
            auto_create_topics=False,
            state_dir=directory,
            loglevel="ERROR",
        )
        frame = app.dataframe(app.topic(topic)).apply(double).filter(is_ok)
        frame.update(counted)
        app.run(count=expected(count), timeout=60)
    return counted.total


def expected(count: int) -> int:
    """Return how many of the records are counted."""
    return count - (count + 2) // 3


ENGINES: dict[str, Engine] = {
    "SAGE": sage,
    "`consume()` and orjson": bare,
    "Quix Streams": quix,
}


def kafka(count: int = RECORDS, rounds: int = ROUNDS) -> str:
    """Return the table."""
    with KafkaCluster() as cluster:
        topic = cluster.create_topic("records", PARTITIONS)
        fill(cluster, topic, count)

        def contestant(engine: Engine) -> Callable[[], None]:
            def run() -> None:
                found = engine(cluster, topic, count)
                if found != expected(count):
                    raise AssertionError(f"{engine.__name__} has counted {found} records")

            return run

        times = take_turns({name: contestant(engine) for name, engine in ENGINES.items()}, rounds)
    rows = [
        [name, f"{count / median(taken) / 1000:.0f}", f"{ratio(times, name, 'SAGE'):.2f}"]
        for name, taken in times.items()
    ]
    heading = f"{count:,} JSON records from Kafka, {PARTITIONS} partitions: map, filter, count"
    return table(heading, ["", "1,000 records/s", "SAGE is so many times as fast"], rows)
