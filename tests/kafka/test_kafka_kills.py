"""A short slice of `kill_exactly_once`, which `make fuzz` runs for long."""

from kafka.conftest import started
from kafka.kill_exactly_once import run


def test_killed_workers_and_a_killed_broker_cost_no_result():
    """Readers of what is committed see every result once."""
    cluster = started()
    try:
        outcome = run(cluster, 60_000, "exactly_once", seed=7, kills=3, restarts=1)
    finally:
        cluster.stop()
    assert outcome.kills >= 1  # how many there is time for depends on the machine
    assert (outcome.missing, outcome.doubled) == (0, 0)
