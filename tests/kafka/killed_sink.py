"""A Kafka sink that is killed at each of its steps, and goes on.

    python -m kafka.killed_sink BOOTSTRAP TOPIC DIRECTORY

Child after child writes epochs; what a checkpoint would keep is in a file of DIRECTORY, and the next
child goes on from there. The first is killed before its first step, the next before its second, and
so on. Prints how many epochs there should be.
"""

import itertools
import os
import pickle
import signal
import sys
from functools import partial
from pathlib import Path

from sage.connector.kafka_sink import KafkaSink
from sage.kernel.checkpoint.durable_files import no_step
from sage.testing import StandaloneContext

RECORDS = 5
STEPS = 14
"""To take the id; to look for the marker and write what is not there; to write two epochs more."""


def expected(epochs):
    """Return what should be in the topic."""
    return [f"{epoch} {record}" for epoch in range(1, epochs + 1) for record in range(RECORDS)]


def write(sink, file, step, more):
    """Go on from what the file says, and write so many epochs more."""
    done, prepared, state = _saved(file)
    writer = sink.create_writer(StandaloneContext(), state, step=step)
    if prepared is not None:
        writer.commit(prepared)
    for epoch in range(done + 1, done + more + 1):
        writer.write_batch([f"{epoch} {record}" for record in range(RECORDS)])
        writer.flush()
        prepared = writer.prepare_commit(epoch)
        draft = file.with_suffix(".draft")
        draft.write_bytes(pickle.dumps((epoch, prepared, writer.snapshot())))
        draft.rename(file)
        writer.commit(prepared)
    writer.close()


def _saved(file):
    return pickle.loads(file.read_bytes()) if file.exists() else (0, None, None)


def in_a_child(work):
    """Do it in a child and say whether that was killed."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def killed_before(at):
    """Return what is called before each step, and ends the process before one of them."""
    counted = itertools.count()

    def step(operation, path):
        if next(counted) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def main(bootstrap, topic, directory):
    """Kill at one step after the other, and commit at last."""
    sink = KafkaSink(
        bootstrap, topic, "exactly_once", value_serializer="string", transactional_id_prefix=topic
    )
    file = Path(directory, "checkpoint")
    for at in range(STEPS):
        assert in_a_child(partial(write, sink, file, killed_before(at), STEPS))
    assert not in_a_child(partial(write, sink, file, no_step, 0))
    print(_saved(file)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
