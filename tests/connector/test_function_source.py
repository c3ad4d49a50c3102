"""Live sources: each record is handed over at once, none is lost, and closing never hangs."""

import logging
import threading
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import PATIENCE
from sage.common.errors import SourceError
from sage.connector.function_source import Feed, FunctionSource
from sage.testing import StandaloneContext, check_source, read_all
from sage.testing.context import wait_batch


@contextmanager
def running(records, *, position=None, buffer_size=10_000, close=lambda: None, **options):
    """A reader of what `records()` gives, and its context."""
    context = StandaloneContext(operator_name="ticks", buffer_size=buffer_size)
    source = FunctionSource(lambda _: Feed(records(), close), **options)
    with closing(source.create_reader({"": position}, context)) as reader:
        yield reader, context


def wait_for(event):
    assert event.wait(PATIENCE)


def test_a_live_source_conforms():
    check_source(lambda: FunctionSource(lambda _: Feed(iter([1, None, "x", 0]))), [1, None, "x", 0])


def test_a_record_can_be_read_while_the_iterator_waits_for_the_next():
    go_on = threading.Event()

    def one_by_one():
        for n in range(3):
            yield n
            wait_for(go_on)
            go_on.clear()

    with running(one_by_one) as (reader, context):
        for n in range(3):
            assert wait_batch(reader, context) == [n]
            assert reader.read_batch(10) == []
            go_on.set()
        assert wait_batch(reader, context) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 7), st.integers(1, 9))
def test_nothing_is_lost_whatever_the_pace(steps, buffer_size, max_records):
    """The iterator stands still at random records until the task has read all before them."""
    taken = threading.Semaphore(0)

    def paced():
        given_out = 0
        for n, step in enumerate(steps):
            if step == 0:
                for _ in range(n - given_out):
                    assert taken.acquire(timeout=PATIENCE)
                given_out = n
            yield n

    read = []
    with running(paced, buffer_size=buffer_size) as (reader, context):
        while (batch := wait_batch(reader, context, max_records)) is not None:
            assert 1 <= len(batch) <= max_records
            read += batch
            taken.release(len(batch))
    assert read == list(range(len(steps)))


@pytest.mark.parametrize("buffer_size", [1, 2, 5])
def test_never_more_than_the_buffer_is_read_ahead(buffer_size):
    taken = 0
    ahead = []

    def numbers():
        for n in range(200):
            ahead.append(n - taken)
            yield n

    with running(numbers, buffer_size=buffer_size) as (reader, context):
        while (batch := wait_batch(reader, context, 3)) is not None:
            taken += len(batch)
    # One more: the task has taken a batch, and the test has not counted it yet.
    assert max(ahead) <= buffer_size + 3


def test_records_before_a_fault_come_first():
    def faulty():
        yield from (1, None)
        raise ValueError("broken")

    with running(faulty) as (reader, context):
        assert wait_batch(reader, context, 1) == [1]
        assert wait_batch(reader, context, 1) == [None]
        with pytest.raises(ValueError, match="broken"):
            wait_batch(reader, context)
        assert reader.snapshot() == {"": 2}


def test_a_source_that_cannot_be_opened_fails_the_read():
    def open_feed(context):
        raise ConnectionError("nobody there")

    with pytest.raises(ConnectionError, match="nobody there"):
        read_all(FunctionSource(open_feed))


def test_a_source_that_ends_the_process_fails_the_read():
    def exits():
        yield 1
        raise SystemExit(3)

    with pytest.raises(SourceError, match="raised SystemExit"):
        read_all(FunctionSource(lambda _: Feed(exits())))


def test_everything_happens_on_one_thread_and_close_comes_last():
    seen = []

    def note(what):
        seen.append((what, threading.current_thread().name))

    def records():
        note("read")
        try:
            yield 1
        finally:
            note("generator closed")

    with running(records, close=lambda: note("close")) as (reader, context):
        while wait_batch(reader, context) is not None:
            pass
    name = "sage-source-ticks"
    assert seen == [("read", name), ("generator closed", name), ("close", name)]


def test_a_fault_in_close_is_not_lost():
    def fail():
        raise OSError("cannot let go")

    with running(lambda: iter([1]), close=fail) as (reader, context):
        assert wait_batch(reader, context) == [1]
        with pytest.raises(OSError, match="cannot let go"):
            wait_batch(reader, context)


