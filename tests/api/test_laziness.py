"""Records travel as they come: nothing is read far ahead, and nothing waits for a batch to fill."""

import itertools
import threading

import pytest

from patience import PATIENCE
from sage import LocalEnvironment


@pytest.mark.parametrize("how", ["from_batch", "from_source"])
def test_an_endless_source_with_a_limit_ends(how):
    env = LocalEnvironment("lazy")
    stream = getattr(env, how)(itertools.count).filter(lambda x: x % 2).map(lambda x: x * x)
    assert list(stream.execute_and_collect(limit=5)) == [1, 9, 25, 49, 81]
    env.wait(PATIENCE)


def test_an_endless_flat_map_with_a_limit_ends():
    env = LocalEnvironment("lazy")
    stream = env.from_batch([0]).flat_map(lambda x: itertools.count())
    assert list(stream.execute_and_collect(limit=3)) == [0, 1, 2]
    env.wait(PATIENCE)


@pytest.mark.parametrize(
    "build",
    [
        lambda s: s,
        lambda s: s.map(lambda x: x).filter(lambda x: True),
        lambda s: s.flat_map(lambda x: (y for y in [x])),
        lambda s: s.key_by(lambda x: 0).reduce(lambda a, b: b),
        lambda s: s.map_batch(lambda batch: batch),
        lambda s: s.connect(s.filter(lambda x: False)).map(lambda x: x, lambda x: x),
    ],
    ids=["nothing", "map", "generator", "reduce", "map_batch", "connect"],
)
def test_a_record_of_a_live_source_reaches_the_sink_before_the_next_one_is_given(build):
    env, arrived = LocalEnvironment("latency"), threading.Semaphore(0)

    def records():
        for i in range(20):
            yield i
            assert arrived.acquire(timeout=PATIENCE), f"record {i} has not come"

    got = []
    build(env.from_source(records)).sink(lambda x: (got.append(x), arrived.release()))
    env.execute()
    assert got == list(range(20))


@pytest.mark.parametrize("batch_size", [1, 8, 1024])
def test_a_batch_source_is_read_at_most_a_batch_ahead(batch_size):
    env = LocalEnvironment("ahead", {"batch_size": batch_size})
    read, most, seen = [0], [0], [0]

    def records():
        for i in range(5000):
            read[0] += 1
            yield i

    def sink(x):
        most[0] = max(most[0], read[0] - seen[0])
        seen[0] += 1

    env.from_batch(records).sink(sink)
    env.execute()
    assert seen[0] == 5000
    assert most[0] <= batch_size


@pytest.mark.parametrize("buffer_size", [1, 10, 1000])
def test_a_live_source_is_read_at_most_a_buffer_and_a_batch_ahead(buffer_size):
    batch_size = 4
    env = LocalEnvironment("ahead", {"batch_size": batch_size, "buffer_size": buffer_size})
    read, most, seen = [0], [0], [0]

    def records():
        for i in range(5000):
            read[0] += 1
            yield i

    def sink(x):
        most[0] = max(most[0], read[0] - seen[0])
        seen[0] += 1

    env.from_source(records).sink(sink)
    env.execute()
    assert seen[0] == 5000
    assert most[0] <= buffer_size + batch_size + 1


def test_results_that_nobody_takes_hold_the_source_up():
    batch_size = 2
    env = LocalEnvironment("ahead", {"batch_size": batch_size})
    read = [0]

    def records():
        for i in range(2000):
            read[0] += 1
            yield i

    most = 0
    for taken, _ in enumerate(env.from_batch(records).execute_and_collect(), 1):
        most = max(most, read[0] - taken)
    assert most <= 20 * batch_size


def test_a_generator_flat_map_is_not_expanded_in_memory():
    env = LocalEnvironment("lazy")
    made, most, seen = [0], [0], [0]

    def many(x):
        for i in range(50_000):
            made[0] += 1
            yield i

    def sink(x):
        most[0] = max(most[0], made[0] - seen[0])
        seen[0] += 1

    stream = env.from_batch([0]).flat_map(many)
    stream.union(env.from_batch([])).sink(sink)
    env.execute()
    assert seen[0] == 50_000
    assert most[0] <= 1024
