"""Kills a job that watches a directory, again and again, while files keep appearing.

    python -m recovery.watch_kills --rounds 10 --kills 20 --parallelism 2

Each record of each file must be committed once, and nothing be left over when the job is stopped. It
prints how many kills there were. `watch_kills.py run DIRECTORY PARALLELISM` is the job itself: it runs
until there is a line on its standard input, or nobody any more who could write one.
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
from collections import Counter
from pathlib import Path

from patience import PATIENCE
from sage import LocalEnvironment
from sage.connector.file import TextFileSource
from sage.testing import read_all

TESTS = str(Path(__file__).parents[1])


def run(directory: Path, parallelism: int) -> None:
    """Run the job until told to stop."""
    env = LocalEnvironment("watched", {"parallelism": parallelism})
    env.enable_checkpointing(0.02, directory / "checkpoints")
    env.set_restart_strategy("none")
    numbers = env.from_jsonl(directory / "in", watch=0.01, uid="numbers")
    numbers.to_files(
        directory / "out",
        compression="zstd",
        partition_by=lambda record: f"file={record['file'] % 5}",
        max_open_files=2,
        uid="out",
    )
    env.submit()
    print("running", flush=True)
    sys.stdin.readline()
    assert env.job is not None
    answer = env.job.stop(PATIENCE)
    assert answer["status"] == "success", answer


def start(directory: Path, parallelism: int) -> subprocess.Popen[str]:
    """Start the job in a process of its own."""
    path = os.pathsep.join([TESTS, *filter(None, sys.path)])
    job = subprocess.Popen(
        [sys.executable, __file__, "run", str(directory), str(parallelism)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "running\n"
    return job


def put(directory: Path, number: int, records: int) -> None:
    """Let a file appear, whole."""
    draft = directory / f".{number}"
    lines = (json.dumps({"file": number, "line": line}) + "\n" for line in range(records))
    draft.write_text("".join(lines))
    draft.rename(directory / f"{number}.jsonl")


def committed(directory: Path) -> Counter[tuple[int, int]]:
    """Return how often each record is there."""
    paths = list((directory / "out").glob("file=*/part-*"))
    records = map(json.loads, read_all(TextFileSource(paths)) if paths else [])
    return Counter((record["file"], record["line"]) for record in records)


def one_round(directory: Path, chance: random.Random, kills: int, parallelism: int) -> None:
    """Kill the job so many times, then let it come to an end, and look at what it has committed."""
    place, files, records = directory / "in", 0, 200
    place.mkdir(parents=True)
    for _ in range(kills):
        with start(directory, parallelism) as job:
            for _ in range(chance.randint(1, 4)):
                put(place, files, records)
                files += 1
                time.sleep(chance.uniform(0, 0.15))
            job.send_signal(signal.SIGKILL)
    expected = Counter((file, line) for file in range(files) for line in range(records))
    with start(directory, parallelism) as job:
        deadline = time.monotonic() + PATIENCE
        while committed(directory).total() < len(expected) and time.monotonic() < deadline:
            time.sleep(0.05)
        job.communicate("stop\n", timeout=PATIENCE)
    assert job.returncode == 0
    found = committed(directory)
    assert found == expected, f"lost {expected - found}, doubled {found - expected}"
    assert [path.name for path in (directory / "out").rglob(".*")] == []


def main() -> None:
    """Read the arguments, and run or kill."""
    if sys.argv[1:2] == ["run"]:
        run(Path(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            one_round(Path(folder, str(number)), chance, options.kills, options.parallelism)
    print(f"{options.rounds * options.kills} kills in {options.rounds} rounds, each record once")


if __name__ == "__main__":
    main()
