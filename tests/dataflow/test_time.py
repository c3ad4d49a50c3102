"""Durations, timestamps and watermark generators."""

import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.dataflow.time import (
    bounded_out_of_orderness,
    monotonic_timestamps,
    punctuated,
    timestamp_ms,
    to_ms,
    utc_datetime,
)


def test_durations_are_rounded_to_whole_milliseconds():
    assert to_ms(timedelta(days=10_000, microseconds=1500)) == 864_000_000_002
    assert to_ms(timedelta(microseconds=499)) == 0
    assert to_ms(timedelta(milliseconds=-1)) == -1
    assert to_ms(2) == 2000
    assert to_ms(0.0005) == 0


@pytest.mark.parametrize("wrong", [True, None, "1"])
def test_what_is_no_duration_is_refused(wrong):
    with pytest.raises(TypeError, match="gap must be a timedelta or a number of seconds"):
        to_ms(wrong, name="gap")


def test_timestamps_are_in_utc_unless_they_say_otherwise():
    there = timezone(timedelta(hours=8))
    assert timestamp_ms(datetime(1970, 1, 2)) == 86_400_000
    assert timestamp_ms(datetime(1970, 1, 1, 8, tzinfo=there)) == 0
    assert timestamp_ms(datetime(1969, 12, 31, 23, 59, 59, 999_999)) == -1
    assert timestamp_ms(-3) == -3


@pytest.mark.parametrize("wrong", [True, None, 1.5, "2020-01-01"])
def test_what_is_no_timestamp_is_refused(wrong):
    with pytest.raises(TypeError, match="a timestamp is a datetime, or an int of milliseconds"):
        timestamp_ms(wrong)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_timestamp_becomes_the_datetime_it_was(moment):
    back = utc_datetime(timestamp_ms(moment))
    assert timedelta(0) <= moment - back < timedelta(milliseconds=1)


def test_watermarks_follow_the_highest_timestamp():
    marks = bounded_out_of_orderness(timedelta(milliseconds=100)).create()
    assert marks.on_periodic() is None
    marks.on_batch("abc", [50, 300, 120])
    marks.on_event("d", 299)
    assert marks.on_periodic() == 199
    assert marks.on_batch([], []) is None
    ordered = monotonic_timestamps().create()
    ordered.on_event("a", -5)
    assert ordered.on_periodic() == -6


def test_records_may_carry_watermarks():
    marks = punctuated(_said).create()
    assert marks.on_batch([None, 5, datetime(1970, 1, 1), None], [1, 2, 3, 4]) == 5
    assert marks.on_batch([None], [1]) is None
    assert marks.on_periodic() is None


def _said(value, timestamp):
    return value


def test_strategies_can_be_pickled_and_each_input_has_its_own_generator():
    for strategy in (monotonic_timestamps(), bounded_out_of_orderness(3), punctuated(_said)):
        copy = pickle.loads(pickle.dumps(strategy))
        assert copy.create() is not copy.create()


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="bound must not be negative"):
        bounded_out_of_orderness(-1)
