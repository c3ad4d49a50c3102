"""Text files: every line once, from any position on, and every fault named with its place."""

import gzip
import pickle
from contextlib import closing

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.common.errors import SourceError
from sage.connector import text_lines
from sage.connector.file import TextFileSource
from sage.connector.file_paths import find_files
from sage.testing import StandaloneContext, check_source, read_all

in_one_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.text(st.sampled_from("ab\n\n\r\té€😀\x0b\u2028\ufeff"), max_size=25)


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def halves(data):
    return data[: len(data) // 2], data[len(data) // 2 :]


def model(text):
    """What lines are: `\\n` ends one, and a `\\r` right before it belongs to the end."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of five bytes: every boundary falls somewhere that hurts."""
    monkeypatch.setattr(text_lines, "_CHUNK", 5)


@in_one_folder
@given(text=texts)
def test_any_text_conforms_wherever_the_chunks_end(text, small_chunks, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    check_source(lambda: TextFileSource(path), model(text))


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
@settings(in_one_folder, max_examples=15)
@given(contents=st.lists(texts, min_size=1, max_size=3))
def test_compressed_files_conform_one_after_another(
    suffix, compress, contents, small_chunks, tmp_path
):
    paths = [tmp_path / f"{index}{suffix}" for index in range(len(contents))]
    for path, text in zip(paths, contents, strict=True):
        path.write_bytes(b"".join(compress(half) for half in halves(text.encode())))
    check_source(lambda: TextFileSource(paths), [line for t in contents for line in model(t)])


@in_one_folder
@given(text=texts)
def test_a_position_holds_whatever_the_size_of_the_chunks(text, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    lines = model(text)
    for count in range(len(lines) + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_lines, "_CHUNK", 3)
            position = position_after(TextFileSource(path), count)
        reader = TextFileSource(path).create_reader(position, StandaloneContext())
        with closing(reader):
            rest = []
            while (batch := reader.read_batch(1000)) is not None:
                rest += batch
        assert rest == lines[count:]


def position_after(source, count):
    reader = source.create_reader(dict.fromkeys(source.list_splits()), StandaloneContext())
    with closing(reader):
        for _ in range(count):
            reader.read_batch(1)
        return pickle.loads(pickle.dumps(reader.snapshot()))


def test_a_byte_order_mark_is_dropped_at_the_start_only(small_chunks, tmp_path):
    path = tmp_path / "text"
    path.write_text("\ufeffone\n\ufefftwo\n", encoding="utf-8")
    check_source(lambda: TextFileSource(path, encoding="utf-8-sig"), ["one", "\ufefftwo"])


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "gb18030"])
def test_other_encodings_conform(encoding, small_chunks, tmp_path):
    path = tmp_path / "text"
    lines = ["表", "x"] if encoding in ("shift_jis", "gb18030") else ["é", "x"]
    path.write_text("\n".join(lines), encoding=encoding)
    check_source(lambda: TextFileSource(path, encoding=encoding), lines)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-7", "cp037", "rot13", "klingon"])
def test_encodings_that_cannot_be_cut_into_lines_are_refused(encoding):
    with pytest.raises(SourceError, match=encoding):
        TextFileSource("x", encoding=encoding)


def test_patterns_are_sorted_by_number_and_a_file_is_read_once(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"part-{number}.txt").write_text(f"{number}\n")
    (tmp_path / "part-3.txt").mkdir()
    source = TextFileSource([tmp_path / "part-2.txt", str(tmp_path / "part-*.txt")])
    assert read_all(source) == ["2", "1", "10"]


def test_a_name_that_looks_like_a_pattern_is_a_name_if_there_is_such_a_file(tmp_path):
    path = tmp_path / "a[1].txt"
    path.write_text("x")
    assert find_files([str(path)]) == [str(path)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trisp.csv", "there is no file .*Did you mean 'trips.csv'"),
        ("nowhere/x", "there is no file"),
        ("*.json", "no file matches"),
        ("", "is a directory; name the files in it"),
    ],
)
def test_what_is_not_there_is_named(name, message, tmp_path):
    (tmp_path / "trips.csv").write_text("x")
    with pytest.raises(SourceError, match=message):
        TextFileSource(tmp_path / name).list_splits()


def test_relative_paths_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"looked from {tmp_path}"):
        TextFileSource("missing.txt").list_splits()


@pytest.mark.parametrize("paths", [[], [3]])
def test_what_names_no_file_is_refused(paths):
    with pytest.raises(SourceError):
        TextFileSource(paths).list_splits()


