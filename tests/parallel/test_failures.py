"""What becomes of a job over several processes when something goes wrong in one of them."""

import os
import signal
import sys
import threading

import pytest

from parallel.processes import is_alive, queues, wait_until, workers
from parallel.sources import GatedSource, SplitSource, mark, size_of
from sage import (
    JobCancelledError,
    JobError,
    LocalEnvironment,
    MapFunction,
    OperatorError,
)
from sage.kernel.jobmanager.job_state import JobStatus


def environment(**config):
    return LocalEnvironment("failing", {"parallelism": 2, **config})


def run(build, records=range(100), **config):
    """Run what `build` makes of a stream; return what it returned."""
    env = environment(**config)
    built = build(env.from_batch(list(records)))
    env.execute(progress=False)
    return built


def fails(build, expected=OperatorError, **options):
    """Return the error of a job, which names the worker."""
    with pytest.raises(expected) as told:
        run(build, **options)
    assert told.value.__notes__[-1].startswith(("In worker 0.", "In worker 1."))
    return told.value


# ---- functions that fail


def fail_at_seven(record):
    if record == 7:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("seven") from error
    return record


def test_an_error_names_operator_record_cause_and_worker():
    error = fails(lambda s: s.map(fail_at_seven, name="sevens").collect())
    assert (error.operator, error.phase, error.record) == ("sevens", "record", 7)
    assert isinstance(error.__cause__, ValueError)
    assert isinstance(error.__cause__.__cause__, KeyError)
    assert "in fail_at_seven" in str(error)


class OddError(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} is not {right}")


def test_an_exception_that_cannot_travel_is_told_in_words():
    def fail(record):
        raise OddError(record, 1)

    error = fails(lambda s: s.map(fail, name="odd").collect(), records=[5])
    assert (error.operator, error.record) == ("odd", 5)
    assert "OddError: 5 is not 1" in str(error)


class NeverOpens(MapFunction):
    def open(self):
        raise RuntimeError("no open")

    def execute(self, data):
        return data


def test_a_function_that_cannot_open_ends_the_job():
    error = fails(lambda s: s.map(NeverOpens, name="closed").collect())
    assert (error.operator, error.phase) == ("closed", "open")


@pytest.mark.parametrize("key", [float("nan"), [1]])
def test_a_key_without_a_place_is_an_error_of_its_operator(key):
    error = fails(lambda s: s.key_by(lambda r: key, name="bad key").count().collect())
    assert error.operator == "bad key"
    assert isinstance(error.__cause__, TypeError)


def test_keys_and_partitions_that_fail_go_by_the_policy_of_their_operator():
    def build(stream):
        keyed = stream.key_by(lambda n: n if n % 10 else [n], on_error="dead_letter")
        spread = stream.map(int, name="spread", on_error="dead_letter")
        custom = spread.partition_custom(lambda n, count: n % (count + 1)).map(int)
        letters = [s.dead_letters().map(lambda d: d.value).collect() for s in (keyed, spread)]
        return keyed.count().collect(), custom.collect(), *letters

    keyed, custom, no_key, no_place = run(build)
    assert sorted(keyed) == [(n, 1) for n in range(100) if n % 10]
    assert sorted(no_key) == [n for n in range(100) if n % 10 == 0]
    assert sorted(custom) == [n for n in range(100) if n % 3 < 2]
    assert sorted(no_place) == [n for n in range(100) if n % 3 == 2]


# ---- what cannot travel


class HasLock(MapFunction):
    def __init__(self):
        super().__init__()
        self.guard = threading.Lock()

    def execute(self, data):
        return data


def uses_lock():
    guard = threading.Lock()
    return lambda record: (record, guard)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (HasLock(), r"named cannot be pickled, because of the attribute 'guard' of HasLock"),
        (uses_lock(), r"named cannot be pickled, because of the variable 'guard'"),
    ],
)
def test_a_program_that_cannot_travel_is_refused_before_anything_starts(function, told):
    with pytest.raises(JobError, match=told):
        run(lambda s: s.map(function, name="named").collect())


def test_a_record_that_cannot_travel_is_named():
    def build(stream):
        stream.map(lambda n: threading.Lock(), name="locks").rebalance().map(str, name="texts")

    error = fails(build, JobError)
    assert "from locks to texts" in str(error)
    assert "lock object" in str(error)


def test_a_record_that_fits_into_no_channel_is_named():
    def build(stream):
        large = stream.map(lambda n: b"x" * (5 << 20), name="large")
        large.rebalance().map(len, name="length").sink(abs)

    error = fails(build, JobError, records=range(4))
    assert "from large to length" in str(error)
    assert len(str(error)) < 1000


def test_records_that_fit_one_by_one_are_sent_one_by_one():
    def build(stream):
        return stream.map(lambda n: b"x" * (1 << 20)).rebalance().map(len).collect()

    assert list(run(build, range(20))) == [1 << 20] * 20


# ---- processes that die


def killed(record):
    if record == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return record


def exits(record):
    if record == 50:
        os._exit(3)
    return record


