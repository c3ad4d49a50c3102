"""Parquet files: every row once, from any position on, and every fault named with its place."""

import datetime as dt
import decimal
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage import LocalEnvironment
from sage.common.errors import FunctionError, OperatorError, SourceError
from sage.connector import parquet_source
from sage.connector.parquet_source import ParquetSource
from sage.testing import StandaloneContext, check_source, read_all

SCHEMA = pa.schema([("id", pa.int64()), ("note", pa.string()), ("tags", pa.list_(pa.int32()))])


def row(number):
    note = None if number % 5 == 0 else f"note {number}"
    return {"id": number, "note": note, "tags": list(range(number % 3))}


def write(path, rows, group=1000):
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=group)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3), group=st.integers(1, 7))
def test_any_row_groups_conform(sizes, group, tmp_path):
    rows = [row(n) for n in range(sum(sizes))]
    for index, size in enumerate(sizes):
        begin = sum(sizes[:index])
        write(tmp_path / f"{index}.parquet", rows[begin : begin + size], group)
    paths = [tmp_path / f"{index}.parquet" for index in range(len(sizes))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_source, "_BATCH", 4)
        check_source(lambda: ParquetSource(paths), rows)


def test_row_groups_may_be_splits(tmp_path):
    rows = [row(n) for n in range(10)]
    write(tmp_path / "a.parquet", rows[:9], 4)
    write(tmp_path / "b.parquet", rows[9:], 4)
    source = ParquetSource(tmp_path / "*.parquet", split_row_groups=True)
    assert [split.partition("#")[2] for split in source.list_splits()] == [
        "row_groups=0+1", "row_groups=1+1", "row_groups=2+1", "",
    ]  # fmt: skip
    check_source(lambda: ParquetSource(tmp_path / "*.parquet", split_row_groups=True), rows)
    whole = dict.fromkeys(ParquetSource(tmp_path / "a.parquet").list_splits())
    with pytest.raises(SourceError, match="how it is split"):
        source.create_reader(dict.fromkeys(source.list_splits()) | whole, StandaloneContext())


def test_values_are_those_of_python(tmp_path):
    values = {
        "when": dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC),
        "price": decimal.Decimal("1.50"),
        "place": {"x": 1.5, "y": None},
        "raw": b"\x00",
    }
    pq.write_table(pa.Table.from_pylist([values]), tmp_path / "t.parquet")
    assert read_all(ParquetSource(tmp_path / "t.parquet")) == [values]


def test_only_the_columns_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, [row(1)])
    assert read_all(ParquetSource(path, columns=["tags", "id"])) == [{"tags": [0], "id": 1}]
    with pytest.raises(SourceError, match=r"t.parquet has no column 'nota'.*Did you mean 'note'"):
        read_all(ParquetSource(path, columns=["nota"]))
    with pytest.raises(SourceError, match="columns are a list of names"):
        ParquetSource(path, columns="id")


@pytest.mark.parametrize("content", [b"", b"id,note\n1,2\n", b"PAR1" + b"x" * 50 + b"PAR1"])
def test_what_is_no_parquet_is_told(content, tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"t.parquet is no whole Parquet file"):
        read_all(ParquetSource(path))


def read_on(reader, read):
    while True:
        read += reader.read_batch(5000)


def test_a_damaged_file_is_named_after_the_rows_before_the_damage(tmp_path):
    path = tmp_path / "t.parquet"
    numbers = pa.table({"n": list(range(60_000))})
    pq.write_table(numbers, path, row_group_size=20_000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = b"?" * 3000
    path.write_bytes(content)
    reader = ParquetSource(path).create_reader({str(path): None}, StandaloneContext())
    read = []
    with closing(reader):
        while len(read) < 20_000:
            read += reader.read_batch(5000)
        with pytest.raises(SourceError, match=r"row group 1, after row .*cannot be read on"):
            read_on(reader, read)
        assert [record["n"] for record in read] == list(range(len(read)))
        assert len(read) >= 20_000
        position = reader.snapshot()
        with pytest.raises(SourceError, match="cannot be read on"):
            reader.read_batch(5000)
    assert position[str(path)] == (1, len(read) - 20_000, 60_000)


def test_a_file_that_has_changed_is_not_continued(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, [row(n) for n in range(9)])
    with closing(
        ParquetSource(path).create_reader({str(path): (0, 3, 10)}, StandaloneContext())
    ) as reader:
        with pytest.raises(SourceError, match="had 10 rows when the position was taken, and has 9"):
            reader.read_batch(1)


@dataclass
class Trip:
    id: int
    note: str


def test_a_job_reads_rows_as_objects_and_sends_others_to_the_dead_letters(tmp_path):
    write(tmp_path / "t.parquet", [row(n) for n in (4, 5, 6)])
    env = LocalEnvironment("parquet")
    trips = env.from_parquet(
        tmp_path / "*.parquet", columns=["id", "note"], type=Trip, on_error="dead_letter"
    ).collect()
    dead = env.dead_letters().collect()
    env.execute(progress=False)
    assert list(trips) == [Trip(4, "note 4"), Trip(6, "note 6")]
    (letter,) = dead
    assert letter.value == {"id": 5, "note": None}


def test_odd_types_and_missing_files_are_told(tmp_path):
    env = LocalEnvironment("parquet")
    with pytest.raises(FunctionError, match=r"unknown option 'column'.*'columns'"):
        env.from_parquet("x", column=["a"])
    with pytest.raises(FunctionError, match="type cannot be"):
        env.from_parquet("x", type="oops" + "x")
    env = LocalEnvironment("parquet")
    env.from_parquet(tmp_path / "none.parquet").print()
    with pytest.raises(OperatorError, match="there is no file"):
        env.execute(progress=False)