def test_only_one_file_is_open_at_a_time(tmp_path):
    """The second file does not exist yet while the first is read."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("a\nb")
    splits = {str(first): None, str(second): None}
    reader = TextFileSource([first, second]).create_reader(splits, StandaloneContext())
    with closing(reader):
        assert reader.read_batch(10) + reader.read_batch(10) == ["a", "b"]
        second.write_text("c")
        assert reader.read_batch(10) == ["c"]
        assert reader.read_batch(10) is None


def read_until_fault(source):
    reader = source.create_reader(dict.fromkeys(source.list_splits()), StandaloneContext())
    records = []
    with closing(reader):
        try:
            while True:
                records += reader.read_batch(1000)
        except SourceError as error:
            return records, str(error)


def test_bytes_that_are_no_text_are_named_after_the_lines_before_them(small_chunks, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\nthr\xffee\nfour\n")
    records, message = read_until_fault(TextFileSource(path))
    assert records == ["one", "two"]
    assert f"{path}, line 3: the bytes b'\\xff' are not utf-8" in message


def test_bytes_that_are_no_text_are_found_in_one_piece_too(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\nthr\xffee\nfour\n")
    assert read_until_fault(TextFileSource(path))[0] == ["one", "two"]
    path.write_bytes(b"\xff")
    assert "line 1" in read_until_fault(TextFileSource(path))[1]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
def test_a_truncated_file_does_not_end_silently(suffix, compress, tmp_path):
    path = tmp_path / f"text{suffix}"
    lines = [f"line {n} {n * 7919 % 100_007}" for n in range(50_000)]
    path.write_bytes(compress("\n".join(lines).encode())[:-2000])
    records, message = read_until_fault(TextFileSource(path))
    assert 1000 < len(records) < 50_000
    assert records == lines[: len(records)]
    assert f"after line {len(records)}: cannot be read on: the compressed data ends" in message


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".gz", b"no gzip at all"),
        (".gz", gzip.compress(b"a\n" * 9, mtime=0)[:12] + b"?" * 30),
        (".zst", b"no zstd at all"),
        (".zst", zstd(b"a\n" * 9)[:-4] + b"????"),
    ],
)
def test_a_damaged_compressed_file_is_named(suffix, damage, tmp_path):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(damage)
    assert f"{path}, after line 0" in read_until_fault(TextFileSource(path))[1]


def test_compression_can_be_told(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert read_all(TextFileSource(path, compression="gzip")) == ["a", "b"]
    other = path.rename(tmp_path / "text.gz")
    assert len(read_all(TextFileSource(other, compression="none", encoding="latin-1"))) >= 1


@pytest.mark.parametrize("limit", [5, 70_000])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_line_that_is_too_long_is_named_after_the_lines_before_it(limit, end, tmp_path):
    path = tmp_path / "text"
    fits = ["one", "x" * limit]
    path.write_bytes(("\r\n".join([*fits, "y" * (limit + 1)]) + end).encode())
    records, message = read_until_fault(TextFileSource(path, max_line_bytes=limit))
    assert records == fits
    assert f"{path}, line 3 has more than {limit} bytes" in message
    assert len(read_all(TextFileSource(path, max_line_bytes=limit + 1))) == 3


@pytest.mark.parametrize(
    "options",
    [{"compression": "zip"}, {"max_line_bytes": 0}, {"split_bytes": 1.5}, {"split_byte": 5}],
)
def test_odd_settings_are_told_at_once(options):
    with pytest.raises(SourceError, match=str(next(iter(options)))):
        TextFileSource("x", **options)


# ---- parts of files


@settings(in_one_folder, max_examples=60)
@given(text=texts, part=st.integers(1, 9), subtasks=st.integers(1, 3))
def test_the_parts_of_a_file_have_each_line_once(text, part, subtasks, small_chunks, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    source = TextFileSource(path, split_bytes=part)
    splits = source.list_splits()
    read = []
    for subtask in range(min(subtasks, len(splits))):
        with closing(
            source.create_reader(dict.fromkeys(splits[subtask::subtasks]), StandaloneContext())
        ) as reader:
            while (batch := reader.read_batch(3)) is not None:
                read += batch
    assert sorted(read) == sorted(model(text))
    check_source(lambda: TextFileSource(path, split_bytes=part), model(text))


def test_small_and_compressed_files_are_not_cut(tmp_path):
    small, packed, big = (tmp_path / name for name in ("small", "packed.gz", "big"))
    small.write_text("a\nb\n")
    packed.write_bytes(gzip.compress(b"a line\n" * 9))
    big.write_text("a\nb\nc\n")
    source = TextFileSource([small, packed, big], split_bytes=4)
    assert source.list_splits() == [
        str(small), str(packed), f"{big}#bytes=0+4", f"{big}#bytes=4+4",
    ]  # fmt: skip
    assert len(read_all(source)) == 2 + 9 + 3


def test_a_fault_in_a_part_says_from_where_its_lines_are_counted(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\nthr\xffee\n")
    records, message = read_until_fault(TextFileSource(path, split_bytes=4))
    assert records == ["one", "two"]
    assert f"{path} from byte 8 on, line 1: the bytes" in message


def test_files_that_were_cut_in_another_way_are_not_read_twice(tmp_path):
    path = tmp_path / "text"
    path.write_text("a\nb\nc\n")
    position = position_after(TextFileSource(path, split_bytes=4), 2)
    for source in (TextFileSource(path), TextFileSource(path, split_bytes=2)):
        splits = dict.fromkeys(source.list_splits()) | position
        with pytest.raises(SourceError, match="how it is split, or the file itself, was another"):
            source.create_reader(splits, StandaloneContext())


@pytest.mark.parametrize("position", [(900, 9, 0), (1, 1, 0), (0, 0, 3)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_position_that_does_not_fit_is_refused(position, suffix, tmp_path):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(gzip.compress(b"ab\nc\n") if suffix else b"ab\nc\n")
    reader = TextFileSource(path).create_reader({str(path): position}, StandaloneContext())
    with closing(reader), pytest.raises(SourceError, match=r"cannot continue .* it has changed"):
        reader.read_batch(1)


def test_snapshots_name_the_files_that_wait_and_those_that_ended(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text("1\n2\n")
    source = TextFileSource(tmp_path / "?")
    a, b, c = source.list_splits()
    assert position_after(source, 3) == {a: "end", b: (0, 0, 1), c: None}
