"""Jobs from the outside: submitting, waiting, stopping, cancelling, and what is told about them."""

import asyncio
import itertools
import threading
from collections import deque

import pytest

from patience import PATIENCE
from sage import (
    JobCancelledError,
    JobError,
    JobHandle,
    JobStateError,
    JobStatus,
    JobTimeoutError,
    LocalEnvironment,
    OperatorError,
    SourceFunction,
)


class Valve(SourceFunction):
    """A live source that gives what the test puts in, and can be waited for."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()
        self.items = deque()
        self.given = 0
        self.closing = False
        self.asked = threading.Event()

    def put(self, *items):
        with self.changed:
            self.items += items
            self.changed.notify_all()

    def end(self):
        with self.changed:
            self.closing = True
            self.changed.notify_all()

    def get_data_iterator(self):
        while True:
            self.asked.set()
            with self.changed:
                self.changed.wait_for(lambda: self.items or self.closing, PATIENCE)
                if not self.items:
                    return
                item = self.items.popleft()
                self.given += 1
                self.changed.notify_all()
            yield item

    def wait_given(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: self.given >= count, PATIENCE)


@pytest.fixture
def valve():
    valve = Valve()
    yield valve
    valve.end()


@pytest.fixture
def env():
    with LocalEnvironment("jobs", {"batch_size": 4}) as env:
        env.logger.disabled = True
        yield env


class Gate:
    """A sink that lets one record through each time it is told to."""

    def __init__(self):
        self.entered, self.free, self.seen = threading.Semaphore(0), threading.Semaphore(0), []

    def __call__(self, record):
        self.entered.release()
        assert self.free.acquire(timeout=PATIENCE)
        self.seen.append(record)

    def wait_entered(self):
        assert self.entered.acquire(timeout=PATIENCE)

    def open_for(self, count):
        self.free.release(count)


class TestSubmit:
    def test_returns_while_the_job_runs(self, env, valve):
        env.from_source(valve).sink(lambda x: None)
        assert env.job is None
        assert env.submit() == env.env_uuid
        assert env.job.status is JobStatus.RUNNING
        assert env.job.status == "RUNNING"
        valve.end()
        assert env.wait(PATIENCE)["status"] == "success"
        assert env.job.status is JobStatus.FINISHED

    def test_a_job_has_one_handle(self, env):
        env.from_batch([1]).sink(lambda x: None)
        first = env.submit_async()
        assert env.job is env.job is first
        first.wait(PATIENCE)
        env.execute()
        assert env.job is not first
        assert env.job == env.job != first

    def test_autostop_waits_and_raises(self, env):
        got = env.from_batch([1]).collect()
        assert env.submit(autostop=True) == env.env_uuid
        assert got == [1]
        env.from_batch([0]).map(lambda x: 1 / x).collect()
        with pytest.raises(OperatorError):
            env.submit(autostop=True)

    def test_twice_is_refused_while_the_first_runs(self, env, valve):
        env.from_source(valve).sink(lambda x: None)
        env.submit()
        for again in (env.submit, env.execute, env.submit_async):
            with pytest.raises(JobStateError, match="still RUNNING"):
                again()

    def test_keeps_the_error_of_a_job_that_failed(self, env):
        env.from_batch([0]).map(lambda x: 1 / x, name="m").sink(print)
        env.submit()
        answer = env.wait(PATIENCE)
        assert (answer["status"], answer["env_uuid"]) == ("error", env.env_uuid)
        assert "ZeroDivisionError" in answer["message"]
        assert env.job.status is JobStatus.FAILED
        assert isinstance(env.job.error, OperatorError)
        with pytest.raises(OperatorError):
            env.job.result()

    def test_logs_the_error_of_a_job_that_failed(self, env, caplog):
        env.logger.disabled = False
        env.from_batch([0]).map(lambda x: 1 / x, name="m").sink(print)
        env.submit()
        env.wait(PATIENCE)
        # The line is written just after the job is done, on the job's own thread.
        for thread in threading.enumerate():
            if thread.name.startswith("sage-"):
                thread.join(PATIENCE)
        assert any("failed" in record.message for record in caplog.records)


class TestAnswers:
    @pytest.mark.parametrize("what", ["wait", "stop", "cancel"])
    def test_before_a_job_they_are_errors_that_say_so(self, env, what):
        answer = getattr(env, what)()
        assert answer["status"] == "error"
        assert "no job" in answer["message"]
        assert answer["env_uuid"] == env.env_uuid

    def test_close_is_always_a_success(self, env):
        for _ in range(2):
            answer = env.close()
            assert answer["status"] == "success"
            assert set(answer) == {"status", "message", "env_uuid"}

    def test_wait_says_when_it_was_too_short(self, env, valve):
        env.from_source(valve).sink(lambda x: None)
        env.submit()
        answer = env.wait(0.01)
        assert answer["status"] == "error"
        assert "still RUNNING" in answer["message"]

    @pytest.mark.parametrize("what", ["wait", "stop", "cancel", "close"])
    def test_after_the_end_they_are_successes(self, env, what):
        env.from_batch([1]).sink(lambda x: None)
        env.execute()
        assert getattr(env, what)()["status"] == "success"
        assert env.job.status is JobStatus.FINISHED

    def test_wait_after_cancel_tells_that_it_was_cancelled(self, env, valve):
        env.from_source(valve).sink(lambda x: None)
        env.submit()
        assert env.cancel(PATIENCE)["status"] == "success"
        assert env.job.status is JobStatus.CANCELED
        answer = env.wait()
        assert answer["status"] == "error"
        assert "cancelled" in answer["message"]
        with pytest.raises(JobCancelledError):
            env.job.result()


class TestStop:
    def test_what_the_task_has_read_is_processed_to_the_end(self, env, valve):
        gate = Gate()
        stream = env.from_source(valve)
        stream.sink(gate)
        counts = stream.key_by(lambda x: 0).count(emit="final").collect()
        env.submit()
        valve.put("a")
        gate.wait_entered()
        stopper = threading.Thread(target=env.stop)
        stopper.start()
        gate.open_for(100)
        stopper.join(PATIENCE)
        assert env.job.status is JobStatus.FINISHED
        assert gate.seen == ["a"]
        assert counts == [(0, 1)]

    def test_what_the_source_has_given_is_processed_to_the_end(self, env, valve):
        """A record that has left its source is in nobody's hands but ours."""
        gate = Gate()
        env.from_source(valve).sink(gate)
        env.submit()
        valve.put(0)
        gate.wait_entered()
        valve.asked.clear()
        valve.put(*range(1, 6))
        valve.wait_given(6)
        # Asked for a seventh, the source has handed over the sixth.
        assert valve.asked.wait(PATIENCE)
        stopper = threading.Thread(target=env.stop)
        stopper.start()
        gate.open_for(100)
        stopper.join(PATIENCE)
        assert gate.seen == list(range(6))
        assert env.job.metrics.records_in == 6

    def test_an_endless_batch_source_can_be_stopped(self, env):
        seen = threading.Event()
        stream = env.from_batch(itertools.count)
        stream.sink(lambda x: seen.set())
        counted = stream.key_by(lambda x: 0).count(emit="final").collect()
        env.submit()
        assert seen.wait(PATIENCE)
        assert env.stop(PATIENCE)["status"] == "success"
        assert counted == [(0, env.job.metrics.records_in)]

    def test_a_loop_is_drained(self, env):
        seen = threading.Event()
        back = env.from_future("back")
        left = env.from_batch(lambda: itertools.repeat(20)).union(back).map(lambda n: n - 1)
        left.filter(lambda n: n > 0).fill_future(back)
        ended = []
        left.filter(lambda n: n == 0).sink(lambda n: (ended.append(n), seen.set()))
        env.submit()
        assert seen.wait(PATIENCE)
        assert env.stop(PATIENCE)["status"] == "success"
        assert len(ended) == env.job.metrics.records_in


