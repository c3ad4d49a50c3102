"""Jobs that go on at another parallelism: what was under way, what had ended, which keys can move."""

import asyncio
import os

import pytest

from parallel.pipelines import Batched, key
from parallel.processes import wait_until
from parallel.sources import PausingSource, events
from parallel.test_same_results import multiset, per_key
from sage import ConfigError, LocalEnvironment
from sage.common.errors import OperatorError

RECORDS = events(1, 200, keys=10)


def environment(parallelism, directory, **settings):
    env = LocalEnvironment("rescaled", {"parallelism": parallelism, **settings})
    env.enable_checkpointing(3600, directory / f"checkpoints of {parallelism}")
    return env


def stop(env, directory):
    """Stop a job with a savepoint; return where that is."""
    answer = env.job.stop(60, savepoint=directory)
    assert answer["status"] == "success"
    return answer["message"]


# ---- under way


class Held:
    """Lets one record in ten wait for a file."""

    def __init__(self, gate):
        self.gate = gate

    async def __call__(self, record):
        while record[1] % 10 == 0 and not os.path.exists(self.gate):
            await asyncio.sleep(0.01)
        return record


def under_way(env, until, gate):
    def source():
        return env.from_source(PausingSource({"": RECORDS}, until))

    in_order = source().key_by(key).async_map(Held(gate), capacity=100)
    alone = source().rebalance().async_map(Held(gate), capacity=100, ordered=False)
    return in_order.collect(), alone.collect()


@pytest.mark.parametrize(("old", "new"), [(1, 3), (2, 1)])
def test_calls_that_are_under_way_are_made_again_by_one_subtask(tmp_path, old, new):
    gate = tmp_path / "gate"
    with environment(old, tmp_path) as env:
        first = under_way(env, 0.5, gate)
        env.submit()
        wait_until(lambda: env.job.metrics.records_in == len(RECORDS) and len(first[1]) == 90)
        savepoint = stop(env, tmp_path)
    assert len(first[0]) < 100
    gate.touch()
    with environment(new, tmp_path) as env:
        second = under_way(env, 1.0, gate)
        env.execute(progress=False, from_savepoint=savepoint)
    in_order, alone = ([*a, *b] for a, b in zip(first, second, strict=True))
    assert per_key(in_order) == per_key(RECORDS)
    assert multiset(alone) == multiset(RECORDS)


# ---- ended


def ending(env, until):
    """Read one split to its end, and another one only up to a point."""
    splits = {"a": RECORDS[:30], "b": RECORDS[30:]}
    kept = env.from_source(PausingSource(splits, until, whole=["a"])).flat_map(Batched)
    return kept.collect(), kept.key_by(lambda n: n % 10).count(emit="final").collect()


@pytest.mark.parametrize("new", [1, 3])
def test_what_one_subtask_has_put_out_at_its_end_does_not_come_again(tmp_path, new):
    with environment(2, tmp_path) as env:
        first = ending(env, 0.5)
        env.submit()
        wait_until(lambda: env.job.metrics.records_in == 115 and 29 in list(first[0]))
        savepoint = stop(env, tmp_path)
    assert not list(first[1])
    with environment(new, tmp_path) as env:
        second = ending(env, 1.0)
        env.execute(progress=False, from_savepoint=savepoint)
    assert sorted([*first[0], *second[0]]) == list(range(200))
    assert sorted(second[1]) == [(n, 20) for n in range(10)]


# ---- splits


def test_splits_that_have_become_more_are_read_once_by_somebody(tmp_path):
    """The parallelism is the same, but most splits go to another subtask."""
    splits = {"b": list(range(40)), "d": list(range(40, 80))}
    with environment(2, tmp_path) as env:
        first = env.from_source(PausingSource(splits, 0.5)).map(abs).collect()
        env.submit()
        wait_until(lambda: env.job.metrics.records_in == 40)
        savepoint = stop(env, tmp_path)
    more = {**splits, "a": list(range(80, 100)), "c": list(range(100, 120))}
    with environment(2, tmp_path) as env:
        second = env.from_source(PausingSource(more)).map(abs).collect()
        env.execute(progress=False, from_savepoint=savepoint)
    assert sorted([*first, *second]) == list(range(120))


# ---- key groups and keys


def counts(env, numbers, key_of):
    stream = env.from_source(PausingSource({"": list(range(100))}, numbers), uid="numbers")
    return stream.key_by(key_of, uid="key").count(emit="final", uid="counts").collect()


def modulo(number):
    return number % 7


def saved(tmp_path, groups, key_of=modulo):
    """Return a savepoint of half of the numbers, taken in one process."""
    settings = {} if groups is None else {"max_parallelism": groups}
    with environment(1, tmp_path, **settings) as env:
        counts(env, 0.5, key_of)
        env.submit()
        wait_until(lambda: env.job.metrics.records_in == 50)
        return stop(env, tmp_path)


def test_the_number_of_key_groups_comes_with_the_state(tmp_path):
    savepoint = saved(tmp_path, 5)
    for parallelism, settings, told in [
        (1, {"max_parallelism": 6}, "with 5 key groups .max_parallelism., and the program has 6"),
        (6, {}, "no operator can have more than 5 subtasks, and the program has one with 6"),
    ]:
        env = environment(parallelism, tmp_path, **settings)
        counts(env, 1.0, modulo)
        with pytest.raises(ConfigError, match=told):
            env.execute(progress=False, from_savepoint=savepoint)
    with environment(2, tmp_path) as env:
        found = counts(env, 1.0, modulo)
        env.execute(progress=False, from_savepoint=savepoint)
        assert env._job._deployment.layout.max_parallelism == 5
    assert sorted(found) == [(n, 15 if n < 2 else 14) for n in range(7)]


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    def __hash__(self):
        return self.x


def point(number):
    return Point(number % 7)


def test_keys_that_only_one_process_can_tell_apart_stay_there(tmp_path):
    savepoint = saved(tmp_path, None, point)
    env = environment(2, tmp_path)
    env.set_restart_strategy("none")
    counts(env, 1.0, point)
    with pytest.raises(OperatorError, match="cannot be a key"):
        env.execute(progress=False, from_savepoint=savepoint)
