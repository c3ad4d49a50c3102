"""A Ray of this machine for the tests of a module, and what they leave behind."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from patience import PATIENCE
from sage.kernel.runtime.service.channel.ray_channel import RayDirectory
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions
from sage.kernel.runtime.service.ray_service_task import RayServiceTask, ray_address
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.transport.ray_runtime import start_local_ray
from service.calls.call_services import Zoo


@pytest.fixture(autouse=True)
def no_thread_or_file_is_left():
    """Ray opens connections as it needs them; threads of ours are another matter."""
    before = set(threading.enumerate())
    yield
    fresh = set(threading.enumerate()) - before
    left = [t.name for t in fresh if t.name.startswith("sage-")]
    assert not left, f"threads left behind: {left}"


@pytest.fixture(scope="module")
def ray():
    """A Ray with two CPUs, ended with the module: its processes would be in the way of others."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    directory = tempfile.mkdtemp(prefix="sray-", dir="/tmp")
    start_local_ray(
        num_cpus=2, log_to_driver=False, object_store_memory=100 << 20, _temp_dir=directory
    )
    import ray  # after it has been told where to listen

    yield ray
    ray.shutdown()
    left = {name for name in _child_names() if "ray" in name or "gcs" in name}
    assert not left, f"processes left behind: {left}"
    shutil.rmtree(directory, ignore_errors=True)


def _child_names():
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
                found.add(Path(f"/proc/{child}/comm").read_text().strip())
    return found


def eventually(condition, what, patience=PATIENCE):
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {patience} s: {what}"
        threading.Event().wait(0.01)  # what is waited for needs the processor
    return value


@contextmanager
def ray_services(*registered, elsewhere=(), task_class=None, **options):
    """Start `(name, class, *args)` as Ray services, and stop them at the end."""
    chosen = ServiceOptions().changed(**{"isolation": "ray", "timeout": 20, **options})
    factories = [
        ServiceFactory(name, make, tuple(args), {}, chosen) for name, make, *args in registered
    ]
    token = f"sage-test-{threading.get_native_id()}-{time.monotonic_ns()}"
    addresses = [ray_address(token, number, made) for number, made in enumerate(factories)]
    tasks = {}
    directory = RayDirectory(token, tuple(addresses))
    try:
        for factory, address in zip(factories, addresses, strict=True):
            task = RayServiceTask(factory, None, address)
            task.others = tuple(other for other in addresses if other is not address)
            task.elsewhere = tuple(elsewhere)
            if task_class is not None:
                task.task_class = task_class
            task.start_service()
            tasks[factory.name] = task
        manager = ServiceManager(directory)
        yield SimpleNamespace(manager=manager, tasks=tasks, directory=directory, token=token)
    finally:
        directory.close()
        for task in reversed(tasks.values()):
            task.stop_service()


@pytest.fixture(scope="module")
def zoo(ray):
    """The services `zoo`, four calls at a time, and `other`, for the tests of a module."""
    made_of = (("zoo", Zoo), ("other", Zoo))
    with ray_services(*made_of, elsewhere=("near",), max_concurrency=4) as made:
        made.call = made.manager.get_sync_proxy("zoo")
        made.begin = made.manager.get_async_proxy("zoo")
        future = made.begin.same(1)
        future.add_done_callback(lambda _: None)  # starts the thread that listens for answers
        future.result()
        yield made
