"""Hedges: late enough, before the deadline, and not more of them than the budget allows."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.call_statistics import CallStatistics
from sage.kernel.runtime.service.policy.hedge import REFRESH_SECONDS, HedgePolicy, Hedging
from sage.testing import ManualClock


@given(
    usual=st.one_of(st.none(), st.floats(0, 10)),
    fixed=st.booleans(),
    least=st.floats(0, 1),
    remaining=st.one_of(st.just(math.inf), st.floats(0, 10)),
)
def test_a_second_request_is_sent_after_the_usual_time_and_before_the_deadline(
    usual, fixed, least, remaining
):
    if fixed and usual is not None:
        policy = HedgePolicy(delay=usual, min_delay=least)
    else:
        policy = HedgePolicy(quantile=0.95, min_delay=least)
    delay = Hedging(policy, ManualClock(), lambda method, part: usual).delay("get", remaining)
    if usual is None or max(usual, least) >= remaining:
        assert delay is None
    else:
        assert delay == max(usual, least)


def test_the_quantile_is_that_of_the_method_and_is_looked_up_now_and_then():
    clock = ManualClock()
    statistics = CallStatistics("db", clock)
    hedging = Hedging(HedgePolicy(quantile=0.95), clock, statistics.quantile)
    assert hedging.delay("get") is None
    for _ in range(100):
        statistics.record("get", 0.010)
        statistics.record("put", 0.500)
    assert hedging.delay("get") is None
    assert hedging.delay("put") == pytest.approx(0.5, rel=0.04)
    clock.advance(seconds=REFRESH_SECONDS)
    assert hedging.delay("get") == pytest.approx(0.010, rel=0.04)


@given(st.integers(0, 500), st.floats(0, 1), st.integers(0, 100))
def test_there_are_no_more_second_requests_than_the_budget_allows(calls, ratio, seconds):
    clock = ManualClock()
    policy = HedgePolicy(delay=0.1, budget_ratio=ratio, budget_per_second=0.5)
    hedging = Hedging(policy, clock, lambda method, part: None)
    sent = 0
    for _ in range(calls):
        hedging.count_call()
        sent += hedging.try_send()
    clock.advance(seconds=seconds)
    sent += sum(hedging.try_send() for _ in range(200))
    assert sent <= 10 + ratio * calls + 0.5 * seconds + 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"delay": 1, "quantile": 0.9},
        {"delay": -1},
        {"quantile": 0.1},
        {"quantile": 1},
        {"delay": 1, "min_delay": -1},
        {"delay": 1, "budget_ratio": 2},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        HedgePolicy(**wrong)
