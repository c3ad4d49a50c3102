"""The figures of services for Prometheus; needs `prometheus-client` (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from prometheus_client.core import (
    REGISTRY,
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from sage.kernel.runtime.service.policy.breaker import BreakerState
from sage.kernel.runtime.service.policy.call_statistics import MethodStatistics, ServiceStatistics

_QUANTILES: Final = {"0.5": "p50", "0.95": "p95", "0.99": "p99"}
_CACHE: Final = ("hits", "misses", "evicted")


class HasStatus(Protocol):
    """The services of an environment, as far as their figures go."""

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of every service."""
        ...


class HasServices(Protocol):
    """An environment, as far as its services go."""

    @property
    def services(self) -> HasStatus:
        """The services of the environment."""
        ...


class ServiceCollector(Collector):
    """Gives the figures of an environment's services as they are when Prometheus asks.

    Nothing is counted twice: these are the figures that the calls from this process have anyway.
    Each metric has a label `service`, most a label `method`:

    * `sage_service_calls_total`, `sage_service_failures_total` (also by `type` of error),
      `sage_service_latency_seconds` (a summary; its quantiles are those of the last five minutes),
      `sage_service_in_flight`
    * `sage_service_up` (0 or 1), `sage_service_replicas`, `sage_service_replicas_up`,
      `sage_service_uptime_seconds`, `sage_service_waiting`, `sage_service_retries_total`,
      `sage_service_cache_total` (by `event`), `sage_service_breaker_state` (1 for the `state` it is
      in, 0 for the others)

    Args:
        services: The services.
        labels: Labels that every metric has besides, for programs with several environments.
    """

    def __init__(self, services: HasStatus, labels: Mapping[str, str] | None = None) -> None:
        self._services = services
        self._labels = dict(labels or {})

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        status = self._services.status()
        running = {name: s for name, s in status.items() if s["status"] == "running"}
        yield self._gauge("up", "Whether the service runs.", {n: n in running for n in status})
        yield from self._per_method({name: s["called"] for name, s in running.items()})
        yield from self._per_service(running)
        yield self._cache(running)
        yield self._breakers(running)

    def _per_method(self, called: dict[str, ServiceStatistics]) -> Iterator[Metric]:
        names = [*self._labels, "service", "method"]
        calls = CounterMetricFamily("sage_service_calls", "Calls that have ended.", labels=names)
        failures = CounterMetricFamily(
            "sage_service_failures", "Calls that have failed.", labels=[*names, "type"]
        )
        flying = GaugeMetricFamily("sage_service_in_flight", "Calls under way.", labels=names)
        latency = SummaryMetricFamily(
            "sage_service_latency_seconds", "How long callers have waited.", labels=names
        )
        for service, statistics in called.items():
            for method, figures in statistics.methods.items():
                values = [*self._labels.values(), service, method]
                total = figures.since_start
                calls.add_metric(values, total.calls)
                for error, count in total.failures.items():
                    failures.add_metric([*values, error], count)
                flying.add_metric(values, figures.in_flight)
                _add_latency(latency, dict(zip(names, values, strict=True)), figures)
        yield from (calls, failures, flying, latency)

    def _per_service(self, running: dict[str, dict[str, Any]]) -> Iterator[Metric]:
        yield self._gauge(
            "uptime_seconds",
            "For how long the service has been running.",
            {name: s["uptime_seconds"] for name, s in running.items()},
        )
        yield self._gauge(
            "replicas",
            "How many instances there are to be.",
            {name: s.get("replicas", 1) for name, s in running.items()},
        )
        yield self._gauge(
            "replicas_up",
            "How many instances take calls.",
            {name: s.get("up", 1) for name, s in running.items()},
        )
        yield self._gauge(
            "waiting",
            "Requests that wait in the queue of the service.",
            {name: s["waiting"] for name, s in running.items() if s["waiting"] is not None},
        )
        retries = CounterMetricFamily(
            "sage_service_retries", "Second and later attempts.", labels=[*self._labels, "service"]
        )
        for name, s in running.items():
            retries.add_metric([*self._labels.values(), name], s["retries"])
        yield retries

    def _gauge(self, name: str, told: str, values: Mapping[str, float]) -> Metric:
        family = GaugeMetricFamily(f"sage_service_{name}", told, labels=[*self._labels, "service"])
        for service, value in values.items():
            family.add_metric([*self._labels.values(), service], float(value))
        return family

    def _cache(self, running: dict[str, dict[str, Any]]) -> Metric:
        labels = [*self._labels, "service", "event"]
        family = CounterMetricFamily("sage_service_cache", "What the cache did.", labels=labels)
        for service, status in running.items():
            for event in _CACHE:
                values = [*self._labels.values(), service, event]
                family.add_metric(values, getattr(status["cache"], event))
        return family

    def _breakers(self, running: dict[str, dict[str, Any]]) -> Metric:
        labels = [*self._labels, "service", "state"]
        family = GaugeMetricFamily(
            "sage_service_breaker_state", "1 for the state of the circuit breaker.", labels=labels
        )
        for service, status in running.items():
            for state in BreakerState if status["breaker"] is not None else ():
                values = [*self._labels.values(), service, state.value]
                family.add_metric(values, float(status["breaker"] == state.value))
        return family


def register_metrics(
    env: HasServices,
    registry: CollectorRegistry = REGISTRY,
    labels: Mapping[str, str] | None = None,
) -> ServiceCollector:
    """Show the figures of an environment's services to Prometheus.

    Args:
        env: The environment.
        registry: What is scraped; that of the whole program by default.
        labels: Labels that every metric has besides: `{"environment": env.name}` where a program
            has several environments.

    Returns:
        What was registered; `registry.unregister(collector)` takes it back.

    Examples:
        >>> from prometheus_client import CollectorRegistry
        >>> from sage import LocalEnvironment
        >>> registry = CollectorRegistry()
        >>> with LocalEnvironment("example") as env:
        ...     registration = env.register_service("words", dict, hello="world")
        ...     collector = register_metrics(env, registry)
        ...     registry.get_sample_value("sage_service_up", {"service": "words"})
        0.0
    """
    collector = ServiceCollector(env.services, labels)
    registry.register(collector)
    return collector


def _add_latency(
    family: SummaryMetricFamily, labels: dict[str, str], figures: MethodStatistics
) -> None:
    recent, total = figures.last_5_minutes, figures.since_start
    seconds = 0.0 if total.mean is None else total.mean * total.calls
    family.add_metric(list(labels.values()), total.calls, seconds)
    for quantile, name in _QUANTILES.items():
        value = getattr(recent, name)
        if value is not None:
            family.add_sample(family.name, {**labels, "quantile": quantile}, value)
