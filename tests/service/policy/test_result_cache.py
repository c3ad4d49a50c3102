"""The result cache against a dict and a list, and the keys of calls that are not the same."""

import math
import threading
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from itertools import combinations
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.cache import MISS, ResultCache
from sage.kernel.runtime.service.policy.cache_key import cache_key
from sage.testing import ManualClock


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class OtherNumber(IntEnum):
    ONE = 1


class Elsewhere(tzinfo):
    def utcoffset(self, _):
        return timedelta(0)


class Text(str):
    __slots__ = ()


NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)

DIFFERENT = [
    *(1, True, 1.0, 1 + 0j, "1", b"1", Decimal(1), Decimal("1.0"), Number.ONE, OtherNumber.ONE),
    *(0, False, 0.0, -0.0, "", b"", None, (), frozenset(), complex(0, 0), complex(-0.0, 0)),
    *((1,), (True,), (1.0,), ((1,),), (0.0,), (-0.0,), ("a", "b"), ("ab",)),
    *(frozenset({1}), frozenset({True}), frozenset({1.0}), frozenset({(1,)})),
    *(NOON, NOON.astimezone(timezone(timedelta(hours=1))), NOON.astimezone(ZoneInfo("UTC"))),
    *(datetime(2024, 6, 1), date(2024, 6, 1), datetime(2024, 6, 1, fold=1)),
    *(timedelta(1), UUID(int=1), Colour.RED, math.inf, math.nan),
]
UNSAFE = [
    [],
    {},
    set(),
    object(),
    ([],),
    (1, ([1],)),
    Text("a"),
    bytearray(),
    Elsewhere(),
    len,
    int,
]


def test_arguments_that_a_method_can_tell_apart_make_different_keys():
    for one, other in combinations(DIFFERENT, 2):
        assert cache_key("get", (one,)) != cache_key("get", (other,))
        assert cache_key("get", (), {"x": one}) != cache_key("get", (), {"x": other})
        assert cache_key("get", (one, other)) != cache_key("get", (other, one))
        assert cache_key("get", (one, other)) != cache_key("get", ((one, other),))


@pytest.mark.parametrize("value", DIFFERENT, ids=repr)
def test_the_same_arguments_make_the_same_key(value):
    for args, kwargs in [((value,), {}), ((1, value), {"a": value}), ((), {"a": 1, "b": value})]:
        key = cache_key("get", args, kwargs)
        assert key == cache_key("get", args, dict(kwargs))
        assert hash(key) == hash(cache_key("get", args, dict(kwargs)))
        assert key != cache_key("put", args, kwargs)


@pytest.mark.parametrize("value", [*UNSAFE, NOON.replace(tzinfo=Elsewhere())])
def test_arguments_that_may_change_make_no_key(value):
    assert cache_key("get", (1, value)) is None
    assert cache_key("get", (), {"a": 1, "b": value}) is None


def test_names_and_places_of_arguments_are_part_of_the_key():
    keys = [
        cache_key("get", (1, 2)),
        cache_key("get", (1,), {"a": 2}),
        cache_key("get", (1,), {"b": 2}),
        cache_key("get", (), {"a": 1, "b": 2}),
        cache_key("get", (), {"b": 2, "a": 1}),
        cache_key("get", (1, "a", 2)),
    ]
    assert len(set(keys)) == len(keys)


KEYS = [cache_key(method, (value,)) for method in ("get", "find") for value in (0, False, "", None)]


