"""When a failed job starts again: Flink's strategies, options and defaults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.kernel.checkpoint.restart_strategy import (
    RESTART_KEYS,
    ExponentialDelay,
    FailureRate,
    FixedDelay,
    NoRestart,
    parse_restart_strategy,
)

EXPONENTIAL = "restart-strategy.exponential-delay"


def middle():
    return 0.5


@pytest.mark.parametrize(
    ("config", "failures", "delays"),
    [
        ({}, [0], [None]),
        ({"restart_strategy": "none"}, [0], [None]),
        ({"restart-strategy.type": "off"}, [0], [None]),
        ({"restart_strategy": "fixed-delay"}, [0, 9], [1.0, None]),
        (
            {"restart_strategy": "fixed_delay", "max_attempts": 2, "delay": "3 s"},
            [0, 1, 2],
            [3.0, 3.0, None],
        ),
        (
            {"restart_strategy": "fixed-delay", "max_failures": 3, "failure_rate_interval": 60},
            [0, 1e6, 2e6, 3e6],
            [1.0, 1.0, 1.0, None],
        ),
        ({"restart_strategy": "failure-rate"}, [0, 61, 121], [1.0, 1.0, None]),
        (
            {"restart_strategy": "failure-rate", "max_failures": 2, "failure_rate_interval": "10 s"},
            [0, 5, 10.5, 14],
            [1.0, 1.0, 1.0, None],
        ),
        (
            {"restart_strategy": "exponential-backoff", "jitter_factor": 0, "max_backoff": 2},
            [0, 10, 20, 30, 4000],
            [1.0, 1.5, 2.0, 2.0, 1.0],
        ),
        (
            {"restart_strategy": "exponential-delay", "max_attempts": 2},
            [0, 1, 2],
            [1.0, 1.5, None],
        ),
    ],
)  # fmt: skip
def test_delays(config, failures, delays):
    strategy = parse_restart_strategy(config)
    assert [strategy.next(float(now), middle) for now in failures] == delays


def test_defaults_are_flinks():
    strategy = parse_restart_strategy({}, default="exponential-delay")
    assert isinstance(strategy, ExponentialDelay)
    assert vars(strategy) == vars(ExponentialDelay())
    assert (strategy.initial_backoff, strategy.max_backoff, strategy.backoff_multiplier) == (
        1,
        60,
        1.5,
    )
    assert (strategy.reset_backoff_threshold, strategy.jitter_factor) == (3600, 0.1)
    assert strategy.attempts_before_reset is None
    rate = parse_restart_strategy({"restart_strategy": "failure-rate"})
    assert (rate.max_failures_per_interval, rate.interval, rate.delay) == (1, 60, 1)


def test_every_option_under_flinks_name():
    values = {
        "restart-strategy": "exponentialdelay",
        f"{EXPONENTIAL}.initial-backoff": "10 s",
        f"{EXPONENTIAL}.max-backoff": "2 min",
        f"{EXPONENTIAL}.backoff-multiplier": 2.0,
        f"{EXPONENTIAL}.reset-backoff-threshold": "10 min",
        f"{EXPONENTIAL}.jitter-factor": 0.5,
        f"{EXPONENTIAL}.attempts-before-reset-backoff": "infinite",
        "restart-strategy.fixed-delay.attempts": 5,
        "restart-strategy.failure-rate.max-failures-per-interval": 5,
    }
    assert values.keys() <= RESTART_KEYS
    assert vars(parse_restart_strategy(values)) == vars(
        ExponentialDelay(
            initial_backoff=10.0,
            max_backoff=120.0,
            backoff_multiplier=2.0,
            reset_backoff_threshold=600.0,
            jitter_factor=0.5,
        )
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"restart_stategy": "none"}, "unknown restart key 'restart_stategy'. Did you mean 'restart"),
        ({"restart_strategy": "fixed-dealy"}, "choose one of .*Did you mean 'fixed-delay'"),
        ({"restart_strategy": "fixed-delay", "max_failures": -1}, "must be a number from 0"),
        ({"restart_strategy": "fixed-delay", "delay": "soon"}, "delay must be a number of seconds"),
        ({"restart_strategy": "fixed-delay", "delay": -1}, "delay must be at least 0"),
        ({"restart_strategy": "fixed-delay", "delay": 1, "restart_delay": 2}, "the same setting"),
        ({"restart_strategy": "failure-rate", "failure_rate_interval": 0}, "more than 0"),
        ({"restart_strategy": "exponential-delay", "initial_backoff": 90}, "must not be more than"),
        ({"restart_strategy": "exponential-delay", "backoff_multiplier": 1}, "more than 1"),
        ({"restart_strategy": "exponential-delay", "backoff_multiplier": "x"}, "must be a number"),
        ({"restart_strategy": "exponential-delay", "jitter_factor": 2}, "from 0 to 1"),
        ({"restart_strategy": "exponential-delay", "max_failures": True}, "must be a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(config, message):
    with pytest.raises(ConfigError, match=message):
        parse_restart_strategy(config)


gaps = st.lists(st.floats(0, 10_000), min_size=1, max_size=40)


def times(gaps):
    now = 0.0
    for gap in gaps:
        now += gap
        yield now


@given(gaps, st.integers(0, 5))
def test_a_fixed_number_of_restarts(gaps, attempts):
    strategy = FixedDelay(attempts, 2.0)
    delays = [strategy.next(now, middle) for now in times(gaps)]
    assert delays == [2.0 if n < attempts else None for n in range(len(gaps))]


@given(gaps, st.integers(0, 5), st.floats(1, 5000))
def test_the_rate_is_that_of_a_count_over_the_interval(gaps, allowed, interval):
    strategy = FailureRate(allowed, interval, 2.0)
    seen = []
    for now in times(gaps):
        seen.append(now)
        too_many = sum(now - t <= interval for t in seen) > allowed
        assert strategy.next(now, middle) == (None if too_many else 2.0)


@given(gaps, st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_the_exponential_delay_stays_within_its_bounds(gaps, random, jitter):
    strategy = ExponentialDelay(jitter_factor=jitter)
    backoff, last = 1.0, None
    for now in times(gaps):
        fresh = last is None or now - last >= 3600 + backoff
        backoff, last = (1.0 if fresh else min(60.0, backoff * 1.5)), now
        delay = strategy.next(now, lambda: random)
        assert 0 <= delay <= 60
        assert abs(delay - backoff) <= backoff * jitter + 1e-9


def test_no_restart():
    assert NoRestart().next(0.0, middle) is None
