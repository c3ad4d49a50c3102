"""Files and tables when a job goes on with other subtasks: what was prepared is there once."""

import functools
import os
import sqlite3
from contextlib import closing

import pytest

from sage.connector.file_sink import FileSink
from sage.connector.row_buffer import Spill
from sage.connector.table_sink import TableSink
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.operator.batch_wise import WriteSink
from sage.kernel.jobmanager.redistribution import SavedState, Target, redistribute
from sage.kernel.runtime.task.restored_state import Uncommitted
from sage.testing import StandaloneContext

LAYOUTS = [(1, 3), (2, 3), (3, 1), (3, 2)]


def context(subtask, parallelism):
    return StandaloneContext(subtask_index=subtask, parallelism=parallelism)


def prepared(sink, parallelism):
    """Let each subtask prepare a record and crash; return what a checkpoint holds."""
    saved = []
    for subtask in range(parallelism):
        with closing(sink.create_writer(context(subtask, parallelism), None)) as writer:
            writer.write_batch([{"n": subtask}])
            waiting = {1: writer.prepare_commit(1)}
            saved.append(SavedState([{"writer": writer.snapshot(), "uncommitted": waiting}]))
    return saved


def go_on(sink, saved, parallelism):
    """Open the writers of another attempt, one after the other; return what they say at once."""
    node = StreamNode(1, WriteSink(sink=sink), (), "out", "out", parallelism, "fail")
    found = redistribute(saved, Target(node, parallelism), moved=True)
    writers = [
        sink.create_writer(context(subtask, parallelism), state.last("writer"))
        for subtask, state in enumerate(found)
    ]
    states = []
    for writer, state in zip(writers, found, strict=True):
        for waiting in state.uncommitted:
            Uncommitted(dict(waiting)).commit(writer, 1)
        states.append(writer.snapshot())
        writer.close()
    return states


def leave_files_behind(directory):
    """Let there be what writers were writing when they were killed: beside what was prepared, alone."""
    for hidden in list(directory.glob(".*.tmp")):
        dead = directory / f"{hidden.name.rsplit('-', 1)[0]}-{'0' * 32}.tmp"
        dead.mkdir()
        for path in (hidden / "1", dead / "0", dead / "lock"):
            path.write_text("half a record")


@pytest.mark.parametrize(("before", "now"), LAYOUTS)
def test_files_that_were_prepared_appear_once_and_leftovers_go(tmp_path, before, now):
    sink = FileSink(tmp_path, "csv")
    saved = prepared(sink, before)
    leave_files_behind(tmp_path)
    states = go_on(sink, saved, now)
    names = sorted(os.listdir(tmp_path))
    assert names == [f"part-{subtask}-0000000001-0.csv" for subtask in range(before)]
    numbers = [(tmp_path / name).read_text().split() for name in names]
    assert numbers == [["n", str(subtask)] for subtask in range(before)]
    assert states == [{"prepared": {}, "growing": [], "format": ("n",)}] * now
    again = go_on(sink, saved, now)  # the same checkpoint once more
    assert (again, sorted(os.listdir(tmp_path))) == (states, names)


def test_writers_without_state_begin_without_state(tmp_path):
    assert FileSink(tmp_path).redistribute([None, None], 3) == [None] * 3


@pytest.mark.parametrize(("before", "now"), LAYOUTS)
@pytest.mark.parametrize("above_bytes", [None, 0])
def test_rows_that_were_prepared_are_written_once(tmp_path, above_bytes, before, now):
    connect = functools.partial(sqlite3.connect, tmp_path / "numbers.db")
    with closing(connect()) as database:
        database.execute("create table numbers (n integer)")
    rows = tmp_path / "rows"
    spill = None if above_bytes is None else Spill(str(rows), above_bytes)
    sink = TableSink(connect, "numbers", columns=["n"], spill=spill)
    saved = prepared(sink, before)
    if spill is not None:
        leave_files_behind(rows)
    for _ in range(2):
        go_on(sink, saved, now)
        with closing(connect()) as database:
            found = database.execute("select n from numbers order by n").fetchall()
        assert found == [(subtask,) for subtask in range(before)]
    assert spill is None or not os.listdir(rows)
