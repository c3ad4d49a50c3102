"""What `KafkaSource` reads, from where to where, against a real broker."""

import gc
import re
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from kafka.conftest import started
from kafka.writing import topic_with, write
from sage import GraphError, LocalEnvironment, OperatorError, tumbling_time_window
from sage.connector.kafka_admin import GroupAdmin
from sage.connector.kafka_settings import KafkaSettings
from sage.connector.kafka_source import KafkaSource
from sage.testing import StandaloneContext, check_source
from sage.testing.context import wait_batch

PATIENCE = 60.0


def group():
    return f"group-{uuid.uuid4().hex[:12]}"


def read(cluster, topic, group_id=None, **options):
    """Return the records of a bounded run."""
    env = LocalEnvironment("read")
    options = {"stop": "latest", "auto_offset_reset": "earliest", **options}
    out = env.from_kafka_source(cluster.bootstrap, topic, group_id or group(), **options).collect()
    env.execute(progress=False, timeout=PATIENCE)
    return list(out)


def values(records):
    return [record.value for record in records]


@contextmanager
def running(env):
    """Run a job until the block is done."""
    env.submit()
    try:
        yield env.job
    finally:
        env.job.cancel(PATIENCE)


def wait_for(condition, patience=PATIENCE):
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)
    return found


def committed(cluster, group_id, topic, partitions=1):
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group_id})
    asked = [TopicPartition(topic, number) for number in range(partitions)]
    found = [partition.offset for partition in consumer.committed(asked, timeout=PATIENCE)]
    consumer.close()
    return found


def remove_before(cluster, place):
    admin = cluster.admin()
    admin.delete_records([place])[place].result(PATIENCE)
    del admin
    gc.collect()  # it is in a cycle with its answer


# ---- records


def test_a_record_has_all_that_the_broker_has(kafka_cluster):
    sent = {"value": {"id": 7}, "key": b"k", "timestamp": 1_700_000_000_123}
    topic = topic_with(kafka_cluster, [{**sent, "headers": [("h", b"1"), ("h", None)]}, {"a": [1]}])
    first, second = read(kafka_cluster, topic)
    assert first.value == {"id": 7}
    assert (first.key, first.topic, first.partition, first.offset) == (b"k", topic, 0, 0)
    assert first.timestamp == 1_700_000_000_123
    assert first.headers == [("h", b"1"), ("h", None)]
    assert dict(first) == {name: getattr(first, name) for name in first}
    assert (second["value"], second["key"], second["offset"]) == ({"a": [1]}, None, 1)
    assert second["headers"] is None


@pytest.mark.parametrize(
    ("deserializer", "expected"),
    [("json", [[1, 2]]), ("string", ["[1, 2]"]), ("bytes", [b"[1, 2]"]), (len, [6])],
)
def test_values_and_keys_are_deserialized_as_told(kafka_cluster, deserializer, expected):
    topic = topic_with(kafka_cluster, [{"value": b"[1, 2]", "key": b"[1, 2]"}])
    told = {"value_deserializer": deserializer, "key_deserializer": deserializer}
    found = read(kafka_cluster, topic, **told)
    assert values(found) == expected
    assert [record.key for record in found] == expected


def test_topics_are_named_listed_or_matched(kafka_cluster):
    stem = f"part-{uuid.uuid4().hex[:8]}"
    for name in ("a", "b"):
        topic_with(kafka_cluster, [name], name=f"{stem}.{name}", partitions=2)
    both = [f"{stem}.a", f"{stem}.b"]
    for topic in (both, f"^{stem}", re.compile(rf"{stem}\.[ab]")):
        assert sorted(values(read(kafka_cluster, topic))) == ["a", "b"]
    assert values(read(kafka_cluster, both[1])) == ["b"]


# ---- from where to where


def test_it_starts_and_stops_where_told(kafka_cluster):
    begin = 1_700_000_000_000
    records = [{"value": n, "timestamp": begin + 1000 * n} for n in range(10)]
    topic = topic_with(kafka_cluster, records)
    at = datetime.fromtimestamp(begin / 1000 + 3, UTC)
    cases = {
        (("start", "earliest"),): range(10),
        (("start", "latest"),): [],
        (("start", at),): range(3, 10),
        (("start", begin + 2500),): range(3, 10),
        (("start", begin + 60_000),): [],
        (("start", "earliest"), ("stop", at)): range(3),
        (("start", "earliest"), ("stop", begin + 60_000)): range(10),
    }
    for options, expected in cases.items():
        assert values(read(kafka_cluster, topic, **dict(options))) == list(expected), options
    by_offset = {"start": {f"{topic}:0": 4}, "stop": {f"{topic}:0": 6}}
    assert values(read(kafka_cluster, topic, **by_offset)) == [4, 5]


