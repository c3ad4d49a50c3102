"""Limits against exact models: whole numbers for calls and bytes, fractions for the rate."""

import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage.common.errors import ConfigError, ServiceOverloadedError
from sage.kernel.runtime.service.policy.limits import CallLimit, CallRateLimit
from sage.testing import ManualClock


class CallLimitMachine(RuleBasedStateMachine):
    @initialize(
        calls=st.one_of(st.none(), st.integers(1, 5)), size=st.one_of(st.none(), st.integers(1, 50))
    )
    def make(self, calls, size):
        self.max_calls, self.max_bytes = calls, size
        self.limit = CallLimit(calls, size, "service 'db'")
        self.flying = []

    @rule(size=st.integers(0, 60))
    def acquire(self, size):
        if self.max_calls is not None and len(self.flying) >= self.max_calls:
            reached = f"max_calls is {self.max_calls}"
        elif self.max_bytes is not None and sum(self.flying) + size > self.max_bytes:
            reached = f"max_bytes is {self.max_bytes}"
        else:
            self.limit.acquire(size)
            self.flying.append(size)
            return
        with pytest.raises(ServiceOverloadedError, match=f"service 'db'.*{reached}"):
            self.limit.acquire(size)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def release(self, data):
        index = data.draw(st.integers(0, len(self.flying) - 1))
        self.limit.release(self.flying.pop(index))

    @precondition(lambda self: not self.flying)
    @rule()
    def release_what_was_not_acquired(self):
        with pytest.raises(RuntimeError, match="without acquire"):
            self.limit.release()

    @invariant()
    def counts_agree(self):
        assert (self.limit.calls, self.limit.bytes) == (len(self.flying), sum(self.flying))


CallLimitMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestCallLimit = CallLimitMachine.TestCase


class CallRateMachine(RuleBasedStateMachine):
    """A token bucket in exact fractions must say the same as the single float."""

    @initialize(rate=st.sampled_from([0.5, 1, 4, 10, 1000]), burst=st.integers(1, 5))
    def make(self, rate, burst):
        self.clock = ManualClock()
        self.limit = CallRateLimit(rate, burst, self.clock)
        self.rate, self.burst = Fraction(rate), burst
        self.tokens = Fraction(burst)

    @rule(micros=st.one_of(st.integers(1, 5_000_000), st.sampled_from([1, 1000, 100_000, 999_999])))
    def wait(self, micros):
        self.clock.advance(seconds=micros / 1e6)
        self.tokens = min(self.burst, self.tokens + self.rate * Fraction(micros, 1_000_000))

    @rule()
    def wait_as_long_as_told(self):
        micros = int(self.limit.wait_time() * 1e6) + 1
        self.wait(micros)
        assert self.limit.wait_time() == 0

    @rule(count=st.integers(1, 7))
    def begin(self, count):
        for _ in range(count):
            allowed = self.tokens >= 1
            assert self.limit.try_acquire() == allowed
            self.tokens -= allowed

    @rule()
    def begin_or_raise(self):
        if self.tokens >= 1:
            self.limit.acquire()
            self.tokens -= 1
        else:
            with pytest.raises(ServiceOverloadedError, match=r"per second .* next can begin in"):
                self.limit.acquire()


CallRateMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCallRateLimit = CallRateMachine.TestCase


@given(st.integers(1, 100), st.integers(1, 2000))
@settings(max_examples=30, deadline=None)
def test_callers_that_keep_exactly_to_the_rate_are_never_refused(per_second, calls):
    clock = ManualClock()
    limit = CallRateLimit(1e6 / (1e6 // per_second), 1, clock)
    for _ in range(calls):
        limit.acquire()
        clock.advance(seconds=1e6 // per_second / 1e6)


def test_threads_together_get_no_more_than_one():
    limit, rate = CallLimit(max_calls=7), CallRateLimit(1, 7, ManualClock())
    admitted = []

    def call():
        for _ in range(200):
            if rate.try_acquire():
                admitted.append(1)
            try:
                limit.acquire(3)
            except ServiceOverloadedError:
                continue
            limit.release(3)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), limit.calls, limit.bytes) == (7, 0, 0)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_limits_that_let_nothing_through_are_refused(wrong):
    with pytest.raises(ConfigError, match="max_calls"):
        CallLimit(max_calls=wrong)
    with pytest.raises(ConfigError, match="burst"):
        CallRateLimit(1.0, wrong, ManualClock())
    with pytest.raises(ConfigError, match="per_second"):
        CallRateLimit(0, 1, ManualClock())
