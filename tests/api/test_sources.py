"""Where records come from: the shapes of batches and live sources, their life and their end."""

import contextlib
import functools
import itertools
import queue
import threading

import pytest

from sage import (
    BaseFunction,
    BatchFunction,
    JobError,
    LocalEnvironment,
    SourceFunction,
    StopSignal,
)


@pytest.fixture
def env():
    return LocalEnvironment("sources")


def run(stream):
    got = stream.collect()
    stream._host.execute()
    return list(got)


class TestBatches:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ([1, None], [1, None]),
            ((1, 2), [1, 2]),
            ({3}, [3]),
            (frozenset({3}), [3]),
            (range(3), [0, 1, 2]),
            ("hello", list("hello")),
            ("", []),
            (b"ab", [97, 98]),
            ({"k": 1, "l": 2}, ["k", "l"]),
            ({"k": 1}.items(), [("k", 1)]),
            (lambda: [1, 2], [1, 2]),
            (lambda: iter([1, 2]), [1, 2]),
        ],
        ids=lambda v: type(v).__name__ + (str(v) if isinstance(v, str) else ""),
    )
    def test_any_iterable_or_a_callable_that_returns_one(self, env, data, expected):
        assert run(env.from_batch(data)) == expected
        assert run(env.from_batch(data)) == expected

    def test_a_generator_is_read_once(self, env):
        assert run(env.from_batch(x * x for x in range(4))) == [0, 1, 4, 9]

    def test_a_generator_function(self, env):
        def numbers():
            yield from range(3)

        assert run(env.from_batch(numbers)) == [0, 1, 2]

    def test_from_collection_is_another_name(self, env):
        assert run(env.from_collection([1, 2], name="c")) == [1, 2]

    def test_the_batch_function_of_the_documents_runs_unchanged(self, env):
        class CustomBatchFunction(BaseFunction):
            def get_data_iterator(self):
                return iter(range(50))

            def get_total_count(self):
                return 50

        stream = env.from_batch(CustomBatchFunction, custom_param="value")
        got = stream.collect()
        metrics = env.execute().metrics
        assert got == list(range(50))
        assert metrics.total_count == 50

    def test_the_source_function_of_the_documents_runs_unchanged(self, env):
        class MySourceFunction(BaseFunction):
            def get_data_iterator(self):
                return iter(range(10))

        assert run(env.from_source(MySourceFunction)) == list(range(10))

    def test_the_first_program_of_the_documents_runs_with_submit(self):
        from sage.core.api.local_environment import LocalEnvironment as Local

        env = Local("my_local_app", config={"engine_host": "127.0.0.1", "engine_port": 19000})
        seen = []
        stream = env.from_batch([1, 2, 3, 4, 5])
        stream.map(lambda x: x * 2).filter(lambda x: x > 5).sink(seen.append)
        assert env.submit() == env.env_uuid
        assert env.wait(10)["status"] == "success"
        assert seen == [6, 8, 10]

    def test_looking_at_the_metrics_constructs_no_functions(self, env):
        made = []

        class Counted(BatchFunction):
            def __init__(self):
                super().__init__()
                made.append(self)

            def get_data_iterator(self):
                return iter([1])

            def get_total_count(self):
                return 1

        env.from_batch(Counted).collect()
        env.submit()
        env.wait(10)
        before = len(made)
        for _ in range(3):
            assert env.job.metrics.total_count == 1
        assert len(made) == before

    def test_a_total_count_may_need_what_open_prepares(self, env):
        class FromStore(BatchFunction):
            def open(self):
                self.rows = [1, 2, 3]

            def get_data_iterator(self):
                return iter(self.rows)

            def get_total_count(self):
                return len(self.rows)

        got = env.from_batch(FromStore).collect()
        env.execute()
        assert got == [1, 2, 3]

    def test_a_total_count_that_fails_does_not_spoil_a_job_that_is_done(self, env):
        class Unsure(BatchFunction):
            def get_data_iterator(self):
                return iter([1])

            def get_total_count(self):
                raise ConnectionError("who knows")

        got = env.from_batch(Unsure).collect()
        env.submit()
        assert env.wait(10)["status"] == "success"
        assert got == [1]
        assert env.job.metrics.total_count is None

    def test_totals_are_known_when_all_sources_know(self, env):
        known = env.from_batch(range(3)).union(env.from_batch("ab"))
        known.sink(lambda x: None)
        assert env.execute().metrics.total_count == 5
        env.from_batch(iter([1])).sink(lambda x: None)
        assert env.execute().metrics.total_count is None

    def test_a_live_source_may_know_its_total(self, env):
        class Known(BatchFunction):
            def get_data_iterator(self):
                return iter([1, 2])

            def get_total_count(self):
                return 2

        env.from_source(Known).sink(lambda x: None)
        assert env.execute().metrics.total_count == 2


