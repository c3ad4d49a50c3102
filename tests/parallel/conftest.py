"""What a job over several processes leaves behind fails its test."""

import pytest

from parallel.processes import queues, wait_until, workers


@pytest.fixture(autouse=True)
def no_process_or_queue_is_left():
    before = queues()
    yield
    assert wait_until(lambda: not workers()), "worker processes left behind"
    assert queues() == before, "queues left behind"