class CacheMachine(RuleBasedStateMachine):
    """A list of keys by last use, a dict of values with the time at which they are too old."""

    @initialize(size=st.integers(1, 5), ttl=st.sampled_from([0, 1, 10]))
    def make(self, size, ttl):
        self.clock = ManualClock()
        self.cache = ResultCache(size, ttl, self.clock)
        self.size, self.ttl = size, ttl
        self.values, self.by_use = {}, []
        self.hits = self.misses = self.expired = self.evicted = self.uncacheable = 0
        self.generation = 0

    def _drop(self, key):
        del self.values[key]
        self.by_use.remove(key)

    @rule(key=st.sampled_from(KEYS))
    def lookup(self, key):
        if key in self.values and self.clock.monotonic() < self.values[key][0]:
            self.hits += 1
            self.by_use.remove(key)
            self.by_use.append(key)
            assert self.cache.lookup(key) is self.values[key][1]
            return
        self.misses += 1
        if key in self.values:
            self.expired += 1
            self._drop(key)
        assert self.cache.lookup(key) is MISS

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=8))
    def lookup_or_store_many(self, keys):
        for key in keys:
            if key in self.values:
                self.lookup(key)
            else:
                self.store(key, 1, 5, None)

    @rule()
    def lookup_what_has_no_key(self):
        self.uncacheable += 1
        assert self.cache.lookup(None) is MISS
        assert not self.cache.store(None, 1)

    @rule(
        key=st.sampled_from(KEYS),
        value=st.sampled_from([None, 0, "x"]),
        ttl=st.sampled_from([None, None, 0, 2]),
        behind=st.sampled_from([None, 0, 0, 1]),
    )
    def store(self, key, value, ttl, behind):
        seconds = self.ttl if ttl is None else ttl
        generation = None if behind is None else self.cache.generation - behind
        kept = seconds > 0 and behind != 1
        assert self.cache.store(key, value, ttl, generation) == kept
        if kept:
            if key in self.values:
                self._drop(key)
            self.values[key] = (self.clock.monotonic() + seconds, value)
            self.by_use.append(key)
            if len(self.by_use) > self.size:
                self._drop(self.by_use[0])
                self.evicted += 1

    @rule(micros=st.one_of(st.integers(0, 12_000_000), st.sampled_from([1_000_000, 2_000_000])))
    def wait(self, micros):
        self.clock.advance(seconds=micros / 1e6)

    @rule(method=st.sampled_from([None, "get", "find", "other"]))
    def invalidate(self, method):
        dropped = [key for key in self.by_use if method in (None, key[0])]
        for key in dropped:
            self._drop(key)
        self.generation += 1
        assert self.cache.invalidate(method) == len(dropped)

    @invariant()
    def figures_agree(self):
        told = self.cache.statistics()
        assert (told.entries, told.hits, told.misses) == (len(self.values), self.hits, self.misses)
        assert (told.expired, told.evicted) == (self.expired, self.evicted)
        assert (told.uncacheable, self.cache.generation) == (self.uncacheable, self.generation)


CacheMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestResultCache = CacheMachine.TestCase


def test_a_result_is_good_until_its_time_has_passed_and_no_longer():
    clock = ManualClock()
    cache = ResultCache(3, 2, clock)
    cache.store(KEYS[0], "x")
    clock.advance(seconds=1.999)
    assert cache.lookup(KEYS[0]) == "x"
    clock.advance(ms=1)
    assert cache.lookup(KEYS[0]) is MISS


def test_the_least_recently_used_makes_room():
    cache = ResultCache(3, 60, ManualClock())
    first, second, third, fourth, fifth = KEYS[:5]
    for key in (first, second, third):
        cache.store(key, key)
    cache.lookup(first)
    cache.store(second, 2)
    cache.store(fourth, 4)
    cache.store(fifth, 5)
    kept = [key for key in KEYS[:5] if cache.lookup(key) is not MISS]
    assert kept == [second, fourth, fifth]


@given(st.integers(1, 8))
@settings(max_examples=5, deadline=None)
def test_threads_leave_it_whole(size):
    cache = ResultCache(size, 60, ManualClock())

    def use(start):
        for value in range(start, start + 300):
            key = cache_key("get", (value % 11,))
            found = cache.lookup(key)
            assert found is MISS or found == value % 11
            cache.store(key, value % 11)
            if value % 50 == 0:
                cache.invalidate()

    threads = [threading.Thread(target=use, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = cache.statistics()
    assert told.entries <= size
    assert told.hits + told.misses == 1200


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="max_entries"):
        ResultCache(0, 1, ManualClock())
    with pytest.raises(ConfigError, match="ttl"):
        ResultCache(1, math.nan, ManualClock())
