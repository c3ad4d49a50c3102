"""Kills workers and brokers under a job from Kafka to Kafka, and looks at what readers see.

    PYTHONPATH=tests python -m kafka.kill_exactly_once --kills 100 --restarts 10
    PYTHONPATH=tests python -m kafka.kill_exactly_once --guarantee at_least_once
    PYTHONPATH=tests python -m kafka.kill_exactly_once --brokers 3

Numbers are read from Kafka and counted in windows by key, on two workers, and the counts go to Kafka.
Meanwhile workers are killed, and the broker is killed and started again. Of three brokers, it is the
one that leads a partition of the results, and it comes back when the job has gone on without it. With
exactly-once, a reader of what is committed must see every result once; with at-least-once, none may
be missing.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confluent_kafka import Producer

from kafka.kafka_cluster import KafkaCluster
from kafka.kafka_reading import read_topic
from sage import LocalEnvironment, count, tumbling_time_window
from sage.kernel.runtime.worker.worker_task import WorkerTask

GUARANTEES = ("exactly_once", "at_least_once")
KEYS = 53
PARTITIONS = 4
WINDOW_MS = 200
"""So short that nearly every checkpoint has results to be committed."""
CHECKPOINTS_WITHOUT = 3


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        kills: How many workers were killed.
        restarts: How many times a broker was killed and started again.
        without: How many checkpoints were completed while one of several brokers was away.
        results: How many there should be.
        missing: Results that readers do not see.
        doubled: Results that they see more than once, or that are wrong.
    """

    kills: int = 0
    restarts: int = 0
    without: int = 0
    results: int = 0
    missing: int = 0
    doubled: int = 0


def slowly(pause, record):
    """Hold the source back a little, so that there is something to kill."""
    number = record.value
    if number // PARTITIONS % 1000 == 0:
        time.sleep(pause)
    return number


def fill(cluster, records):
    """Make a topic of numbers, each partition in order; return its name."""
    topic = fresh_topic(cluster, "numbers")
    small = {"batch.num.messages": 500, "linger.ms": 50}  # or partitions would come one by one
    producer = Producer({"bootstrap.servers": cluster.bootstrap, **small})
    for number in range(records):
        producer.produce(topic, str(number), partition=number % PARTITIONS)
        if number % 50_000 == 0:
            producer.flush()
    assert producer.flush(60) == 0
    return topic


def fresh_topic(cluster, name):
    return cluster.create_topic(f"{name}-{random.SystemRandom().randrange(1 << 40)}", PARTITIONS)


def program(cluster, topics, directory, guarantee, pause):
    """Return the job."""
    numbers, results = topics
    env = LocalEnvironment(f"kills {results}", {"parallelism": 2, "batch_size": 500})
    env.enable_checkpointing(0.2, directory / "checkpoints")
    env.set_restart_strategy("fixed-delay", max_attempts=100_000, restart_delay=0)
    read = env.from_kafka_source(
        cluster.bootstrap,
        numbers,
        results,
        "earliest",
        stop="latest",
        timeout=60,
        properties={"max.partition.fetch.bytes": 20_000},
    )
    counted = (
        read.assign_timestamps(lambda record: record.value // 10)  # in order in each partition
        .map(partial(slowly, pause), name="slowly")
        .key_by(lambda n: n % KEYS)
        .window(tumbling_time_window(milliseconds=WINDOW_MS))
        .aggregate(count())
    )
    counted.map(lambda r: [r.key, r.start, r.value]).to_kafka(
        cluster.bootstrap, results, guarantee, key=lambda result: str(result[0])
    )
    return env


def run(cluster, records, guarantee, seed, *, kills=0, restarts=0, pause=0.02, brokers=1):
    """Run the job, killing, and look at what it wrote."""
    topics = fill(cluster, records), fresh_topic(cluster, "results")
    outcome = Outcome()
    work = restart_broker if brokers == 1 else partial(fail_over, topics[1])
    with tempfile.TemporaryDirectory() as directory:
        env = program(cluster, topics, Path(directory), guarantee, pause)
        job = env.submit_async()
        killers = [
            threading.Thread(target=kill_workers, args=(env, kills, seed, outcome)),
            threading.Thread(target=work, args=(env, cluster, restarts, seed, outcome)),
        ]
        try:
            for killer in killers:
                killer.start()
            job.result()
        finally:
            env.close()
            for killer in killers:
                killer.join()
    compare(cluster, topics[1], records, outcome)
    return outcome


def kill_workers(env, kills, seed, outcome):
    """Kill workers that have begun to work, mostly when there is a checkpoint to be committed."""
    chance, job, before = random.Random(seed), env._job, 0
    while outcome.kills < kills and not job.wait(0.005):
        due = env.job.checkpoints.completed > before or chance.random() < 0.002
        if not due or job.wait(chance.uniform(0, 0.4)):
            continue
        tasks = [task for task in job._tasks if isinstance(task, WorkerTask)]
        pids = [task.pid for task in tasks if task.pid is not None]
        if pids and any(task.has_counted for task in tasks):
            os.kill(chance.choice(pids), signal.SIGKILL)
            outcome.kills += 1
            before = env.job.checkpoints.completed


def restart_broker(env, cluster, restarts, seed, outcome):
    """Kill the broker and start it again, again and again."""
    chance, job = random.Random(seed), env._job
    while outcome.restarts < restarts and not job.wait(chance.uniform(0.5, 3)):
        cluster.restart()
        outcome.restarts += 1


def fail_over(topic, env, cluster, restarts, seed, outcome):
    """Kill the broker that leads a partition, and start it again when others have taken over."""
    chance, job = random.Random(seed), env._job
    while outcome.restarts < restarts and not job.wait(chance.uniform(0.5, 3)):
        leader = cluster.leader(topic, chance.randrange(PARTITIONS))
        cluster.kill(leader)
        killed = env.job.checkpoints.completed
        while env.job.checkpoints.completed < killed + CHECKPOINTS_WITHOUT and not job.wait(0.02):
            pass
        outcome.without += env.job.checkpoints.completed - killed
        cluster.restart(leader)
        outcome.restarts += 1


def compare(cluster, topic, records, outcome):
    """Compare what readers see with what there should be."""
    expected = Counter((n % KEYS, n // 10 // WINDOW_MS * WINDOW_MS) for n in range(records))
    wanted = Counter((key, start, number) for (key, start), number in expected.items())
    found = Counter(
        tuple(json.loads(message.value())) for message in read_topic(cluster.bootstrap, topic)
    )
    outcome.results = len(wanted)
    outcome.missing = sum((wanted - found).values())
    outcome.doubled = sum((found - wanted).values())


def main():
    """Read the arguments, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--pause", type=float, default=0.08, help="seconds, each 1,000 records")
    parser.add_argument("--guarantee", choices=GUARANTEES, help="by default one after the other")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    failed = False
    with KafkaCluster(options.brokers) as cluster:
        for guarantee in [options.guarantee] if options.guarantee else GUARANTEES:
            done = run(
                cluster,
                options.records,
                guarantee,
                options.seed,
                kills=options.kills,
                restarts=options.restarts,
                pause=options.pause,
                brokers=options.brokers,
            )
            print(guarantee, done, flush=True)
            failed |= done.missing > 0 or (guarantee == "exactly_once" and done.doubled > 0)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
