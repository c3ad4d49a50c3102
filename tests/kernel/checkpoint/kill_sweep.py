"""A process that writes a checkpoint, killed before every single operation on files, one by one.

    python kill_sweep.py DIRECTORY

For each operation a fresh copy of the same store is made in DIRECTORY/<number of the operation>;
the last one is not killed. It prints how many there were. The process has one thread, so that
forking is safe.
"""

import os
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path

from sage.kernel.checkpoint.durable_files import DurableFiles
from sage.kernel.checkpoint.metadata import CheckpointMetadata, SubtaskState
from sage.kernel.checkpoint.store import FileCheckpointStore

JOB = "swept"
BIG = b"x" * (1 << 20) + b"end"


def write_checkpoint(store, number, old=()):
    """Write a checkpoint of two chunks that also refers to `old` ones."""
    store.begin(number)
    chunks = (store.chunks.write(number, b"%d" % number), store.chunks.write(number, BIG))
    state = SubtaskState("sum", 0, (*old, *chunks))
    store.commit(CheckpointMetadata(number, JOB, 0, (state,), details={"count": number}))
    return chunks


def prepare(path):
    """Make a store with two checkpoints kept, an older chunk shared, and leftovers of an abort."""
    store = FileCheckpointStore(path, JOB, retained=2)
    shared, _ = write_checkpoint(store, 1)
    write_checkpoint(store, 2, (shared,))
    write_checkpoint(store, 3, (shared,))
    store.begin(4)
    store.chunks.write(4, b"never acknowledged")
    store.close()


def write_next(path, step):
    """Open the store and write checkpoint 5, which shares the first chunk of checkpoint 3."""
    with closing(FileCheckpointStore(path, JOB, retained=2, files=DurableFiles(step))) as store:
        old = store.latest().subtasks[0].chunks[0]
        write_checkpoint(store, store.next_id(), (old,))


def write_and_die(path, at):
    """Run `write_next` in a child that is killed before operation `at`; say whether it was."""
    child = os.fork()
    if child == 0:
        counted = iter(range(10**9))

        def step(operation, file):
            if next(counted) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        write_next(path, step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(directory):
    """Do the sweep."""
    prepare(directory / "start")
    at = 0
    while True:
        shutil.copytree(directory / "start", directory / str(at))
        if not write_and_die(directory / str(at), at):
            break
        at += 1
    print(at)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
