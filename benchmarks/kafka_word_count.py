"""Words from Kafka, counted, every update back to Kafka: SAGE, Bytewax and Quix Streams.

    python -m benchmarks kafka_word_count

A real broker on loopback; its Java takes its part of the processors, for all alike. A record has a
word as its key and JSON as its value; a result is the word and how often it has been seen. Each run
reads all of the topic and writes to an empty one, and is measured from its start to its end.

Quix Streams counts in its state store without changelog topics and without a repartitioning topic,
which it would need if the words did not come as keys: both would slow it down. Bytewax writes with
a flush behind each batch, as its sink does, and takes no snapshots.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink as BytewaxSink
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from confluent_kafka import Producer

from benchmarks.measure import ratio, table, take_turns
from sage import LocalEnvironment

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the broker is started

from kafka.kafka_cluster import KafkaCluster

WORDS = 100_000
DISTINCT = 5_000
PARTITIONS = 1
ROUNDS = 3
Engine = Callable[[KafkaCluster, str, str, int], None]


def fill(cluster: KafkaCluster, topic: str, count: int) -> None:
    """Write the words."""
    chance = random.Random(7)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 50})
    for number in range(count):
        word = f"word{int(chance.paretovariate(1)) % DISTINCT}"
        producer.produce(topic, json.dumps({"word": word, "n": number}), word)
        if number % 10_000 == 0:
            producer.flush()
    producer.flush()


def sage(cluster: KafkaCluster, source: str, target: str, count: int) -> None:
    """At least once, with a checkpoint every second."""
    _sage(cluster, source, target, "at_least_once")


def sage_exactly_once(cluster: KafkaCluster, source: str, target: str, count: int) -> None:
    """Exactly once, with a checkpoint every second."""
    _sage(cluster, source, target, "exactly_once")


def _sage(cluster: KafkaCluster, source: str, target: str, guarantee: str) -> None:
    env = LocalEnvironment(f"words {target}")
    with tempfile.TemporaryDirectory() as directory:
        env.enable_checkpointing(1.0, directory)
        words = env.from_kafka_source(
            cluster.bootstrap, source, target, auto_offset_reset="earliest", stop="latest"
        )
        counts = words.key_by(lambda record: record.value["word"]).count()
        counts.to_kafka(cluster.bootstrap, target, guarantee, key=lambda pair: pair[0])
        env.execute(progress=False)


def bytewax(cluster: KafkaCluster, source: str, target: str, count: int) -> None:
    """With its connectors for Kafka, from the start of the topic to its end."""

    def decode(message: object) -> tuple[str, int]:
        return json.loads(message.value)["word"], 1  # type: ignore[attr-defined]

    def add(total: int | None, one: int) -> tuple[int, int]:
        total = (total or 0) + one
        return total, total

    def encode(pair: tuple[str, int]) -> KafkaSinkMessage[bytes, bytes]:
        return KafkaSinkMessage(pair[0].encode(), json.dumps(pair).encode())

    flow = Dataflow("words")
    stream = op.input("in", flow, KafkaSource([cluster.bootstrap], [source], tail=False))
    counts = op.stateful_map("count", op.map("decode", stream, decode), add)
    op.output("out", op.map("encode", counts, encode), BytewaxSink([cluster.bootstrap], target))
    run_main(flow)


def quix(cluster: KafkaCluster, source: str, target: str, count: int) -> None:
    """With its state store; the application ends when it has processed so many records."""
    from quixstreams import Application  # slow, and it warns  # noqa: PLC0415

    def update(value: dict[str, object], state: object) -> list[object]:
        total = state.get("count", 0) + 1  # type: ignore[attr-defined]
        state.set("count", total)  # type: ignore[attr-defined]
        return [value["word"], total]

    with tempfile.TemporaryDirectory() as directory:
        app = Application(
            cluster.bootstrap,
            consumer_group=target,
            auto_offset_reset="earliest",
            state_dir=directory,
            use_changelog_topics=False,
            auto_create_topics=False,
            loglevel="ERROR",
        )
        frame = app.dataframe(app.topic(source, key_deserializer="str"))
        frame = frame.apply(update, stateful=True)
        frame.to_topic(app.topic(target), key=lambda pair: pair[0])
        app.run(count=count)


ENGINES: dict[str, Engine] = {
    "SAGE, at least once": sage,
    "SAGE, exactly once": sage_exactly_once,
    "Bytewax": bytewax,
    "Quix Streams": quix,
}


def kafka_word_count(count: int = WORDS, rounds: int = ROUNDS) -> str:
    """Return the table."""
    with KafkaCluster() as cluster:
        source = cluster.create_topic("words", PARTITIONS)
        fill(cluster, source, count)

        def contestant(engine: Engine) -> Callable[[], None]:
            return lambda: engine(cluster, source, _empty(cluster), count)

        times = take_turns({name: contestant(engine) for name, engine in ENGINES.items()}, rounds)
    first = next(iter(ENGINES))
    rows = [
        [name, f"{count / median(taken) / 1000:.0f}", f"{ratio(times, name, first):.1f}"]
        for name, taken in times.items()
    ]
    heading = f"{count:,} words from Kafka to Kafka, every update of a count"
    return table(heading, ["", "1,000 words/s", "times as slow as the first"], rows)


def _empty(cluster: KafkaCluster) -> str:
    name: str = cluster.create_topic(f"counts-{uuid.uuid4().hex}", PARTITIONS)
    return name
