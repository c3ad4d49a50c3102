"""A job that is run in a process of its own, to be killed.

    python -m recovery.killed_job DIRECTORY            # once
    python -m recovery.killed_job DIRECTORY --steps 4  # killed before every fourth step
    python -m recovery.killed_job DIRECTORY --formats  # into files of many kinds

It reads numbers, counts them in windows by key, and writes what comes out below DIRECTORY, exactly
once: as text, or as compressed files that roll, in directories by key, and as Parquet. With
`--steps` a shorter job is run in DIRECTORY/0, killed before its first operation on the files of
checkpoints or sinks; in DIRECTORY/4 before its fifth; and so on, until one is not killed.
"""

import argparse
import itertools
import json
import os
import signal
from pathlib import Path

from sage import LocalEnvironment, session_window, tumbling_time_window
from sage.connector import work_directory
from sage.connector.file import TextFileSource
from sage.connector.file_sink import FileSink
from sage.connector.parquet_source import ParquetSource
from sage.kernel.checkpoint import store
from sage.kernel.checkpoint.durable_files import DurableFiles
from sage.testing import TestSource, read_all

RECORDS = 4000
SHORT = 200
BATCH = 20
KEYS = 7
NAMES = ("sums", "windows", "sessions")


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


def text_sinks(directory):
    """Return the sinks of lines of text."""
    return [FileSink(directory / name) for name in NAMES]


def format_sinks(directory):
    """Return sinks of files of many kinds."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.int64()) for name in ("key", "start", "end", "value")])
    few = {"partition_by": "key", "max_open_files": 3}
    return [
        FileSink(
            directory / "sums",
            compression="gzip",
            partition_by=last_digit,
            roll_bytes=500,
            roll_on_checkpoint=False,
            max_open_files=3,
        ),
        FileSink(directory / "windows", "jsonl", compression="zstd", roll_interval=0.02, **few),
        FileSink(directory / "sessions", "parquet", schema=schema, **few),
    ]


def last_digit(pair):
    return f"digit={pair[1] % 10}"


def run(directory, *, records=RECORDS, interval=0.01, sinks=text_sinks, **options):
    """Run the job to its end, from the latest checkpoint on."""
    sums, in_windows, sessions = sinks(directory)
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
    keyed.sum().sink(sums, name="to sums")
    windows = keyed.window(tumbling_time_window(seconds=50)).count()
    windows.sink(in_windows, name="to windows")
    keyed.window(session_window(20)).sum().sink(sessions, name="to sessions")
    env.execute(progress=False)


def outputs(directory):
    """Return what is visible, as text; that of one directory in the order it was committed in."""
    return {name: _lines(directory / name) for name in NAMES}


def _lines(directory):
    return [line for file in sorted(directory.glob("**/part-*")) for line in _read(file)]


def _read(file):
    if file.suffix == ".parquet":
        return [str(tuple(row.values())) for row in read_all(ParquetSource(file))]
    lines = read_all(TextFileSource(file))
    if ".jsonl" in file.suffixes:
        return [str(tuple(json.loads(line))) for line in lines]
    return lines


def hidden(directory):
    """Return the files that are not for anybody to see."""
    return [path.name for path in directory.rglob(".*")]


def run_and_die(directory, at, sinks):
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

        store.DurableFiles = work_directory.DurableFiles = Watched
        run(directory, records=SHORT, interval=0.025, sinks=sinks)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main():
    """Run, once or again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--formats", action="store_true")
    options = parser.parse_args()
    directory, sinks = options.directory, format_sinks if options.formats else text_sinks
    print("running", flush=True)
    if options.steps is None:
        run(directory, sinks=sinks)
    else:  # what is loaded on the way is so once, not in every child
        run(directory / "warm", records=SHORT, interval=None, sinks=sinks)
        steps = itertools.count(0, options.steps)
        at = (step for step in steps if not run_and_die(directory / str(step), step, sinks))
        print(next(at))


if __name__ == "__main__":
    main()
