"""`TableSink`: records become rows of a database, each exactly once.

The rows of an epoch, that is, between two checkpoints, are kept aside and written in one
transaction, together with a note in the table `sage_commits` that says so. A commit that finds its
note does nothing. How rows are kept until then is in `row_buffer`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from sage.common.ids import new_uuid
from sage.common.suggest import shorten
from sage.connector.row_buffer import (
    RowBuffer,
    Spill,
    kept_by_all,
    open_spill,
    read_rows,
    spilled,
)
from sage.connector.sink_error import SinkError
from sage.connector.work_directory import WorkDirectory
from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, TwoPhaseWriter
from sage.kernel.checkpoint.durable_files import Step, no_step

COMMITS_TABLE: Final = "sage_commits"

_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MARKS: Final[Mapping[str, Callable[[int], str]]] = {
    "qmark": lambda index: "?",
    "format": lambda index: "%s",
    "pyformat": lambda index: "%s",
    "numeric": lambda index: f":{index}",
    "named": lambda index: f":{index}",  # such drivers take a sequence as well
}
_PROBE: Final = -1


class TableSink(Sink[Any]):
    """Writes rows into a table of any database that has a DB-API driver.

    The rows become visible with the checkpoint that covers them, all rows of a subtask at once;
    without checkpoints, at the end of the input. A record is a dict, of which `columns` are taken,
    or a list or tuple with the values in order; anything else is the only value of its row.

    Which epochs have been written is noted in the table `sage_commits` of the same database; it is
    made if it is not there. It has one row per run of a subtask. A run's row may be deleted when
    none of its checkpoints and savepoints will be restored any more.

    Args:
        connect: Returns a new connection, one with transactions; called in the worker, for each
            commit. It is pickled: `functools.partial(sqlite3.connect, "out.db")`, or a function.
        table: The table; rows are inserted.
        columns: Its columns, in the order of the values.
        statement: Instead of `table`, the statement for a row, with the driver's placeholders. With
            `columns`, the values come in that order; without, a dict is handed over as it is. One
            that updates a row that is there (`insert … on conflict … do update`) makes an upsert.
        spill: Where rows go that are too many for the memory. Without it, the rows of an epoch are
            in memory, and in the checkpoint.
        paramstyle: How the driver marks parameters (PEP 249), when it cannot be found out.

    Raises:
        SinkError: the settings do not make a statement.

    Examples:
        >>> import sqlite3, tempfile, functools
        >>> from sage.testing import StandaloneContext
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     connect = functools.partial(sqlite3.connect, f"{folder}/trips.db")
        ...     database = connect()
        ...     _ = database.execute("create table trips (origin text, miles integer)")
        ...     sink = TableSink(connect, "trips", columns=["origin", "miles"])
        ...     writer = sink.create_writer(StandaloneContext(), None)
        ...     writer.write_batch([{"origin": "JFK", "miles": 2475}])
        ...     writer.commit(writer.prepare_commit(1))
        ...     writer.close()
        ...     rows = database.execute("select * from trips").fetchall()
        ...     database.close()
        >>> rows
        [('JFK', 2475)]
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        table: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        statement: str | None = None,
        spill: Spill | None = None,
        paramstyle: str | None = None,
    ) -> None:
        if not callable(connect):
            raise SinkError(f"connect is a function that returns a connection, not {connect!r}")
        if (table is None) == (statement is None):
            raise SinkError("a TableSink needs a table with its columns, or a statement")
        if table is not None and not columns:
            raise SinkError("name the columns of the table: columns=['id', 'name']")
        if isinstance(columns, str):
            raise SinkError(f"columns is a list of names, not {columns!r}")
        for name in () if table is None else (table, *(columns or ())):
            if not _NAME.fullmatch(name):
                raise SinkError(f"{name!r} is not a plain name; write the statement= for it")
        if paramstyle is not None and paramstyle not in _MARKS:
            raise SinkError(f"paramstyle is one of {', '.join(_MARKS)}, not {paramstyle!r}")
        self.connect = connect
        self.table = table
        self.columns = None if columns is None else tuple(columns)
        self.statement = statement
        self.spill = spill
        self.paramstyle = paramstyle

    def create_writer(
        self, context: RuntimeContext, state: Any, *, step: Step = no_step
    ) -> TwoPhaseWriter[Any]:
        """Connect, look whether there are transactions, and open a writer.

        Args:
            context: Tells the job, the operator and the subtask.
            state: What `snapshot` returned; `None` at the first start.
            step: Is called before each operation, for tests that end the process there.

        Raises:
            SinkError: the database keeps what is rolled back, or its driver is unknown.
            Exception: what the driver raises when it cannot connect.
        """
        run = (context.job_name, context.operator_name, context.subtask_index, new_uuid())
        database = Database(self, step)
        database.prepare(run)
        files = open_spill(self.spill, context, state, step)
        prepared = () if state is None else state["prepared"]
        return TableWriter(self, database, files, run, prepared)

    def redistribute(self, states: Sequence[Any], parallelism: int) -> Sequence[Any]:
        """Let all know the files of rows that one of them commits, so that nobody removes them."""
        return [{"prepared": [], "kept": kept_by_all(states)}] * parallelism

    def row(self, record: Any) -> Any:
        """Return the parameters of the statement for `record`.

        Raises:
            SinkError: a column is missing, or there are too many or too few values.
        """
        if isinstance(record, Mapping):
            if self.columns is None:
                return dict(record)
            try:
                return tuple([record[name] for name in self.columns])
            except KeyError as error:
                raise SinkError(f"there is no column {error} in {shorten(record)}") from None
        row = tuple(record) if isinstance(record, (list, tuple)) else (record,)
        if self.columns is not None and len(row) != len(self.columns):
            raise SinkError(
                f"a row of {list(self.columns)} needs {len(self.columns)} values; the record is "
                f"{shorten(record)}"
            )
        return row


