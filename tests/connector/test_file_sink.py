"""Files appear whole and once, whenever the process dies; what is half done is cleaned up."""

import errno
import gzip
import os
import random
import resource
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from connector.sink_sweep import RECORDS, read_files, read_parts, restore_and_finish
from recovery.running import recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import LocalEnvironment
from sage.connector import parquet_part
from sage.connector.csv_file import CsvSource, csv_row_to_dict
from sage.connector.file import TextFileSource
from sage.connector.file_sink import FileSink
from sage.connector.parquet_source import ParquetSource
from sage.connector.sink_error import SinkError
from sage.testing import ManualClock, StandaloneContext, read_all
from sage.testing.sink_conformance import check_sink


def take_checkpoint(env):
    return env.job._job.checkpoint()


def places(tmp_path):
    for number in range(1000):
        yield tmp_path / str(number)


def visible(sink):
    names = sorted(n for n in os.listdir(sink.directory) if not n.startswith("."))
    return [os.path.join(sink.directory, name) for name in names]


def hidden(directory):
    return [name for name in os.listdir(directory) if name.startswith(".")]


def by_checkpoint(path):
    """The order in which the parts of all subtasks were committed."""
    _, subtask, checkpoint, number = os.path.basename(path).partition(".")[0].split("-")
    return int(subtask), int(checkpoint), int(number)


def write_and_commit(writer, batch):
    writer.write_batch(batch)
    writer.commit(writer.prepare_commit(1))


def write_all(sink, *batches, context=None):
    with closing(sink.create_writer(context or StandaloneContext(), None)) as writer:
        for batch in batches:
            writer.write_batch(batch)
        if (prepared := writer.prepare_commit(1)) is not None:
            writer.commit(prepared)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"roll_bytes": 1}, {"roll_interval": 9}],
)
def test_text_conforms(tmp_path, options):
    new_place = places(tmp_path)

    def read_back(sink):
        paths = sorted(visible(sink), key=by_checkpoint)
        return read_all(TextFileSource(paths)) if paths else []

    check_sink(lambda: FileSink(next(new_place), "text", **options), read_back)
    assert not [name for place in tmp_path.iterdir() for name in hidden(place)]


def test_csv_conforms_with_the_columns_of_the_first_record(tmp_path):
    new_place = places(tmp_path)
    rows = [{"id": str(n), "note": f'a "quoted",\nline {n}'} for n in range(8)]

    def read_back(sink):
        paths = sorted(visible(sink), key=by_checkpoint)
        return [*map(csv_row_to_dict, read_all(CsvSource(paths)))] if paths else []

    check_sink(lambda: FileSink(next(new_place), "csv"), read_back, rows)


def number_of(record):
    return int(record.split()[1])


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("max_open_files", [1, 64])
def test_partitions_conform(tmp_path, compression, max_open_files):
    new_place = places(tmp_path)

    def read_back(sink):
        paths = list(Path(sink.directory).glob("*/*/part-*"))
        return sorted(read_all(TextFileSource(paths)), key=number_of) if paths else []

    def by(record):
        return f"odd={number_of(record) % 2}/all"

    options = {"compression": compression, "max_open_files": max_open_files, "partition_by": by}
    check_sink(lambda: FileSink(next(new_place), "text", **options), read_back)
    assert not [name for place in tmp_path.iterdir() for name in hidden(place)]


@pytest.mark.parametrize(
    "options", [{}, {"partition_by": "odd", "max_open_files": 1, "compression": "zstd"}]
)
def test_parquet_conforms(tmp_path, options):
    new_place = places(tmp_path)
    rows = [{"id": n, "odd": n % 2, "note": None if n % 3 == 0 else f"note {n}"} for n in range(8)]

    def read_back(sink):
        paths = list(Path(sink.directory).glob("**/part-*.parquet"))
        found = read_all(ParquetSource(paths)) if paths else []
        return sorted(found, key=lambda row: row["id"])

    schema = pa.schema([("id", pa.int64()), ("odd", pa.int8()), ("note", pa.string())])
    check_sink(
        lambda: FileSink(next(new_place), "parquet", schema=schema, **options), read_back, rows
    )
    assert not [name for place in tmp_path.iterdir() for name in hidden(place)]


