"""Deadlines: a moment, not a duration."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.deadline import NEVER, Deadline
from sage.testing import ManualClock

seconds = st.one_of(st.none(), st.floats(-10, 1000))


@given(seconds, st.floats(0, 2000))
def test_what_is_left_is_the_timeout_less_the_time_passed(timeout, passed):
    clock = ManualClock()
    deadline = Deadline.after(clock, timeout)
    clock.advance(seconds=passed)
    now = clock.monotonic()
    if timeout is None:
        assert deadline.remaining(clock) == math.inf
        assert deadline.timeout(clock) is None
        assert not deadline.expired(clock)
    else:
        assert deadline.remaining(clock) == max(0.0, timeout - now)
        assert deadline.timeout(clock) == deadline.remaining(clock)
        assert deadline.expired(clock) == (now >= timeout)


@given(st.lists(seconds, min_size=1))
def test_the_earliest_of_many_is_the_least(timeouts):
    clock = ManualClock()
    deadlines = [Deadline.after(clock, timeout) for timeout in timeouts]
    earliest = NEVER
    for deadline in deadlines:
        earliest = earliest.earliest(deadline)
    assert earliest == min(deadlines)


@given(seconds)
def test_it_survives_the_way_to_another_process(timeout):
    deadline = Deadline.after(ManualClock(), timeout)
    assert pickle.loads(pickle.dumps(deadline)) == deadline
    assert len(pickle.dumps(deadline, 5)) < 80


def test_it_cannot_be_moved_and_is_a_number():
    with pytest.raises(AttributeError):
        NEVER.at = 3.0
    with pytest.raises(ValueError, match="NaN"):
        Deadline.after(ManualClock(), math.nan)
