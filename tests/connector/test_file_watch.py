"""Watched directories: what appears is read, each file once, whatever stops and goes on."""

import os
import pickle
import time
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage import LocalEnvironment
from sage.common.errors import SourceError
from sage.connector.csv_file import CsvSource
from sage.connector.file import TextFileSource
from sage.connector.file_watch import GROUPS, Watch
from sage.connector.parquet_source import ParquetSource
from sage.testing import ManualClock, StandaloneContext


def put(directory, name, *lines):
    """Write a file elsewhere and rename it into place."""
    draft = directory / f".{name}.draft"
    draft.write_text("".join(f"{line}\n" for line in lines))
    draft.rename(directory / name)


def open_reader(source, splits=None, **context):
    splits = dict.fromkeys(source.list_splits()) if splits is None else splits
    return source.create_reader(splits, StandaloneContext(**context))


def read_what_is_there(reader):
    records = []
    while batch := reader.read_batch(2):
        records += batch
    return records


class Restarts(RuleBasedStateMachine):
    """Files appear while subtasks read, stop and go on, with another number of them too."""

    @initialize(parallelism=st.integers(1, 3))
    def begin(self, parallelism):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.place = Path(self.folder.name)
        self.clock = ManualClock()
        self.source = TextFileSource(self.place, watch=5)
        self.written, self.read = [], []
        self.positions = dict.fromkeys(self.source.list_splits())
        self.open(parallelism)

    def open(self, parallelism):
        splits = self.source.list_splits()
        dealt = [splits[subtask::parallelism] for subtask in range(parallelism)]
        self.readers = [
            open_reader(self.source, {n: self.positions[n] for n in names}, clock=self.clock)
            for names in dealt
        ]
        self.reread = list(self.read)

    @rule(lines=st.integers(0, 5))
    def a_file_appears(self, lines):
        number = len(self.written)
        content = [f"{number}.{line}" for line in range(lines)]
        put(self.place, f"{number}.txt", *content)
        self.written.append(content)

    @rule(which=st.integers(0, 2), count=st.integers(1, 4))
    def one_reads(self, which, count):
        self.reread += self.readers[which % len(self.readers)].read_batch(count)

    @rule()
    def time_passes(self):
        self.clock.advance(seconds=5)

    @rule()
    def a_checkpoint_is_taken(self):
        self.positions = pickle.loads(
            pickle.dumps({k: v for reader in self.readers for k, v in reader.snapshot().items()})
        )
        self.read = list(self.reread)

    @rule(parallelism=st.integers(1, 3))
    def all_is_lost_and_goes_on(self, parallelism):
        for reader in self.readers:
            reader.close()
        self.open(parallelism)

    @invariant()
    def nothing_is_read_twice(self):
        if hasattr(self, "reread"):
            assert len(set(self.reread)) == len(self.reread)

    def teardown(self):
        if not hasattr(self, "readers"):
            return
        self.clock.advance(seconds=5)
        for reader in self.readers:
            self.reread += read_what_is_there(reader)
            reader.close()
        self.folder.cleanup()
        assert sorted(self.reread) == sorted(line for lines in self.written for line in lines)


Restarts.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_each_file_is_read_once = Restarts.TestCase


def test_files_come_in_the_order_of_their_numbers_and_not_before_the_next_look(tmp_path):
    clock = ManualClock()
    put(tmp_path, "part-10", "c")
    put(tmp_path, "part-2", "b")
    with closing(open_reader(TextFileSource(tmp_path, watch=5), clock=clock)) as reader:
        assert reader.read_batch(1) == ["b"]
        assert reader.gauges() == {"files_waiting": 1}
        assert read_what_is_there(reader) == ["c"]
        put(tmp_path, "part-1", "a")
        clock.advance(seconds=4)
        assert read_what_is_there(reader) == []
        clock.advance(seconds=1)
        assert read_what_is_there(reader) == ["a"]
        assert reader.poll_interval == 5


def test_drafts_and_hidden_files_are_passed_over(tmp_path):
    for name in (".a", "_SUCCESS", "b.tmp", "c"):
        put(tmp_path, name, name)
    (tmp_path / "directory").mkdir()
    with closing(open_reader(TextFileSource(tmp_path, watch=1))) as reader:
        assert read_what_is_there(reader) == ["c"]
    watch = Watch(1, ignore=["c"])
    with closing(open_reader(TextFileSource(tmp_path, watch=watch))) as reader:
        assert read_what_is_there(reader) == [".a", "_SUCCESS", "b.tmp"]


