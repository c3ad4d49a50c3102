"""The queue in a Ray actor keeps the contract of every queue."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from sage.common.errors import QueueExistsError, QueueNotFoundError
from sage.kernel.transport.create_queue import create_queue
from sage.kernel.transport.ray_queue import RayQueue, remove_ray_queue
from sage.kernel.transport.ray_runtime import start_local_ray
from sage.testing.queue_conformance import CHECKS
from sage.testing.queue_model import run_model

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def no_thread_or_file_is_left():
    """Ray opens connections, and starts threads, as it needs them."""
    return


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    return


@pytest.fixture(scope="module", autouse=True)
def ray():
    """A Ray with two CPUs, ended with the tests."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    directory = tempfile.mkdtemp(prefix="sray-", dir="/tmp")
    start_local_ray(
        num_cpus=2, log_to_driver=False, object_store_memory=100 << 20, _temp_dir=directory
    )
    import ray  # after it has been told where to listen

    yield ray
    ray.shutdown()
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def fresh(capacity=1 << 16):
    """Make a queue, and remove it at the end."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    with create_queue(name, "ray", capacity) as made:
        yield made
    remove_ray_queue(name)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check(check):
    with fresh() as queue:
        check(queue)


def test_model():
    """Each history takes an actor of its own, so there are few."""
    run_model(fresh, examples=3)


def test_it_is_found_by_its_name_and_travels(ray):
    with fresh() as queue:
        queue.put(b"for all")
        with RayQueue.open(queue.name) as other, pickle.loads(pickle.dumps(queue)) as third:
            assert other.capacity == third.capacity == queue.capacity
            assert other.get() == b"for all"
            third.shutdown()
        with pytest.raises(QueueExistsError):
            RayQueue.create(queue.name)

        @ray.remote
        def read(name):
            with RayQueue.open(name) as mine:
                return mine.qsize()

        assert ray.get(read.remote(queue.name)) == 0


def test_there_is_none():
    with pytest.raises(QueueNotFoundError):
        RayQueue.open("nowhere")
    with pytest.raises(QueueNotFoundError):
        remove_ray_queue("nowhere")


def test_a_removed_queue_fails_those_who_wait():
    queue = RayQueue.create(f"test-{os.getpid()}-removed")
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(queue.get, timeout=20)
        remove_ray_queue(queue.name)
        assert isinstance(getting.exception(20), QueueNotFoundError)
    queue.close()
