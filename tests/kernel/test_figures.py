"""The figures of a job are those of records that were processed, whatever became of it."""

import gc
import threading
import weakref

import pytest

from patience import PATIENCE
from sage import JobError, JobStatus, LocalEnvironment, OperatorError, Source, SourceReader
from sage.dataflow.operator.base import BatchOperator, BatchProcessor


@pytest.fixture
def env():
    env = LocalEnvironment("figures", {"batch_size": 100})
    env.logger.disabled = True
    return env


class Lists(Source):
    """Gives one list per read, as large as it is."""

    def __init__(self, *batches):
        self.batches = batches

    def create_reader(self, splits, context):
        return ListsReader(self.batches)


class ListsReader(SourceReader):
    poll_interval = None

    def __init__(self, batches):
        self.batches = iter(batches)

    def read_batch(self, max_records):
        return next(self.batches, None)

    def snapshot(self):
        return {"": None}


def until(limit):
    def check(record):
        if record == limit:
            raise ValueError(record)
        return record

    return check


def failed(env):
    with pytest.raises(OperatorError):
        env.execute()
    return env.job.metrics


@pytest.mark.parametrize("bad", [0, 1, 49, 50, 98, 99])
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_batch_that_fails_counts_up_to_the_record_that_failed(env, bad, kind):
    source = Lists(kind(range(50)), kind(range(50, 100)))
    env.from_source(source, name="in").map(until(bad), name="m").sink(id, name="out")
    metrics = failed(env)
    assert metrics.records_in == bad
    assert metrics["in"].records_out == bad
    assert (metrics["m"].records_in, metrics["m"].records_out) == (bad, bad)
    assert metrics["out"].records_in == bad


def test_what_failed_behind_a_union_is_not_counted_there_but_before_it(env):
    left = env.from_source(Lists([*range(10)]), name="left").map(lambda x: x, name="m")
    right = env.from_source(Lists([]), name="right")
    left.union(right).map(until(3), name="behind").sink(id)
    metrics = failed(env)
    assert metrics["left"].records_out == metrics["m"].records_out == 10
    assert metrics["behind"].records_in == 3


def test_a_batch_function_that_fails_has_not_processed_its_batch(env):
    def refuse(values):
        raise ValueError(values)

    env.from_source(Lists([1, 2, 3]), name="in").map_batch(refuse, name="b").sink(id)
    metrics = failed(env)
    assert metrics["in"].records_out == 3
    assert (metrics["b"].records_in, metrics["b"].records_out) == (0, 0)


def test_final_results_count_up_to_the_one_that_failed(env):
    counts = env.from_batch(range(10)).key_by(lambda x: x).count(emit="final", name="count")
    counts.sink(lambda pair: until(4)(pair[0]), name="out")
    metrics = failed(env)
    assert metrics["count"].records_in == 10
    assert metrics["count"].records_out == metrics["out"].records_in == 4


def test_a_batch_is_not_counted_while_it_is_under_way(env):
    entered, free = threading.Semaphore(0), threading.Semaphore(0)

    def wait(record):
        entered.release()
        assert free.acquire(timeout=PATIENCE)
        if record == 1:
            raise ValueError(record)

    env.from_source(Lists([0, 1, 2]), name="in").map(wait, name="m", on_error="skip").sink(id)
    job = env.submit_async()
    for _ in range(3):
        assert entered.acquire(timeout=PATIENCE)
        metrics = job.metrics
        assert metrics.records_in == metrics["m"].records_in == 0
        assert metrics["m"].records_out == 0  # though an error is counted already
        free.release()
    metrics = job.result(PATIENCE).metrics
    assert (metrics["m"].records_in, metrics["m"].errors, metrics["m"].records_out) == (3, 1, 2)


class Holding(BatchOperator):
    """Keeps all records and puts them out when its input has ended."""

    kind = "holding"

    def create(self, entries, context, state=None):
        return HoldingProcessor()


class HoldingProcessor(BatchProcessor):
    def __init__(self):
        self.held = []

    def process_batch(self, values):
        self.held += values
        return []

    def end(self):
        return self.held


def test_what_a_batch_operator_held_back_goes_out_at_the_end(env):
    got = env.from_batch(range(5))._then(Holding(), {}).map(lambda x: x + 1).collect()
    metrics = env.execute().metrics
    assert got == [1, 2, 3, 4, 5]
    assert (metrics["holding"].records_in, metrics["holding"].records_out) == (5, 5)


class State:
    pass


def test_a_job_that_is_done_holds_no_state(env):
    seen = []

    def note(record):
        seen.append(weakref.ref(record))
        return record

    env.from_batch(lambda: (State() for _ in range(3))).key_by(id).reduce(max).map(note).sink(id)
    result = env.execute()
    gc.collect()
    assert len(seen) == result.metrics.records_in == 3
    assert [ref() for ref in seen] == [None] * 3


def test_a_job_that_failed_holds_no_more_than_the_record_it_failed_on(env):
    seen = []

    def note(record):
        seen.append(weakref.ref(record))
        return record

    def refuse(record):
        assert len(seen) < 5

    states = env.from_batch(lambda: (State() for _ in range(9))).map(note)
    states.key_by(id).reduce(max).sink(refuse)
    with pytest.raises(OperatorError) as caught:
        env.execute()
    gc.collect()
    assert [ref() for ref in seen] == [None] * 4 + [caught.value.record]


def test_the_total_stays_known_when_the_job_is_done(env):
    env.from_batch([1, 2, 3]).sink(id)
    assert env.execute().metrics.total_count == 3
    assert env.job.metrics.total_count == 3


class Unsure(ListsReader):
    def total_count(self):
        raise OSError("nobody knows")


def test_a_total_that_cannot_be_told_is_unknown(env):
    source = Lists([1])
    source.create_reader = lambda splits, context: Unsure([[1]])
    env.from_source(source).sink(id)
    assert env.execute().metrics.total_count is None


@pytest.mark.parametrize("begin", ["execute", "submit", "submit_async"])
def test_a_job_that_gets_no_thread_has_failed(env, begin):
    """A process at its limit of threads says so; asking for a huge stack is a way to be there."""
    env.from_batch([1]).sink(id)
    env.from_batch([2]).sink(id)
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(JobError, match="'figures' cannot start a thread"):
            getattr(env, begin)()
    finally:
        threading.stack_size(before)
    assert env.job.status is JobStatus.FAILED
    assert env.execute().status is JobStatus.FINISHED