def test_patterns_and_several_directories_are_watched_too(tmp_path):
    clock = ManualClock()
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "in" / "**" / "*.txt", tmp_path / "other"]
    with closing(open_reader(TextFileSource(paths, watch=1), clock=clock)) as reader:
        assert read_what_is_there(reader) == []
        (tmp_path / "in" / "day").mkdir()
        put(tmp_path / "in" / "day", "a.txt", "a")
        put(tmp_path / "in", "b.log", "b")
        put(tmp_path / "other", "late.log", "late")
        clock.advance(seconds=1)
        assert read_what_is_there(reader) == ["a", "late"]


def test_a_file_that_grows_is_read_when_it_has_been_the_same_for_a_while(tmp_path):
    clock = ManualClock()
    path = tmp_path / "a"
    source = TextFileSource(tmp_path, watch=Watch(1, stable_for=2))
    with closing(open_reader(source, clock=clock)) as reader:
        with path.open("a") as file:
            for line in ("1\n", "2\n", "3\n"):
                file.write(line)
                file.flush()
                clock.advance(seconds=1)
                assert read_what_is_there(reader) == []
        clock.advance(seconds=1)
        assert read_what_is_there(reader) == []
        clock.advance(seconds=1)
        assert read_what_is_there(reader) == ["1", "2", "3"]


def test_csv_and_parquet_are_watched(tmp_path):
    put(tmp_path, "a.csv", "x,y", "1,2")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with closing(open_reader(CsvSource(tmp_path / "*.csv", watch=1))) as reader:
        assert [row.values for row in read_what_is_there(reader)] == [["1", "2"]]
    with closing(open_reader(ParquetSource(tmp_path / "*.parquet", watch=1))) as reader:
        assert read_what_is_there(reader) == [{"x": 1}]


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.txt", "no/**/x/*"])
def test_a_directory_that_is_not_there_is_told(path, tmp_path):
    source = TextFileSource(tmp_path / "in" / path, watch=1)
    with pytest.raises(SourceError, match=r"cannot watch .*there is no directory"):
        source.list_splits()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextFileSource("x", watch=0), "at most once in a millisecond"),
        (lambda: TextFileSource("x", watch="1s"), "watch must be a timedelta"),
        (lambda: TextFileSource("x", watch=1, split_bytes=9), "files that are not watched"),
        (lambda: Watch(1, stable_for=-1), "stable_for is not negative"),
        (lambda: Watch(1, ignore="*.tmp"), "ignore is a list"),
    ],
)
def test_odd_settings_are_told_at_once(make, message):
    with pytest.raises(SourceError, match=message):
        make()


def test_a_directory_that_goes_away_is_told(tmp_path):
    clock = ManualClock()
    (tmp_path / "in").mkdir()
    with closing(open_reader(TextFileSource(tmp_path / "in", watch=1), clock=clock)) as reader:
        assert read_what_is_there(reader) == []
        (tmp_path / "in").rename(tmp_path / "out")
        clock.advance(seconds=1)
        with pytest.raises(SourceError, match="there is no directory"):
            reader.read_batch(1)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(tmp_path, done, savepoint=None, parallelism=1):
    """Run the job from a savepoint on until a condition holds; stop it with another one."""
    env = LocalEnvironment("watch", {"parallelism": parallelism})
    env.enable_checkpointing(0.05, tmp_path / "checkpoints")
    lines = env.from_text_file(tmp_path / "in", watch=0.02, uid="lines")
    lines.to_files(tmp_path / "out", "text", uid="out")
    if savepoint is not None:
        env.restore_from(savepoint)
    env.submit()
    wait_until(done)
    answer = env.job.stop(20, savepoint=tmp_path / "savepoints")
    assert answer["status"] == "success", answer
    return answer["message"]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3)])
def test_a_job_that_is_stopped_goes_on_with_the_files_that_came_meanwhile(tmp_path, before, after):
    def lines():
        files = (tmp_path / "out").glob("part-*")
        return sorted(line for file in files for line in file.read_text().split())

    (tmp_path / "in").mkdir()
    put(tmp_path / "in", "0", "a", "b")
    put(tmp_path / "in", "1", "c")
    savepoint = run(tmp_path, lambda: len(lines()) == 3, None, before)
    for number, letter in enumerate("defg", 2):
        put(tmp_path / "in", str(number), letter)
    run(tmp_path, lambda: len(lines()) >= 7, savepoint, after)
    assert lines() == list("abcdefg")
    assert [name for name in os.listdir(tmp_path / "out") if name.startswith(".")] == []


def test_there_are_groups_enough_for_many_subtasks(tmp_path):
    source = TextFileSource(tmp_path, watch=1)
    assert len(source.list_splits()) == GROUPS
    assert not source.bounded
