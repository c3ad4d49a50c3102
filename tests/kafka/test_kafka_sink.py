"""`KafkaSink` against a real broker."""

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import get_args

import pytest

from kafka.kafka_reading import read_topic, values
from kafka.killed_sink import expected
from sage import JobStatus, LocalEnvironment
from sage.common.errors import OperatorError
from sage.connector.kafka_sink import Guarantee, KafkaSink
from sage.connector.row_buffer import Spill
from sage.connector.sink_error import SinkError
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.testing import ManualClock, StandaloneContext
from sage.testing.sink_conformance import check_sink

DAY = 24 * 3600
NOBODY = "127.0.0.1:1"


def fresh_topic(cluster, partitions=1, **config):
    return cluster.create_topic(f"topic-{uuid.uuid4().hex}", partitions, **config)


def fresh_id():
    return uuid.uuid4().hex


def written(cluster, topic, records, guarantee="at_least_once", **options):
    """Write records and return the messages that have come of them."""
    writer = KafkaSink(cluster.bootstrap, topic, guarantee, **options).create_writer(
        StandaloneContext(), None
    )
    writer.write_batch(records)
    writer.flush()
    writer.close()
    return read_topic(cluster.bootstrap, topic)


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


def test_a_sink_killed_at_any_step_goes_on(kafka_cluster, tmp_path):
    """Every record is there once, wherever it was killed."""
    topic = fresh_topic(kafka_cluster)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-m", "kafka.killed_sink", kafka_cluster.bootstrap, topic, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=100,
    )
    epochs = int(ended.stdout)
    assert epochs >= 10
    assert values(kafka_cluster.bootstrap, topic) == expected(epochs)


def test_the_parts_of_a_record_are_functions_of_it(kafka_cluster):
    """Key, value, partition, headers and timestamp; None leaves them out."""
    topic = fresh_topic(kafka_cluster, 2)
    records = [{"word": "salt", "n": 1}, {"word": None, "n": 0}]
    first, second = written(
        kafka_cluster,
        topic,
        records,
        key="word",
        value=lambda r: r["n"] or None,
        partition=lambda r: 1,
        headers=lambda r: {"from": "test"} if r["n"] else None,
        timestamp=lambda r: 1234 if r["n"] else None,
    )
    assert (first.key(), first.value(), first.partition()) == (b"salt", b"1", 1)
    assert (first.headers(), first.timestamp()[1]) == ([("from", b"test")], 1234)
    assert (second.key(), second.value(), second.headers()) == (None, None, None)
    assert second.timestamp()[1] > 1234


def test_each_record_may_have_a_topic_of_its_own(kafka_cluster):
    """In one transaction."""
    topics = [fresh_topic(kafka_cluster) for _ in range(2)]
    sink = KafkaSink(
        kafka_cluster.bootstrap,
        lambda n: topics[n % 2],
        "exactly_once",
        transactional_id_prefix=fresh_id(),
    )
    writer = sink.create_writer(StandaloneContext(), None)
    writer.write_batch(range(4))
    writer.commit(writer.prepare_commit(1))
    writer.close()
    assert [values(kafka_cluster.bootstrap, topic) for topic in topics] == [["0", "2"], ["1", "3"]]


def test_keys_go_where_java_clients_bring_them(kafka_cluster):
    """Topics that several programs write can be joined by partition."""
    topic = fresh_topic(kafka_cluster, 4)
    found = written(kafka_cluster, topic, ["21", "foobar", "a-little-bit-long-string"], key=str)
    # the values that Kafka's own test of `Utils.murmur2` expects, without their sign, modulo 4
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {m.key(): m.partition() for m in found} == {
        key: (value & 0x7FFFFFFF) % 4 for key, value in hashes.items()
    }


