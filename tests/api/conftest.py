"""A job that a test feeds while it runs, on a clock that the test moves."""

import queue
from contextlib import contextmanager

import pytest

from patience import PATIENCE
from sage import JobCancelledError, LocalEnvironment, SourceFunction
from sage.testing import ManualClock

END = object()


class Inlet(SourceFunction):
    """Gives what the test puts into a queue."""

    def __init__(self, items):
        super().__init__()
        self.items = items

    def get_data_iterator(self):
        return iter(self.items.get, END)


class LiveJob:
    """A pipeline that runs: `give` it records, `take` its results."""

    def __init__(self, build, inputs):
        self.clock = ManualClock()
        self.items = [queue.Queue() for _ in range(inputs)]
        self.seen, self.results = queue.Queue(), queue.Queue()
        env = LocalEnvironment("live", {"batch_size": 1}, clock=self.clock)
        streams = [env.from_source(Inlet(items)) for items in self.items]
        build(*streams).sink(self.results.put, name="results")
        for stream in streams:
            stream.sink(self.seen.put, name=f"seen {streams.index(stream)}")
        self.handle = env.submit_async()

    def give(self, *records, to=0):
        """Put records in and return when they have been through the pipeline."""
        for record in records:
            self.items[to].put(record)
            assert self.seen.get(timeout=PATIENCE) == record

    def end(self, which):
        """Let an input end."""
        self.items[which].put(END)

    def take(self):
        """Wait for a result."""
        return self.results.get(timeout=PATIENCE)

    def rest(self):
        """Return the results that have not been taken."""
        return [self.results.get() for _ in range(self.results.qsize())]


@pytest.fixture
def live():
    """Run a pipeline made by `build(*streams)`; at the end of the block its inputs end."""

    @contextmanager
    def start(build, inputs=1):
        job = LiveJob(build, inputs)
        try:
            yield job
        finally:
            for which in range(inputs):
                job.end(which)
            job.handle.wait(PATIENCE)
        if job.handle.error is not None and not isinstance(job.handle.error, JobCancelledError):
            raise job.handle.error

    return start