class TestLiveSources:
    def test_a_generator_function(self, env):
        def numbers():
            yield None
            yield 0

        assert run(env.from_source(numbers)) == [None, 0]

    def test_a_partial(self, env):
        assert run(env.from_source(functools.partial(range, 2))) == [0, 1]

    @pytest.mark.parametrize("instance", [False, True])
    def test_a_class_or_an_instance(self, env, instance):
        class Numbers(SourceFunction):
            def get_data_iterator(self):
                return iter([1, 2])

        assert run(env.from_source(Numbers() if instance else Numbers)) == [1, 2]

    def test_a_class_with_arguments(self, env):
        class Numbers(SourceFunction):
            def __init__(self, start, stop):
                super().__init__()
                self.bounds = (start, stop)

            def get_data_iterator(self):
                return iter(range(*self.bounds))

        assert run(env.from_source(Numbers, 2, stop=4)) == [2, 3]

    @pytest.mark.parametrize("ending", ["class", "instance", "raised", "raised class"])
    @pytest.mark.parametrize("how", ["from_source", "from_batch"])
    def test_execute_gives_a_record_at_each_call_until_the_stop_signal(self, env, how, ending):
        class Countdown(SourceFunction):
            def open(self):
                self.values = iter([3, None, 0, "", False])

            def execute(self):
                for value in self.values:
                    return value
                if ending == "raised":
                    raise StopSignal("done")
                if ending == "raised class":
                    raise StopSignal
                return StopSignal("done") if ending == "instance" else StopSignal

        assert run(getattr(env, how)(Countdown)) == [3, None, 0, "", False]

    @pytest.mark.parametrize("end", ["stop", "cancel", "fail"])
    def test_one_that_waits_can_see_that_it_should_leave_off(self, env, end, caplog):
        inbox, arrived, ended = queue.Queue(), threading.Event(), []

        class Messages(SourceFunction):
            def get_data_iterator(self):
                while not self.ctx.is_cancelled:
                    with contextlib.suppress(queue.Empty):
                        yield inbox.get(timeout=0.01)
                ended.append(threading.current_thread().name)

        inverse = env.from_source(Messages, name="in").map(lambda x: 1 / x)
        seen = inverse.collect()
        inverse.sink(lambda x: arrived.set())
        job = env.submit_async()
        inbox.put(1)
        assert arrived.wait(10)
        if end == "fail":
            inbox.put(0)
            job.wait(10)
        else:
            getattr(env, end)(10)
        assert job.status == {"stop": "FINISHED", "cancel": "CANCELED", "fail": "FAILED"}[end]
        assert ended == ["sage-source-in"]
        assert seen == [1.0]
        assert "left behind" not in caplog.text

    def test_source_is_another_name(self, env):
        assert run(env.source(lambda: iter([1]))) == [1]

    def test_what_returns_no_iterator_is_told(self, env):
        env.from_source(lambda: 5, name="s").sink(print)
        with pytest.raises(Exception, match="must return an iterator"):
            env.execute()

    def test_several_live_sources_are_read_to_their_ends(self, env):
        streams = [env.from_source(lambda i=i: iter([i] * 100)) for i in range(5)]
        got = run(streams[0].union(*streams[1:]))
        assert sorted(got) == sorted(list(range(5)) * 100)


class TestRunningAgain:
    def test_each_run_starts_from_the_beginning_and_collects_anew(self, env):
        keyed = env.from_batch([1, 1]).key_by(lambda x: x)
        got = keyed.count().collect()
        first_uuid = env.env_uuid
        for _ in range(3):
            env.execute()
            assert got == [(1, 1), (1, 2)]
        assert env.env_uuid == first_uuid

    def test_the_program_may_grow_between_runs(self, env):
        stream = env.from_batch([1])
        first = stream.collect()
        env.execute()
        second = stream.map(lambda x: x + 1).collect()
        env.execute()
        assert (first, second) == ([1], [2])

    @pytest.mark.parametrize("how", ["from_batch", "from_source"])
    def test_an_instance_that_has_nothing_left_is_told(self, env, how, caplog):
        class Countdown(SourceFunction):
            left = 2

            def execute(self):
                self.left -= 1
                return self.left if self.left >= 0 else StopSignal

        got = getattr(env, how)(Countdown(), name="in").collect()
        env.execute()
        assert (got, caplog.text) == ([1, 0], "")
        env.execute()
        assert got == []
        assert "'in' is an instance that was run before, and gave no record" in caplog.text

    @pytest.mark.parametrize("how", ["from_batch", "from_source"])
    def test_an_instance_that_starts_again_gives_all_and_is_closed(self, env, how, caplog):
        ended = []

        class Letters(SourceFunction):
            def get_data_iterator(self):
                try:
                    yield from "abc"
                finally:
                    ended.append(True)

        got = getattr(env, how)(Letters()).collect()
        env.execute()
        env.execute()
        assert (got, ended, caplog.text) == (["a", "b", "c"], [True, True], "")

    def test_a_program_that_failed_may_run_again(self, env):
        attempts = itertools.count()
        got = env.from_batch([1]).map(lambda x: x / next(attempts)).collect()
        with pytest.raises(Exception, match="division by zero"):
            env.execute()
        env.execute()
        assert got == [1.0]

    def test_collected_records_are_there_only_after_a_run(self, env):
        got = env.from_batch([1]).collect()
        with pytest.raises(JobError, match="run the job first"):
            len(got)
        assert "has not run" in repr(got)
        env.execute()
        assert got[0] == 1
        assert got[:1] == [1]
        assert 1 in got
        assert repr(got) == "Collected([1])"
