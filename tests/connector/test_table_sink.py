"""Rows are written once, with the epoch they belong to, whenever the process dies."""

import functools
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from connector.sink_sweep import RECORDS, prepare, read_table, restore_and_finish
from recovery.running import recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage.connector.row_buffer import Spill
from sage.connector.sink_error import SinkError
from sage.connector.table_sink import TableSink
from sage.testing import StandaloneContext
from sage.testing.sink_conformance import check_sink


def take_checkpoint(env):
    return env.job._job.checkpoint()


def make_table(path, columns="number text"):
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"create table numbers ({columns})")
    return functools.partial(sqlite3.connect, path)


def read(connect, statement="select * from numbers order by rowid"):
    with closing(connect()) as database:
        return database.execute(statement).fetchall()


def write_and_commit(writer, batch, number=1):
    writer.write_batch(batch)
    committable = writer.prepare_commit(number)
    writer.commit(committable)
    return committable


def write_all(sink, *batches):
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        for number, batch in enumerate(batches, 1):
            write_and_commit(writer, batch, number)


@pytest.mark.parametrize("above_bytes", [None, 0, 30])
def test_the_sink_conforms(tmp_path, above_bytes):
    counted = iter(range(1000))
    spilled = tmp_path / "spilled"

    def make_sink():
        connect = make_table(tmp_path / f"{next(counted)}.db")
        spill = None if above_bytes is None else Spill(str(spilled), above_bytes)
        return TableSink(connect, "numbers", columns=["number"], spill=spill)

    def read_back(sink):
        return [row[0] for row in read(sink.connect)]

    check_sink(make_sink, read_back)
    assert above_bytes is None or os.listdir(spilled) == []


def test_rows_come_in_the_order_in_which_they_were_written(tmp_path):
    connect = make_table(tmp_path / "out.db")
    spill = Spill(str(tmp_path / "spilled"), above_bytes=200)
    numbers = [str(number) for number in range(100)]
    write_all(TableSink(connect, "numbers", columns=["number"], spill=spill), numbers[:60])
    with closing(
        TableSink(connect, "numbers", columns=["number"], spill=spill).create_writer(
            StandaloneContext(), None
        )
    ) as writer:
        for number in numbers[60:]:
            writer.write_batch([number])
        writer.commit(writer.prepare_commit(1))
    assert [row[0] for row in read(connect)] == numbers


def test_dicts_lists_and_values_become_rows(tmp_path):
    connect = make_table(tmp_path / "out.db", "a, b")
    write_all(TableSink(connect, "numbers", columns=["b", "a"]), [{"a": 1, "b": 2, "c": 3}, (4, 5)])
    assert read(connect) == [(1, 2), (5, 4)]


def test_a_record_is_taken_as_it_is_when_it_is_written(tmp_path):
    connect = make_table(tmp_path / "out.db")
    record = ["before"]
    with closing(
        TableSink(connect, "numbers", columns=["number"]).create_writer(StandaloneContext(), None)
    ) as writer:
        writer.write_batch([record])
        record[0] = "after"
        writer.commit(writer.prepare_commit(1))
    assert read(connect) == [("before",)]


def test_a_statement_makes_an_upsert(tmp_path):
    connect = make_table(tmp_path / "out.db", "name text primary key, total integer")
    statement = (
        "insert into numbers values (:name, :total) "
        "on conflict (name) do update set total = excluded.total"
    )
    sink = TableSink(connect, statement=statement)
    write_all(
        sink, [{"name": "a", "total": 1}, {"name": "b", "total": 2}], [{"name": "a", "total": 9}]
    )
    assert read(connect, "select * from numbers order by name") == [("a", 9), ("b", 2)]


def test_one_row_per_run_tells_the_last_epoch(tmp_path):
    connect = make_table(tmp_path / "out.db")
    write_all(TableSink(connect, "numbers", columns=["number"]), ["a"], ["b"], ["c"])
    notes = read(connect, "select job, sink, subtask, epoch from sage_commits")
    assert notes == [("test", "test", 0, 3)]


def test_a_row_that_the_database_refuses_undoes_the_epoch(tmp_path):
    connect = make_table(tmp_path / "out.db", "number text not null")
    sink = TableSink(connect, "numbers", columns=["number"])
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch(["a", None])
        committable = writer.prepare_commit(1)
        with pytest.raises(sqlite3.IntegrityError):
            writer.commit(committable)
        assert read(connect) == []
        assert read(connect, "select * from sage_commits") == []


def test_somebody_else_who_writes_the_same_epoch_is_noticed(tmp_path):
    connect = make_table(tmp_path / "out.db")
    sink = TableSink(connect, "numbers", columns=["number"])
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        write_and_commit(writer, ["a"])
        writer.write_batch(["b"])
        committable = writer.prepare_commit(2)

    def interfere(operation, path):
        if operation == "note":
            with closing(sink.create_writer(StandaloneContext(), None)) as other:
                other.commit(committable)

    with closing(sink.create_writer(StandaloneContext(), None, step=interfere)) as late:
        with pytest.raises(SinkError, match="is being written by somebody else"):
            late.commit(committable)
    assert read(connect) == [("a",), ("b",)]


