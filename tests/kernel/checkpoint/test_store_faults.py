"""Kills, full disks and damaged files: a checkpoint exists whole, or it does not exist."""

import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.checkpoint.kill_sweep import BIG, JOB, prepare, write_checkpoint, write_next
from sage.kernel.checkpoint.durable_files import DurableFiles
from sage.kernel.checkpoint.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointWriteError,
)
from sage.kernel.checkpoint.store import FileCheckpointStore


def reopened(path):
    return FileCheckpointStore(path, JOB, retained=2)


def files(path):
    return sorted(str(f.relative_to(path)) for f in Path(path).rglob("*") if f.is_file())


def check_whole_and_clean(path):
    """Return the number of the latest checkpoint, after seeing that nothing else is there."""
    store = reopened(path)
    try:
        latest = store.latest()
        contents = [store.read(chunk) for chunk in latest.subtasks[0].chunks]
        number = latest.checkpoint_id
        assert contents == [b"1", b"%d" % number, BIG]  # the first one is shared by all
        kept = store.completed()
        assert len(kept) == 2
        wanted = {f"chk-{n}/metadata.json" for n in kept} | {"lock"}
        wanted |= {c.name for n in kept for c in store._metadata(n).chunks()}
        assert set(files(store.directory)) == wanted
        assert store.next_id() >= number + 1
        return number
    finally:
        store.close()


def test_killed_before_every_operation_the_old_or_the_new_checkpoint_is_there(tmp_path):
    script = Path(__file__).with_name("kill_sweep.py")
    swept = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    steps = int(swept.stdout)
    assert steps > 20
    found = [check_whole_and_clean(tmp_path / str(step)) for step in range(steps + 1)]
    assert set(found) == {3, 5}
    assert found == sorted(found)  # from some step on it exists, and not before
    for step in range(steps + 1):
        write_next(tmp_path / str(step), lambda operation, file: None)  # and life goes on


def operations(tmp_path):
    seen = []
    prepare(tmp_path)
    write_next(tmp_path, lambda operation, file: seen.append((operation, file)))
    return seen


def test_the_metadata_is_named_after_all_else_has_reached_the_disk(tmp_path):
    seen = operations(tmp_path)
    home = tmp_path / JOB / "chk-5"
    named = seen.index(("rename", home / "metadata.json"))
    before, after = seen[:named], seen[named + 1 :]
    chunks = [n for n, (o, f) in enumerate(before) if o == "rename" and f.suffix == ".chunk"]
    assert len(chunks) == 2
    for number in chunks:
        assert before[number - 1][0] == "fsync"
    assert ("fsync-directory", home.parent) in before
    assert before.index(("fsync-directory", home)) > max(chunks)
    assert before[-1][0] == "fsync"
    assert after[0] == ("fsync-directory", home)
    assert [o for o, _ in after if o == "rename"] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_an_error_of_any_operation_fails_that_checkpoint_and_nothing_else(tmp_path, number):
    total = len(operations(tmp_path / "all"))
    prepare(tmp_path / "start")
    outcomes = set()
    for at in range(total):
        path = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", path)
        outcomes.add(fail_at(path, at, number))
    assert outcomes == {3, 5}


def fail_at(path, at, number):
    counted = iter(range(10**9))

    def step(operation, file):
        if next(counted) == at:
            raise OSError(number, "the disk says no", str(file))

    error = error_of(path, step)
    assert error is None or "the disk says no" in str(error)
    assert error is None or isinstance(error.__cause__, OSError)
    expected = 3 if error else 5
    assert check_whole_and_clean(path) == expected
    return expected


def error_of(path, step):
    try:
        write_next(path, step)
    except CheckpointWriteError as error:
        return error


def test_a_file_that_the_system_cuts_short_leaves_nothing(tmp_path):
    store = reopened(tmp_path)
    write_checkpoint(store, 1)
    store.begin(2)
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointWriteError, match=r"cannot write a chunk of .*File too large"):
            store.chunks.write(2, BIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == before
    assert store.latest().checkpoint_id == 1
    store.close()


def damaged_copies(content):
    yield b""
    yield content[:-1]
    yield content[: len(content) // 2]
    yield content + b"\0"
    for position in {0, 1, 20, len(content) // 2, len(content) - 1} & set(range(len(content))):
        for bit in (1, 128):
            changed = bytearray(content)
            changed[position] ^= bit
            yield bytes(changed)


def test_every_damaged_or_missing_file_is_found_and_the_checkpoint_before_is_used(tmp_path, caplog):
    store = reopened(tmp_path)
    write_checkpoint(store, 1)
    write_checkpoint(store, 2)
    checked = 0
    for path in sorted((store.directory / "chk-2").iterdir()):
        content = path.read_bytes()
        for damaged in damaged_copies(content):
            path.write_bytes(damaged)
            caplog.clear()
            assert store.latest().checkpoint_id == 1, (path, damaged[:50])
            assert path.name in caplog.text
            checked += 1
        path.unlink()
        caplog.clear()
        assert store.latest().checkpoint_id == 1
        assert ("missing" in caplog.text) == (path.name != "metadata.json")  # or it never existed
        path.write_bytes(content)
        assert store.latest().checkpoint_id == 2
    assert checked > 30
    store.close()


def test_every_bit_of_the_metadata_counts(tmp_path):
    store = reopened(tmp_path)
    write_checkpoint(store, 1)
    path = store.directory / "chk-1" / "metadata.json"
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointDamagedError, match="none that is whole"):
            store.latest()
    store.close()


def test_garbage_of_a_checkpoint_that_cannot_be_read_is_left_for_whoever_can(tmp_path, caplog):
    store = reopened(tmp_path)
    write_checkpoint(store, 1)
    write_checkpoint(store, 2)
    path = store.directory / "chk-2" / "metadata.json"
    path.write_bytes(path.read_bytes().replace(b"CHECKPOINT 1", b"CHECKPOINT 2", 1))
    store.close()
    before = files(tmp_path)
    store = reopened(tmp_path)
    assert "is of format 2; this version of SAGE reads format 1" in caplog.text
    assert files(tmp_path) == before
    assert store.latest().checkpoint_id == 1
    write_checkpoint(store, 3)
    write_checkpoint(store, 4)
    assert store.completed() == [4, 3]
    assert not (store.directory / "chk-1").exists()
    store.close()


def test_numbers_only_grow(tmp_path):
    store = reopened(tmp_path)
    write_checkpoint(store, 2)
    with pytest.raises(CheckpointError, match="cannot follow"):
        write_checkpoint(store, 1)
    store.close()


def test_without_a_step_nothing_is_in_the_way(tmp_path):
    DurableFiles().write(tmp_path / "file", b"")
    assert (tmp_path / "file").read_bytes() == b""