def test_what_cannot_be_delivered_fails_with_the_record(kafka_cluster):
    """The error says which, also if it is noticed by the next call only."""
    topic = fresh_topic(kafka_cluster, **{"max.message.bytes": "1000"})
    sink = KafkaSink(
        kafka_cluster.bootstrap, topic, key=lambda r: "large", value_serializer=str.encode
    )
    writer = sink.create_writer(StandaloneContext(), None)
    writer.write_batch(["x" * 2000])
    with pytest.raises(SinkError, match=rf"topic '{topic}': .*too large.*key is b'large'.*b'xxx"):
        writer.flush()
    with pytest.raises(SinkError, match="too large"):
        writer.write_batch(["small"])
    with pytest.raises(SinkError, match="too large"):
        writer.close()


def test_a_job_fails_that_writes_to_no_topic(kafka_cluster):
    """Properties pass through: this one says how long to hope for the topic."""
    env = LocalEnvironment("no topic")
    env.from_batch(["a"]).to_kafka(
        kafka_cluster.bootstrap, "nothing", properties={"topic.metadata.propagation.max.ms": 10}
    )
    with pytest.raises(OperatorError) as caught:
        env.execute(progress=False)
    assert "topic 'nothing': " in str(caught.value.__cause__)


def test_a_writer_that_was_replaced_is_refused(kafka_cluster):
    """Even if it had begun to write: its records come once, from the one that replaced it."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(
        kafka_cluster.bootstrap, topic, "exactly_once", transactional_id_prefix=fresh_id()
    )

    def replace(operation, path):
        if operation == "commit":
            successor = sink.create_writer(StandaloneContext(), None)
            successor.commit(prepared)
            successor.close()

    writer = sink.create_writer(StandaloneContext(), None, step=replace)
    writer.write_batch(range(3))
    prepared = writer.prepare_commit(1)
    with pytest.raises(SinkError, match="another run has taken the transactional id"):
        writer.commit(prepared)
    writer.close()
    assert values(kafka_cluster.bootstrap, topic) == ["0", "1", "2"]


def test_another_subtask_may_commit(kafka_cluster):
    """After a change of the parallelism; who prepared it is refused from then on."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(
        kafka_cluster.bootstrap, topic, "exactly_once", transactional_id_prefix=fresh_id()
    )
    first = sink.create_writer(StandaloneContext(subtask_index=0, parallelism=1), None)
    second = sink.create_writer(StandaloneContext(subtask_index=1, parallelism=2), None)
    second.write_batch("ab")
    prepared = second.prepare_commit(3)
    first.commit(prepared)
    first.commit(prepared)
    first.close()
    with pytest.raises(SinkError, match="another run has taken"):
        second.commit(prepared)
    second.close()
    assert values(kafka_cluster.bootstrap, topic) == ['"a"', '"b"']


def test_subtasks_that_are_gone_can_write_no_more(kafka_cluster):
    """Also if they had prepared nothing: the writer that commits for them takes their ids."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(
        kafka_cluster.bootstrap, topic, "exactly_once", transactional_id_prefix=fresh_id()
    )
    old = [sink.create_writer(StandaloneContext(subtask_index=n), None) for n in range(3)]
    states = sink.redistribute([writer.snapshot() for writer in old], 2)
    assert [state["gone"] for state in states] == [[2], []]
    sink.create_writer(StandaloneContext(subtask_index=0), states[0]).close()
    old[2].write_batch("a")
    with pytest.raises(SinkError, match="another run has taken"):
        old[2].commit(old[2].prepare_commit(1))
    for writer in old:
        writer.close()
    assert sink.redistribute([None], 2) == [None, None]


def test_a_forgotten_marker_is_not_taken_for_a_missing_one(kafka_cluster):
    """Kafka forgets after a week; then somebody must look, and can say what was found."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(
        kafka_cluster.bootstrap, topic, "exactly_once", transactional_id_prefix=fresh_id()
    )
    clock = ManualClock()
    writer = sink.create_writer(StandaloneContext(clock=clock), None)
    writer.write_batch("a")
    prepared = writer.prepare_commit(5)
    writer.close()
    clock.advance(seconds=7 * DAY)
    writer = sink.create_writer(StandaloneContext(clock=clock), None)
    with pytest.raises(
        SinkError, match=r"checkpoint 5 is 7 days old.* to 5 if they are, to 4 if not"
    ):
        writer.commit(prepared)
    holder = writer._own
    consumer = holder._group_of(prepared["marker"])
    consumer.commit(offsets=[_offset(topic, 4)], asynchronous=False)
    writer.commit(prepared)
    writer.close()
    assert values(kafka_cluster.bootstrap, topic) == ['"a"']