Run = tuple[str, str, int, str]
"""Job, operator, subtask, and a random name: what the epochs are counted for."""


class Database:
    """The few transactions of a `TableSink`, each on a connection of its own.

    A connection that idles between two checkpoints would be cut off by many a server.
    """

    def __init__(self, sink: TableSink, step: Step) -> None:
        self._sink = sink
        self._step = step

    def prepare(self, run: Run) -> None:
        """Make the table of commits, and see that what is rolled back is gone.

        Raises:
            SinkError: it is not.
        """
        with closing(self._sink.connect()) as connection:
            self._make_table(connection)
            self._note(connection, run, None, _PROBE)
            connection.rollback()
            if self._epoch(connection, run) is not None:
                where = f"WHERE run = {self._mark(connection, 1)}"
                self._execute(connection, f"DELETE FROM {COMMITS_TABLE} {where}", run[3:])  # noqa: S608 - a constant
                raise SinkError(
                    "the connection commits by itself, so rows and their epoch cannot be written "
                    "together: turn its autocommit off, or use a table with transactions"
                )
            connection.rollback()

    def _make_table(self, connection: Any) -> None:
        probe = f"SELECT epoch FROM {COMMITS_TABLE} WHERE 1 = 0"  # noqa: S608 - a constant
        try:
            self._execute(connection, probe)
        except Exception:  # noqa: BLE001 - each driver has its own errors; the second look tells
            connection.rollback()
            with suppress(Exception):  # another subtask may be quicker
                self._execute(
                    connection,
                    f"CREATE TABLE {COMMITS_TABLE} (job VARCHAR(200) NOT NULL, sink VARCHAR(200) "
                    "NOT NULL, subtask INTEGER NOT NULL, run VARCHAR(32) NOT NULL PRIMARY KEY, "
                    "epoch BIGINT NOT NULL)",
                )
                connection.commit()
            connection.rollback()
            self._execute(connection, probe)
        connection.rollback()

    def write(self, run: Run, epoch: int, blocks: Sequence[bytes], path: Path | None) -> None:
        """Write the rows of an epoch, unless they have been written.

        Raises:
            SinkError: somebody else writes it, or the rows cannot be read.
            Exception: what the driver raises; nothing has been written then, or all of it.
        """
        with closing(self._sink.connect()) as connection:
            try:
                self._write(connection, run, epoch, read_rows(blocks, path))
            except BaseException:
                with suppress(
                    Exception
                ):  # the connection may be gone; the error being told is first
                    connection.rollback()
                raise

    def _write(self, connection: Any, run: Run, epoch: int, rows: Any) -> None:
        self._step("look", Path(COMMITS_TABLE))
        before = self._epoch(connection, run)
        if before is not None and before >= epoch:
            return
        self._step("note", Path(COMMITS_TABLE))
        self._note(connection, run, before, epoch)
        statement = self._statement(connection)
        with closing(connection.cursor()) as cursor:
            for block in rows:
                self._step("rows", Path(COMMITS_TABLE))
                cursor.executemany(statement, block)
        self._step("commit", Path(COMMITS_TABLE))
        connection.commit()
        self._step("committed", Path(COMMITS_TABLE))

    def _epoch(self, connection: Any, run: Run) -> int | None:
        statement = f"SELECT epoch FROM {COMMITS_TABLE} WHERE run = {self._mark(connection, 1)}"  # noqa: S608 - a constant
        with closing(connection.cursor()) as cursor:
            cursor.execute(statement, run[3:])
            found = cursor.fetchone()
        return None if found is None else int(found[0])

    def _note(self, connection: Any, run: Run, before: int | None, epoch: int) -> None:
        marks = [self._mark(connection, index) for index in range(1, 6)]
        if before is None:
            insert = f"INSERT INTO {COMMITS_TABLE} (job, sink, subtask, run, epoch)"
            self._execute(connection, f"{insert} VALUES ({', '.join(marks)})", (*run, epoch))
            return
        update = f"UPDATE {COMMITS_TABLE} SET epoch = {marks[0]}"  # noqa: S608 - a constant
        where = f"WHERE run = {marks[1]} AND epoch = {marks[2]}"
        changed = self._execute(connection, f"{update} {where}", (epoch, run[3], before))
        if changed != 1:
            raise SinkError(f"epoch {epoch} of run {run[3]} is being written by somebody else")

    def _statement(self, connection: Any) -> str:
        sink = self._sink
        if sink.statement is not None:
            return sink.statement
        columns = sink.columns or ()
        marks = ", ".join(self._mark(connection, index + 1) for index in range(len(columns)))
        return f"INSERT INTO {sink.table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - checked names

    def _mark(self, connection: Any, index: int) -> str:
        driver = sys.modules.get(type(connection).__module__.partition(".")[0])
        style = str(self._sink.paramstyle or getattr(driver, "paramstyle", None))
        if style not in _MARKS:
            raise SinkError(
                f"how does {type(connection).__module__} mark parameters? Say paramstyle='qmark' "
                "for ?, 'format' for %s"
            )
        return _MARKS[style](index)

    @staticmethod
    def _execute(connection: Any, statement: str, values: Sequence[Any] = ()) -> int:
        with closing(connection.cursor()) as cursor:
            cursor.execute(statement, tuple(values))
            return int(cursor.rowcount)