def test_a_group_goes_on_where_it_left_off(kafka_cluster):
    topic, mine = topic_with(kafka_cluster, [1, 2]), group()
    assert values(read(kafka_cluster, topic, mine)) == [1, 2]
    assert committed(kafka_cluster, mine, topic) == [2]
    write(kafka_cluster, topic, [3])
    assert values(read(kafka_cluster, topic, mine)) == [3]
    assert read(kafka_cluster, topic, mine) == []
    quiet = group()
    read(kafka_cluster, topic, quiet, commit_offsets=False)
    assert committed(kafka_cluster, quiet, topic) == [-1001]


def test_without_an_offset_it_begins_where_the_reset_says(kafka_cluster):
    topic = topic_with(kafka_cluster, [1])
    assert read(kafka_cluster, topic, auto_offset_reset="latest") == []
    with pytest.raises(OperatorError, match="nothing says where to begin"):
        read(kafka_cluster, topic, auto_offset_reset="none")


def test_a_bounded_run_ends_behind_what_is_no_record(kafka_cluster):
    topic = topic_with(kafka_cluster)
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap, "transactional.id": group()})
    producer.init_transactions(PATIENCE)
    for number, ends in enumerate(["commit", "abort", "commit", "abort"]):
        producer.begin_transaction()
        producer.produce(topic, f"{number}".encode())
        producer.flush(PATIENCE)  # else an abort would purge it
        getattr(producer, f"{ends}_transaction")(PATIENCE)
    assert values(read(kafka_cluster, topic)) == [0, 2]
    everything = {"properties": {"isolation.level": "read_uncommitted"}}
    assert values(read(kafka_cluster, topic, **everything)) == [0, 1, 2, 3]


def test_the_source_conforms(kafka_cluster):
    records = [{"value": n, "partition": n % 2} for n in range(7)]
    topic = topic_with(kafka_cluster, records, partitions=3)
    options = {"start": "earliest", "stop": "latest"}
    found = check_source(lambda: KafkaSource(kafka_cluster.bootstrap, topic, group(), **options))
    assert sorted(values(found)) == list(range(7))


# ---- while it runs


def test_an_added_partition_is_read_from_its_start(kafka_cluster):
    topic = topic_with(kafka_cluster, [0])
    env = LocalEnvironment("added")
    out = env.from_kafka_source(
        kafka_cluster.bootstrap, topic, group(), "earliest", discovery_interval=0.1
    ).collect()
    admin = kafka_cluster.admin()
    with running(env):
        wait_for(lambda: len(out) == 1)
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(PATIENCE)
        wait_for(lambda: len(admin.list_topics(topic, PATIENCE).topics[topic].partitions) == 3)
        write(kafka_cluster, topic, [{"value": n, "partition": n} for n in (1, 2)])
        wait_for(lambda: len(out) == 3)
    assert sorted(values(out)) == [0, 1, 2]


def test_a_partition_without_records_does_not_hold_back_windows(kafka_cluster):
    begin = 1_700_000_000_000
    records = [{"value": n, "timestamp": begin + 400 * n, "partition": 0} for n in range(6)]
    topic = topic_with(kafka_cluster, records, partitions=2)
    env = LocalEnvironment("idle")
    stream = env.from_kafka_source(kafka_cluster.bootstrap, topic, group(), "earliest")
    out = (
        stream.assign_timestamps(idleness=0.2).window_all(tumbling_time_window(1)).count().collect()
    )
    with running(env):
        wait_for(lambda: len(out) == 2)
    assert [(c.start - begin, c.value) for c in out] == [(0, 3), (1000, 2)]


def test_partitions_that_are_read_unevenly_have_no_late_records(kafka_cluster):
    begin = 1_700_000_000_000
    records = [
        {"value": n, "timestamp": begin + 10 * n, "partition": p}
        for p in (0, 1)
        for n in range(2000)
    ]
    topic = topic_with(kafka_cluster, records, partitions=2)
    env = LocalEnvironment("even")
    source = env.from_kafka_source(
        kafka_cluster.bootstrap, topic, group(), "earliest", stop="latest"
    )
    counts = source.assign_timestamps().window_all(tumbling_time_window(1)).count()
    late, out = counts.late_records().collect(), counts.collect()
    env.execute(progress=False, timeout=PATIENCE)
    assert list(late) == []
    assert [c.value for c in out] == [200] * 20