def _offset(topic, number):
    from confluent_kafka import TopicPartition

    return TopicPartition(topic, 0, number)


def test_records_of_an_epoch_may_be_in_files(kafka_cluster, tmp_path):
    """More than should be in memory."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(
        kafka_cluster.bootstrap,
        topic,
        "exactly_once",
        transactional_id_prefix=fresh_id(),
        spill=Spill(str(tmp_path), above_bytes=100),
    )
    writer = sink.create_writer(StandaloneContext(), None)
    for start in range(0, 1000, 100):
        writer.write_batch(range(start, start + 100))
    prepared, state = writer.prepare_commit(1), writer.snapshot()
    assert prepared["file"] in state["prepared"]
    assert len(prepared["blocks"]) < 2
    writer.close()
    writer = sink.create_writer(StandaloneContext(), state)
    writer.commit(prepared)
    writer.commit(prepared)
    writer.close()
    assert values(kafka_cluster.bootstrap, topic) == list(map(str, range(1000)))
    assert list(tmp_path.iterdir()) == []


def test_without_a_promise_nothing_waits_before_the_end(kafka_cluster):
    """Closing gives what is on its way its time."""
    topic = fresh_topic(kafka_cluster)
    sink = KafkaSink(kafka_cluster.bootstrap, topic, "none", properties={"linger.ms": 60_000})
    writer = sink.create_writer(StandaloneContext(), None)
    writer.write_batch("ab")
    writer.flush()
    assert values(kafka_cluster.bootstrap, topic) == []
    writer.close()
    assert values(kafka_cluster.bootstrap, topic) == ['"a"', '"b"']


def test_a_job_that_fails_writes_each_record_once(kafka_cluster, tmp_path):
    """From end to end, in one process."""
    topic = fresh_topic(kafka_cluster)
    failures = ["once", "twice"]

    def unlucky(number):
        if number in {9_000, 15_000} and failures:
            raise RuntimeError(failures.pop())
        return number

    env = LocalEnvironment(fresh_id())
    env.enable_checkpointing(0.05, tmp_path)
    env.set_restart_strategy("fixed-delay", max_attempts=3, restart_delay=0)
    numbers = env.from_batch(range(20_000)).map(unlucky)
    numbers.to_kafka(kafka_cluster.bootstrap, topic, "exactly_once")
    env.execute(progress=False)
    assert not failures
    assert list(map(int, values(kafka_cluster.bootstrap, topic))) == list(range(20_000))


def test_nobody_is_waited_for_longer_than_said():
    """A broker that is not there fails the start, in time, and without secrets."""
    sink = KafkaSink(
        NOBODY, "topic", "exactly_once", timeout=0.1, properties={"sasl.password": "hush"}
    )
    with pytest.raises(SinkError, match=r"has not answered for 0\.1 s") as caught:
        sink.create_writer(StandaloneContext(), None)
    assert "hush" not in f"{caught.value!r} {sink!r}"


def test_what_is_cancelled_waits_for_nobody():
    """Neither at a checkpoint nor when its queue is full."""
    sink = KafkaSink(NOBODY, "topic", properties={"queue.buffering.max.messages": 2})
    writer = sink.create_writer(StandaloneContext(cancelled=True), None)
    writer.write_batch("ab")
    with pytest.raises(TaskCancelled):
        writer.flush()
    with pytest.raises(TaskCancelled):
        writer.write_batch("c")
    writer.close()


@pytest.mark.parametrize("guarantee", get_args(Guarantee))
def test_a_job_that_waits_for_kafka_can_be_cancelled(guarantee):
    """Whatever it waits for."""
    env = LocalEnvironment("waits")
    env.from_batch("ab").to_kafka(NOBODY, "topic", guarantee)
    with env:
        env.submit_async()
        assert env.job.wait(0.3)["status"] == "error"
        env.job.cancel(10)
        assert env.job.status is JobStatus.CANCELED