def test_closing_while_the_thread_waits_for_space_ends_at_once():
    closed = threading.Event()
    full = threading.Event()

    def endless():
        n = 0
        while True:
            if n == 4:
                full.set()
            yield n
            n += 1

    with running(endless, buffer_size=5, close=closed.set):
        wait_for(full)
    assert closed.is_set()


def test_closing_a_busy_endless_iterator_ends_it():
    def endless():
        while True:
            yield 1

    with running(endless, buffer_size=1 << 30) as (reader, context):
        assert wait_batch(reader, context, 10)
    assert "sage-source-ticks" not in [thread.name for thread in threading.enumerate()]


def test_a_blocked_iterator_is_left_behind_with_a_warning_and_closed_when_it_returns(caplog):
    started, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def blocked():
        try:
            started.set()
            wait_for(go_on)
            yield 1
        finally:
            closed.set()

    with caplog.at_level(logging.WARNING), running(blocked, close_timeout=0.01) as (reader, _):
        wait_for(started)
        reader.close()
    assert "source of 'ticks' has not returned within 0.01 s" in caplog.text
    go_on.set()
    wait_for(closed)
    for thread in threading.enumerate():
        if thread.name == "sage-source-ticks":
            thread.join(PATIENCE)


@pytest.mark.parametrize("ends", ["stop", "close"])
def test_a_record_taken_by_a_source_that_was_left_behind_is_told_as_lost(caplog, ends):
    started, go_on = threading.Event(), threading.Event()

    def blocked():
        started.set()
        wait_for(go_on)
        yield "somebody else's"

    with caplog.at_level(logging.WARNING), running(blocked, close_timeout=0.01) as (reader, _):
        assert reader.read_batch(1) == []
        wait_for(started)
        if ends == "stop":
            reader.stop()
            assert reader.read_batch(1) is None
        reader.close()
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == "sage-source-ticks":
                thread.join(PATIENCE)
    assert reader.lost == 1
    assert "source of 'ticks' gave a record after it had been stopped; it is lost" in caplog.text


def test_interrupt_makes_a_blocked_iterator_return():
    started, stop = threading.Event(), threading.Event()

    def blocked():
        started.set()
        wait_for(stop)
        yield 1

    source = FunctionSource(lambda _: Feed(blocked(), interrupt=stop.set))
    with closing(source.create_reader({"": None}, StandaloneContext())):
        wait_for(started)
    assert stop.is_set()


def test_a_failure_while_closing_is_logged(caplog):
    started, stop = threading.Event(), threading.Event()

    def blocked():
        started.set()
        wait_for(stop)
        raise OSError("cut off")
        yield

    source = FunctionSource(lambda _: Feed(blocked(), interrupt=stop.set))
    with caplog.at_level(logging.WARNING):
        reader = source.create_reader({"": None}, StandaloneContext(operator_name="ticks"))
        wait_for(started)
        reader.close()
        reader.close()
    assert "source of 'ticks' failed while it was being closed" in caplog.text


def test_a_restored_reader_skips_what_was_read():
    with running(lambda: iter("abcd"), position=3) as (reader, context):
        assert wait_batch(reader, context) == ["d"]
        assert reader.snapshot() == {"": 4}


def test_a_source_that_is_not_replayable_goes_on_with_what_comes():
    with running(lambda: iter("xy"), position=3, replayable=False) as (reader, context):
        read = []
        while (batch := wait_batch(reader, context)) is not None:
            read += batch
        assert read == ["x", "y"]
        assert reader.snapshot() == {"": 5}


def test_a_position_behind_the_end_is_refused():
    with (
        running(lambda: iter("ab"), position=3) as (reader, context),
        pytest.raises(SourceError, match="cannot continue after record 3 of 'ticks'"),
    ):
        wait_batch(reader, context)


def test_closing_while_skipping_ends_at_once():
    started = threading.Event()

    def endless():
        while True:
            started.set()
            yield 1

    with running(endless, position=1 << 60):
        wait_for(started)


def test_bounded_and_count_are_told():
    source = FunctionSource(lambda _: Feed(iter(()), count=3), bounded=True)
    assert source.bounded
    context = StandaloneContext()
    reader = source.create_reader({"": None}, context)
    assert wait_batch(reader, context, 1) is None
    assert reader.total_count() == 3
    reader.close()
