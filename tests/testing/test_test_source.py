"""The test source: faults are values, and they happen where they stand."""

import pytest

from sage.testing import (
    InjectedFaultError,
    ManualClock,
    StandaloneContext,
    TestSource,
    check_source,
    read_all,
)


def reader_of(source, position=None, clock=None):
    context = StandaloneContext(clock=clock or ManualClock())
    return source.create_reader(position or {"": None}, context)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_without_faults_it_is_a_source_like_any_other(batch_size):
    check_source(lambda: TestSource([1, None, 2, 3], batch_size), [1, None, 2, 3])


def test_abort_fails_once_and_the_next_attempt_passes_it():
    source = TestSource([1, TestSource.ABORT(), 2], batch_size=10)
    reader = reader_of(source)
    assert reader.read_batch(10) == [1]
    position = reader.snapshot()
    with pytest.raises(InjectedFaultError, match="index 1"):
        reader.read_batch(10)
    assert reader_of(source, position).read_batch(10) == [2]
    assert read_all(source) == [1, 2]


def test_eof_ends_and_the_next_attempt_continues_behind_it():
    source = TestSource([1, TestSource.EOF(), 2])
    reader = reader_of(source)
    assert [reader.read_batch(1), reader.read_batch(1)] == [[1], None]
    reader = reader_of(source, reader.snapshot())
    assert [reader.read_batch(1), reader.read_batch(1)] == [[2], None]


def test_pause_gives_nothing_until_the_clock_has_moved():
    clock = ManualClock(start_ms=100)
    reader = reader_of(TestSource([TestSource.PAUSE(2.5), 1]), clock=clock)
    assert reader.read_batch(1) == []
    clock.advance(seconds=2)
    assert reader.read_batch(1) == []
    assert reader.snapshot() == {"": 0}
    clock.advance(ms=500)
    assert reader.read_batch(1) == [1]


def test_batches_are_as_long_as_told():
    reader = reader_of(TestSource([1, 2, 3, 4, 5], batch_size=2))
    assert [reader.read_batch(9), reader.read_batch(1)] == [[1, 2], [3]]
