"""The circuit breaker against a model that keeps every call it has ever seen."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage.common.errors import (
    ConfigError,
    ServiceCallError,
    ServiceCancelledError,
    ServiceMethodError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.policy.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from sage.testing import ManualClock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

policies = st.builds(
    BreakerPolicy,
    failure_ratio=st.sampled_from([0.25, 0.5, 1]),
    min_calls=st.integers(1, 6),
    window=st.sampled_from([1, 10, 12.5]),
    consecutive_failures=st.one_of(st.none(), st.integers(1, 4)),
    open_seconds=st.sampled_from([0, 0.5, 5]),
    probes=st.integers(1, 3),
)


class Model:
    """All calls since the breaker closed last, in a list that is counted anew each time."""

    def __init__(self, policy):
        self.policy, self.state, self.epoch = policy, CLOSED, 0
        self.history, self.opened_at = [], None
        self.begun = self.succeeded = 0

    def change(self, state, now):
        self.state, self.epoch, self.history = state, self.epoch + 1, []
        self.begun = self.succeeded = 0
        self.opened_at = now if state is OPEN else None

    def admits(self, now):
        if self.state is OPEN and now >= self.opened_at + self.policy.open_seconds:
            self.change(HALF_OPEN, now)
        if self.state is CLOSED:
            return True
        if self.state is OPEN or self.begun == self.policy.probes:
            return False
        self.begun += 1
        return True

    def end(self, epoch, failed, now):
        if epoch != self.epoch:
            return
        if self.state is CLOSED:
            self.history.append((now, failed))
            if failed and self.is_bad(now):
                self.change(OPEN, now)
        elif failed is None:
            self.begun -= 1
        elif failed:
            self.change(OPEN, now)
        else:
            self.succeeded += 1
            if self.succeeded == self.policy.probes:
                self.change(CLOSED, now)

    def is_bad(self, now):
        def slot(time):
            return int(time * (10 / self.policy.window))

        judged = [(time, failed) for time, failed in self.history if failed is not None]
        recent = [failed for time, failed in judged if slot(time) > slot(now) - 10]
        limit = self.policy.consecutive_failures
        in_a_row = limit is not None and len(judged) >= limit and all(f for _, f in judged[-limit:])
        enough = len(recent) >= self.policy.min_calls
        return in_a_row or (enough and sum(recent) >= self.policy.failure_ratio * len(recent))


class BreakerMachine(RuleBasedStateMachine):
    @initialize(policy=policies)
    def make(self, policy):
        self.clock = ManualClock()
        self.changes, self.flying = [], []
        self.model = Model(policy)
        self.breaker = CircuitBreaker(policy, self.clock, "service 'db'", self.changes.append)

    @rule()
    def begin(self):
        if self.model.admits(self.clock.monotonic()):
            self.flying.append((self.breaker.try_acquire(), self.model.epoch))
        else:
            with pytest.raises(ServiceUnavailableError, match="service 'db': its circuit breaker"):
                self.breaker.try_acquire()

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), failed=st.sampled_from([True, True, False, None]))
    def end(self, data, failed):
        index = data.draw(st.integers(0, len(self.flying) - 1))
        permit, epoch = self.flying.pop(index)
        told = {
            True: self.breaker.record_failure,
            False: self.breaker.record_success,
            None: self.breaker.release,
        }
        told[failed](permit)
        self.model.end(epoch, failed, self.clock.monotonic())

    @rule(outcomes=st.lists(st.booleans(), max_size=8))
    def call_several_times(self, outcomes):
        for failed in outcomes:
            before = len(self.flying)
            self.begin()
            if len(self.flying) > before:
                permit, epoch = self.flying.pop()
                error = ServiceTimeoutError("late") if failed else None
                self.breaker.record(permit, error)
                self.model.end(epoch, failed, self.clock.monotonic())

    @rule(
        micros=st.one_of(st.integers(0, 15_000_000), st.sampled_from([100_000, 500_000, 5_000_000]))
    )
    def wait(self, micros):
        self.clock.advance(seconds=micros / 1e6)

    @invariant()
    def both_are_in_the_same_state_and_every_change_was_told(self):
        assert self.breaker.state is self.model.state
        assert [change.number for change in self.changes] == list(range(1, self.model.epoch + 1))
        state = CLOSED
        for change in self.changes:
            assert change.before is state
            assert (change.before, change.after) in {
                (CLOSED, OPEN),
                (OPEN, HALF_OPEN),
                (HALF_OPEN, OPEN),
                (HALF_OPEN, CLOSED),
            }
            state = change.after
        assert state is self.breaker.state


BreakerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase


def test_a_refusal_says_when_the_next_probe_can_go():
    clock = ManualClock()
    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1, probes=1), clock)
    breaker.record_failure(breaker.try_acquire())
    clock.advance(seconds=3.5)
    with pytest.raises(ServiceUnavailableError, match=r"the next probe can go in 1\.5 s"):
        breaker.try_acquire()
    clock.advance(seconds=1.5)
    breaker.try_acquire()
    with pytest.raises(ServiceUnavailableError, match="probes are under way"):
        breaker.try_acquire()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ServiceTimeoutError("x"), "failure"),
        (ServiceUnavailableError("x"), "failure"),
        (ServiceCallError("s", "m", "builtins.KeyError", "x"), "success"),
        (ServiceCallError("s", "m", "app.PoolExhausted", "x"), "failure"),
        (ServiceOverloadedError("x"), "nothing"),
        (ServiceCancelledError("x"), "nothing"),
        (ServiceMethodError("x"), "nothing"),
        (KeyboardInterrupt(), "nothing"),
    ],
)
def test_what_an_error_says_about_the_service(error, verdict):
    assert BreakerPolicy(failure_errors=("PoolExhausted",)).verdict(error).value == verdict


@given(st.integers(1, 4), st.integers(2, 8))
@settings(max_examples=15, deadline=None)
def test_threads_get_as_many_probes_as_there_are(probes, count):
    clock = ManualClock()
    policy = BreakerPolicy(consecutive_failures=1, open_seconds=1, probes=probes)
    breaker = CircuitBreaker(policy, clock)
    breaker.record_failure(breaker.try_acquire())
    clock.advance(seconds=1)
    admitted, together = [], threading.Barrier(count)

    def call():
        together.wait(10)
        try:
            admitted.append(breaker.try_acquire())
        except ServiceUnavailableError:
            return

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == min(probes, count)
    for permit in admitted:
        breaker.record_success(permit)
    assert breaker.state is (CLOSED if count >= probes else HALF_OPEN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_ratio": 0},
        {"min_calls": 0},
        {"window": 0},
        {"consecutive_failures": 0},
        {"open_seconds": -1},
        {"probes": 0},
        {"failure_errors": (int,)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BreakerPolicy(**wrong)