class TableWriter(TwoPhaseWriter[Any]):
    """Keeps and writes the rows of one subtask; made by `TableSink.create_writer`.

    Args:
        sink: The settings.
        database: Where the rows go.
        files: Where the files of rows are; None without `spill`.
        run: What the epochs are counted for.
        prepared: The names of the files that a restored checkpoint refers to.
    """

    def __init__(
        self,
        sink: TableSink,
        database: Database,
        files: WorkDirectory | None,
        run: Run,
        prepared: Sequence[str],
    ) -> None:
        self._sink = sink
        self._database = database
        self._files = files
        self._run = run
        self._prepared = dict.fromkeys(prepared)
        self._rows = RowBuffer(files, sink.spill.above_bytes if sink.spill else 0)
        self._empty = True

    def write_batch(self, values: Sequence[Any]) -> None:
        """Keep `values` for the next epoch.

        Raises:
            SinkError: a record does not fit the columns, or the disk is full.
        """
        if values:
            self._rows.append(list(map(self._sink.row, values)))
            self._empty = False

    def prepare_commit(self, checkpoint_id: int) -> Any:
        """Close the epoch.

        Returns:
            The rows, as bytes or as the name of a file; `None` if there are none.

        Raises:
            SinkError: the disk is full.
        """
        if self._empty:
            return None
        blocks, name = self._rows.take()
        self._empty = True
        if name is not None:
            self._prepared[name] = None
        return {"run": self._run, "epoch": checkpoint_id, "blocks": blocks, "file": name}

    def commit(self, committable: Mapping[str, Any]) -> None:
        """Write the rows of an epoch and its number in one transaction, unless it has been done.

        Raises:
            SinkError: the rows cannot be read any more.
            Exception: what the driver raises.
        """
        name = committable["file"]
        path = spilled(self._sink.spill, name)
        run, epoch = tuple(committable["run"]), committable["epoch"]
        self._database.write(run, epoch, committable["blocks"], path)
        if name is not None and self._files is not None:
            self._files.discard(name)
            self._prepared.pop(name, None)

    def snapshot(self) -> Any:
        """Return the names of the files whose rows wait for their commit."""
        return {"prepared": list(self._prepared)}

    def close(self) -> None:
        """Remove the rows that have not been prepared."""
        unfinished = self._rows.close()
        if self._files is not None:
            self._files.close(unfinished)
