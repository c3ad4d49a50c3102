"""Pipelines with declared state on the heap and on the disk: the same results, and nothing left."""

import os
import queue
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patience import PATIENCE
from recovery.ledger import Ledger
from recovery.running import recovering
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import (
    AggregatingState,
    ConfigError,
    ListState,
    LocalEnvironment,
    MapState,
    OperatorError,
    OperatorListState,
    ProcessFunction,
    ReducingState,
    SourceFunction,
    ValueState,
    mean,
)
from sage.testing import InjectedFaultError

pytest.importorskip("rocksdict")

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for


class Remember(ProcessFunction):
    """Puts out everything it knows of the key of each record."""

    last = ValueState(int, default=-1)
    all_of = ListState(int)
    of_parity = MapState(str, int)
    total = ReducingState(max)
    average = AggregatingState(mean())
    lasting = ValueState(int, ttl=timedelta(days=1))
    count = OperatorListState(int)

    def execute(self, data, ctx):
        before, self.last.value = self.last.value, data
        parity = "odd" if data % 2 else "even"
        self.of_parity[parity] = self.of_parity.get(parity, 0) + 1
        for state in (self.total, self.average):
            state.add(data)
        self.lasting.value = (self.lasting.value or 0) + 1
        self.count[:] = [sum(self.count) + 1]
        if data == 7:
            self.all_of.clear()
        self.all_of.append(data)
        known = list(self.all_of), dict(self.of_parity), self.total.value, self.average.value
        yield (ctx.key, before, *known, self.lasting.value, list(self.count))


def checkpoints_of(env):
    """Return what takes a checkpoint of the job that the environment will have."""

    def take():
        return env.job._job.checkpoint()

    return take


def run(script, backend, root, **options):
    env = recovering(Path(root) / "checkpoints", **options)
    env.set_state_backend(backend, Path(root) / "state", cache_bytes=1 << 20)
    source = ScriptedSource(script, checkpoints_of(env))
    ledger = Ledger()
    numbers = env.from_source(source, name="numbers")
    numbers.key_by(lambda n: n % 3).process(Remember, uid="memory").sink(ledger)
    env.execute(progress=False)
    return ledger.committed


def files_in(root):
    return list(Path(root, "state").rglob("*"))