def test_a_restored_writer_keeps_the_schema(tmp_path):
    sink = FileSink(tmp_path, "parquet")
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch([{"a": 1, "b": None}, {"b": "x"}])
        prepared, state = writer.prepare_commit(1), writer.snapshot()
        writer.commit(prepared)
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        writer.write_batch([{"b": None}])
        writer.commit(writer.prepare_commit(2))
    assert read_all(ParquetSource(visible(sink))) == [
        {"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": None, "b": None},
    ]  # fmt: skip


@dataclass
class Trip:
    origin: str
    miles: int


def test_rows_of_parquet_may_be_objects_and_make_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_part, "_GROUP_ROWS", 2)
    sink = FileSink(tmp_path, "parquet")
    write_all(sink, [Trip("JFK", 1)], [Trip("EWR", 2)], [Trip("LGA", 3)])
    file = pq.ParquetFile(*visible(sink))
    assert [file.metadata.row_group(n).num_rows for n in range(2)] == [2, 1]
    assert read_all(ParquetSource(visible(sink)))[2] == {"origin": "LGA", "miles": 3}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"a": 1}, {"a": "x"}], "does not fit the schema .*not known yet"),
        ([{"a": None}], "the column 'a' has no value in the first records"),
        ([7], "a row of Parquet is a dict, .*the record is 7"),
    ],
)
def test_rows_without_a_schema_are_told(tmp_path, records, message):
    with closing(FileSink(tmp_path, "parquet").create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match=message):
            writer.write_batch(records)


@pytest.mark.parametrize(
    ("record", "message"),
    [({"a": "x"}, "does not fit.*it is a: int64"), ({"a": 1, "c": 2}, "no column 'c'")],
)
def test_rows_that_do_not_fit_the_schema_are_told(tmp_path, record, message):
    sink = FileSink(tmp_path, "parquet", schema=[("a", pa.int64())])
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match=message):
            writer.write_batch([record])


