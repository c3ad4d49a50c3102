"""Settings: both spellings mean the same, the nearest layer wins, mistakes are named."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.breaker import BreakerPolicy
from sage.kernel.runtime.service.policy.call_options import FIELDS, CallOptions, CallPlan
from sage.kernel.runtime.service.policy.hedge import HedgePolicy
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig, RatePolicy
from sage.kernel.runtime.service.policy.retry import RetryPolicy

CHOICES = {
    "timeout": st.one_of(st.none(), st.floats(0, 100)),
    "retry": st.sampled_from([None, RetryPolicy(), RetryPolicy(max_attempts=9)]),
    "idempotent": st.booleans(),
    "cache_ttl": st.one_of(st.none(), st.floats(0, 100)),
    "hedge": st.sampled_from([None, HedgePolicy(delay=1)]),
    "fallback": st.sampled_from([None, str, repr]),
}
said = st.fixed_dictionaries({}, optional=CHOICES)


@given(said, said, said, said)
def test_what_is_said_nearest_to_the_call_wins(environment, service, method, call):
    config = PolicyConfig.parse(environment, {**service, "methods": {"get": method}})
    assert set(CHOICES) == set(FIELDS) == set(CallPlan.__struct_fields__)
    for name, nearer in (("get", method), ("put", {})):
        plan = config.plan(name).override(CallOptions(**call))
        for field in FIELDS:
            layers = [environment, service, nearer, call]
            told = [layer[field] for layer in layers if field in layer]
            assert getattr(plan, field) == (told[-1] if told else getattr(CallPlan(), field))


@given(said)
def test_options_lie_over_options_and_saying_nothing_changes_nothing(options):
    plan = CallPlan().override(CallOptions(**options))
    assert plan.override(CallOptions()) is plan
    assert plan.override(None) is plan


def test_the_short_spelling_of_a_file():
    config = PolicyConfig.parse(
        {"default_timeout": 30, "max_retries": 3, "retry_interval": 1},
        {
            "rate_limiting": 1000,
            "circuit_breaker": True,
            "retry_policy": {"max_retries": 2, "backoff_multiplier": 3},
        },
    )
    assert config.call.timeout == 30
    assert config.call.retry == RetryPolicy(max_attempts=3, initial_delay=1, multiplier=3)
    assert config.circuit_breaker == BreakerPolicy()
    assert config.rate_limiting == RatePolicy(requests_per_minute=1000)
    assert (config.rate_limiting.per_second, config.rate_limiting.burst_calls) == (1000 / 60, 17)


def test_the_full_spelling_and_objects():
    breaker, retry = BreakerPolicy(probes=1), RetryPolicy(retry_on=(OSError, "app.NotReady"))
    config = PolicyConfig.parse(
        {"retry": retry, "rate_limiting": {"requests_per_minute": 60, "burst": 5}},
        {"retry": {"jitter": 0.5}, "circuit_breaker": breaker, "hedge": True, "max_calls": 8},
    )
    assert config.call.retry == RetryPolicy(retry_on=(OSError, "app.NotReady"), jitter=0.5)
    assert config.circuit_breaker is breaker
    assert config.call.hedge == HedgePolicy(quantile=0.95)
    assert (config.rate_limiting.burst_calls, config.max_calls) == (5, 8)
    assert pickle.loads(pickle.dumps(config)) == config


def test_nothing_said_is_the_default_and_off_is_off():
    assert PolicyConfig.parse() == PolicyConfig.parse({}) == PolicyConfig()
    on = {"circuit_breaker": True, "rate_limiting": 5, "max_retries": 2, "hedge": {"delay": 1}}
    off = {"circuit_breaker": False, "rate_limiting": None, "retry": False, "hedge": None}
    assert PolicyConfig.parse(on, off) == PolicyConfig()
    assert PolicyConfig.parse(off, on) == PolicyConfig.parse(on)


def test_methods_are_merged_option_by_option():
    config = PolicyConfig.parse(
        {"methods": {"get": {"idempotent": True, "timeout": 1}}},
        {"methods": {"get": CallOptions(timeout=2), "find": {"max_retries": 0}}},
    )
    assert config.plan("get") == CallPlan(idempotent=True, timeout=2)
    assert config.plan("find").retry.max_attempts == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_retrys": 3}, r"unknown key 'max_retrys'.*Did you mean 'max_retries'"),
        ({"retry": {"max_atempts": 3}}, r"retry: unknown key 'max_atempts'.*'max_attempts'"),
        ({"circuit_breaker": {"prob": 1}}, "circuit_breaker: unknown key 'prob'.*'probes'"),
        ({"methods": {"get": {"timout": 1}}}, "methods: get: unknown key 'timout'.*'timeout'"),
        ({"methods": {"get": {"max_calls": 1}}}, "get: unknown key 'max_calls'"),
        ({"methods": 3}, "methods maps names"),
        ({"methods": {"get": 3}}, "get must be a mapping"),
        ({"call": {}}, "unknown key 'call'"),
        ({3: 4}, "unknown key 3"),
        ({"timeout": 1, "default_timeout": 2}, "timeout is given twice"),
        ({"max_retries": 1, "retry": {"max_attempts": 2}}, "max_attempts is given twice"),
        ({"max_retries": 1, "retry": None}, "must be a mapping"),
        ({"max_retries": -1}, "max_retries must be a whole number"),
        ({"max_retries": "3"}, "max_retries must be a whole number"),
        ({"timeout": -1}, "timeout must be from 0"),
        ({"timeout": "1"}, "Expected `float"),
        ({"retry": {"jitter": 2}}, r"jitter must be from 0 to 1, not 2.*retry"),
        ({"retry": "often"}, "retry"),
        ({"rate_limiting": True}, "needs a value"),
        ({"rate_limiting": 0}, "requests_per_minute must be"),
        ({"rate_limiting": {}}, "requests_per_minute"),
        ({"circuit_breaker": "yes"}, "circuit_breaker"),
        ({"fallback": 3}, "fallback must be a function"),
        ({"max_bytes": 0}, "max_bytes must be a whole number"),
        ({"retry_budget": {"max_tokens": 0}}, "max_tokens"),
    ],
)
def test_a_mistake_is_named_with_its_place(settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        PolicyConfig.parse(settings, where="service 'db'")
    assert str(caught.value).startswith("service 'db'")


@pytest.mark.parametrize("wrong", [{"timeout": "1"}, {"timeout": True}, {"cache_ttl": -1}])
def test_options_made_in_a_program_are_checked_too(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CallOptions(**wrong)