SCRIPTS = st.lists(
    st.one_of(
        st.integers(0, 30),
        st.integers(0, 30),
        st.just(Checkpoint()),
        st.builds(Fail, st.integers(1, 2)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("incremental", [True, False])
def test_heap_and_disk_commit_the_same_whatever_fails(incremental):
    @settings(max_examples=15, deadline=None, derandomize=True)
    @example([1, Checkpoint(), 4, 0, Checkpoint(), Fail(), 7, Fail(), 0, 1])
    @given(SCRIPTS)
    def agrees(script):
        values = [value for value in script if not isinstance(value, (Fail, Checkpoint))]
        with tempfile.TemporaryDirectory(dir=MEMORY) as root:
            expected = run(values, "heap", root)
            found = run(script, "disk", root, checkpoint_incremental=incremental)
            assert files_in(root) == []
        assert found == expected

    agrees()


def failing_run(script, backend, root, path):
    """Run without restarts; return what was committed."""
    env = LocalEnvironment("moves")
    env.enable_checkpointing(3600, path)
    env.set_restart_strategy("none")
    env.set_state_backend(backend, root)
    ledger = Ledger()
    source = ScriptedSource(script, checkpoints_of(env))
    env.from_source(source, name="n", uid="n").key_by(lambda n: n % 3).process(
        Remember, uid="memory"
    ).sink(ledger, uid="ledger")
    try:
        env.execute(progress=False)
    except (OperatorError, InjectedFaultError) as error:
        return ledger.committed, error
    return ledger.committed, None


def test_state_moves_from_the_heap_to_the_disk_and_not_back(tmp_path):
    script = [1, 4, Checkpoint(), Fail(), 7]
    _, error = failing_run(script, "heap", tmp_path / "s", tmp_path / "c")
    assert error is not None
    later = [1, 4, Checkpoint(), 7, Checkpoint(), Fail()]
    committed, error = failing_run(later, "disk", tmp_path / "s", tmp_path / "c")
    assert committed[-1] == (1, 4, [7], {"odd": 2, "even": 1}, 7, 4.0, 3, [3])
    assert error is not None
    _, error = failing_run(later, "heap", tmp_path / "s", tmp_path / "c")
    assert "'heap' cannot read" in str(error)
    assert list((tmp_path / "s").iterdir()) == []


class Stops(ProcessFunction):
    """Fails at the end, or waits there for good."""

    seen = ValueState(int, default=0)

    def execute(self, data, ctx):
        self.seen.value += 1
        if data == "fail":
            raise ValueError("told to")
        return


def test_nothing_is_left_after_a_failure(tmp_path):
    env = LocalEnvironment("a job/with a name", {"state_backend": "disk"})
    env.set_state_backend("disk", tmp_path)
    env.from_batch([1, "fail"]).key_by(str).process(Stops).sink(print)
    with pytest.raises(OperatorError, match="told to"):
        env.execute(progress=False)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from sage import LocalEnvironment, ProcessFunction, ValueState

class Waits(ProcessFunction):
    seen = ValueState(int, default=0)
    def execute(self, data, ctx):
        self.seen.value += 1
        print("up", flush=True)
        time.sleep(600)

env = LocalEnvironment("killed")
env.set_state_backend("disk", sys.argv[1])
env.from_batch([1]).key_by(str).process(Waits).sink(print)
env.execute(progress=False)
"""


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_what_lives_stays(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "up\n"
        assert len(list((tmp_path / "killed").iterdir())) == 2
        processes[0].kill()
        processes[0].wait(PATIENCE)
        env = LocalEnvironment("killed")
        env.set_state_backend("disk", tmp_path)
        env.from_batch([1]).key_by(str).process(Stops).sink(print)
        env.execute(progress=False)
        assert len(list((tmp_path / "killed").iterdir())) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait(PATIENCE)
            process.stdout.close()


class Inlet(SourceFunction):
    """Gives what the test puts into a queue, until None."""

    def __init__(self, items):
        super().__init__()
        self.items = items

    def get_data_iterator(self):
        return iter(self.items.get, None)


def test_a_query_reads_the_disk_while_the_job_runs(tmp_path):
    items, results = queue.Queue(), queue.Queue()
    env = LocalEnvironment("asked", {"batch_size": 1})
    env.set_state_backend("disk", tmp_path)
    numbers = env.from_source(Inlet(items))
    numbers.key_by(lambda n: n).process(Remember, uid="memory").sink(results.put)
    handle = env.submit_async()
    try:
        items.put(5)
        results.get(timeout=PATIENCE)
        assert handle.query_state("memory", "last", 5) == 5
        assert handle.query_state("memory", "last", 6) is None
        assert handle.query_state("memory", "of_parity", 5) == {"odd": 1}
    finally:
        items.put(None)
        env.wait(PATIENCE)
    assert list(tmp_path.iterdir()) == []


def test_without_a_directory_the_one_for_temporary_files_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"sage-state-{os.getuid()}"
    seen = []
    env = LocalEnvironment("temporary", {"state_backend": "disk"})
    env.from_batch([1]).key_by(str).process(Stops).sink(print)
    env.from_batch([1]).key_by(str).process(Remember).sink(lambda _: seen.extend(own.iterdir()))
    env.execute(progress=False)
    assert seen == [own / "temporary"]
    assert list(own.iterdir()) == []
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(OperatorError, match="belongs to somebody else"):
        env.execute(progress=False)


@pytest.mark.parametrize(
    "wrong",
    [{"state_backend": "floppy"}, {"state_cache_bytes": 10}, {"state_directory": 3}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LocalEnvironment("wrong", wrong)


def test_a_directory_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    env = LocalEnvironment("wrong")
    env.set_state_backend("disk", tmp_path / "file")
    env.from_batch([1]).key_by(str).process(Stops).sink(print)
    with pytest.raises(OperatorError, match="cannot keep state in"):
        env.execute(progress=False)
