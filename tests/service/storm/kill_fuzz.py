"""Random SIGKILLs among services, their replicas and the program that started them.

Each round starts a program (`storm_host`) with a service `front` that calls `back`, of which there
are two replicas, and threads that call both. Service processes are killed at random, and in some
rounds the program itself in the midst of it. Then:

* no call hangs, none has another's answer, each that brought a result was executed, none twice;
* whoever waits for a process that died is told within milliseconds;
* what was killed comes back and answers;
* the services of a killed program end by themselves, and what is left of it is stale;
* a program that ends in order leaves nothing in shared memory.

Run at length: `python -m service.storm.kill_fuzz --rounds N` with `tests` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE
from sage.kernel.transport.sage_queue import list_queues, remove_stale_queues

ORPHANS_END = 20.0
"""Seconds: five that they take at most, and what a busy machine adds."""
HANG = 120.0
FAILINGS = ("wrong", "hung", "lost", "doubled")


@dataclass
class Tally:
    """What the rounds so far have seen; `orphans` are seconds until a killed program's have ended."""

    rounds: int = 0
    kills: int = 0
    host_kills: int = 0
    calls: int = 0
    acknowledged: int = 0
    unavailable: int = 0
    told: list[float] = field(default_factory=list)
    orphans: list[float] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def add(self, report):
        """Add what a program has told."""
        self.rounds += 1
        for name in ("kills", "calls", "acknowledged", "unavailable", "told", "late"):
            setattr(self, name, getattr(self, name) + report[name])

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.kills} service processes and {self.host_kills} programs "
            f"killed; {self.calls} calls, {self.acknowledged} acknowledged, {self.unavailable} "
            f"unavailable, 0 wrong, hung, lost or doubled; told after {_quantiles(self.told)}, "
            f"{len(self.late)} later than 0.1 s; orphans ended after {_quantiles(self.orphans)}"
        )


def _quantiles(seconds):
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    parts = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    of = {name: ordered[round((len(ordered) - 1) * part)] for name, part in parts.items()}
    return ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in of.items())


def run_round(seed, kills, pause, tally):
    """Run a program to its end; what it did follows from the seed, but for the timing."""
    with (
        tempfile.TemporaryDirectory(prefix="sage-storm-") as directory,
        start(seed, kills, pause, directory) as host,
    ):
        try:
            output, _ = host.communicate(timeout=HANG + kills)
        except subprocess.TimeoutExpired:
            host.kill()
            raise AssertionError(f"seed {seed}: the program hangs") from None
        assert host.returncode == 0, f"seed {seed}: exit code {host.returncode}"
    report = json.loads(output.splitlines()[-1])
    for name in FAILINGS:
        assert not report[name], f"seed {seed}: {name}: {report[name][:10]}"
    assert list_queues() == [], f"seed {seed}: left behind: {list_queues()}"
    tally.add(report)


def run_killed_round(seed, kills, pause, tally):
    """Kill the program itself in the midst of its calls."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sage-storm-") as directory:
        with start(seed, 1_000_000, pause, directory) as host:
            assert host.stdout.readline() == b"ready\n", f"seed {seed}: it did not start"
            time.sleep(dice.uniform(0, 3))
            host.send_signal(signal.SIGSTOP)  # it starts no more while its children are counted
            os.waitid(os.P_PID, host.pid, os.WSTOPPED | os.WNOWAIT)
            children = children_of(host.pid)
            host.kill()
            killed = time.monotonic()
        wait_ended(seed, children, killed)
    tally.rounds += 1
    tally.host_kills += 1
    tally.orphans.append(time.monotonic() - killed)
    # A process that counts as ended may have threads yet to end, which still hold its files.
    while remove_stale_queues() is not None and (left := list_queues()):
        assert time.monotonic() - killed < ORPHANS_END, f"seed {seed}: left behind: {left}"


def start(seed, kills, pause, directory):
    """Start the program."""
    order = {"seed": seed, "kills": kills, "book": f"{directory}/book", "pause": pause}
    code = [sys.executable, "-m", "service.storm.storm_host", json.dumps(order)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with open(f"{directory}/log", "wb") as log:
        return subprocess.Popen(code, stdout=subprocess.PIPE, stderr=log, env=environment)


def children_of(pid):
    """Return the processes that a process has started."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return found


def wait_ended(seed, pids, since):
    """Wait until none of the processes lives: as a zombie of whoever inherits it, it does not."""
    for pid in pids:
        while lives(pid):
            assert time.monotonic() - since < ORPHANS_END, f"seed {seed}: {pid} lives on"
            time.sleep(0.005)


def lives(pid):
    """Say whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def fuzz(first, rounds, kills, pause):
    """Run rounds, the program itself being killed in every fourth; return what they have seen."""
    tally = Tally()
    for seed in range(first, first + rounds):
        # Sometimes most are down, sometimes most are busy.
        mean = pause * 4 ** random.Random(seed).uniform(-1, 1)
        (run_killed_round if seed % 4 == 3 else run_round)(seed, kills, mean, tally)
        print(f"seed {seed}: {tally}", flush=True)
    return tally


def main():
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=50, help="kills per round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.15, help="mean seconds between kills")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        tally = fuzz(options.seed, options.rounds, options.kills, options.pause)
    print("\n".join(tally.late))
    print(f"{time.monotonic() - began:.1f} s: {tally}")


if __name__ == "__main__":
    main()
