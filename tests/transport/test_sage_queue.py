"""SageQueue's names, files and processes: what the contract does not cover."""

from __future__ import annotations

import errno
import os
import pickle
import queue as standard
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from sage.common.errors import (
    QueueExistsError,
    QueueIncompatibleError,
    QueueInUseError,
    QueueNameError,
    QueueNotFoundError,
    QueueUnsafeError,
)
from sage.kernel.transport import queue_files
from sage.kernel.transport.sage_queue import (
    SageQueue,
    list_queues,
    remove_queue,
    remove_stale_queues,
    stat_queue,
)
from transport.processes import PATIENCE, Child, eventually
from transport.queues import fresh_queue


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "-x", ".x", "a" * 129, "é"])
def test_names_are_not_paths(name):
    """What could lead out of the directory, or be mistaken for an option, is refused."""
    for call in (SageQueue.create, SageQueue.open, remove_queue, stat_queue):
        with pytest.raises(QueueNameError, match="does not name a queue"):
            call(name)


def test_create_open_and_the_errors_between(queue):
    """Each name exists once; opening what is not there says so."""
    with pytest.raises(QueueExistsError, match="in use"):
        SageQueue.create(queue.name)
    with pytest.raises(QueueNotFoundError, match="nowhere"):
        SageQueue.open("nowhere")
    with SageQueue.open_or_create(queue.name, 1 << 20) as other:
        assert other.capacity == queue.capacity
        other.put(b"through another handle")
    assert queue.get() == b"through another handle"


def test_open_or_create_by_many_at_once():
    """Peers that start together meet in one queue."""

    def join_and_put(number: int) -> None:
        with SageQueue.open_or_create("meeting") as queue:
            queue.put(b"%d" % number)

    children = [Child(join_and_put, number) for number in range(8)]
    assert [child.wait() for child in children] == [0] * 8
    with SageQueue.open("meeting") as queue:
        assert sorted(queue.get_many(99)) == [b"%d" % n for n in range(8)]
    remove_queue("meeting")


def test_a_queue_outlives_its_users():
    """What a process that has gone put is there for the next."""
    with SageQueue.create("legacy") as queue:
        queue.put(b"for later")
    with pytest.raises(QueueExistsError, match="nobody uses it"):
        SageQueue.create("legacy")
    with SageQueue.open("legacy") as queue:
        assert queue.get() == b"for later"
    assert remove_stale_queues() == ["legacy"]


def test_pickled_by_name(queue):
    """A queue travels as its name, and arrives at the same queue or not at all."""
    pickled = pickle.dumps(queue)
    with pickle.loads(pickled) as twin:
        twin.put(b"same queue")
    assert queue.get() == b"same queue"
    with SageQueue.create("reused") as first:
        pickled = pickle.dumps(first)
    remove_queue("reused")
    with pytest.raises(QueueNotFoundError):
        pickle.loads(pickled)
    with SageQueue.create("reused"), pytest.raises(QueueNotFoundError, match="another has"):
        pickle.loads(pickled)
    remove_queue("reused")


def test_never_removed_under_a_live_peer(queue):
    """A queue goes when the last process that has it open has gone, killed or not."""
    with Child(signal.pause) as child:
        SageQueue.create("inherited").close()  # the child was forked before: not its queue
        remove_queue("inherited")
        with pytest.raises(QueueInUseError, match=str(os.getpid())):
            remove_queue(queue.name)
        child.kill()

    def hold(name: str) -> None:
        with SageQueue.open(name) as held:
            held.put(b"here")
            signal.pause()

    SageQueue.create("held").close()
    with Child(hold, "held") as holder, SageQueue.open("held") as mine:
        assert mine.get(timeout=PATIENCE) == b"here"
        mine.close()
        assert stat_queue("held").peers == (holder.pid,)
        assert "held" in list_queues()
        assert "held" not in remove_stale_queues()
        with pytest.raises(QueueInUseError, match=str(holder.pid)):
            remove_queue("held")
        holder.kill()
    assert not stat_queue("held").in_use
    remove_queue("held")
    with pytest.raises(QueueNotFoundError):
        stat_queue("held")


def test_statistics_of_a_queue(queue):
    """`stat_queue` looks from outside and disturbs nothing."""
    queue.put_many([b"a", b"bb"])
    status = stat_queue(queue.name)
    assert (status.messages, status.capacity, status.in_use) == (2, queue.capacity, True)
    assert status.statistics is not None
    assert status.statistics["used_bytes"] == 64
    assert status.problem is None
    assert queue.get_many(9) == [b"a", b"bb"]


def overwrite(name: str, offset: int, replacement: bytes) -> None:
    with open(queue_files.queue_path(name), "r+b") as file:
        file.seek(offset)
        file.write(replacement)


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (0, "not a SageQueue file"),
        (8, "another version"),
        (12, "C library"),
        (16, "size"),
        (32, "pid namespace"),
        (40, "reboot"),
    ],
)
def test_foreign_files_are_refused(offset, reason):
    """Each way in which a file can be unusable here is told apart."""
    SageQueue.create("foreign").close()
    overwrite("foreign", offset, b"\x55\x55")
    with pytest.raises(QueueIncompatibleError, match=reason):
        SageQueue.open("foreign")
    assert reason in (stat_queue("foreign").problem or "")
    remove_queue("foreign")


