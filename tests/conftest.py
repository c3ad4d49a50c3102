"""What a test leaves behind fails it: threads of jobs, threads that keep the process alive, files.

The tests can run in several processes at once (`pytest -n 2`, as `make test` does). Each of them has
directories of its own where the processes of SAGE meet, so none sees the queues, services and
programs of another.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from patience import PATIENCE
from sage.common.event_loop import new_event_loop

# How long an example takes is no matter of right or wrong on a machine that others use too.
settings.register_profile("sage", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sage")


def pytest_configure(config):
    """Let SIGINT be Ctrl-C, also where the tests were started in the background, ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _meet_in_a_directory_of_our_own(config)
    new_event_loop().close()  # with its first loop, uvloop opens a pipe that every process has once


def _meet_in_a_directory_of_our_own(config):
    """Short, as the names of sockets in it can have 107 bytes; gone when the tests have ended."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="sage-tests-", dir=shared)
    config.add_cleanup(lambda: shutil.rmtree(directory))
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setenv("XDG_RUNTIME_DIR", directory)
    patch.setenv("SAGE_QUEUE_DIR", directory)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give whole files to the processes, in the order in which they are found.

    All that needs a Ray goes to the same process, one file after the other, and all that needs a
    Kafka: two at a time take the processors from each other and from what is measured in seconds.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _engine(nodeid) or nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # the longest file is not the one with the most tests
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Let those begin first that go to one process together: they take longest."""
    items.sort(key=lambda item: _engine(item.nodeid) is None)


def _engine(nodeid):
    file = Path(nodeid.partition("::")[0])
    words = {*file.parts, *file.stem.split("_")}
    return next((engine for engine in ("ray", "kafka") if engine in words), None)


@pytest.fixture(autouse=True)
def no_thread_or_file_is_left():
    """Threads get a moment to return: a job is done shortly before its thread has ended."""
    threads, files = set(threading.enumerate()), _open_files()
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in _unwanted(threads):
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in _unwanted(threads)]
    assert not left, f"threads left behind: {left}"
    while (opened := _open_files() - files) and time.monotonic() < deadline:
        time.sleep(0.01)  # services of a module tell the registry once a second, through a file
    assert not opened, f"files left open: {sorted(opened)}"


def _unwanted(before):
    fresh = set(threading.enumerate()) - before
    return [t for t in fresh if not t.daemon or t.name.startswith("sage-")]


def _open_files():
    """Return what the file descriptors of this process refer to; the listing itself has one too."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            if not target.startswith("/proc/"):  # another thread looks whether a process lives
                found.add((int(number), target))
        except FileNotFoundError:
            continue
    return found