def test_files_roll_when_they_are_old(tmp_path):
    clock = ManualClock()
    sink = FileSink(tmp_path, roll_interval=60)
    with closing(sink.create_writer(StandaloneContext(clock=clock), None)) as writer:
        for _ in range(5):
            writer.write_batch([str(clock.now_ms() // 1000)])
            clock.advance(seconds=30)
        writer.commit(writer.prepare_commit(1))
    assert [Path(path).read_text().split() for path in visible(sink)] == [
        ["0", "30"], ["60", "90"], ["120"],
    ]  # fmt: skip


def checkpoint(writer, number, *batches):
    for batch in batches:
        writer.write_batch(batch)
    return writer.prepare_commit(number), writer.snapshot()


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_files_grow_over_checkpoints_until_they_are_big_or_old_or_there_is_no_more(
    tmp_path, compression
):
    clock = ManualClock()
    options = {"roll_bytes": 100, "roll_interval": 60, "roll_on_checkpoint": False}
    sink = FileSink(tmp_path, "csv", fieldnames=["n"], compression=compression, **options)
    with closing(sink.create_writer(StandaloneContext(clock=clock), None)) as writer:
        assert checkpoint(writer, 1, [[1]])[0] is None
        assert checkpoint(writer, 2, [[2]])[0] is None
        clock.advance(seconds=60)
        prepared, _ = checkpoint(writer, 3)
        writer.commit(prepared)
        noise = random.Random(1).randbytes(300).hex()
        writer.commit(checkpoint(writer, 4, [[3]], [[noise]])[0])
        assert checkpoint(writer, 5, [[4]])[0] is None
        writer.end_input()
        writer.commit(checkpoint(writer, 6)[0])
    rows = [[row.values[0] for row in read_all(CsvSource(path))] for path in visible(sink)]
    assert rows == [["1", "2"], ["3", noise], ["4"]]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_restored_writer_goes_on_in_the_same_file_where_the_checkpoint_was(tmp_path, compression):
    sink = FileSink(tmp_path, compression=compression, roll_bytes=10_000, roll_on_checkpoint=False)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        _, state = checkpoint(writer, 1, ["a"])
        checkpoint(writer, 2, ["lost"])  # it never completes
        writer.write_batch(["lost too"])
    assert len(hidden(tmp_path)) == 1
    for _ in range(2):
        with closing(sink.create_writer(StandaloneContext(), state)) as writer:
            writer.write_batch(["b"])
            writer.end_input()
            checkpoint(writer, 2)
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        _, state = checkpoint(writer, 2, ["b"])
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        writer.end_input()
        writer.commit(checkpoint(writer, 3, ["c"])[0])
    assert read_all(TextFileSource(visible(sink))) == ["a", "b", "c"]
    assert len(visible(sink)) == 1
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_other_subtasks_go_on_with_the_files_and_nobody_removes_what_another_commits(
    tmp_path, after
):
    """Of three subtasks, each has a file that waits and one that grows; others take them over."""
    sink = FileSink(tmp_path, "csv", fieldnames=["n"], roll_bytes=8, roll_on_checkpoint=False)
    states, waiting = [], []
    for subtask in range(3):
        context = StandaloneContext(subtask_index=subtask, parallelism=3)
        with closing(sink.create_writer(context, None)) as writer:
            waiting.append(checkpoint(writer, 1, [[f"waits {subtask}"]])[0])
            states.append(checkpoint(writer, 2, [[subtask]])[1])
            writer.write_batch([["lost"]])
    with ExitStack() as stack:
        writers = [
            stack.enter_context(closing(sink.create_writer(
                StandaloneContext(subtask_index=subtask, parallelism=after), state
            )))
            for subtask, state in enumerate(sink.redistribute(states, after))
        ]  # fmt: skip
        for prepared in waiting:
            writers[0].commit(prepared)
        for number, writer in enumerate(writers):
            writer.write_batch([[f"new {number}"]])
            writer.end_input()
        for prepared in [writer.prepare_commit(3) for writer in writers]:
            writers[-1].commit(prepared)
    found = [row.values[0] for row in read_all(CsvSource(visible(sink)))]
    old = [f"waits {n}" for n in range(3)] + ["0", "1", "2"]
    assert sorted(found) == sorted([*old, *(f"new {n}" for n in range(after))])
    assert hidden(tmp_path) == []


def test_there_is_nothing_to_deal_out_at_first(tmp_path):
    assert FileSink(tmp_path).redistribute([None, None], 3) == [None, None, None]


def test_a_file_that_has_shrunk_or_is_gone_is_not_gone_on_with(tmp_path):
    sink = FileSink(tmp_path, roll_bytes=10_000, roll_on_checkpoint=False)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        _, state = checkpoint(writer, 1, ["abc"])
    (path,) = tmp_path.glob(".part-*/0")
    path.write_text("ab")
    with pytest.raises(SinkError, match="it has 2 bytes, and had 4"):
        sink.create_writer(StandaloneContext(), state)
    path.unlink()
    with pytest.raises(SinkError, match="cannot go on with"):
        sink.create_writer(StandaloneContext(), state)


def test_a_job_that_fails_and_goes_on_writes_on_in_its_file(tmp_path):
    script = [1, 2, Checkpoint(), 3, Fail(), 4, Checkpoint(), 5]
    env = recovering(tmp_path / "checkpoints")
    source = ScriptedSource(script, lambda: take_checkpoint(env))
    sink = FileSink(tmp_path / "out", roll_bytes=10_000, roll_on_checkpoint=False)
    env.from_source(source).sink(sink)
    env.execute(progress=False)
    assert [Path(path).read_text().split() for path in visible(sink)] == [list("12345")]
    assert hidden(tmp_path / "out") == []


def test_fields_make_directories_that_other_tools_read(tmp_path):
    sink = FileSink(tmp_path, "parquet", partition_by=["year", "place"])
    rows = [(2026, "a/b = 1"), (2025, None), (2026, ""), (2026, "ä %")]
    write_all(sink, [{"year": y, "place": p, "n": n} for n, (y, p) in enumerate(rows)])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "year=2025/place=__HIVE_DEFAULT_PARTITION__",
        "year=2026/place=%00",
        "year=2026/place=%C3%A4 %25",
        "year=2026/place=a%2Fb %3D 1",
    ]
    schema = pa.schema([("year", pa.int64()), ("place", pa.string())])
    read = ds.partitioning(schema, flavor="hive").parse("year=2026/place=%C3%A4 %25/x")
    assert read.equals((ds.field("year") == 2026) & (ds.field("place") == "ä %"))


def test_many_directories_with_few_files_open(tmp_path):
    sink = FileSink(tmp_path, "csv", partition_by="k", max_open_files=3, compression="gzip")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, limit[1]))
    try:
        write_all(sink, *([{"k": k, "n": n} for k in range(40)] for n in range(3)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    for k in range(40):
        (path,) = (tmp_path / f"k={k}").iterdir()
        rows = [row.values for row in read_all(CsvSource(path))]
        assert rows == [[str(k), str(n)] for n in range(3)]


@pytest.mark.parametrize("path", ["", "/x", "a/../b", "a//b", ".hidden", "a/", 7, None])
def test_paths_that_lead_elsewhere_are_refused(tmp_path, path):
    sink = FileSink(tmp_path / "out", partition_by=lambda record: path)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match="partition_by returns a path below"):
            writer.write_batch(["x"])
    assert os.listdir(tmp_path / "out") == []


def test_a_record_without_the_field_is_told(tmp_path):
    sink = FileSink(tmp_path, "jsonl", partition_by="day")
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match=r"no directory for .*no field 'day'"):
            writer.write_batch([{"n": 1}])


