"""The store of checkpoints in a directory: what is kept, shared, dropped and locked."""

import pickle
import shutil
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.kernel.checkpoint.errors import (
    CheckpointDamagedError,
    CheckpointLockedError,
    CheckpointWriteError,
)
from sage.kernel.checkpoint.metadata import (
    CheckpointMetadata,
    Chunk,
    SubtaskState,
    decode_metadata,
    encode_metadata,
)
from sage.kernel.checkpoint.store import FileCheckpointStore, Savepoint

JOB = "job"


@pytest.fixture
def store(tmp_path):
    opened = FileCheckpointStore(tmp_path / "checkpoints", JOB, retained=2)
    yield opened
    opened.close()


def metadata(number, *chunks, job=JOB):
    return CheckpointMetadata(number, job, 123, (SubtaskState("sum", 0, chunks),))


def commit(store, number, *data, old=()):
    store.begin(number)
    chunks = [store.chunks.write(number, piece) for piece in data]
    store.commit(metadata(number, *old, *chunks))
    return chunks


def test_an_empty_store_has_no_checkpoint_and_begins_at_one(store):
    assert store.latest() is None
    assert store.completed() == []
    assert store.next_id() == 1


def test_what_was_committed_is_there_after_reopening(tmp_path):
    store = FileCheckpointStore(tmp_path, JOB)
    commit(store, 1, b"a", b"", b"c" * 3_000_000)
    store.close()
    store.close()
    store = FileCheckpointStore(tmp_path, JOB)
    latest = store.latest()
    assert [store.read(c) for c in latest.subtasks[0].chunks] == [b"a", b"", b"c" * 3_000_000]
    store.close()


def test_only_the_retained_ones_are_kept_and_shared_chunks_with_them(store):
    [shared] = commit(store, 1, b"base")
    commit(store, 2, b"two", old=(shared,))
    commit(store, 3, b"three", old=(shared,))
    commit(store, 4, b"four", old=(shared,))
    assert store.completed() == [4, 3]
    assert not (store.directory / "chk-2").exists()
    assert [p.name for p in (store.directory / "chk-1").iterdir()] == [shared.name.split("/")[1]]
    commit(store, 5, b"five")
    assert (store.directory / "chk-1").exists()
    commit(store, 6, b"six")
    assert sorted(p.name for p in store.directory.iterdir()) == ["chk-5", "chk-6", "lock"]


def test_numbers_are_never_used_twice(tmp_path):
    store = FileCheckpointStore(tmp_path, JOB)
    commit(store, 1, b"one")
    store.begin(2)
    store.chunks.write(2, b"not acknowledged")
    store.abort(2)
    store.close()
    store = FileCheckpointStore(tmp_path, JOB)
    assert store.next_id() == 3
    store.delete_all()
    assert store.latest() is None
    assert store.next_id() == 3
    store.close()


def test_an_abort_removes_the_chunks_and_never_a_completed_checkpoint(store):
    commit(store, 1, b"one")
    store.begin(2)
    store.chunks.write(2, b"two")
    store.abort(2)
    store.abort(1)
    store.abort(99)
    assert list((store.directory / "chk-2").iterdir()) == []
    assert store.latest().checkpoint_id == 1


def test_a_checkpoint_cannot_refer_to_what_is_gone(store):
    [gone] = commit(store, 1, b"one")
    commit(store, 2, b"two")
    commit(store, 3, b"three")
    with pytest.raises(CheckpointDamagedError, match="missing"):
        commit(store, 4, b"four", old=(gone,))
    assert store.latest().checkpoint_id == 3


def test_files_that_are_not_ours_stay(store):
    commit(store, 1, b"one")
    (store.directory / "notes.txt").write_text("mine")
    (store.directory / "chk-1" / "notes.txt").write_text("mine")
    commit(store, 2, b"two")
    commit(store, 3, b"three")
    assert (store.directory / "notes.txt").exists()
    assert (store.directory / "chk-1" / "notes.txt").exists()


def test_a_second_store_on_the_same_directory_is_refused(store, tmp_path):
    with pytest.raises(CheckpointLockedError, match="in use by process"):
        FileCheckpointStore(tmp_path / "checkpoints", JOB)
    FileCheckpointStore(tmp_path / "checkpoints", "other").close()
    store.close()
    FileCheckpointStore(tmp_path / "checkpoints", JOB).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from sage.kernel.checkpoint.store import FileCheckpointStore\n"
        "store = FileCheckpointStore(pathlib.Path(sys.argv[1]), 'job')\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(CheckpointLockedError, match=f"in use by process {process.pid}"):
            FileCheckpointStore(tmp_path, JOB)
        process.kill()
        process.wait(timeout=10)
        FileCheckpointStore(tmp_path, JOB).close()


