"""Environments with services, gates to hold calls, and a look at what a test leaves behind."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from patience import PATIENCE
from sage import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE, queue_names
from service.calls.call_services import Zoo

ISOLATIONS = {
    "local": {"isolation": "local"},
    "inline": {"isolation": "local", "inline": True},
    "process": {"isolation": "process"},
    "replicas": {"isolation": "process", "replicas": 2},
}


@pytest.fixture(scope="module", autouse=True)
def _queue_directory():
    directory = tempfile.mkdtemp(dir="/dev/shm", prefix="sage-test-")
    before = os.environ.get(DIRECTORY_VARIABLE)
    os.environ[DIRECTORY_VARIABLE] = directory
    others = _children()  # such as a broker that other tests share
    yield
    left, children = queue_names(), _children() - others
    if before is None:
        del os.environ[DIRECTORY_VARIABLE]
    else:
        os.environ[DIRECTORY_VARIABLE] = before
    shutil.rmtree(directory)
    assert left == [], "queues left behind"
    assert children == set(), "processes left behind"


@pytest.fixture(autouse=True)
def _nothing_left_behind(_queue_directory, request):
    if "zoo" in request.fixturenames:
        request.getfixturevalue("zoo")
    queues, children = queue_names(), _children()
    yield
    assert queue_names() == queues, "queues left behind"
    assert _children() - children == set(), "processes left behind"


def _children():
    found = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):  # a thread may end meanwhile
            with open(f"/proc/self/task/{task}/children") as children:
                found.update(children.read().split())
    return found


class Gate:
    """Holds calls of `Zoo.gate` until the test lets them through."""

    def __init__(self, directory):
        self.path = str(directory)
        os.mkfifo(directory / "came")
        os.mkfifo(directory / "pass")
        self._came = os.open(directory / "came", os.O_RDWR)
        self._pass = os.open(directory / "pass", os.O_RDWR)

    def wait_came(self, count=1):
        """Wait until `count` calls stand at the gate."""
        for _ in range(count):
            ready, _, _ = select.select([self._came], [], [], PATIENCE)
            assert ready, "nobody came to the gate"
            os.read(self._came, 1)

    def let_pass(self, count=1):
        """Let so many calls through."""
        os.write(self._pass, b"x" * count)

    def close(self):
        """Let all through."""
        os.close(self._pass)
        os.close(self._came)


@pytest.fixture
def gate(tmp_path):
    """A gate that is open at the end of the test."""
    directory = tmp_path / "gate"
    directory.mkdir()
    made = Gate(directory)
    yield made
    made.close()


def eventually(condition, what, patience=PATIENCE):
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {patience} s: {what}"
        os.sched_yield()
    return value


@contextmanager
def services_of(isolation, *registered, **options):
    """Register `(name, class, *args)` in an environment that is closed at the end."""
    env = LocalEnvironment("services")
    for name, target, *args in registered:
        env.register_service(name, target, *args).options(**{**ISOLATIONS[isolation], **options})
    try:
        yield SimpleNamespace(env=env, manager=ServiceManager(env), isolation=isolation)
    finally:
        env.close()


@pytest.fixture(params=list(ISOLATIONS))
def isolation(request):
    """Each way to run a service."""
    return request.param


@pytest.fixture(scope="module", params=list(ISOLATIONS))
def zoo(_queue_directory, request):
    """The services `zoo` (4 calls at a time) and `single`, for the tests of a module."""
    with services_of(request.param, ("zoo", Zoo), ("single", Zoo), timeout=20) as made:
        made.env.register_service("wide", Zoo).options(
            **ISOLATIONS[request.param], timeout=20, max_concurrency=4
        )
        for name in ("zoo", "single", "wide"):
            _warm_up(made, name)
        made.call = made.manager.get_sync_proxy("zoo")
        made.begin = made.manager.get_async_proxy("zoo")
        made.local = made.isolation in ("local", "inline")
        yield made


def _warm_up(made, name):
    """Let the threads start and the queues be opened that live as long as the environment."""
    begin = made.manager.get_async_proxy(name)
    for _ in range(20):
        future = begin.later(0)
        future.add_done_callback(lambda _: None)
        future.result()
        begin.later(0.001).cancel()
