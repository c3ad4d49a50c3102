"""The brokers of the tests leave nothing behind; that they lose nothing is seen by the kill tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = str(Path(__file__).parents[1])
ORPHANS = """
import sys
from kafka.kafka_cluster import KafkaCluster
cluster = KafkaCluster()
cluster.start()
print(cluster._brokers[1]._pid, cluster._directory, flush=True)
sys.stdin.read()
"""


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