def test_a_savepoint_is_self_contained_and_can_be_moved(store, tmp_path):
    [shared] = commit(store, 1, b"base")
    store.begin(2)
    fresh = store.chunks.write(2, b"fresh")
    where = store.save(metadata(2, shared, fresh, shared), tmp_path / "savepoints" / "mine")
    assert where.parent == tmp_path / "savepoints" / "mine"
    assert store.latest().checkpoint_id == 1
    assert store.next_id() == 3
    assert list((store.directory / "chk-2").iterdir()) == []
    store.delete_all()
    moved = tmp_path / "moved"
    shutil.move(where, moved)
    savepoint = Savepoint(moved)
    savepoint.verify()
    assert savepoint.metadata.kind == "savepoint"
    contents = [savepoint.read(c) for c in savepoint.metadata.chunks()]
    assert contents == [b"base", b"fresh", b"base"]
    assert all("/" not in c.name for c in savepoint.metadata.chunks())
    assert len(list(moved.iterdir())) == 3


def test_a_savepoint_that_cannot_be_written_leaves_nothing(store, tmp_path):
    [chunk] = commit(store, 1, b"base")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointWriteError, match="cannot write the savepoint"):
        store.save(metadata(2, chunk), tmp_path / "file")
    (store.directory / chunk.name).write_bytes(b"bass")
    with pytest.raises(CheckpointDamagedError, match="checksum"):
        store.save(metadata(2, chunk), tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_a_damaged_savepoint_is_refused(store, tmp_path):
    store.begin(1)
    where = store.save(metadata(1, store.chunks.write(1, b"state")), tmp_path)
    [chunk] = Savepoint(where).metadata.chunks()
    (where / chunk.name).write_bytes(b"stale")
    with pytest.raises(CheckpointDamagedError, match="checksum"):
        Savepoint(where).verify()
    (where / "metadata.json").unlink()
    with pytest.raises(CheckpointDamagedError, match="missing"):
        Savepoint(where)


def test_chunks_are_written_from_many_threads_without_the_lock(store):
    store.begin(1)
    writer = pickle.loads(pickle.dumps(store.chunks))
    written = []

    def write(number):
        written.append(writer.write(1, b"%d" % number))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.commit(metadata(1, *written))
    assert {store.read(c) for c in store.latest().chunks()} == {b"%d" % n for n in range(8)}


@pytest.mark.parametrize("job", ["", "../up", "a/b", ".hidden", "x" * 200, "a b"])
def test_a_job_is_a_name_and_not_a_path(tmp_path, job):
    with pytest.raises(ConfigError, match="cannot be the name"):
        FileCheckpointStore(tmp_path, job)


def test_nothing_retained_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        FileCheckpointStore(tmp_path, JOB, retained=0)


def test_a_checkpoint_in_the_wrong_place_is_not_used(store, caplog):
    commit(store, 1, b"one")
    shutil.copytree(store.directory / "chk-1", store.directory / "chk-7")
    assert store.latest().checkpoint_id == 1
    assert "not where it was written" in caplog.text


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "chk-1/../x.chunk", "chk-1/"])
def test_the_name_of_a_chunk_cannot_lead_out_of_its_directory(name):
    data = encode_metadata(metadata(1, Chunk(name, 1, "0" * 32)))
    with pytest.raises(CheckpointDamagedError, match="cannot be read"):
        decode_metadata(data, "here")


names = st.integers(0, 10**18 - 1).map(lambda n: f"chk-{n}/{'0' * 32}.chunk")
chunks = st.builds(Chunk, names, st.integers(0, 2**50), st.text(max_size=40))
plain = st.dictionaries(st.text(), st.none() | st.integers(-(2**60), 2**60) | st.text())
subtasks = st.builds(
    SubtaskState, st.text(), st.integers(0, 99), st.lists(chunks).map(tuple), st.booleans(), plain
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**60), st.text(), st.lists(subtasks).map(tuple), plain)
def test_metadata_comes_back_as_it_was(number, job, subtasks, details):
    before = CheckpointMetadata(number, job, 0, subtasks, details=details)
    assert decode_metadata(encode_metadata(before), "here") == before
