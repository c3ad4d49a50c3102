"""How much may be under way to a slot: what it takes in a second, never nothing."""

from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.runtime.exchange.in_flight import FEWEST_FRAMES, MOST_FRAMES, InFlightLimit


@given(st.integers(1, 800), st.integers(1, 40))
def test_as_much_as_is_taken_in_a_second_is_under_way(taken_in_a_second, looks):
    limit, waiting, taken = InFlightLimit(0.0), 0, 0.0
    for look in range(1, 100 + looks):
        now = look / 10
        while not limit.is_reached(waiting, now) and waiting < MOST_FRAMES:
            limit.sent()
            waiting += 1
        taken += taken_in_a_second / 10
        while taken >= 1 and waiting:
            taken, waiting = taken - 1, waiting - 1
    assert FEWEST_FRAMES <= limit.frames <= max(FEWEST_FRAMES, 2.5 * taken_in_a_second + 10)


def test_whoever_stands_still_has_two_waiting_and_more_once_it_takes_them():
    limit = InFlightLimit(0.0)
    limit.sent()
    assert not limit.is_reached(1, 0.5)
    assert limit.frames == FEWEST_FRAMES
    limit.sent()
    assert limit.is_reached(2, 5.0)
    for second in range(6, 20):
        assert not limit.is_reached(0, second)
    assert limit.frames == MOST_FRAMES
