"""Retries: bounded each, in sum, and over all calls; never where they could do harm."""

import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage.common.errors import (
    ConfigError,
    ServiceCallError,
    ServiceCancelledError,
    ServiceMethodError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.policy.error_kinds import error_type_name, matches
from sage.kernel.runtime.service.policy.retry import RetryBudget, RetryPolicy
from sage.testing import ManualClock

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10),
    initial_delay=st.floats(0, 10),
    multiplier=st.floats(1, 10),
    max_delay=st.floats(0, 20),
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_its_bounds(policy, attempt, chance):
    try:
        bound = min(policy.max_delay, policy.initial_delay * policy.multiplier ** (attempt - 1))
    except OverflowError:
        bound = policy.max_delay if policy.initial_delay else 0
    delay = policy.delay(attempt, lambda: chance)
    assert bound * (1 - policy.jitter) * (1 - 1e-9) <= delay <= bound


@given(policies, st.one_of(st.just(math.inf), st.floats(0, 30)), st.randoms(use_true_random=False))
def test_attempts_are_counted_and_the_next_one_begins_before_the_deadline(policy, timeout, random):
    attempts, slept = 1, 0.0
    while (delay := policy.next_delay(attempts, timeout - slept, random.random)) is not None:
        attempts += 1
        slept += delay
        assert slept < timeout or delay == 0
    assert attempts <= policy.max_attempts
    if timeout == math.inf:
        assert attempts == policy.max_attempts


def test_full_jitter_spreads_over_the_whole_range():
    policy, random = RetryPolicy(initial_delay=1, max_delay=1), Random(1)
    delays = [policy.delay(1, random.random) for _ in range(1000)]
    assert min(delays) < 0.01 < 0.99 < max(delays)


TRANSIENT = [ServiceUnavailableError("x"), ServiceOverloadedError("x"), ServiceTimeoutError("x")]
LASTING = [
    ServiceMethodError("x"),
    ServiceCancelledError("x"),
    ServiceCallError("s", "m", "builtins.KeyError", "x"),
    ValueError(),
]


@pytest.mark.parametrize("error", TRANSIENT + LASTING)
@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("may_have_run", [False, True])
def test_only_transient_errors_are_retried_and_only_where_it_is_safe(
    error, idempotent, may_have_run
):
    expected = error in TRANSIENT and (idempotent or not may_have_run)
    told = RetryPolicy().is_retryable(error, idempotent=idempotent, may_have_run=may_have_run)
    assert told == expected


def _raised(error):
    """Return what a caller gets when a service's method raises `error`."""
    kind = type(error)
    told = ServiceCallError("s", "m", f"{kind.__module__}.{kind.__qualname__}", str(error))
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    "kind",
    [ConnectionError, OSError, "ConnectionResetError", "ConnectionError", "builtins.OSError"],
)
def test_other_errors_are_retried_when_named(kind):
    policy = RetryPolicy(retry_on=(kind,))
    assert policy.is_retryable(_raised(ConnectionResetError()), idempotent=True)
    assert not policy.is_retryable(_raised(KeyError()), idempotent=True)
    assert not policy.is_retryable(TRANSIENT[0], idempotent=True)


def test_an_error_that_exists_in_the_service_alone_is_known_by_name():
    far = ServiceCallError("s", "m", "app.Outer.NotReady", "wait")
    assert matches(far, ["NotReady"])
    assert matches(far, ["app.Outer.NotReady"])
    assert not matches(far, ["Ready", "app", KeyError])
    assert error_type_name(far) == "app.Outer.NotReady"
    assert error_type_name(TRANSIENT[2]) == "ServiceTimeoutError"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"initial_delay": -1},
        {"initial_delay": math.nan},
        {"multiplier": 0.5},
        {"max_delay": math.inf},
        {"jitter": 1.1},
        {"retry_on": (3,)},
        {"retry_on": ("",)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_fractions_that_floats_cannot_hold_add_up_to_a_retry():
    budget = RetryBudget(ManualClock(), ratio=0.1, min_per_second=0, max_tokens=5)
    while budget.try_withdraw():
        pass
    for _ in range(10):
        assert not budget.try_withdraw()
        budget.deposit()
    assert budget.try_withdraw()


class BudgetMachine(RuleBasedStateMachine):
    """The budget against exact fractions that are brought up to date at each step."""

    @initialize(
        ratio=st.sampled_from([0, 0.125, 0.2, 0.5, 1]),
        rate=st.sampled_from([0, 0.5, 2, 10]),
        most=st.sampled_from([0, 1, 2.5, 10]),
    )
    def make(self, ratio, rate, most):
        self.clock = ManualClock()
        self.budget = RetryBudget(self.clock, ratio, rate, most)
        self.ratio, self.rate, self.most = Fraction(str(ratio)), Fraction(rate), Fraction(most)
        self.tokens = self.most
        self.calls = self.retries = self.micros = 0

    def _add(self, tokens):
        self.tokens = min(self.most, self.tokens + tokens)

    @rule(count=st.integers(1, 12))
    def deposit(self, count):
        for _ in range(count):
            self.budget.deposit()
            self._add(self.ratio)
        self.calls += count

    @rule(micros=st.one_of(st.integers(1, 3_000_000), st.sampled_from([100_000, 500_000])))
    def wait(self, micros):
        self.clock.advance(seconds=micros / 1e6)
        self.micros += micros
        self._add(self.rate * Fraction(micros, 1_000_000))

    @rule()
    def withdraw(self):
        allowed = self.budget.try_withdraw()
        assert allowed == (self.tokens >= 1)
        self.tokens -= allowed
        self.retries += allowed

    @invariant()
    def the_balance_is_exact_and_the_promise_kept(self):
        assert math.isclose(self.budget.balance, self.tokens, abs_tol=1e-8)
        passed = self.rate * Fraction(self.micros, 1_000_000)
        assert self.retries <= self.most + self.ratio * self.calls + passed


BudgetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRetryBudget = BudgetMachine.TestCase