def test_a_restored_writer_commits_into_directories_what_another_has_prepared(tmp_path):
    sink = FileSink(tmp_path, "jsonl", partition_by="k")
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch([{"k": 1}, {"k": 2}])
        prepared, state = writer.prepare_commit(1), writer.snapshot()
        writer.write_batch([{"k": 3}])
    assert len(hidden(tmp_path)) == 1
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        writer.commit(prepared)
        writer.commit(prepared)
    assert sorted(os.listdir(tmp_path)) == ["k=1", "k=2"]


def test_another_subtask_may_commit_what_one_has_prepared_that_is_no_more(tmp_path):
    sink = FileSink(tmp_path, "jsonl")
    second = StandaloneContext(subtask_index=1, parallelism=2)
    with closing(sink.create_writer(second, None)) as writer:
        writer.write_batch(["kept"])
        prepared, state = writer.prepare_commit(1), writer.snapshot()
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        writer.commit(prepared)
        writer.commit(prepared)
    assert os.listdir(tmp_path) == ["part-1-0000000001-0.jsonl"]


def test_a_restored_writer_keeps_the_columns(tmp_path):
    sink = FileSink(tmp_path, "csv")
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch([{"a": 1, "b": 2}])
        prepared, state = writer.prepare_commit(1), writer.snapshot()
        writer.commit(prepared)
    with closing(sink.create_writer(StandaloneContext(), state)) as writer:
        writer.write_batch([{"b": 4, "a": 3}])
        writer.commit(writer.prepare_commit(2))
    assert [Path(path).read_text() for path in visible(sink)] == ["a,b\n1,2\n", "a,b\n3,4\n"]


def test_lists_are_rows_with_a_header_only_if_there_are_names(tmp_path):
    bare, named = FileSink(tmp_path / "1", "csv"), FileSink(tmp_path / "2", "csv", fieldnames=["x"])
    write_all(bare, [[1], (2,)])
    write_all(named, [[1], {"x": 2}])
    assert Path(*visible(bare)).read_text() == "1\n2\n"
    assert Path(*visible(named)).read_text() == "x\n1\n2\n"


def test_names_tell_subtask_checkpoint_and_number_and_files_roll(tmp_path):
    sink = FileSink(tmp_path, "jsonl", compression="gzip", roll_bytes=10, prefix="trips")
    write_all(sink, [{"id": 1}], ["x" * 300_000], [2], context=StandaloneContext(subtask_index=3))
    assert [os.path.basename(path) for path in visible(sink)] == [
        "trips-3-0000000001-0.jsonl.gz",
        "trips-3-0000000001-1.jsonl.gz",
        "trips-3-0000000001-2.jsonl.gz",
    ]
    assert gzip.decompress(Path(visible(sink)[0]).read_bytes()) == b'{"id":1}\n'


def test_the_same_records_make_the_same_bytes(tmp_path):
    one = FileSink(tmp_path / "1", compression="gzip")
    two = FileSink(tmp_path / "2", compression="gzip")
    write_all(one, ["a"])
    write_all(two, ["a"])
    assert Path(*visible(one)).read_bytes() == Path(*visible(two)).read_bytes()


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    sink = FileSink(tmp_path)
    write_all(sink, ["a"])
    other = tmp_path / "other"
    other.touch()
    assert Path(visible(sink)[1]).stat().st_mode == other.stat().st_mode


