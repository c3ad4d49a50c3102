"""Choosing a replica: never an unhealthy one, the lesser of two, all equally likely."""

from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ServiceUnavailableError
from sage.kernel.runtime.service.policy.balancer import UNHEALTHY, choose_replica

load = st.one_of(st.just(UNHEALTHY), st.integers(0, 5))


@given(st.lists(load, max_size=8), st.randoms(use_true_random=False))
def test_an_unhealthy_replica_is_never_chosen_nor_the_busiest_of_many(loads, random):
    healthy = sorted(value for value in loads if value != UNHEALTHY)
    if not healthy:
        with pytest.raises(ServiceUnavailableError, match=f"none of the {len(loads)}"):
            choose_replica(loads, random.random)
        return
    chosen = loads[choose_replica(loads, random.random)]
    assert chosen in healthy
    if len(healthy) > 1 and healthy[-1] > healthy[-2]:
        assert chosen < healthy[-1]


@pytest.mark.parametrize("loads", [[0, 0, 0], [1, UNHEALTHY, 1, 1], [2, 2]])
def test_equal_replicas_are_equally_likely(loads):
    random = Random(7)
    drawn = Counter(choose_replica(loads, random.random) for _ in range(6000))
    healthy = [index for index, value in enumerate(loads) if value != UNHEALTHY]
    assert sorted(drawn) == healthy
    assert all(abs(count - 6000 / len(healthy)) < 300 for count in drawn.values())


def test_chances_are_those_of_the_lesser_of_two_different_ones():
    steps = [(part + 0.5) / 12 for part in range(12)]
    drawn = Counter()
    for pair in product(steps, steps):
        chances = iter(pair)
        drawn[choose_replica([5, 1, 9, 3], lambda chances=chances: next(chances))] += 1
    assert drawn == {1: 72, 3: 48, 0: 24}


def test_two_choices_keep_the_load_even():
    def spread(choose):
        loads = [0] * 100
        for _ in range(10_000):
            loads[choose(loads)] += 1
        return max(loads) - 100

    random = Random(3)
    assert spread(lambda loads: choose_replica(loads, random.random)) <= 5
    assert spread(lambda loads: random.randrange(100)) > 15
