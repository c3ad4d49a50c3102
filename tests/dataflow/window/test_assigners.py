"""The boundary cases of Flink's window assigners, and what is said about wrong arguments."""

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from sage.dataflow.time import MAX_WATERMARK
from sage.dataflow.window import (
    GLOBAL_WINDOW,
    CountWindows,
    GlobalWindows,
    SessionWindows,
    SlidingTimeWindows,
    TumblingTimeWindows,
    Window,
    WindowResult,
    count_window,
    global_window,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)


def seconds(*numbers):
    return [timedelta(seconds=number) for number in numbers]


@pytest.mark.parametrize(
    ("offset", "timestamp", "start"),
    [
        (0, 0, 0),
        (0, 4999, 0),
        (0, 5000, 5000),
        (0, -1, -5000),
        (0, -5000, -5000),
        (0, -5001, -10000),
        (0.1, 100, 100),
        (0.1, 5099, 100),
        (0.1, 5100, 5100),
        (0.1, 99, -4900),
        (-0.1, 0, -100),
        (-0.1, 4899, -100),
        (-0.1, 4900, 4900),
    ],
)
def test_tumbling_windows_of_five_seconds(offset, timestamp, start):
    assigner = TumblingTimeWindows.of(5, offset=offset)
    assert assigner.assign(timestamp) == [Window(start, start + 5000)]


@pytest.mark.parametrize(
    ("offset", "timestamp", "first"),
    [
        (0, 0, -4000),
        (0, 4999, 0),
        (0, 5000, 1000),
        (0, -1, -5000),
        (0.1, 100, -3900),
        (0.1, 5099, 100),
        (0.1, 5100, 1100),
        (-0.1, 0, -4100),
        (-0.1, 4899, -100),
        (-0.1, 4900, 900),
        (0.5, 100, -4500),
        (0.5, 5499, 500),
    ],
)
def test_sliding_windows_of_five_seconds_every_second(offset, timestamp, first):
    starts = range(first, first + 5000, 1000)
    expected = [Window(start, start + 5000) for start in starts]
    assert SlidingTimeWindows.of(5, 1, offset=offset).assign(timestamp) == expected


def test_a_slide_longer_than_the_size_leaves_gaps():
    assigner = sliding_time_window(*seconds(1, 3))
    assert assigner.assign(999) == [Window(0, 1000)]
    assert assigner.assign(1000) == []
    assert assigner.assign(2999) == []
    assert assigner.assign(3000) == [Window(3000, 4000)]


@pytest.mark.parametrize("timestamp", [0, 4999, 5000, -7])
def test_a_session_starts_as_one_gap(timestamp):
    assigner = SessionWindows.of(timedelta(seconds=5))
    assert assigner.assign(timestamp) == [Window(timestamp, timestamp + 5000)]


def test_a_gap_may_come_with_the_record():
    assigner = session_window(lambda record: timedelta(milliseconds=record))
    assert assigner.assign(10, 7) == [Window(10, 17)]
    with pytest.raises(ValueError, match="gap must be at least a millisecond"):
        assigner.assign(10, 0)


def test_counts_and_everything_share_the_window_that_never_ends():
    for assigner in (count_window(3), global_window()):
        assert assigner.assign(5) == [GLOBAL_WINDOW]
        assert not assigner.on_event_time
    assert GLOBAL_WINDOW.max_timestamp == MAX_WATERMARK


def test_the_names_of_classes_and_of_functions_mean_the_same():
    assert tumbling_time_window(minutes=5) == TumblingTimeWindows.of(timedelta(minutes=5))
    assert sliding_time_window(60, 1) == SlidingTimeWindows.of(timedelta(minutes=1), 1.0)
    assert session_window(seconds=3) == SessionWindows.of(3)
    assert count_window(4, 2) == CountWindows.of(4, slide=2)
    assert global_window() == GlobalWindows.of()
    assert tumbling_time_window(hours=1, minutes=30).size_ms == 5_400_000


@pytest.mark.parametrize(
    "assigner",
    [
        tumbling_time_window(days=1, offset=timedelta(hours=-8)),
        sliding_time_window(60, 1, processing_time=True),
        session_window(seconds=3),
        count_window(4, 2),
        global_window(),
    ],
)
def test_assigners_can_be_pickled(assigner):
    assert pickle.loads(pickle.dumps(assigner)) == assigner


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tumbling_time_window(-1), ValueError, "size must be at least a millisecond"),
        (lambda: tumbling_time_window(0), ValueError, "size must be at least a millisecond"),
        (lambda: tumbling_time_window(0.0001), ValueError, "at least a millisecond"),
        (lambda: tumbling_time_window(10, offset=10), ValueError, "offset must be shorter"),
        (lambda: tumbling_time_window(10, offset=-11), ValueError, "offset must be shorter"),
        (tumbling_time_window, TypeError, "needs a size"),
        (lambda: tumbling_time_window(5, minutes=5), TypeError, "not both"),
        (lambda: tumbling_time_window(minute=5), TypeError, "Did you mean 'minutes'"),
        (lambda: tumbling_time_window("5m"), TypeError, "timedelta or a number of seconds"),
        (lambda: tumbling_time_window(True), TypeError, "timedelta or a number of seconds"),
        (lambda: tumbling_time_window(float("nan")), ValueError, "finite"),
        (lambda: sliding_time_window(-2, 1), ValueError, "size must be at least"),
        (lambda: sliding_time_window(2, -1), ValueError, "slide must be at least"),
        (lambda: sliding_time_window(20, 10, offset=-11), ValueError, "shorter than the slide"),
        (lambda: sliding_time_window(20, 10, offset=10), ValueError, "shorter than the slide"),
        (session_window, TypeError, "needs a gap"),
        (lambda: session_window(-1), ValueError, "gap must be at least"),
        (lambda: session_window(len, minutes=1), TypeError, "not both"),
        (lambda: count_window(0), ValueError, "size must be at least 1"),
        (lambda: count_window(2.0), TypeError, "whole number"),
        (lambda: count_window(2, slide=0), ValueError, "slide must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_result_says_its_window():
    result = WindowResult("a", 0, 60_000, 3)
    assert result.start_time == datetime(1970, 1, 1, tzinfo=UTC)
    assert result.end_time == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    assert pickle.loads(pickle.dumps(result)) == result
    forever = WindowResult("a", *GLOBAL_WINDOW, 3)
    assert forever.start_time.year == 1
    assert forever.end_time.year == 9999