def test_a_job_runs_with_the_sink(tmp_path):
    env = LocalEnvironment("files")
    env.from_batch(range(2500)).sink(FileSink(tmp_path / "out"))
    env.execute()
    assert read_all(TextFileSource(visible(FileSink(tmp_path / "out")))) == [*map(str, range(2500))]
    assert hidden(tmp_path / "out") == []


def test_a_job_that_fails_and_goes_on_writes_each_record_once(tmp_path):
    script = [0, Fail(), 1, 2, Checkpoint(), 3, Fail(), 4, Checkpoint(), Checkpoint(), 5, 6, Fail()]
    script += [*range(7, 2500), Fail(), Checkpoint(), *range(2500, 3000)]
    env = recovering(tmp_path / "checkpoints")
    source = ScriptedSource(script, lambda: take_checkpoint(env))
    env.from_source(source).sink(FileSink(tmp_path / "out"))
    env.execute(progress=False)
    paths = sorted(visible(FileSink(tmp_path / "out")), key=by_checkpoint)
    assert len(paths) > 2
    assert read_all(TextFileSource(paths)) == [*map(str, range(3000))]
    assert hidden(tmp_path / "out") == []


@pytest.mark.parametrize(("kind", "stride"), [("partitioned", 3), ("growing", 1), ("parquet", 3)])
def test_killed_before_every_step_all_directories_have_what_was_committed(tmp_path, kind, stride):
    script = Path(__file__).with_name("sink_sweep.py")
    swept = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path), str(stride)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    steps = int(swept.stdout)
    assert steps > 30
    for step in range(0, steps + 1, stride):
        restore_and_finish(kind, tmp_path / str(step))
        assert read_parts(kind, tmp_path / str(step)) == RECORDS
        assert hidden(tmp_path / str(step) / "out") == []


def test_killed_before_every_step_what_is_visible_is_what_was_committed(tmp_path):
    script = Path(__file__).with_name("sink_sweep.py")
    swept = subprocess.run(
        [sys.executable, str(script), "files", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    steps = int(swept.stdout)
    assert steps > 20
    for step in range(steps + 1):
        restore_and_finish("files", tmp_path / str(step))
        assert read_files(tmp_path / str(step)) == RECORDS
        assert hidden(tmp_path / str(step) / "out") == []


# ---- what is not one's own


def test_leftovers_of_other_jobs_and_subtasks_stay(tmp_path):
    sink = FileSink(tmp_path)
    contexts = [
        StandaloneContext(job_name="other"),
        StandaloneContext(operator_name="other"),
        StandaloneContext(subtask_index=1, parallelism=2),
    ]
    prepared = []
    for context in contexts:
        with closing(sink.create_writer(context, None)) as writer:
            writer.write_batch(["kept"])
            prepared.append((context, writer.prepare_commit(1), writer.snapshot()))
    (tmp_path / ".part-notes.tmp").touch()
    with closing(sink.create_writer(StandaloneContext(parallelism=2), None)):
        assert len(hidden(tmp_path)) == 4
    for context, committable, state in prepared[::2]:  # the names of the first two are the same
        with closing(sink.create_writer(context, state)) as writer:
            writer.commit(committable)
    assert len(visible(sink)) == 2


def test_what_another_run_of_the_same_job_is_writing_stays(tmp_path):
    sink = FileSink(tmp_path)
    with closing(sink.create_writer(StandaloneContext(), None)) as living:
        living.write_batch(["a"])
        with closing(sink.create_writer(StandaloneContext(), None)) as second:
            second.write_batch(["b"])
            prepared = living.prepare_commit(1)
            with closing(sink.create_writer(StandaloneContext(), None)):
                living.commit(prepared)
                second.commit(second.prepare_commit(2))
    assert read_all(TextFileSource(visible(sink))) == ["a", "b"]


def test_a_start_without_a_checkpoint_removes_leftovers_of_subtasks_that_are_no_more(tmp_path):
    sink = FileSink(tmp_path)
    with closing(
        sink.create_writer(StandaloneContext(subtask_index=3, parallelism=4), None)
    ) as writer:
        writer.write_batch(["a"])
        writer.prepare_commit(1)
    with closing(sink.create_writer(StandaloneContext(parallelism=2), None)):
        assert len(hidden(tmp_path)) == 1
    with closing(sink.create_writer(StandaloneContext(subtask_index=1, parallelism=2), None)):
        assert hidden(tmp_path) == []


def test_another_file_of_the_name_is_never_replaced(tmp_path):
    sink = FileSink(tmp_path)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch(["a"])
        prepared = writer.prepare_commit(1)
        (tmp_path / prepared[0][1]).write_text("not ours")
        with pytest.raises(SinkError, match=r"there is another part-0-0000000001-0\.txt already"):
            writer.commit(prepared)
    assert (tmp_path / prepared[0][1]).read_text() == "not ours"


def test_a_file_that_is_gone_is_told(tmp_path):
    sink = FileSink(tmp_path)
    with closing(sink.create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch(["a"])
        prepared = writer.prepare_commit(1)
        writer.commit(prepared)
        os.remove(tmp_path / prepared[0][1])
        with pytest.raises(SinkError, match=r"neither it nor .* is there"):
            writer.commit(prepared)


# ---- faults


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"cannot make the directory .*file"):
        FileSink(tmp_path / "file").create_writer(StandaloneContext(), None)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"format": "parquet"}],
)
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, options):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = FileSink(tmp_path, **options)
    noise = random.Random(1).randbytes(500_000).hex()
    writer = sink.create_writer(StandaloneContext(), None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(SinkError, match=os.strerror(errno.EFBIG)):
            write_and_commit(writer, [{"noise": noise}])
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("operation", ["create", "write", "fsync", "fsync-directory", "rename"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"format": "parquet"}],
)
def test_a_fault_at_any_step_leaves_nothing_that_a_new_start_does_not_remove(
    tmp_path, operation, options
):
    sink = FileSink(tmp_path, **options)

    def fail(step, path):
        if step == operation:
            raise OSError(errno.ENOSPC, "no space left")

    writer = sink.create_writer(StandaloneContext(), None, step=fail)
    with pytest.raises((SinkError, OSError), match="no space left"):
        write_and_commit(writer, [{"a": 1}])
    writer.close()
    sink.create_writer(StandaloneContext(), None).close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("csv", 7, "needs dicts, or lists and tuples; the record is 7"),
        ("jsonl", object(), "cannot be written as JSON"),
        ("text", "\udc80", "cannot be written as utf-8"),
    ],
)
def test_a_record_that_does_not_fit_is_told(tmp_path, kind, record, message):
    with closing(FileSink(tmp_path, kind).create_writer(StandaloneContext(), None)) as writer:
        with pytest.raises(SinkError, match=message):
            writer.write_batch([record])


