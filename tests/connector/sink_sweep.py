"""A process that writes to a two-phase sink, killed before every single step, one by one.

    python sink_sweep.py files|partitioned|growing|parquet|table DIRECTORY [STRIDE]

For each step, or every so many, a fresh process works in DIRECTORY/<number of the step>; the last one
is not killed. It prints how many there were. What stands for a checkpoint is a file that is written
whole: the number of records it covers, the writer's state, and what is to be committed.
"""

import functools
import os
import pickle
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from sage.connector.file import TextFileSource
from sage.connector.file_sink import FileSink
from sage.connector.parquet_source import ParquetSource
from sage.connector.row_buffer import Spill
from sage.connector.table_sink import TableSink
from sage.testing import StandaloneContext, read_all

RECORDS = [str(number) for number in range(8)]
EVERY = 4


def make_sink(kind, place):
    if kind == "files":
        return FileSink(place / "out", roll_bytes=4)
    if kind == "partitioned":
        return FileSink(
            place / "out", compression="zstd", partition_by=half, max_open_files=1, roll_bytes=60
        )
    if kind == "growing":
        return FileSink(
            place / "out", compression="gzip", partition_by=half, max_open_files=1,
            roll_bytes=70, roll_on_checkpoint=False,
        )  # fmt: skip
    if kind == "parquet":
        return FileSink(place / "out", "parquet", partition_by=half_of_row, max_open_files=1)
    connect = functools.partial(sqlite3.connect, place / "out.db")
    spill = Spill(str(place / "out"), above_bytes=20)
    return TableSink(connect, "numbers", columns=["number"], spill=spill)


def half(record):
    return f"half={int(record) % 2}"


def half_of_row(row):
    return half(row["n"])


def records_of(kind):
    return [{"n": record} for record in RECORDS] if kind == "parquet" else RECORDS


def prepare(kind, place):
    place.mkdir()
    if kind == "table":
        with closing(sqlite3.connect(place / "out.db")) as database:
            database.execute("create table numbers (number text)")


def read_files(place):
    texts = [path.read_text() for path in sorted((place / "out").iterdir(), key=lambda p: p.name)]
    return "".join(texts).splitlines()


def read_parts(kind, place):
    """Return what is in the files of all directories, by number, as several have no order."""
    if kind == "parquet":
        paths = (place / "out").glob("*/part-*.parquet")
        found = [row["n"] for path in paths for row in read_all(ParquetSource(path))]
    else:
        paths = (place / "out").glob("*/part-*.txt.*")
        found = [line for path in paths for line in read_all(TextFileSource(path))]
    return sorted(found, key=int)


def read_table(place):
    with closing(sqlite3.connect(place / "out.db")) as database:
        return [row[0] for row in database.execute("select number from numbers order by rowid")]


def save(place, checkpoint):
    draft = place / "checkpoint.draft"
    draft.write_bytes(pickle.dumps(checkpoint))
    draft.rename(place / "checkpoint")


def run(kind, place, step=lambda operation, path: None):
    """Do what the runtime does: restore if there is a checkpoint, and go on to the end."""
    number, count, state, waiting = 0, 0, None, []
    if (place / "checkpoint").exists():
        number, count, state, waiting = pickle.loads((place / "checkpoint").read_bytes())
    context = StandaloneContext()
    with closing(make_sink(kind, place).create_writer(context, state, step=step)) as writer:
        for committable in waiting:
            writer.commit(committable)
        while count < len(RECORDS):
            for _ in range(2):
                writer.write_batch(records_of(kind)[count : count + EVERY // 2])
                count += EVERY // 2
            if count == len(RECORDS):
                writer.end_input()
            number += 1
            prepared = [c for c in [writer.prepare_commit(number)] if c is not None]
            step("save", place)
            save(place, (number, count, writer.snapshot(), prepared))
            step("saved", place)
            for committable in prepared:
                writer.commit(committable)
            step("end", place)


restore_and_finish = run


def run_and_die(kind, place, at):
    """Run in a child that is killed before step `at`; say whether it was."""
    prepare(kind, place)
    child = os.fork()
    if child == 0:
        counted = iter(range(10**9))

        def step(operation, path):
            if next(counted) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        run(kind, place, step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(kind, directory, stride):
    """Do the sweep."""
    prepare(kind, directory / "warm")
    run(kind, directory / "warm")  # what is imported on the way is so once, not in every child
    at = 0
    while run_and_die(kind, directory / str(at), at):
        at += stride
    print(at)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int([*sys.argv, "1"][3]))
