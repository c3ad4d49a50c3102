"""The figures of services as Prometheus sees them."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from sage import LocalEnvironment
from sage.kernel.runtime.service.prometheus import register_metrics
from sage.kernel.runtime.service.service_caller import ServiceManager


class Words:
    def __init__(self):
        self.words = {"hello": "world"}

    def get(self, key):
        return self.words[key]


@pytest.fixture
def registry():
    return CollectorRegistry()


def scrape(registry):
    """Return each sample by its name and labels."""
    return parse(generate_latest(registry).decode())


def parse(text):
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name, **labels):
    return f"sage_service_{name}", frozenset({"service": "words", **labels}.items())


@pytest.mark.parametrize(("isolation", "replicas"), [("local", 1), ("process", 2)])
def test_calls_failures_and_latencies_are_shown(registry, isolation, replicas):
    with LocalEnvironment("watched") as env:
        env.register_service("words", Words).options(isolation=isolation, replicas=replicas)
        register_metrics(env, registry)
        manager = ServiceManager(env)
        for _ in range(9):
            assert manager.call_service_sync("words", "get", "hello") == "world"
        assert manager.call_service_async("words", "get", "nothing").exception() is not None
        seen = scrape(registry)
    assert seen[key("calls_total", method="get")] == 10
    assert seen[key("failures_total", method="get", type="KeyError")] == 1
    assert seen[key("latency_seconds_count", method="get")] == 10
    halves = seen[key("latency_seconds", method="get", quantile="0.5")]
    most = seen[key("latency_seconds", method="get", quantile="0.99")]
    assert 0 < halves <= most < 10
    assert 0 < seen[key("latency_seconds_sum", method="get")] < 10
    assert seen[key("in_flight", method="get")] == 0
    assert seen[key("up")] == 1
    assert (seen[key("replicas")], seen[key("replicas_up")]) == (replicas, replicas)
    assert seen[key("waiting")] == 0
    assert seen[key("uptime_seconds")] > 0
    assert not [name for name, _ in seen if "breaker" in name]
    assert "nothing" not in str(seen)


def test_breaker_retries_and_cache_are_shown(registry):
    with LocalEnvironment("watched") as env:
        env.register_service("words", Words).options(
            circuit_breaker={"consecutive_failures": 2, "failure_errors": ["KeyError"]},
            methods={"get": {"cache_ttl": 60}},
        )
        register_metrics(env, registry)
        manager = ServiceManager(env)
        for _ in range(3):
            manager.call_service_sync("words", "get", "hello")
        before = scrape(registry)
        for _ in range(20):
            manager.call_service_async("words", "get", "nothing").exception()
        after = scrape(registry)
    assert before[key("cache_total", event="hits")] == 2
    assert before[key("cache_total", event="misses")] == 1
    assert before[key("breaker_state", state="closed")] == 1
    assert before[key("retries_total")] == 0
    assert after[key("breaker_state", state="open")] == 1
    assert after[key("breaker_state", state="closed")] == 0


def test_a_service_that_does_not_run_is_down_and_not_started_by_being_watched(registry):
    with LocalEnvironment("watched") as env:
        env.register_service("words", Words)
        collector = register_metrics(env, registry)
        assert scrape(registry) == {key("up"): 0}
        assert env.services.task("words") is None
        registry.unregister(collector)
        assert scrape(registry) == {}


def test_environments_with_a_label_each_share_a_registry(registry):
    with LocalEnvironment("one") as one, LocalEnvironment("two") as two:
        for env in (one, two):
            env.register_service("words", Words)
            register_metrics(env, registry, {"environment": env.name})
        ServiceManager(one).call_service_sync("words", "get", "hello")
        seen = scrape(registry)
    assert seen[key("up", environment="one")] == 1
    assert seen[key("up", environment="two")] == 0
    assert seen[key("calls_total", method="get", environment="one")] == 1


def test_a_server_shows_them(registry):
    with LocalEnvironment("watched") as env:
        env.register_service("words", Words)
        register_metrics(env, registry)
        ServiceManager(env).call_service_sync("words", "get", "hello")
        server, thread = start_http_server(0, "127.0.0.1", registry)
        try:
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                seen = parse(answer.read().decode())
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    assert seen[key("calls_total", method="get")] == 1
