"""Kills a job again and again until it is done, and compares what it has put out.

    python -m recovery.kill_sweep --rounds 20
    python -m recovery.kill_sweep --rounds 20 --formats

Each round is a job that goes on after every kill; it prints how many kills there were. With
`--formats` it writes compressed files that roll, in directories by key, and Parquet.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from patience import PATIENCE
from recovery.killed_job import format_sinks, hidden, outputs, run, text_sinks

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for
TESTS = str(Path(__file__).parents[1])


def start(directory, *arguments):
    """Start the job in a process of its own."""
    path = os.pathsep.join([TESTS, *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-m", "recovery.killed_job", str(directory), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_until_done(directory, chance, *arguments):
    """Run the job, killing it after a while, until a run comes to its end; return how many died.

    How long a run may live grows, so that there is an end to it.
    """
    kills, life = 0, 0.2
    while True:
        with start(directory, *arguments) as process:
            assert process.stdout.readline() == "running\n"
            try:
                _, errors = process.communicate(timeout=chance.uniform(0, life))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate(timeout=PATIENCE)
                kills, life = kills + 1, min(life * 1.1, PATIENCE)
                if is_over(directory):
                    return kills
                continue
        assert process.returncode == 0, errors
        return kills


def is_over(directory):
    """Say whether the job was done before it was killed: it has output, but no checkpoints."""
    kept = list((directory / "checkpoints").rglob("metadata.json"))
    return not kept and any(outputs(directory).values())


def undisturbed(directory, sinks=text_sinks):
    """Return what the job puts out if nobody kills it."""
    run(directory, interval=None, sinks=sinks)
    return outputs(directory)


def sweep(rounds, seed, *, formats=False):
    """Do so many rounds; return how many kills there were."""
    chance, kills = random.Random(seed), 0
    sinks, arguments = (format_sinks, ["--formats"]) if formats else (text_sinks, [])
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        expected = undisturbed(Path(folder, "undisturbed"), sinks)
        for number in range(rounds):
            directory = Path(folder, str(number))
            directory.mkdir()
            kills += kill_until_done(directory, chance, *arguments)
            check(directory, expected)
    return kills


def check(directory, expected):
    """Demand that a job has put out what it should, and left nothing for anybody to go on from."""
    for name, lines in outputs(directory).items():
        found, wanted = Counter(lines), Counter(expected[name])
        assert found == wanted, f"{name}: lost {wanted - found}, doubled {found - wanted}"
    assert hidden(directory) == []
    assert not list(directory.rglob("metadata.json"))


def main():
    """Read the arguments and sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--formats", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    kills = sweep(options.rounds, options.seed, formats=options.formats)
    print(f"{kills} kills in {options.rounds} rounds")


if __name__ == "__main__":
    main()
