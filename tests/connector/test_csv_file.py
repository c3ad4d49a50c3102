"""CSV files: rows as they stand, from any position on; what is wrong is named with its line."""

import csv
import io
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.common.errors import SourceError
from sage.connector import text_lines
from sage.connector.csv_file import CsvRow, CsvSource, csv_row_to_dict
from sage.testing import StandaloneContext, check_source, read_all

values = st.text(st.sampled_from('ab,"\n\r é\u2028'), max_size=6)
tables = st.lists(st.lists(values, min_size=2, max_size=3), max_size=8)


def write(path, rows, **style):
    out = io.StringIO(newline="")
    csv.writer(out, **style).writerows(rows)
    path.write_bytes(out.getvalue().encode())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=tables, chunk=st.sampled_from([3, 7, 1 << 16]))
def test_what_a_csv_writer_wrote_is_read_back(rows, chunk, tmp_path):
    path = tmp_path / "t.csv"
    write(path, [["x", "y"], *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_CHUNK", chunk)
        read = check_source(lambda: CsvSource(path))
    assert [row.values for row in read] == rows
    assert all(row.header == ("x", "y") for row in read)
    lines = path.read_bytes().decode().split("\n")
    for row, after in pairwise(read):
        own = "\n".join(lines[row.line - 1 : after.line - 1])
        assert next(csv.reader(io.StringIO(own + "\n", newline=""))) == row.values


def test_rows_know_their_file_line_and_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeffa,b\n\n1,"x\ny"\n2\n', encoding="utf-8")
    assert read_all(CsvSource(path)) == [
        CsvRow(str(path), 3, ["1", "x\ny"], ("a", "b")),
        CsvRow(str(path), 5, ["2"], ("a", "b")),
    ]


def test_each_file_has_its_own_header(tmp_path):
    write(tmp_path / "1.csv", [["a"], ["1"]])
    write(tmp_path / "2.csv", [["b"], ["2"]])
    rows = check_source(lambda: CsvSource(tmp_path / "*.csv"))
    assert [csv_row_to_dict(row) for row in rows] == [{"a": "1"}, {"b": "2"}]


def test_the_header_may_be_given_or_missing(tmp_path):
    path = tmp_path / "t.csv"
    write(path, [["1", "2"]])
    given_names = read_all(CsvSource(path, header=["a", "b"]))
    assert csv_row_to_dict(given_names[0]) == {"a": "1", "b": "2"}
    (row,) = read_all(CsvSource(path, header=False))
    assert (row.header, row.line) == (None, 1)
    assert csv_row_to_dict(row) == {"0": "1", "1": "2"}


@pytest.mark.parametrize("content", ["", "a,b\n", "\n\n"])
def test_files_without_rows_give_none(content, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert check_source(lambda: CsvSource(path)) == []


def test_other_delimiters_and_quotes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b\n'1;1';2\n")
    (row,) = read_all(CsvSource(path, delimiter=";", quotechar="'"))
    assert row.values == ["1;1", "2"]


@pytest.mark.parametrize("style", [{"delimiter": "||"}, {"quotechar": ""}, {"encoding": "utf-16"}])
def test_a_style_that_cannot_be_read_is_refused(style):
    with pytest.raises(SourceError):
        CsvSource("x.csv", **style)


def test_a_column_name_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,a\n")
    with pytest.raises(SourceError, match="column name 'a' occurs 2 times"):
        read_all(CsvSource(path))


def test_a_row_of_another_length_names_its_place():
    row = CsvRow("t.csv", 7, ["1"], ("a", "b"))
    with pytest.raises(ValueError, match=r"t.csv, line 7: expected 2 columns \(a, b\), found 1"):
        csv_row_to_dict(row)


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('a,b\n1,2\n\n3,"4\n5,6\n', 4, "never ends"),
        ("a,b\n1,2\n\n3\r4,5\n", 4, "new-line character"),
        ("a,b\n1,2\n\n" + "3" * 200_000 + "\n", 4, "field larger than field limit"),
    ],
    ids=["quote", "carriage return", "length"],
)
@pytest.mark.parametrize("chunk", [3, 1 << 16])
def test_a_file_that_cannot_be_parsed_fails_behind_the_rows_before(
    content, line, what, chunk, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_lines, "_CHUNK", chunk)
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode())
    source = CsvSource(path)
    position = {str(path): None}
    for expected in ([["1", "2"]], []):  # a restored reader comes to the same fault
        reader = source.create_reader(position, StandaloneContext())
        with closing(reader):
            if expected:
                assert [row.values for row in reader.read_batch(100)] == expected
            position = reader.snapshot()
            with pytest.raises(SourceError, match=f"line {line}: .*{what}"):
                reader.read_batch(100)


def test_the_parts_of_a_file_have_each_row_once_under_the_header_of_the_file(tmp_path):
    path = tmp_path / "t.csv"
    rows = [[str(n), "x" * (n % 7)] for n in range(30)]
    write(path, [["a", "b"], *rows])
    for part in (3, 50):
        read = check_source(lambda: CsvSource(path, split_bytes=part))  # noqa: B023
        assert [row.values for row in read] == rows
        assert {row.header for row in read} == {("a", "b")}
    assert (read[-1].path, read[-1].line) == (f"{path} from byte 200 on", 3)