def test_a_job_goes_on_from_its_checkpoint_and_its_group_shows_it(kafka_cluster, tmp_path):
    records = [{"value": n, "partition": n % 2} for n in range(100)]
    topic, mine = topic_with(kafka_cluster, records, partitions=2), group()

    def build(env):
        # What the group has committed does not matter to a job that has a checkpoint.
        source = env.from_kafka_source(kafka_cluster.bootstrap, topic, mine, "earliest", uid="in")
        return source.map(lambda record: record.value, uid="value").collect()

    env = LocalEnvironment("first")
    env.enable_checkpointing(3600, tmp_path / "checkpoints")
    out = build(env)
    with running(env) as job:
        wait_for(lambda: len(out) == 100)
        answer = job.stop(PATIENCE, savepoint=tmp_path / "savepoints")
    assert answer["status"] == "success", answer
    assert committed(kafka_cluster, mine, topic, 2) == [50, 50]
    write(kafka_cluster, topic, [{"value": n, "partition": n % 2} for n in range(100, 110)])
    again = LocalEnvironment("second")
    more = build(again)
    again.restore_from(answer["message"])
    with running(again):
        wait_for(lambda: len(more) >= 10)
    assert sorted([*out, *more]) == list(range(110))


def test_it_goes_on_at_another_parallelism(kafka_cluster, tmp_path):
    begin = 1_700_000_000_000
    records = [{"value": n, "partition": n % 3, "timestamp": begin + n} for n in range(90)]
    topic = topic_with(kafka_cluster, records[:60], partitions=3)

    def build(parallelism, **options):
        env = LocalEnvironment("rescaled")
        env.set_parallelism(parallelism)
        source = env.from_kafka_source(
            kafka_cluster.bootstrap, topic, "rescaled", "earliest", uid="in", **options
        )
        counts = source.assign_timestamps(uid="time").key_by(lambda r: r.value % 2, uid="key")
        return env, counts.window(tumbling_time_window(0.01)).count(uid="count").collect()

    env, first = build(1)
    env.enable_checkpointing(3600, tmp_path / "checkpoints")
    with running(env) as job:
        wait_for(lambda: job.metrics.records_in == 60)
        answer = job.stop(PATIENCE, savepoint=tmp_path / "savepoints")
    assert answer["status"] == "success", answer
    write(kafka_cluster, topic, records[60:])
    env, second = build(2, stop="latest")
    env.execute(progress=False, timeout=60, from_savepoint=answer["message"])
    counts = sorted((c.start - begin, c.key, c.value) for c in [*first, *second])
    assert counts == [(10 * start, key, 5) for start in range(9) for key in range(2)]


def test_subtasks_share_the_partitions(kafka_cluster):
    records = [{"value": n, "partition": n % 4} for n in range(200)]
    topic = topic_with(kafka_cluster, records, partitions=4)
    env = LocalEnvironment("shared")
    env.set_parallelism(2)
    source = env.from_kafka_source(
        kafka_cluster.bootstrap, topic, group(), "earliest", stop="latest"
    )
    out = source.map(lambda record: record.value).collect()
    env.execute(progress=False, timeout=60)
    assert sorted(out) == list(range(200))
    gauges = env.job.metrics["from_kafka_source"].gauges
    assert {name for name in gauges if "split" in name} == {
        f"lag{{split={topic}:{number}}}" for number in range(4)
    }


def test_lag_is_what_the_broker_has_more(kafka_cluster):
    records = [{"value": n, "partition": n % 2} for n in range(3000)]
    topic, gate = topic_with(kafka_cluster, records, partitions=2), threading.Event()
    env = LocalEnvironment("lag", {"batch_size": 100})
    source = env.from_kafka_source(
        kafka_cluster.bootstrap, topic, group(), "earliest", name="in", buffer_size=50
    )
    seen = []
    source.map(lambda record: seen.append(record) or gate.wait(PATIENCE)).sink(lambda _: None)

    def lag(number):
        consumer = Consumer({"bootstrap.servers": kafka_cluster.bootstrap, "group.id": "x"})
        high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=PATIENCE)[1]
        consumer.close()
        return high - sum(record.partition == number for record in seen)

    with running(env) as job:
        wait_for(lambda: seen)
        expected = {f"lag{{split={topic}:{n}}}": lag(n) for n in range(2)}
        expected["lag"] = sum(expected.values())
        wait_for(lambda: _said(job, expected) == expected)
        write(
            kafka_cluster, topic, records[:100]
        )  # the client, whose buffer is full, does not fetch
        expected = {name: lag + (100 if name == "lag" else 50) for name, lag in expected.items()}
        wait_for(lambda: _said(job, expected) == expected)
        gate.set()
        wait_for(lambda: job.metrics["in"].gauges["lag"] == 0)
    assert len(seen) == 3100


