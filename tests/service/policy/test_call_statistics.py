"""Statistics against exact ones from a list of all calls, across the ends of slots and windows."""

import math
import pickle
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage.kernel.runtime.service.policy.call_statistics import (
    OTHER,
    SLOT_SECONDS,
    WINDOW_SECONDS,
    CallStatistics,
)
from sage.kernel.runtime.service.policy.latency_histogram import (
    LONGEST,
    MAX_RELATIVE_ERROR,
    SHORTEST,
    bucket_middle,
    bucket_of,
    quantiles,
)
from sage.testing import ManualClock

latency = st.one_of(
    st.floats(SHORTEST, LONGEST),
    st.floats(1e-6, 0.01),
    st.sampled_from([2.0**power for power in range(-24, 15)]),
)


def exact(latencies, part):
    """Return the nearest rank: the least latency that at least this part of all kept to."""
    ordered = sorted(latencies)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


@given(st.lists(latency, min_size=1, max_size=200), st.lists(st.floats(0, 1), min_size=1))
def test_quantiles_are_off_by_no_more_than_promised(latencies, parts):
    wanted = tuple(sorted(parts))
    found = quantiles(Counter(map(bucket_of, latencies)), wanted)
    for part, value in zip(wanted, found, strict=True):
        truth = exact(latencies, part)
        assert abs(value - truth) <= truth * MAX_RELATIVE_ERROR * (1 + 1e-9)


@given(latency, latency)
def test_buckets_keep_the_order(one, other):
    short, long = sorted((one, other))
    assert bucket_of(short) <= bucket_of(long)
    assert bucket_of(bucket_middle(bucket_of(one))) == bucket_of(one)


def test_the_promise_is_five_per_cent_and_what_is_out_of_range_has_a_bucket():
    assert MAX_RELATIVE_ERROR <= 0.05
    assert bucket_of(0) == bucket_of(-1) == bucket_of(math.nan) == bucket_of(SHORTEST)
    assert bucket_of(math.inf) == bucket_of(1e9) == bucket_of(LONGEST)
    with pytest.raises(ValueError, match="no calls"):
        quantiles({}, (0.5,))


METHODS = ["get", "put"]
ERRORS = [None, None, "ServiceTimeoutError", "app.NotReady"]


class StatisticsMachine(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 10_000_000))
    def make(self, start):
        self.clock = ManualClock()
        self.clock.advance(seconds=start / 1e6)
        self.micros = start
        self.statistics = CallStatistics("db", self.clock)
        self.ended = []
        self.flying = Counter()

    @rule(method=st.sampled_from(METHODS))
    def begin(self, method):
        self.statistics.begin(method)
        self.flying[method] += 1

    @rule(
        method=st.sampled_from(METHODS),
        calls=st.lists(st.tuples(latency, st.sampled_from(ERRORS)), min_size=1, max_size=8),
    )
    def call(self, method, calls):
        for seconds, error in calls:
            self.statistics.begin(method)
            self.statistics.record(method, seconds, error)
            self.ended.append((self.micros, method, seconds, error))

    @rule(
        micros=st.one_of(
            st.integers(0, 40_000_000),
            st.sampled_from([10**7, 5 * 10**7, 6 * 10**7, 89 * 10**7, 90 * 10**7]),
        )
    )
    def wait(self, micros):
        self.clock.advance(seconds=micros / 1e6)
        self.micros += micros

    def _calls(self, methods, seconds):
        def slot(micros):
            return micros // (SLOT_SECONDS * 1_000_000)

        def shown(micros):
            return seconds is None or slot(micros) > slot(self.micros) - seconds // SLOT_SECONDS

        return [
            (latency, error)
            for micros, method, latency, error in self.ended
            if method in methods and shown(micros)
        ]

    def _agree(self, told, methods):
        assert told.in_flight == sum(self.flying[method] for method in methods)
        windows = [told.last_minute, told.last_5_minutes, told.last_15_minutes, told.since_start]
        for window, seconds in zip(windows, [*WINDOW_SECONDS, None], strict=True):
            agree(window, self._calls(methods, seconds))

    @invariant()
    def figures_agree(self):
        snapshot = self.statistics.snapshot()
        assert snapshot.service == "db"
        self._agree(snapshot.overall, METHODS)
        for method, told in snapshot.methods.items():
            self._agree(told, [method])
            calls = self._calls([method], WINDOW_SECONDS[1])
            p90 = self.statistics.quantile(method, 0.9)
            assert (p90 is None) == (not calls)
            if calls:
                assert_near(p90, exact([seconds for seconds, _ in calls], 0.9))


def assert_near(value, truth):
    assert abs(value - truth) <= truth * MAX_RELATIVE_ERROR * (1 + 1e-9)


def agree(window, calls):
    errors = Counter(error for _, error in calls if error)
    assert (window.calls, window.failures) == (len(calls), errors)
    assert (window.timeouts, window.failed) == (errors["ServiceTimeoutError"], errors.total())
    if not calls:
        assert (window.mean, window.p50, window.p95, window.p99, window.longest) == (None,) * 5
        return
    latencies = [seconds for seconds, _ in calls]
    assert math.isclose(window.mean, math.fsum(latencies) / len(latencies), rel_tol=1e-9)
    assert window.longest == max(latencies)
    for value, part in ((window.p50, 0.5), (window.p95, 0.95), (window.p99, 0.99)):
        assert_near(value, exact(latencies, part))


StatisticsMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestCallStatistics = StatisticsMachine.TestCase


def test_no_call_of_many_threads_is_lost():
    clock = ManualClock()
    statistics = CallStatistics("db", clock)

    def call(number):
        for step in range(500):
            statistics.begin("get")
            statistics.record(f"get{step % 3}", 0.001 * (number + 1), None if step % 2 else "E")
            if step % 100 == 0:
                clock.advance(seconds=7)
                statistics.snapshot()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = statistics.snapshot()
    assert told.overall.since_start.calls == 3000
    assert told.overall.since_start.failures == {"E": 1500}
    assert told.methods["get"].in_flight == 3000
    assert told.methods["get0"].in_flight == 0


def test_ever_new_names_do_not_fill_the_memory():
    statistics = CallStatistics("db", ManualClock())
    for number in range(1000):
        statistics.record(f"method{number}", 0.001)
        statistics.record("get", 0.001, f"Error{number}")
    told = statistics.snapshot()
    assert told.overall.since_start.calls == 2000
    assert len(told.methods) <= 501
    assert told.methods[OTHER].since_start.calls > 400
    assert told.methods["get"].since_start.failures[OTHER] == 950
    assert told.methods["get"].since_start.failed == 1000


def test_what_other_processes_know_counts_too():
    clock = ManualClock()
    here, there = CallStatistics("cache", clock), CallStatistics("cache", clock)
    together = CallStatistics("cache", clock)
    for number in range(100):
        for statistics in (here if number % 3 else there, together):
            statistics.begin("get")
            statistics.record("get", number / 64, "KeyError" if number % 10 == 0 else None)
        clock.advance(seconds=7)
    there.begin("put")
    together.begin("put")
    sent = pickle.loads(pickle.dumps(there.calls()))
    assert here.snapshot([sent]) == together.snapshot()
