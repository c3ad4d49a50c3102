"""`env.load_services`: from a file to services that answer."""

from __future__ import annotations

import logging

import pytest

from sage import ConfigError, LocalEnvironment
from sage.kernel.runtime.service.policy.breaker import BreakerPolicy
from sage.kernel.runtime.service.policy.retry import RetryPolicy
from sage.kernel.runtime.service.service_caller import ServiceManager


@pytest.fixture
def env():
    with LocalEnvironment("services-from-a-file") as environment:
        yield environment


def load(env, tmp_path, text):
    path = tmp_path / "services.yaml"
    path.write_text(text)
    return env.load_services(path)


def test_services_are_registered_with_arguments_and_options(env, tmp_path, monkeypatch):
    monkeypatch.setenv("APPLES", "3")
    (registration,) = load(
        env,
        tmp_path,
        """
services:
  counts:
    class: collections.Counter
    kwargs: {apples: "${APPLES}", pears: 2}
    process_count: 2
service_call: {default_timeout: 7}
""",
    )
    factory = env.services.factory("counts")
    assert registration.name == "counts"
    assert (factory.options.isolation, factory.options.replicas) == ("process", 2)
    assert factory.options.calls.call.timeout == 7
    assert factory.kwargs == {"apples": "3", "pears": 2}


def test_a_loaded_service_answers(env, tmp_path):
    load(env, tmp_path, "services: {counts: {class: collections.Counter, kwargs: {a: 3}}}")
    assert ServiceManager(env).call_service_sync("counts", "total") == 3


def test_what_has_no_effect_is_told(env, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="sage"):
        load(
            env,
            tmp_path,
            "services: {c: {class: collections.Counter}}\nsecurity: {tls_enabled: true}\n",
        )
    assert "services.yaml:2" in caplog.text
    assert "no effect" in caplog.text


def test_what_the_file_says_about_calls_reaches_the_call_path(env, tmp_path):
    load(
        env,
        tmp_path,
        """
services:
  counts: {class: collections.Counter, timeout: 2, health_check_interval: 30}
service: {local: {request_queue_size: 9, queue_timeout: 1.5}}
service_call: {max_retries: 1, retry_interval: 0.5}
resilience: {circuit_breaker: true, retry_policy: {backoff_multiplier: 3}}
security: {rate_limiting: 1000}
""",
    )
    options = env.services.factory("counts").options
    calls = options.calls
    assert (options.health_check_interval, options.queue_timeout) == (30, 1.5)
    assert (calls.call.timeout, calls.max_calls) == (2, 9)
    assert calls.call.retry == RetryPolicy(max_attempts=2, initial_delay=0.5, multiplier=3)
    assert calls.circuit_breaker == BreakerPolicy()
    assert calls.rate_limiting.requests_per_minute == 1000


def test_a_misspelt_key_names_file_line_and_near_miss(env, tmp_path):
    with pytest.raises(ConfigError, match=r"services.yaml:3: .*Did you mean 'replicas'"):
        load(env, tmp_path, "services:\n  c:\n    replica: 2\n    class: collections.Counter\n")