def test_short_and_cut_files_are_refused():
    """A file that is not whole is never mapped as if it were."""
    SageQueue.create("cut").close()
    for size in (10_000, 10, 0):
        os.truncate(queue_files.queue_path("cut"), size)
        with pytest.raises(QueueIncompatibleError):
            SageQueue.open("cut")
    remove_queue("cut")


def test_files_are_private():
    """0600 in 0700, whatever the umask; a directory open to others is refused."""
    before = os.umask(0)
    try:
        SageQueue.create("private").close()
    finally:
        os.umask(before)
    path = queue_files.queue_path("private")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o640)
    with pytest.raises(QueueUnsafeError, match="closed to others"):
        SageQueue.open("private")
    path.chmod(0o600)
    path.parent.chmod(0o750)
    with pytest.raises(QueueUnsafeError, match="closed to others"):
        SageQueue.open("private")
    path.parent.chmod(0o700)
    (path.parent / "link.queue").symlink_to(path)
    with pytest.raises(QueueUnsafeError, match="symbolic link"):
        SageQueue.open("link")
    (path.parent / "link.queue").unlink()
    remove_queue("private")


def test_no_space_is_an_error_at_creation():
    """The pages are claimed at once, so a full disk is not a SIGBUS later."""

    def create_beyond_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        with pytest.raises(OSError) as caught:
            SageQueue.create("huge", 1 << 30)
        assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
        assert list_queues() == []

    with Child(create_beyond_limit) as child:
        assert child.wait() == 0


def test_corruption_is_reported_not_followed(queue):
    """Bytes that no queue writes are recognised before they are believed."""
    queue.put(b"x" * 100)
    size = queue_files.queue_path(queue.name).stat().st_size
    overwrite(queue.name, size - queue.capacity, b"\0" * 16)
    with pytest.raises(Exception, match="some process has written into it"):
        queue.get()


def test_signals_interrupt_waits(queue):
    """Ctrl-C ends a wait on either side."""
    largest = b"x" * (queue.capacity - 16)
    for call, side in ((queue.get, "consumers_sleep"), (queue.put, "producers_sleep")):
        arguments = (largest,) if call == queue.put else ()
        if arguments:
            queue.put(largest)

        def interrupt(side=side):
            eventually(lambda: queue.statistics()[side])
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            call(*arguments)
        thread.join()
        assert queue.empty() == (not arguments)
        # A request to be woken may outlive who made it; the next publication clears it.
        if not arguments:
            queue.put(b"")
            queue.get()


def test_a_forked_child_may_use_the_handle(queue):
    """Both go on with the queue, and the child's close is not the parent's."""

    def child_part() -> None:
        queue.put(b"from the child")
        queue.close()

    with Child(child_part) as child:
        assert queue.get(timeout=PATIENCE) == b"from the child"
        assert child.wait() == 0
    queue.put(b"still open")
    assert queue.get() == b"still open"


def test_an_idle_waiter_burns_no_cpu(queue):
    """Waiting costs less than a hundredth of the time waited."""
    before, start = time.process_time(), time.monotonic()
    for _ in range(5):
        with pytest.raises(standard.Empty):
            queue.get(timeout=0.1)
    assert time.process_time() - before < 0.02 * (time.monotonic() - start)


def test_a_wait_lets_other_threads_run(queue):
    """The interpreter lock is free while a thread waits."""
    with Child(lambda: queue.put(queue.get(timeout=PATIENCE))):
        thread = threading.Thread(target=queue.get, kwargs={"timeout": PATIENCE})
        thread.start()
        eventually(lambda: queue.statistics()["consumers_sleep"])
        queue.put_many([b"one", b"two"])
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert queue.get(timeout=PATIENCE) in (b"one", b"two")


def test_parallel_large_messages():
    """Large messages from several producers to several consumers, copied side by side."""
    sizes = [40_000, 100_000, 33_000, 20]

    def produce(name: str, who: int) -> None:
        with SageQueue.open(name) as queue:
            for i in range(200):
                queue.put_parts([bytes([who, i]), bytes([who ^ i]) * sizes[i % 4]])

    def consume(name: str, results: str) -> None:
        with SageQueue.open(name) as queue, SageQueue.open(results) as out:
            while message := queue.get(timeout=PATIENCE):
                assert message[2:] == bytes([message[0] ^ message[1]]) * sizes[message[1] % 4]
                out.put(message[:2])

    with fresh_queue(1 << 18) as queue, fresh_queue(1 << 16) as results:
        producers = [Child(produce, queue.name, who) for who in range(3)]
        consumers = [Child(consume, queue.name, results.name) for _ in range(2)]
        assert [child.wait() for child in producers] == [0, 0, 0]
        queue.put_many([b"", b""])
        assert [child.wait() for child in consumers] == [0, 0]
        assert sorted(results.get_many(1000)) == [
            bytes([w, i]) for w in range(3) for i in range(200)
        ]


def test_without_the_compiled_part_only_opening_fails():
    """The module imports anywhere; opening says what is missing and what to use instead."""
    program = """
import sys
sys.modules["sage.kernel.transport._sagequeue"] = None
from sage.common.errors import QueueUnsupportedError
from sage.kernel.transport.create_queue import create_queue
for call in (lambda: create_queue("a"), lambda: create_queue("a").open("a")):
    try:
        call()
    except QueueUnsupportedError as error:
        assert "robust" in str(error) and "in_process" in str(error)
    else:
        raise AssertionError
create_queue("a", kind="in_process").put(b"works")
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, check=True)