class TestCancel:
    def test_while_a_live_source_blocks(self, env, valve):
        env.from_source(valve).sink(lambda x: None)
        env.submit()
        assert valve.asked.wait(PATIENCE)
        canceller = threading.Thread(target=env.cancel)
        canceller.start()
        valve.end()
        canceller.join(PATIENCE)
        assert env.job.status is JobStatus.CANCELED

    @pytest.mark.parametrize("kind", ["flat_map", "process"])
    def test_inside_of_an_endless_generator(self, env, kind):
        seen = threading.Event()
        endless = {
            "flat_map": lambda s: s.flat_map(lambda x: itertools.count()),
            "process": lambda s: s.process(lambda x, ctx: itertools.count()),
        }
        endless[kind](env.from_batch([1])).sink(lambda x: seen.set())
        env.submit()
        assert seen.wait(PATIENCE)
        assert env.cancel(PATIENCE)["status"] == "success"

    def test_inside_of_an_endless_loop(self, env):
        seen = threading.Event()
        back = env.from_future("back")
        around = env.from_batch([1]).union(back).map(lambda x: x)
        around.fill_future(back)
        around.sink(lambda x: seen.set())
        env.submit()
        assert seen.wait(PATIENCE)
        assert env.cancel(PATIENCE)["status"] == "success"

    def test_does_not_put_out_final_results(self, env):
        seen = threading.Event()
        stream = env.from_batch(itertools.count)
        stream.sink(lambda x: seen.set())
        counted = stream.key_by(lambda x: 0).count(emit="final").collect()
        env.submit()
        assert seen.wait(PATIENCE)
        env.cancel(PATIENCE)
        assert counted == []

    def test_from_a_function_of_the_job_itself(self, env):
        job = []
        ready = threading.Event()

        def cancel(x):
            ready.wait(PATIENCE)
            job[0]._job.cancel()

        env.from_batch(itertools.count).sink(cancel)
        job.append(env.submit_async())
        ready.set()
        assert env.wait(PATIENCE)["message"].startswith("the job was cancelled")

    def test_makes_execute_raise_in_the_other_thread(self, env):
        running, raised = threading.Event(), []
        env.from_batch(itertools.count).sink(lambda x: running.set())

        def run():
            try:
                env.execute()
            except JobCancelledError as error:
                raised.append(error)

        runner = threading.Thread(target=run)
        runner.start()
        assert running.wait(PATIENCE)
        env.cancel(PATIENCE)
        runner.join(PATIENCE)
        assert len(raised) == 1


