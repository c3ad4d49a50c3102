"""How jobs with checkpoints end, and what becomes of the checkpoints then."""

import pytest

from recovery.ledger import Ledger
from recovery.running import checkpoint_of, recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import LocalEnvironment
from sage.kernel.checkpoint.errors import CheckpointError


def two_tasks(env, one, other):
    """Make two pipelines that do not hang together: each is a task."""
    ledgers = Ledger(), Ledger()
    for script, ledger in zip((one, other), ledgers, strict=True):
        source = ScriptedSource(script, checkpoint_of(env))
        env.from_source(source).key_by(lambda n: n % 3).sum().sink(ledger)
    return ledgers


def test_a_task_that_has_ended_is_not_run_again(tmp_path):
    env = recovering(tmp_path)
    one = [1, 2]
    other = [3, *[Checkpoint()] * 20, 4, Fail(), Checkpoint(), 5, Fail(), 6, Fail(), Checkpoint()]
    ended, running = two_tasks(env, one, other)
    env.execute(progress=False)
    assert ended.committed == [(1, 1), (2, 2)]
    assert running.committed == [(0, 3), (1, 4), (2, 5), (0, 9)]


def test_of_a_finished_job_no_checkpoint_is_left(tmp_path):
    env = recovering(tmp_path)
    source = ScriptedSource([1, Checkpoint(), 2], checkpoint_of(env))
    env.from_source(source).sink(Ledger())
    env.execute(progress=False)
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert files == ["lock"]


def test_a_checkpoint_of_a_job_that_is_over_is_refused(tmp_path):
    env = recovering(tmp_path)
    env.from_batch([1]).sink(Ledger())
    env.execute(progress=False)
    with pytest.raises(CheckpointError, match="is over"):
        env.job.checkpoint(5)


def test_many_short_jobs_end(tmp_path):
    for _ in range(30):
        env = recovering(tmp_path)
        ledgers = two_tasks(env, [1], [2])
        env.execute(5, progress=False)
        assert [ledger.committed for ledger in ledgers] == [[(1, 1)], [(2, 2)]]


class Numbers(Ledger):
    """Also remembers the numbers for which it prepared."""

    def __init__(self):
        super().__init__()
        self.numbers = []

    def create_writer(self, context, state):
        writer = super().create_writer(context, state)
        prepare = writer.prepare_commit

        def prepare_commit(number):
            self.numbers.append(number)
            return prepare(number)

        writer.prepare_commit = prepare_commit
        return writer


def test_a_sink_never_sees_a_number_twice(tmp_path):
    """Numbers of checkpoints are the names of transactions: they grow from attempt to attempt."""
    env = recovering(tmp_path)
    script = [1, Checkpoint(), 2, Checkpoint(), 3, Fail(), 4]
    source = ScriptedSource(script, checkpoint_of(env))
    sink = Numbers()
    env.from_source(source).sink(sink)
    env.execute(progress=False)
    assert sink.committed == [1, 2, 3, 4]
    assert sink.numbers == [1, 2, 3]


@pytest.mark.parametrize("setting", ["retain", "delete"])
def test_checkpoints_of_a_cancelled_job_stay_if_wanted(tmp_path, setting):
    env = recovering(tmp_path, checkpoint_on_cancel=setting)
    env.from_source(_forever).sink(Ledger())
    env.submit()
    env.job.checkpoint(5)
    env.cancel()
    metadata = list(tmp_path.rglob("metadata.json"))
    assert len(metadata) == (1 if setting == "retain" else 0)


def _forever():
    while True:
        yield 1


def test_two_runs_at_once_are_refused(tmp_path):
    first, second = recovering(tmp_path), recovering(tmp_path)
    for env in (first, second):
        env.from_source(_forever).sink(Ledger())
    first.submit()
    try:
        with pytest.raises(CheckpointError, match="is the same job running twice"):
            second.execute(progress=False)
    finally:
        first.cancel()


def test_state_from_a_savepoint_is_used_without_checkpoints_too(tmp_path):
    """The program restored takes none itself."""
    env = recovering(tmp_path / "checkpoints")
    script = ScriptedSource([1, 2, Checkpoint(), 3], lambda: env.job._job.savepoint(str(tmp_path)))
    env.from_source(script, name="numbers", uid="numbers").key_by(lambda n: 0, uid="k").sum(
        uid="sum"
    ).sink(Ledger(), uid="out")
    env.execute(progress=False)
    [savepoint] = tmp_path.glob("savepoint-*")
    again = LocalEnvironment("again")
    ledger = Ledger()
    source = ScriptedSource([1, 2, Checkpoint(), 3])
    again.from_source(source, name="numbers", uid="numbers").key_by(lambda n: 0, uid="k").sum(
        uid="sum"
    ).sink(ledger, uid="out")
    again.execute(progress=False, from_savepoint=savepoint)
    assert ledger.committed == [(0, 1), (0, 3), (0, 6)]
