"""The brokers of the tests: they start, lose nothing when killed, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer

from kafka.kafka_cluster import KafkaCluster

TESTS = str(Path(__file__).parents[1])
ORPHANS = """
import sys
from kafka.kafka_cluster import KafkaCluster
cluster = KafkaCluster()
cluster.start()
print(cluster._brokers[1]._pid, cluster._directory, flush=True)
sys.stdin.read()
"""


def produced(cluster, topic, count):
    """Write and wait until all of it is acknowledged."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for number in range(count):
        producer.produce(topic, str(number))
    assert producer.flush(30) == 0


def consumed(cluster, topic, count):
    """Read so many records, or what there is after a while."""
    settings = {"group.id": "readers", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, **settings})
    consumer.subscribe([topic])
    until, found = time.monotonic() + 30, []
    while len(found) < count and time.monotonic() < until:
        found += [message.value() for message in consumer.consume(count, 0.2)]
    consumer.close()
    return found


def test_what_was_acknowledged_outlives_the_broker():
    """A killed broker starts again on its data, at its place."""
    with KafkaCluster() as cluster:
        cluster.create_topic("numbers", 2)
        produced(cluster, "numbers", 100)
        cluster.restart()
        assert sorted(map(int, consumed(cluster, "numbers", 100))) == list(range(100))
        directory = cluster._directory
    assert not directory.exists()


def test_a_killed_test_run_leaves_no_broker():
    """The process and its data are gone soon after the process that started it."""
    path = os.pathsep.join([TESTS, *filter(None, sys.path)])
    child = subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, directory = child.stdout.readline().split()
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() or Path(directory).exists():
        assert time.monotonic() < until
        time.sleep(0.02)