class TestTimeouts:
    def test_execute_raises_and_has_closed_everything(self, env):
        closed = []

        class Endless(SourceFunction):
            def get_data_iterator(self):
                return itertools.count()

            def close(self):
                closed.append(self)

        env.from_source(Endless).sink(lambda x: None)
        with pytest.raises(JobTimeoutError, match=r"not done after 0.05 s"):
            env.execute(timeout=0.05)
        assert env.job.status is JobStatus.CANCELED
        assert len(closed) == 1

    def test_it_is_a_timeout_error_and_a_job_error(self):
        assert issubclass(JobTimeoutError, TimeoutError)
        assert issubclass(JobTimeoutError, JobError)

    def test_progress_keeps_to_the_timeout_too(self, env, capsys):
        env.from_batch(itertools.count).sink(lambda x: None)
        with pytest.raises(JobTimeoutError):
            env.execute(timeout=0.05, progress=True)

    def test_progress_ends_with_a_summary(self, env, capsys):
        env.from_batch([1, 2]).filter(lambda x: x > 1, name="big").sink(lambda x: None)
        env.execute(progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "FINISHED" in shown.err
        assert "big" in shown.err


class TestFigures:
    def test_the_result_tells_how_it_went(self, env):
        env.from_batch(range(10), name="in").filter(lambda x: x > 3, name="f").sink(print, name="o")
        result = env.execute()
        assert (result.job_name, result.env_uuid) == ("jobs", env.env_uuid)
        assert result.status is JobStatus.FINISHED
        metrics = result.metrics
        assert list(metrics.operators) == ["in", "f", "o"]
        assert metrics.records_in == 10
        assert (metrics["f"].records_in, metrics["f"].records_out, metrics["f"].dropped) == (
            10,
            6,
            4,
        )
        assert metrics.seconds > 0
        assert metrics.records_per_second > 0
        assert "jobs: FINISHED, 10 records" in str(result)

    def test_figures_can_be_read_while_the_job_runs(self, env, valve):
        gate = Gate()
        env.from_source(valve, name="in").sink(gate, name="out")
        job = env.submit_async()
        valve.put(1)
        gate.wait_entered()
        assert job.metrics["in"].records_out == 0  # it is not through yet
        assert job.error is None
        with pytest.raises(JobError, match="wait for it first"):
            job.result(timeout=0.01)
        gate.open_for(1)
        valve.put(2)
        gate.wait_entered()  # so the batch of the first is through
        assert job.metrics["in"].records_out == 1
        gate.open_for(1)
        valve.end()
        assert job.result(PATIENCE).metrics["out"].records_in == 2

    def test_a_callback_is_called_once_the_job_is_done_also_afterwards(self, env):
        env.from_batch([1]).sink(lambda x: None)
        job, called = env.submit_async(), threading.Event()
        job.add_done_callback(called.set)
        assert called.wait(PATIENCE)
        late = []
        job.add_done_callback(lambda: late.append(job.status))
        assert late == [JobStatus.FINISHED]


class TestAwaiting:
    def test_a_job_gives_its_result(self, env):
        got = env.from_batch([1, 2]).collect()

        async def main():
            job = env.submit_async()
            assert isinstance(job, JobHandle)
            return await job

        assert asyncio.run(main()).status is JobStatus.FINISHED
        assert got == [1, 2]

    def test_a_job_that_failed_raises(self, env):
        env.from_batch([0]).map(lambda x: 1 / x).sink(print)

        async def main():
            await env.submit_async()

        with pytest.raises(OperatorError):
            asyncio.run(main())

    def test_the_event_loop_goes_on_meanwhile(self, env, valve):
        env.from_source(valve).sink(lambda x: None)

        async def main():
            job = env.submit_async()
            waiting = asyncio.ensure_future(wait_for(job))
            await asyncio.to_thread(valve.asked.wait, PATIENCE)
            assert not waiting.done()
            valve.end()
            return await waiting

        async def wait_for(job):
            return await job

        assert asyncio.run(main()).status is JobStatus.FINISHED


class TestExecuteAndCollect:
    def test_gives_all_results_of_a_bounded_job(self, env):
        results = env.from_batch(range(100)).map(lambda x: x * 2).execute_and_collect()
        assert list(results) == [2 * x for x in range(100)]
        assert env.job.status is JobStatus.FINISHED

    @pytest.mark.parametrize("limit", [0, 1, 3, 5, 17])
    def test_ends_an_endless_job_after_the_limit(self, env, limit):
        results = env.from_batch(itertools.count).execute_and_collect(limit=limit)
        assert list(results) == list(range(limit))
        assert env.wait(PATIENCE)["message"].startswith("the job was cancelled")

    def test_closing_the_iterator_ends_the_job(self, env):
        results = env.from_batch(itertools.count).execute_and_collect()
        assert next(results) == 0
        results.close()
        env.wait(PATIENCE)
        assert env.job.status is JobStatus.CANCELED

    def test_leaving_a_for_loop_ends_the_job(self, env):
        for record in env.from_batch(itertools.count).execute_and_collect():
            if record == 50:
                break
        env.wait(PATIENCE)
        assert env.job.status is JobStatus.CANCELED

    def test_raises_what_failed_after_the_results_before_it(self, env):
        results = env.from_batch([1, 2, 0]).map(lambda x: 2 / x).execute_and_collect()
        got = []
        with pytest.raises(OperatorError):
            got.extend(results)
        assert env.job.status is JobStatus.FAILED

    def test_a_bounded_job_with_fewer_records_than_the_limit_finishes(self, env):
        assert list(env.from_batch([1]).execute_and_collect(limit=5)) == [1]
        assert env.job.status is JobStatus.FINISHED

    def test_records_of_a_live_source_come_as_they_are_given(self, env, valve):
        results = env.from_source(valve).execute_and_collect()
        for i in range(3):
            valve.put(i)
            assert next(results) == i
        valve.end()
        assert list(results) == []

    def test_it_can_be_done_again(self, env):
        stream = env.from_batch([1, 2])
        assert list(stream.execute_and_collect()) == [1, 2]
        assert list(stream.execute_and_collect()) == [1, 2]


class TestContextManager:
    def test_leaving_the_block_ends_the_job(self, valve):
        with LocalEnvironment("jobs") as env:
            env.from_source(valve).sink(lambda x: None)
            env.submit()
            assert valve.asked.wait(PATIENCE)
            valve.end()
        assert env.job.status.is_terminal

    def test_a_job_that_still_runs_then_is_told_to_be_cancelled(self, valve, caplog):
        with LocalEnvironment("leaving") as env:
            env.from_source(valve).sink(lambda x: None)
            env.submit()
            assert valve.asked.wait(PATIENCE)
            valve.end()
            env.wait(PATIENCE)
        assert "with block" not in caplog.text
        with LocalEnvironment("leaving") as env:
            seen = threading.Event()
            env.from_batch(itertools.count).sink(lambda x: seen.set())
            env.submit()
            assert seen.wait(PATIENCE)
        assert env.job.status is JobStatus.CANCELED
        assert (
            "the job 'leaving' is cancelled, because it still runs at the end of the with block"
            in (caplog.text)
        )

    def test_a_job_that_has_given_enough_is_not(self, caplog):
        with LocalEnvironment("enough") as env:
            assert list(env.from_batch(itertools.count).execute_and_collect(limit=3)) == [0, 1, 2]
        assert caplog.text == ""

    def test_an_exception_in_the_block_goes_on(self):
        env = LocalEnvironment("jobs")
        env.from_batch(itertools.count).sink(lambda x: None)

        def program():
            with env:
                env.submit()
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            program()
        assert env.job.status is JobStatus.CANCELED


def test_a_slow_function_is_not_given_a_long_batch_before_a_timeout_is_seen(env):
    done = []

    def slow(x):
        threading.Event().wait(0.05)
        done.append(x)

    env.from_batch(range(1000)).sink(slow)
    with pytest.raises(JobTimeoutError):
        env.execute(timeout=0.2, progress=False)
    assert len(done) < 20


def test_an_awaited_job_that_is_given_up_on_does_not_hold_the_loop(env):
    entered = threading.Event()

    def records():
        entered.set()
        while not env.job or env.job.status == "RUNNING":
            threading.Event().wait(0.01)
            yield 1

    async def main():
        handle = env.submit_async()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_result_of(handle), 0.05)

    env.from_source(records).sink(lambda x: None)
    asyncio.run(main())
    assert entered.wait(PATIENCE)
    assert env.cancel(PATIENCE)["status"] == "success"


async def _result_of(handle):
    return await handle
