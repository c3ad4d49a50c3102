"""A job that is run in a process of its own, to be killed.

    python -m recovery.killed_job DIRECTORY            # once
    python -m recovery.killed_job DIRECTORY --steps 4  # killed before every fourth step

It reads numbers, counts them in windows by key, and writes what comes out below DIRECTORY, exactly
once. With `--steps` a shorter job is run in DIRECTORY/0, killed before its first operation on the
files of checkpoints or sinks; in DIRECTORY/4 before its fifth; and so on, until one is not killed.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from sage import LocalEnvironment, session_window, tumbling_time_window
from sage.connector import work_files
from sage.connector.file_sink import FileSink
from sage.kernel.checkpoint import store
from sage.kernel.checkpoint.durable_files import DurableFiles
from sage.testing import TestSource

RECORDS = 4000
SHORT = 200
BATCH = 20
KEYS = 7


def numbers(count):
    """Give numbers, and the job time to be killed in."""
    for n in range(count):
        if n % BATCH == 0:
            yield TestSource.PAUSE(0.004)
        yield n


def key_of(n):
    return n * n % KEYS


def seconds(n):
    return (n - n % 13) * 1000  # out of order, and some of them late


def run(directory, *, records=RECORDS, interval=0.01, **options):
    """Run the job to its end, from the latest checkpoint on."""
    env = LocalEnvironment("killed")
    if interval is not None:
        env.enable_checkpointing(interval, directory / "checkpoints", **options)
        env.set_restart_strategy("none")
    source = TestSource(numbers(records), BATCH)
    keyed = (
        env.from_source(source, name="numbers")
        .assign_timestamps(seconds, max_out_of_orderness=5)
        .key_by(key_of)
    )
    keyed.sum().sink(FileSink(directory / "sums"), name="to sums")
    windows = keyed.window(tumbling_time_window(seconds=50)).count()
    windows.sink(FileSink(directory / "windows"), name="to windows")
    keyed.window(session_window(20)).sum().sink(
        FileSink(directory / "sessions"), name="to sessions"
    )
    env.execute(progress=False)


def outputs(directory):
    """Return what is visible, in the order in which it was committed."""
    return {name: _lines(directory / name) for name in ("sums", "windows", "sessions")}


def _lines(directory):
    files = sorted(directory.glob("part-*"))
    return [line for file in files for line in file.read_text().splitlines()]


def hidden(directory):
    """Return the files that are not for anybody to see."""
    return [path.name for path in directory.rglob(".*")]


def run_and_die(directory, at):
    """Run a short job in a child that is killed before operation `at`; say whether it was."""
    child = os.fork()
    if child == 0:
        counted = itertools.count()

        def look(operation, path):
            if next(counted) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        class Watched(DurableFiles):
            def __init__(self, step=None):
                super().__init__(look)

        store.DurableFiles = work_files.DurableFiles = Watched
        run(directory, records=SHORT, interval=0.025)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(arguments):
    """Run, once or again and again."""
    directory = Path(arguments[0])
    print("running", flush=True)
    if len(arguments) == 1:
        run(directory)
    else:
        steps = itertools.count(0, int(arguments[2]))
        print(next(step for step in steps if not run_and_die(directory / str(step), step)))


if __name__ == "__main__":
    main(sys.argv[1:])
