"""State goes from any number of processes to any other, and no result is another one for it.

All pipelines run together. A part of their records is read at one parallelism, then the job is
stopped with a savepoint, and the rest is read at another one. With SAGE_RESCALING=all it is from each
of 1 to 3 to each other, with state on the heap and on disk; otherwise some of these.
"""

import os
from itertools import count

import pytest

from parallel import timed_pipelines  # noqa: F401 - its pipelines take part
from parallel.pipelines import PER_KEY, PER_SUBTASK, PIPELINES
from parallel.processes import wait_until
from parallel.sources import PausingSource
from parallel.test_same_results import multiset, per_key, run_all, streams
from sage import LocalEnvironment

ALL = (1, 2, 3)
CHANGES = (
    [(p, q, backend) for backend in ("heap", "disk") for p in ALL for q in ALL if p != q]
    if os.environ.get("SAGE_RESCALING") == "all"
    else [(1, 2, "disk"), (3, 2, "heap")]
)
PARTS = (0.5, 0.3, 1.0, 0.7)
"""How much of each source is read before the savepoint; one in four has ended by then."""


class Paused(LocalEnvironment):
    """Lets sources pause after a part of their records, or go on from there."""

    def __init__(self, parallelism, backend, *, pauses):
        super().__init__("rescaled", {"parallelism": parallelism})
        self.set_state_backend(backend, cache_bytes=1 << 20)
        self.pauses = pauses
        self.sources = []
        self._numbers = count()

    def from_batch(self, data, **options):
        return self._pausing({"": list(data)}, options)

    def from_source(self, source, **options):
        return self._pausing(source.splits, options)

    def _pausing(self, splits, options):
        until = PARTS[next(self._numbers) % len(PARTS)] if self.pauses else 1.0
        self.sources.append(PausingSource(splits, until))
        return super().from_source(self.sources[-1], **options)


@pytest.fixture(scope="module")
def undisturbed():
    return run_all(1)


@pytest.fixture(scope="module")
def first_halves(tmp_path_factory):
    """Return what gives savepoint and results of the first half; each is run once."""
    made = {}

    def run(parallelism, backend):
        if (parallelism, backend) not in made:
            made[parallelism, backend] = stop_halfway(parallelism, backend, tmp_path_factory)
        return made[parallelism, backend]

    return run


def stop_halfway(parallelism, backend, tmp_path_factory):
    directory = tmp_path_factory.mktemp(f"from{parallelism}{backend}")
    with Paused(parallelism, backend, pauses=True) as env:
        env.enable_checkpointing(3600, directory / "checkpoints")
        collected = build(env)
        env.submit()
        wanted = sum(source.count() for source in env.sources)
        wait_until(lambda: env.job.metrics.records_in >= wanted, patience=100)
        answer = env.job.stop(60, savepoint=directory)
        assert answer["status"] == "success"
        return answer["message"], gathered(collected)


def build(env):
    return {name: [s.collect() for s in streams(b, env)] for name, b in PIPELINES.items()}


def gathered(collected):
    return {name: [list(c) for c in results] for name, results in collected.items()}


@pytest.fixture(scope="module", params=CHANGES, ids=lambda c: "{} to {}, {}".format(*c))
def rescaled(request, first_halves):
    """Return both parallelisms, and what came out before and after."""
    old, new, backend = request.param
    savepoint, before = first_halves(old, backend)
    with Paused(new, backend, pauses=False) as env:
        collected = build(env)
        result = env.execute(progress=False, from_savepoint=savepoint)
    late = {n: m.late for n, m in result.metrics.operators.items() if m.late}
    assert not late, "nothing has become late"
    return old, new, before, gathered(collected)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_parallelism_may_change_midway(name, undisturbed, rescaled):
    old, new, before, after = rescaled
    pairs = zip(before[name], after[name], strict=True)
    for wanted, (early, late) in zip(undisturbed[name], pairs, strict=True):
        if name in PER_SUBTASK:
            assert multiset(wanted * old) + multiset(wanted * new) >= multiset(early + late)
            assert set(map(repr, early + late)) == set(map(repr, wanted))
            continue
        assert multiset(early + late) == multiset(wanted)
        if name in PER_KEY:
            assert per_key(early + late) == per_key(wanted)
