"""The same pipelines give the same results in one process, in two and in three."""

from collections import Counter, defaultdict

import pytest

from parallel import looped_pipelines, timed_pipelines  # noqa: F401 - theirs take part
from parallel.pipelines import PER_KEY, PER_SUBTASK, PIPELINES, key, time, timed
from parallel.sources import GatedSource, events, mark
from sage import LocalEnvironment, tumbling_time_window


@pytest.fixture(scope="module")
def inline():
    return run_all(1)


@pytest.fixture(scope="module", params=[2, 3])
def parallel(request):
    """Return the parallelism, and all results: to start a job takes longer than to run it."""
    return request.param, run_all(request.param)


def run_all(parallelism):
    env = LocalEnvironment("all", {"parallelism": parallelism})
    collected = {name: [s.collect() for s in streams(b, env)] for name, b in PIPELINES.items()}
    result = env.execute(progress=False)
    late = {n: m.late for n, m in result.metrics.operators.items() if m.late}
    assert not late, "no pipeline has late records: what is late depends on who is quick"
    return {name: [list(c) for c in results] for name, results in collected.items()}


def streams(build, env):
    built = build(env)
    return built if isinstance(built, (tuple, list)) else [built]


def multiset(records):
    return Counter(map(repr, records))


def per_key(records):
    found = defaultdict(list)
    for record in records:
        found[record[0]].append(record)
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_the_number_of_processes_changes_no_result(name, inline, parallel):
    parallelism, results = parallel
    times = parallelism if name in PER_SUBTASK else 1
    for expected, found in zip(inline[name], results[name], strict=True):
        assert expected, "there is something to compare"
        assert multiset(found) == multiset(expected * times)
        if name in PER_KEY:
            assert per_key(found) == per_key(expected)


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("lateness", [0, 1000])
def test_what_is_late_is_late_everywhere(tmp_path, parallelism, lateness):
    """Late records are read once the windows of all others have fired, in whatever process."""
    gate = str(tmp_path / "fired")
    early = [("a", n, n * 100) for n in range(100)] + [("z", n, 100_000) for n in range(12)]
    late = [("a", n, 50) for n in range(5)]
    env = LocalEnvironment("late", {"parallelism": parallelism})
    stream = timed(env.from_source(GatedSource(early, gate, 10, late))).key_by(key)
    windows = stream.window(tumbling_time_window(1)).allowed_lateness(lateness).count()
    fired = windows.map(mark(gate)).filter(lambda w: w.key == "a").collect()
    found = windows.late_records().collect()
    env.execute(progress=False)
    again = [10 + n for n in range(1, 6)] if lateness else []
    assert sorted(w.value for w in fired) == [10] * 10 + again
    assert sorted(found) == ([] if lateness else late)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_source_that_is_idle_holds_nobody_back(tmp_path, parallelism):
    gate = str(tmp_path / "fired")
    env = LocalEnvironment("idle", {"parallelism": parallelism})
    busy = GatedSource([("a", n, n * 100) for n in range(101)] * 2, gate, 10)
    streams = [
        env.from_source(source).assign_timestamps(time, max_out_of_orderness=60, idleness=0.1)
        for source in (busy, GatedSource([], gate, 10))
    ]
    far = timed(env.from_source(GatedSource([("z", n, 10**6) for n in range(8)], gate, 10)))
    both = far.union(*streams).key_by(key).window(tumbling_time_window(1)).count()
    found = both.map(mark(gate)).filter(lambda w: w.key == "a").collect()
    env.execute(progress=False)
    assert sorted(w.value for w in found) == [2] + [20] * 10


def test_results_can_be_iterated_over():
    env = LocalEnvironment("iterated", {"parallelism": 2})
    stream = timed(env.from_batch(events(1, 5000, span=10**6))).key_by(key).map(lambda r: r[1])
    assert sorted(stream.execute_and_collect()) == list(range(5000))


def test_an_iteration_over_an_endless_job_can_be_left():
    env = LocalEnvironment("left", {"parallelism": 2})
    stream = env.from_source(GatedSource(range(1000))).rebalance().map(lambda n: n + 1)
    assert len(list(stream.execute_and_collect(limit=10))) == 10
    assert env.wait(10)