def test_a_job_that_fails_and_goes_on_writes_each_row_once(tmp_path):
    connect = make_table(tmp_path / "out.db", "number integer")
    script = [0, Fail(), 1, 2, Checkpoint(), 3, Fail(), 4, Checkpoint(), Checkpoint(), 5, 6, Fail()]
    script += [*range(7, 2500), Fail(), Checkpoint(), *range(2500, 3000)]
    env = recovering(tmp_path / "checkpoints")
    source = ScriptedSource(script, lambda: take_checkpoint(env))
    env.from_source(source).sink(TableSink(connect, "numbers", columns=["number"]))
    env.execute(progress=False)
    assert [row[0] for row in read(connect)] == [*range(3000)]
    assert len(read(connect, "select * from sage_commits")) > 1


def test_killed_before_every_step_each_row_is_there_once(tmp_path):
    script = Path(__file__).with_name("sink_sweep.py")
    swept = subprocess.run(
        [sys.executable, str(script), "table", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    steps = int(swept.stdout)
    assert steps > 25
    for step in range(steps + 1):
        restore_and_finish("table", tmp_path / str(step))
        assert read_table(tmp_path / str(step)) == RECORDS
        assert os.listdir(tmp_path / str(step) / "out") == []


# ---- faults


def commits_by_itself(path):
    return sqlite3.connect(path, isolation_level=None)


def test_a_connection_without_transactions_is_refused(tmp_path):
    make_table(tmp_path / "out.db")
    connect = functools.partial(commits_by_itself, tmp_path / "out.db")
    with pytest.raises(SinkError, match="turn its autocommit off"):
        TableSink(connect, "numbers", columns=["number"]).create_writer(StandaloneContext(), None)
    assert read(connect, "select * from sage_commits") == []


def test_a_database_that_cannot_be_reached_is_told(tmp_path):
    connect = functools.partial(sqlite3.connect, tmp_path / "missing" / "out.db")
    with pytest.raises(sqlite3.OperationalError):
        TableSink(connect, "numbers", columns=["number"]).create_writer(StandaloneContext(), None)


def test_rows_that_are_gone_or_damaged_are_told(tmp_path):
    prepare("table", tmp_path / "place")
    connect = functools.partial(sqlite3.connect, tmp_path / "place" / "out.db")
    spill = Spill(str(tmp_path / "spilled"), above_bytes=0)
    sink = TableSink(connect, "numbers", columns=["number"], spill=spill)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch(["a"])
        committable = writer.prepare_commit(1)
        path = tmp_path / "spilled" / committable["file"]
        whole = path.read_bytes()
        for damaged in (whole[:5], whole[:-1], whole[:-1] + b"x"):
            path.write_bytes(damaged)
            with pytest.raises(SinkError, match="is damaged"):
                writer.commit(committable)
        path.unlink()
        with pytest.raises(SinkError, match="cannot read the rows of a checkpoint"):
            writer.commit(committable)
        assert read(connect) == []


@pytest.mark.parametrize(
    ("record", "message"),
    [({"other": 1}, "there is no column 'number'"), ((1, 2), "needs 1 values")],
)
def test_a_record_that_does_not_fit_is_told(tmp_path, record, message):
    sink = TableSink(make_table(tmp_path / "out.db"), "numbers", columns=["number"])
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match=message):
            writer.write_batch([record])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a table with its columns, or a statement"),
        ({"table": "t", "statement": "s"}, "a table with its columns, or a statement"),
        ({"table": "t"}, "name the columns"),
        ({"table": "t", "columns": "id"}, "columns is a list"),
        ({"table": "t; drop", "columns": ["id"]}, "is not a plain name"),
        ({"table": "t", "columns": ["a-b"]}, "is not a plain name"),
        ({"table": "t", "columns": ["a"], "paramstyle": "?"}, "paramstyle is one of"),
    ],
)
def test_odd_settings_are_told_at_once(arguments, message):
    with pytest.raises(SinkError, match=message):
        TableSink(sqlite3.connect, **arguments)


class Wrapped:
    """A connection whose driver cannot be told from its class, as those of a pool are."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def test_a_wrapped_connection_works_once_its_marks_are_known(tmp_path):
    plain = make_table(tmp_path / "out.db")
    connect = functools.partial(Wrapped, tmp_path / "out.db")
    with pytest.raises(SinkError, match="Say paramstyle"):
        write_all(TableSink(connect, "numbers", columns=["number"]))
    write_all(TableSink(connect, "numbers", columns=["number"], paramstyle="qmark"), ["a"])
    assert read(plain) == [("a",)]
