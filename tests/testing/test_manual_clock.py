"""The manual clock: time passes when the test says so, and whoever waited for it is woken."""

import threading
from math import inf

import pytest

from sage.common.clock import Doorbell
from sage.testing import ManualClock


def test_time_stands_still_until_it_is_moved():
    clock = ManualClock(start_ms=5)
    assert (clock.now_ms(), clock.monotonic()) == (5, 0.0)
    for _ in range(10):
        clock.advance(seconds=0.1)
    clock.advance(ms=7)
    assert (clock.now_ms(), clock.monotonic()) == (1012, 1.007)


def test_time_does_not_go_back():
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(seconds=-1)


def start_waiting(clock, doorbell, timeout):
    thread = threading.Thread(target=clock.wait, args=(doorbell, timeout))
    thread.start()
    return thread


def test_a_wait_ends_when_its_time_has_passed_and_not_before():
    clock = ManualClock()
    early = start_waiting(clock, Doorbell(), 1.0)
    late = start_waiting(clock, Doorbell(), 2.5)
    clock.wait_waiting(2)
    clock.advance(seconds=1)
    early.join(10)
    assert not early.is_alive()
    clock.advance(seconds=1)
    assert late.is_alive()
    clock.advance(ms=500)
    late.join(10)
    assert not late.is_alive()


@pytest.mark.parametrize("timeout", [None, 1e9])
def test_a_ring_ends_a_wait(timeout):
    clock, doorbell = ManualClock(), Doorbell()
    thread = start_waiting(clock, doorbell, timeout)
    clock.wait_waiting()
    clock.advance(seconds=1000)
    assert thread.is_alive()
    doorbell.ring()
    thread.join(10)
    assert not thread.is_alive()


def test_an_earlier_ring_or_no_time_at_all_ends_a_wait_at_once():
    clock, doorbell = ManualClock(), Doorbell()
    clock.wait(doorbell, 0)
    doorbell.ring()
    clock.wait(doorbell, 10)


def test_a_deadline_stays_right_when_time_passes_before_the_wait():
    clock = ManualClock()
    deadline = clock.monotonic() + 30
    clock.advance(seconds=30)
    clock.wait_until(Doorbell(), deadline)


def test_a_deadline_ends_a_wait_and_infinity_does_not():
    clock, never = ManualClock(), Doorbell()
    due = threading.Thread(target=clock.wait_until, args=(Doorbell(), 2.0))
    rung = threading.Thread(target=clock.wait_until, args=(never, inf))
    due.start()
    rung.start()
    clock.wait_waiting(2)
    clock.advance(seconds=2)
    due.join(10)
    assert not due.is_alive()
    assert rung.is_alive()
    never.ring()
    rung.join(10)
    assert not rung.is_alive()


def test_a_wait_never_ends_shortly_before_its_deadline():
    clock = ManualClock()
    deadline = 0.1 + 0.2  # a little more than 0.3
    thread = threading.Thread(target=clock.wait_until, args=(Doorbell(), deadline))
    clock.advance(ms=300)
    thread.start()
    clock.wait_waiting()
    clock.advance(seconds=1e-6)
    thread.join(10)
    assert not thread.is_alive()
    assert clock.monotonic() >= deadline


def test_waiting_for_threads_that_do_not_come_fails():
    with pytest.raises(TimeoutError, match="0 of 1 threads"):
        ManualClock().wait_waiting(timeout=0)
