"""A short slice of `kill_exactly_once`, which `make fuzz` runs for long."""

from kafka.conftest import started
from kafka.kafka_cluster import KafkaCluster
from kafka.kill_exactly_once import run


def test_killed_workers_and_a_killed_broker_cost_no_result():
    """Readers of what is committed see every result once; the job goes on with the other brokers."""
    cluster = started(lambda: KafkaCluster(3))
    try:
        outcome = run(
            cluster, 60_000, "exactly_once", seed=7, kills=2, restarts=1, pause=0.1, brokers=3
        )
    finally:
        cluster.stop()
    assert outcome.kills >= 1  # how many there is time for depends on the machine
    assert outcome.without >= 1
    assert (outcome.missing, outcome.doubled) == (0, 0)