def test_a_row_with_other_columns_is_told(tmp_path):
    with closing(FileSink(tmp_path, "csv").create_writer(StandaloneContext(), None)) as writer:
        writer.write_batch([{"a": 1}])
        with pytest.raises(SinkError, match=r"needs the columns \['a'\]"):
            writer.write_batch([{"b": 1}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "json"}, "no format 'json'.*Did you mean 'jsonl'"),
        ({"encoding": "utf-16"}, "does not write ASCII"),
        ({"encoding": "klingon"}, "unknown encoding"),
        ({"compression": "zip"}, "compression is None, 'gzip' or 'zstd'"),
        ({"roll_bytes": 0}, "roll_bytes is a whole number"),
        ({"roll_byte": 1}, "no option 'roll_byte'.*Did you mean 'roll_bytes'"),
        ({"fieldnames": ["a"]}, "fieldnames are the columns of format='csv'"),
        ({"prefix": "../x"}, "a prefix has letters"),
        ({"roll_on_checkpoint": False}, "say when a file is to appear"),
        (
            {"format": "parquet", "roll_on_checkpoint": False, "roll_bytes": 9},
            "a Parquet file cannot be written on",
        ),
        ({"partition_by": []}, "partition_by is the name of a field"),
        ({"max_open_files": 0}, "max_open_files is a whole number"),
        ({"roll_interval": 0}, "roll_interval is at least a millisecond"),
        ({"roll_interval": "1h"}, "roll_interval must be a timedelta"),
        ({"schema": pa.schema([])}, "schema is for format='parquet'"),
        ({"format": "parquet", "schema": "x"}, "schema is a pyarrow.Schema"),
        ({"format": "parquet", "fieldnames": ["x"]}, "are given by schema="),
    ],
)
def test_odd_settings_are_told_at_once(tmp_path, settings, message):
    with pytest.raises(SinkError, match=message):
        FileSink(tmp_path, **settings)
    assert os.listdir(tmp_path) == []