@pytest.mark.parametrize(
    ("function", "how"), [(killed, "killed by signal 9"), (exits, "exit code 3")]
)
def test_a_worker_that_dies_fails_the_job(function, how):
    with pytest.raises(JobError, match=rf"worker [01] died \({how}\)"):
        run(lambda s: s.map(function).key_by(lambda n: n).count().collect())


def test_a_function_that_exits_fails_the_job():
    error = fails(lambda s: s.map(lambda n: sys.exit(4), name="leaves").collect())
    assert error.operator == "leaves"


class DiesOnce(MapFunction):
    """Takes its process down, unless a file says that it has done so."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def execute(self, data):
        if data == 50 and size_of(self.path) == 0:
            mark(self.path)(data)
            os._exit(1)
        return data, os.getpid(), self.ctx.subtask_index


def test_after_a_failure_all_workers_start_again(tmp_path):
    env = environment()
    env.set_restart_strategy("fixed-delay", max_attempts=2, restart_delay=0)
    found = env.from_batch(range(100)).rebalance().map(DiesOnce(str(tmp_path / "died"))).collect()
    assert env.execute(progress=False).status is JobStatus.FINISHED
    assert sorted(number for number, _, _ in found) == list(range(100))
    assert len({pid for _, pid, _ in found}) == len({index for _, _, index in found}) == 2


class RaisesOnce(MapFunction):
    """Asks a service, and tells in which processes it was opened; raises, unless that has been done."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def open(self):
        self.ctx.logger.warning("opened in %d", os.getpid())

    def execute(self, data):
        if data == 50 and size_of(self.path) == 0:
            mark(self.path)(data)
            raise ValueError("once")
        return self.call_service["double"].of(data)


class Double:
    def of(self, number):
        return 2 * number


def test_processes_in_which_functions_have_raised_or_been_cancelled_go_on(tmp_path, caplog):
    env = environment()
    env.register_service("double", Double)
    env.set_restart_strategy("fixed-delay", max_attempts=2, restart_delay=0)
    path = str(tmp_path / "raised")
    found = env.from_batch(range(100)).rebalance().map(RaisesOnce(path)).collect()
    assert env.execute(progress=False).status is JobStatus.FINISHED
    assert set(found) == {2 * number for number in range(100)}  # at least once each
    opened = [line for line in caplog.messages if line.startswith("opened in")]
    assert len(opened) == 4
    assert len(set(opened)) == 2


# ---- jobs that are ended from outside


def endless(env, path):
    """Return what a job without end collects; all it reads at first leaves a mark."""
    source = GatedSource(range(100))
    return env.from_source(source).rebalance().map(mark(path)).key_by(lambda n: n).count().collect()


def running(env, path):
    """Submit an endless job and return when its workers have worked."""
    found = endless(env, path)
    env.submit()
    wait_until(lambda: size_of(path) == 100)
    assert len(workers()) == 2
    assert queues()
    return found


def test_a_job_that_is_stopped_gives_all_that_it_has_read(tmp_path):
    env = environment()
    found = running(env, str(tmp_path / "marks"))
    assert env.stop(20)["status"] == "success"
    assert env.job.status is JobStatus.FINISHED
    assert sorted(found) == [(n, 1) for n in range(100)]


def test_a_job_that_is_cancelled_ends(tmp_path):
    env = environment()
    running(env, str(tmp_path / "marks"))
    assert env.cancel(20)["status"] == "success"
    with pytest.raises(JobCancelledError):
        env.job.result()


def test_a_worker_that_is_killed_from_outside_takes_the_job_down(tmp_path):
    env = environment()
    running(env, str(tmp_path / "marks"))
    first, second = workers()
    os.kill(first, signal.SIGKILL)
    env.wait(20)
    with pytest.raises(JobError, match=r"died \(killed by signal 9\)"):
        env.job.result()
    assert not is_alive(second)


def test_a_function_that_never_returns_does_not_hold_up_cancelling(tmp_path):
    gate = str(tmp_path / "stuck")

    def stuck(record):
        mark(gate)(record)
        threading.Event().wait()

    env = environment()
    env.from_batch(range(10)).rebalance().map(stuck).sink(abs)
    env.submit()
    wait_until(lambda: size_of(gate))
    assert env.cancel(20)["status"] == "success"


def test_the_end_of_the_with_block_ends_the_job(tmp_path, caplog):
    with environment() as env:
        running(env, str(tmp_path / "marks"))
    assert "still runs at the end of the with block" in caplog.text


def test_a_failure_elsewhere_ends_a_slot_that_waits():
    """One slot waits for records that only the other could send, which fails."""

    def build(stream):
        stream.map(fail_at_seven).rebalance().map(abs).key_by(abs).count(emit="final").collect()

    assert fails(build, records=range(8)).record == 7


def test_no_split_at_all_is_the_end():
    env = environment()
    found = env.from_source(SplitSource()).map(abs).key_by(abs).count(emit="final").collect()
    env.execute(progress=False)
    assert list(found) == []
