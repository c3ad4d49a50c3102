"""What is committed after any failures is what comes out if nothing fails: none lost, none twice."""

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.ledger import Ledger
from recovery.pipelines import PIPELINES
from recovery.running import checkpoint_of, recovering, with_faults, without_faults
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for

SCRIPTS = st.lists(
    st.one_of(
        st.integers(0, 30),
        st.integers(0, 30),
        st.just(Checkpoint()),
        st.builds(Fail, st.integers(1, 2)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.__name__)
@pytest.mark.parametrize("incremental", [True, False])
def test_whatever_fails_nothing_is_lost_or_doubled(pipeline, incremental):
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(SCRIPTS)
    def agrees(script):
        with tempfile.TemporaryDirectory(dir=MEMORY) as path:
            found = with_faults(pipeline, script, path, checkpoint_incremental=incremental)
        assert found == without_faults(pipeline, script)

    agrees()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(SCRIPTS, SCRIPTS)
def test_two_sources_keep_their_places_apart(one, other):
    def joined(env):
        sources = [ScriptedSource(script, checkpoint_of(env)) for script in (one, other)]
        first, second = (env.from_source(source) for source in sources)
        ledger = Ledger()
        first.union(second).key_by(lambda n: n % 3).sum(emit="final").sink(ledger)
        env.execute(progress=False)
        return sorted(ledger.committed)

    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        found = joined(recovering(path))
    sums = {}
    for n in (n for n in one + other if isinstance(n, int)):
        sums[n % 3] = sums.get(n % 3, 0) + n
    assert found == sorted(sums.items())


def test_records_in_a_loop_are_part_of_a_checkpoint():
    """A record goes round until the checkpoint is done, which can only hold it on its way."""
    rounds, asked, failed = [], [], []

    def step(n):
        rounds.append(n)
        if n == 900 and not asked:
            asked.append(env.job._job.checkpoint())
        if n == 500 and not asked[0].done():
            return n
        if n == 0 and not failed:
            failed.append(n)
            raise ValueError("after the checkpoint")
        return n - 1

    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        env = recovering(path)
        ledger = build_loop(env, step)
        env.execute(progress=False)
    assert ledger.committed == [("left", 1)]
    again = rounds[rounds.index(0) + 1]
    assert 500 <= again < 1000, "it went on in the midst of the loop"


def build_loop(env, step):
    back, ledger = env.from_future("back"), Ledger()
    left = env.from_batch([1000]).union(back).map(step, name="step")
    left.filter(lambda n: n >= 0).fill_future(back)
    left.filter(lambda n: n < 0).map(lambda n: ("left", 1)).sink(ledger)
    return ledger