def test_lag_is_what_can_be_read(kafka_cluster):
    """Records of an open transaction cannot, unless the reader says so."""
    topic = topic_with(kafka_cluster, range(5))
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap, "transactional.id": group()})
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    producer.produce(topic, b"1")
    producer.flush(PATIENCE)
    for isolation, expected in (("read_committed", 5), ("read_uncommitted", 6)):
        settings = KafkaSettings(kafka_cluster.bootstrap, {"isolation.level": isolation})
        assert GroupAdmin(settings, group(), PATIENCE).bounds([f"{topic}:0"]) == {
            f"{topic}:0": expected
        }
    producer.abort_transaction(PATIENCE)


def _said(job, names):
    gauges = job.metrics["in"].gauges
    return {name: gauges.get(name) for name in names}


def test_a_broker_that_is_away_is_told_and_waited_for(caplog):
    cluster = started()
    try:
        topic = topic_with(cluster, range(100))
        env = LocalEnvironment("away")
        out = env.from_kafka_source(
            cluster.bootstrap, topic, group(), "earliest", name="in"
        ).collect()
        with running(env) as job:
            wait_for(lambda: len(out) == 100)
            cluster.kill()
            wait_for(lambda: job.metrics["in"].gauges["brokers_down"] == 1)
            assert job.metrics["in"].gauges["broker_errors"] > 0
            assert any("Kafka" in line.getMessage() for line in caplog.records)
            cluster.restart()
            write(cluster, topic, range(100, 200))
            wait_for(lambda: len(out) == 200)
            assert job.metrics["in"].gauges["brokers_down"] == 0
            cluster.kill()
            began = time.monotonic()
            job.stop(PATIENCE)
        assert time.monotonic() - began < 10  # though offsets cannot be committed
        assert values(out) == list(range(200))
    finally:
        cluster.stop()


# ---- what goes wrong


def test_records_that_were_removed_are_told_or_skipped(kafka_cluster):
    topic = topic_with(kafka_cluster, range(10))
    remove_before(kafka_cluster, TopicPartition(topic, 0, 6))
    position = {f"{topic}:0": (2, None)}

    def reader(context, **options):
        source = KafkaSource(kafka_cluster.bootstrap, topic, group(), **options)
        return source.create_reader(position, context)

    context = StandaloneContext(is_restored=True)
    failing = reader(context)
    with pytest.raises(
        Exception, match="the oldest is at 6, so 4 were removed before they were read"
    ):
        wait_batch(failing, context)
    failing.close()
    skipping = reader(context, lost_offsets="skip")
    assert values(wait_batch(skipping, context)) == [6, 7, 8, 9]
    assert skipping.gauges()["lost"] == 4
    skipping.close()


def test_a_topic_that_is_not_there_is_told(kafka_cluster):
    topic = topic_with(kafka_cluster)
    with pytest.raises(OperatorError, match=f"there is no topic '{topic}s'. Did you mean '{topic}"):
        read(kafka_cluster, topic + "s")


def test_brokers_that_are_not_there_are_told_without_secrets():
    env = LocalEnvironment("nobody")
    secrets = {"sasl_mechanism": "PLAIN", "sasl_username": "ada", "sasl_password": "opensesame"}
    env.from_kafka_source(
        "127.0.0.1:1", "t", "g", timeout=0.3, security_protocol="SASL_PLAINTEXT", **secrets
    ).print()
    with pytest.raises(OperatorError, match=r"Kafka at 127\.0\.0\.1:1 does not serve") as caught:
        env.execute(progress=False)
    assert "opensesame" not in "".join(map(str, (caught.value, caught.value.__cause__)))


def test_a_property_that_the_client_does_not_know_is_told():
    env = LocalEnvironment("unknown")
    env.from_kafka_source("127.0.0.1:1", "t", "g", fetch_minn_bytes=1).print()
    with pytest.raises(OperatorError, match=r"No such configuration property.*fetch\.minn\.bytes"):
        env.execute(progress=False)


def test_a_parallel_job_is_refused_where_its_brokers_are_not_there():
    env = LocalEnvironment("nobody")
    env.set_parallelism(2)
    env.from_kafka_source("127.0.0.1:1", "t", "g", timeout=0.3).print()
    with pytest.raises(GraphError, match="cannot say what there is to read: Kafka at 127"):
        env.execute(progress=False)
