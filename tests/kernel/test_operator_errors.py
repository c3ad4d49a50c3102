"""What a user is told when a function, source or sink fails: who, on which record, where, and why."""

import inspect
import json
import logging
import pickle
import sys
import traceback

import pytest

from sage import (
    FlatMapFunction,
    FunctionError,
    JobStatus,
    LocalEnvironment,
    OperatorError,
    Sink,
    SinkWriter,
    Source,
    SourceFunction,
    SourceReader,
)
from sage.testing import InjectedFaultError, TestSource


def fail_on_two(x):
    if x == 2:
        raise ValueError("two is too many")
    return x


LINE_OF_FAILURE = inspect.getsourcelines(fail_on_two)[1] + 2


def failure_of(env):
    with pytest.raises(OperatorError) as caught:
        env.execute()
    return caught.value


@pytest.fixture
def env():
    return LocalEnvironment("errors")


class TestAFailingFunction:
    def test_is_told_by_operator_record_file_and_line(self, env):
        env.from_batch([1, 2, 3]).map(fail_on_two).sink(print)
        error = failure_of(env)
        assert error.operator == "map(fail_on_two)"
        assert error.phase == "record"
        assert error.record == 2
        text = str(error)
        assert "map(fail_on_two)" in text
        assert "record 2" in text
        assert "ValueError: two is too many" in text
        assert f"{__file__}:{LINE_OF_FAILURE} in fail_on_two" in text

    def test_is_chained_as_the_cause_and_only_its_own_frames_are_shown(self, env):
        env.from_batch([2]).map(fail_on_two).sink(print)
        cause = failure_of(env).__cause__
        assert isinstance(cause, ValueError)
        frames = traceback.extract_tb(cause.__traceback__)
        assert [frame.name for frame in frames] == ["fail_on_two"]

    def test_keeps_the_causes_of_its_own(self, env):
        def wrap(x):
            try:
                return fail_on_two(x)
            except ValueError as error:
                raise RuntimeError("wrapped") from error

        env.from_batch([2]).map(wrap).sink(print)
        cause = failure_of(env).__cause__
        assert isinstance(cause, RuntimeError)
        assert isinstance(cause.__cause__, ValueError)

    def test_survives_pickling(self, env):
        env.from_batch([2]).map(fail_on_two).sink(print)
        error = failure_of(env)
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert (copy.operator, copy.phase, copy.record) == (error.operator, "record", 2)

    def test_is_known_by_the_name_the_user_gave(self, env):
        env.from_batch([2]).map(fail_on_two, name="checker").sink(print)
        assert failure_of(env).operator == "checker"

    @pytest.mark.parametrize("record", [None, "", False, 0, (), []], ids=repr)
    def test_is_told_with_an_empty_record_too(self, env, record):
        env.from_batch([record]).map(lambda x: 1 / 0).sink(print)
        error = failure_of(env)
        assert error.record is record or error.record == record
        assert f"record {record!r}" in str(error)

    def test_is_told_with_a_record_that_cannot_be_shown(self, env):
        class Shy:
            def __repr__(self):
                raise RuntimeError("no picture")

        env.from_batch([Shy()]).map(lambda x: 1 / 0).sink(print)
        assert "Shy whose repr failed" in str(failure_of(env))

    def test_is_told_with_a_huge_record_cut_short(self, env):
        env.from_batch(["x" * 100_000]).map(lambda x: 1 / 0).sink(print)
        assert len(str(failure_of(env))) < 1000

    def test_may_be_a_builtin_without_a_line(self, env):
        env.from_batch(["1", "x"]).map(int).sink(print)
        error = failure_of(env)
        assert error.operator == "map(int)"
        assert error.record == "x"

    def test_that_calls_a_library_is_placed_in_the_users_own_file(self, env):
        def parse(text):
            return json.loads(text)

        env.from_batch(["{"]).map(parse).sink(print)
        assert f"{__file__}:" in str(failure_of(env))

    @pytest.mark.parametrize(
        ("kind", "build"),
        [
            ("map", lambda s: s.map(fail_on_two)),
            ("filter", lambda s: s.filter(fail_on_two)),
            ("flat_map", lambda s: s.flat_map(lambda x: [fail_on_two(x)])),
            ("generator", lambda s: s.flat_map(lambda x: (fail_on_two(y) for y in [x]))),
            ("process", lambda s: s.process(lambda x, ctx: [fail_on_two(x)])),
            ("split", lambda s: s.split(lambda x: str(fail_on_two(x)))["1"]),
            ("key_by", lambda s: s.key_by(fail_on_two)),
            ("inspect", lambda s: s.inspect(fail_on_two)),
            ("reduce", lambda s: s.key_by(lambda x: 0).reduce(lambda a, b: fail_on_two(b))),
            ("sum", lambda s: s.key_by(lambda x: 0).sum(fail_on_two)),
            ("distinct", lambda s: s.distinct(fail_on_two)),
            ("comap", lambda s: s.connect(s).map(fail_on_two, fail_on_two)),
            ("sink", lambda s: s.sink(fail_on_two)),
        ],
    )
    def test_is_told_with_its_record_in_every_operator(self, env, kind, build):
        build(env.from_batch([1, 2, 3])).sink(lambda x: None, name="last")
        error = failure_of(env)
        assert error.record == 2
        assert isinstance(error.__cause__, ValueError)
        assert f"{__file__}:{LINE_OF_FAILURE}" in str(error)

    def test_in_a_batch_names_the_size_of_the_batch(self, env):
        env.from_batch([1, 2, 3]).map_batch(lambda batch: 1 / 0, name="b").sink(print)
        error = failure_of(env)
        assert (error.operator, error.record) == ("b", None)
        assert "batch of" in str(error)

    def test_after_the_end_of_input_is_told_as_such(self, env):
        class Broken:
            def create_accumulator(self):
                return 0

            def add(self, accumulator, data):
                return accumulator

            def get_result(self, accumulator):
                raise ZeroDivisionError("nothing to show")

        keyed = env.from_batch([1]).key_by(lambda x: x)
        keyed.aggregate(Broken(), emit="final", name="broken").sink(print)
        error = failure_of(env)
        assert error.operator == "broken"
        assert error.phase == "end"

    def test_halfway_through_a_generator_lets_what_came_before_through(self, env):
        def two_then_fail(x):
            yield x
            yield x
            raise ValueError("no third")

        got = []
        env.from_batch(["a"]).flat_map(two_then_fail, name="halfway").sink(got.append)
        error = failure_of(env)
        assert (error.operator, error.record, got) == ("halfway", "a", ["a", "a"])

    def test_behind_a_generator_is_told_with_its_own_record(self, env):
        env.from_batch([5]).flat_map(lambda x: (y for y in (1, 2))).map(
            fail_on_two, name="behind"
        ).sink(print)
        error = failure_of(env)
        assert (error.operator, error.record) == ("behind", 2)

    def test_behind_a_union_is_told_with_its_own_record(self, env):
        one = env.from_batch([1])
        one.union(one.map(lambda x: x + 1)).map(fail_on_two, name="behind").sink(print)
        error = failure_of(env)
        assert (error.operator, error.record) == ("behind", 2)

    def test_may_raise_stop_iteration_which_is_no_end_of_anything(self, env):
        got = []
        env.from_batch([1, 2]).map(lambda x: next(iter([]))).sink(got.append)
        error = failure_of(env)
        assert isinstance(error.__cause__, StopIteration)
        assert error.record == 1


class TestMistakesWithAnExplanation:
    def test_a_key_that_is_not_hashable(self, env):
        env.from_batch([1]).key_by(lambda x: [x], name="k").count(name="c").sink(print)
        error = failure_of(env)
        assert "[1] is not hashable" in str(error)
        assert "key_by" in str(error)
        assert error.record == 1

    @pytest.mark.parametrize("emit", ["update", "final"])
    def test_a_key_that_is_not_hashable_in_a_reduce(self, env, emit):
        env.from_batch([1]).key_by(lambda x: {}).reduce(max, emit=emit).sink(print)
        assert "not hashable" in str(failure_of(env))

    def test_a_record_that_is_its_own_key_and_not_hashable(self, env):
        env.from_batch([[1]]).distinct().sink(print)
        assert "not hashable" in str(failure_of(env))

    @pytest.mark.parametrize("record", [{"user": 1, "item": 2}, "text", 5, None], ids=repr)
    def test_a_field_that_is_not_there(self, env, record):
        env.from_batch([record]).key_by("usr").count().sink(print)
        error = failure_of(env)
        assert isinstance(error.__cause__, KeyError)
        assert "'usr'" in str(error)
        assert error.record == record

    def test_a_missing_field_shows_those_that_are_there(self, env):
        env.from_batch([{"user": {"id": 1}}]).key_by("user.name").count().sink(print)
        assert "'id'" in str(failure_of(env))

    def test_a_flat_map_that_returns_none(self, env):
        env.from_batch([1]).flat_map(lambda x: None, name="f").sink(print)
        error = failure_of(env)
        assert isinstance(error.__cause__, TypeError)
        assert "returned None" in str(error)
        assert "[] for none" in str(error)

    def test_a_flat_map_that_returns_no_iterable(self, env):
        env.from_batch([1]).flat_map(lambda x: 5, name="f").sink(print)
        error = failure_of(env)
        assert (error.operator, error.record) == ("f", 1)
        assert "'int' object is not iterable" in str(error)

    @pytest.mark.parametrize("result", [None, "text", b"bytes", {"a": 1}, 5], ids=repr)
    def test_a_batch_function_that_returns_no_records(self, env, result):
        env.from_batch([1]).map_batch(lambda batch: result).sink(print)
        assert isinstance(failure_of(env).__cause__, TypeError)


class _OneReader(SourceReader):
    """Gives the same result at each read."""

    def __init__(self, result):
        self.result = result

    def read_batch(self, max_records):
        return self.result

    def snapshot(self):
        return {"": None}


class _ReadBy(Source):
    def __init__(self, make):
        self.make = make

    def create_reader(self, splits, context):
        return self.make()


class TestAFailingSource:
    def test_that_cannot_be_opened(self, env):
        class Unreachable(Source):
            def create_reader(self, splits, context):
                raise ConnectionError("nobody home")

        env.from_source(Unreachable(), name="far").sink(print)
        error = failure_of(env)
        assert (error.operator, error.phase) == ("far", "open")
        assert isinstance(error.__cause__, ConnectionError)

    def test_that_cannot_list_its_splits(self, env):
        class Unreachable(Source):
            def list_splits(self):
                raise ConnectionError("nobody home")

            def create_reader(self, splits, context):
                raise AssertionError("not reached")

        env.from_source(Unreachable(), name="far").sink(print)
        assert failure_of(env).operator == "far"

    def test_that_fails_while_it_is_read_gives_what_came_before(self, env):
        got = []
        env.from_source(TestSource([1, 2, TestSource.ABORT(), 3]), name="s").sink(got.append)
        error = failure_of(env)
        assert (error.operator, error.phase, got) == ("s", "read", [1, 2])
        assert isinstance(error.__cause__, InjectedFaultError)

    @pytest.mark.parametrize("how", ["from_batch", "from_source"])
    def test_that_is_a_generator_is_placed_in_the_users_file(self, env, how):
        def records():
            yield 1
            raise ValueError("dry")

        got = []
        getattr(env, how)(records, name="s").sink(got.append)
        error = failure_of(env)
        assert (error.operator, got) == ("s", [1])
        assert isinstance(error.__cause__, ValueError)
        assert f"{__file__}:" in str(error)

    @pytest.mark.parametrize("where", ["__init__", "open", "get_data_iterator", "close"])
    def test_that_is_a_class_is_told_whatever_failed(self, env, where):
        def raise_it(self):
            raise ValueError(where)

        parts = {"get_data_iterator": lambda self: iter([1]), where: raise_it}
        env.from_source(type("Broken", (SourceFunction,), parts), name="s").sink(lambda x: None)
        error = failure_of(env)
        assert error.operator == "s"
        assert isinstance(error.__cause__, ValueError)

    def test_that_exits_the_process_is_told(self, env):
        def records():
            yield 1
            sys.exit(3)

        env.from_source(records, name="s").sink(lambda x: None)
        error = failure_of(env)
        assert error.operator == "s"
        assert "SystemExit" in str(error)

    @pytest.mark.parametrize("how", ["from_batch", "from_source"])
    def test_that_exits_the_process_gives_what_came_before(self, env, how):
        def records():
            yield from range(100)
            sys.exit(3)

        got = []
        getattr(env, how)(records, name="s").sink(got.append)
        error = failure_of(env)
        assert (error.operator, error.phase) == ("s", "read")
        assert "SystemExit" in str(error)
        assert got == list(range(100))

    def test_that_fails_to_stop_is_told_by_its_name(self, env):
        class Reader(_OneReader):
            def stop(self):
                raise OSError("cannot stop")

        env.from_source(_ReadBy(lambda: Reader([])), name="s").sink(print)
        env.logger.disabled = True
        env.submit()
        env.stop(10)
        assert (env.job.error.operator, env.job.error.phase) == ("s", "read")
        assert isinstance(env.job.error.__cause__, OSError)

    @pytest.mark.parametrize("result", [5, {1: 2}, {1}, iter([1])], ids=lambda r: type(r).__name__)
    def test_that_gives_no_sequence_is_told_what_to_give(self, env, result):
        env.from_source(_ReadBy(lambda: _OneReader(result)), name="s").sink(print)
        error = failure_of(env)
        assert (error.operator, error.phase) == ("s", "read")
        assert "read_batch() returns a sequence" in str(error)

    def test_that_reads_an_iterator_a_second_time_is_told_what_to_do(self, env):
        env.from_batch(iter([1, 2])).sink(lambda x: None)
        env.execute()
        assert "run already" in str(failure_of(env))


class _FailingWriter(SinkWriter):
    def __init__(self, where):
        self.where = where

    def _maybe(self, where):
        if where == self.where:
            raise OSError(where)

    def write_batch(self, values):
        self._maybe("write")

    def flush(self):
        self._maybe("flush")

    def close(self):
        self._maybe("close")


class _FailingSink(Sink):
    def __init__(self, where):
        self.where = where

    def create_writer(self, context, state):
        if self.where == "open":
            raise OSError("open")
        return _FailingWriter(self.where)


class TestAFailingSink:
    @pytest.mark.parametrize("where", ["open", "write", "flush", "close"])
    def test_fails_the_job_by_its_name(self, env, where):
        env.from_batch([1, 2]).sink(_FailingSink(where), name="out")
        error = failure_of(env)
        assert error.operator == "out"
        assert isinstance(error.__cause__, OSError)
        assert where in str(error)


class TestPolicies:
    def test_skip_logs_at_a_bounded_rate_and_counts(self, env, caplog):
        env.from_batch([1] * 1000).map(lambda x: 1 / 0, name="m", on_error="skip").sink(print)
        with caplog.at_level(logging.WARNING, logger="sage.errors"):
            result = env.execute()
        assert result.metrics["m"].errors == 1000
        lines = [record for record in caplog.records if "skipped" in record.message]
        assert len(lines) == 1
        assert "ZeroDivisionError" in lines[0].message

    def test_the_operators_policy_comes_before_that_of_the_environment(self):
        env = LocalEnvironment("errors", {"on_error": "skip"})
        env.logger.disabled = True
        env.from_batch([1]).map(lambda x: 1 / 0, on_error="fail").sink(print)
        failure_of(env)

    def test_set_on_error_holds_for_all_operators(self, env):
        env.set_on_error("skip")
        env.logger.disabled = True
        got = env.from_batch([2, 1]).map(fail_on_two).collect()
        env.execute()
        assert got == [1]

    def test_dead_letters_of_the_whole_job_can_be_collected_under_an_environment_wide_policy(self):
        env = LocalEnvironment("errors", {"on_error": "dead_letter"})
        env.from_batch([1, 2]).map(fail_on_two).sink(lambda x: None)
        letters = env.dead_letters().collect()
        env.execute()
        assert [letter.value for letter in letters] == [2]

    def test_a_dead_letter_holds_value_operator_error_and_a_traceback_of_user_code(self, env):
        stream = env.from_batch([1, 2]).map(fail_on_two, name="m", on_error="dead_letter")
        stream.sink(lambda x: None)
        letters = stream.dead_letters().collect()
        env.execute()
        (letter,) = letters
        assert (letter.value, letter.operator) == (2, "m")
        assert isinstance(letter.error, ValueError)
        assert "in fail_on_two" in letter.traceback
        assert "<sage" not in letter.traceback

    def test_the_dead_letters_of_a_key_by_are_plain_records(self, env):
        keyed = env.from_batch([1, 2]).key_by(fail_on_two, on_error="dead_letter")
        counts = keyed.count().collect()
        letters = keyed.dead_letters().collect()
        env.execute()
        assert counts == [(1, 1)]
        assert [letter.value for letter in letters] == [2]

    def test_a_key_that_cannot_be_one_goes_by_the_policy_of_key_by(self, env):
        keyed = env.from_batch([1, 2]).key_by(
            lambda x: [x] if x == 2 else x, on_error="dead_letter"
        )
        counts, letters = keyed.count().collect(), keyed.dead_letters().collect()
        env.execute()
        assert list(counts) == [(1, 1)]
        assert [letter.value for letter in letters] == [2]
        assert "unhashable type" in str(letters[0].error)

    def test_dead_letters_that_nobody_reads_are_refused(self, env):
        env.from_batch([1]).map(fail_on_two, name="m", on_error="dead_letter").sink(print)
        with pytest.raises(Exception, match="m sends records that fail to the dead letters"):
            env.execute()

    def test_dead_letters_can_be_read_twice(self, env):
        stream = env.from_batch([2]).map(fail_on_two, on_error="dead_letter")
        stream.sink(lambda x: None)
        first, second = stream.dead_letters().collect(), env.dead_letters().collect()
        env.execute()
        assert [letter.value for letter in first] == [letter.value for letter in second] == [2]

    def test_dead_letters_can_be_repaired_and_united_with_the_rest(self, env):
        good = env.from_batch([1, 2, 3]).map(fail_on_two, on_error="dead_letter")
        repaired = good.dead_letters().map(lambda letter: letter.value * 10)
        got = good.union(repaired).collect()
        env.execute()
        assert sorted(got) == [1, 3, 20]

    def test_a_failing_batch_is_skipped_as_a_whole(self):
        env = LocalEnvironment("errors", {"batch_size": 2})

        def refuse_three(batch):
            if 3 in batch:
                raise ValueError("three")
            return batch

        stream = env.from_batch([1, 2, 3, 4, 5, 6]).map_batch(
            refuse_three, name="b", on_error="dead_letter"
        )
        got, letters = stream.collect(), stream.dead_letters().collect()
        result = env.execute()
        # The first batch is of one record, to see how long it takes.
        assert got == [1, 4, 5, 6]
        assert [letter.value for letter in letters] == [2, 3]
        assert result.metrics["b"].errors == 2

    def test_all_letters_of_a_failing_batch_tell_where_it_failed(self):
        env = LocalEnvironment("errors", {"batch_size": 2})
        stream = env.from_batch([0, 1, 2]).map_batch(
            lambda batch: [fail_on_two(x) for x in batch], on_error="dead_letter"
        )
        stream.sink(id)
        letters = stream.dead_letters().collect()
        env.execute()
        assert [letter.value for letter in letters] == [1, 2]
        assert all("in fail_on_two" in letter.traceback for letter in letters)

    def test_what_a_failing_flat_map_had_collected_is_not_given_to_another_record(self, env):
        class Collects(FlatMapFunction):
            def execute(self, data):
                self.collect(("from", data))
                if data == 1:
                    raise ValueError("one")

        class CollectsOnlyTwo(Collects):
            def execute(self, data):
                if data == 2:
                    return [("returned", 2)]
                return super().execute(data)

        env.logger.disabled = True
        alone = env.from_batch([1]).flat_map(Collects, on_error="skip").collect()
        mixed = env.from_batch([1, 2]).flat_map(CollectsOnlyTwo, on_error="skip").collect()
        env.execute()
        # Whether the failed record's values go out or not, another record does not decide it.
        assert [*alone, ("returned", 2)] == list(mixed)

    def test_a_policy_on_distinct_holds_for_its_key_function(self, env):
        env.logger.disabled = True
        got = env.from_batch([0, 1, 1]).distinct(lambda x: 1 // x, on_error="skip").collect()
        env.execute()
        assert got == [1]

    def test_a_value_without_a_truth_fails_in_the_filter(self, env):
        class Undecided:
            def __bool__(self):
                raise ValueError("neither")

        env.logger.disabled = True
        stream = env.from_batch([1]).filter(lambda x: Undecided(), name="f", on_error="skip")
        stream.sink(print)
        assert env.execute().metrics["f"].errors == 1

    def test_a_failing_sink_function_can_be_skipped(self, env):
        env.logger.disabled = True
        got = []

        def write(x):
            got.append(fail_on_two(x))

        env.from_batch([1, 2, 3]).sink(write, name="w", on_error="skip")
        assert env.execute().metrics["w"].errors == 1
        assert got == [1, 3]

    def test_a_failing_reduce_leaves_its_state_as_it_was(self, env):
        env.logger.disabled = True

        def add(a, b):
            if b == 2:
                raise ValueError("two")
            return a + b

        got = env.from_batch([1, 2, 3]).key_by(lambda x: 0).reduce(add, on_error="skip").collect()
        env.execute()
        assert got == [1, 4]


async def soon(x):
    return x


async def many(x):
    yield x


class TestACoroutineFromAPlainFunction:
    @pytest.mark.parametrize("function", [soon, many])
    @pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "key_by", "sink", "inspect"])
    def test_is_told_by_the_operator(self, env, kind, function):
        stream = getattr(env.from_batch([1]), kind)(lambda x: function(*[x]), name="m")
        if kind not in ("sink", "inspect"):
            stream.sink(id)
        error = failure_of(env)
        assert isinstance(error.__cause__, FunctionError)
        assert error.operator == "m"
        assert "async functions are not supported by" in str(error)

    def test_is_found_in_all_that_keyed_functions_return(self, env):
        env.from_batch([1, 1]).key_by(lambda x: x).reduce(lambda a, b: soon(a), name="r").sink(id)
        assert "async functions are not supported by reduce" in str(failure_of(env))

    def test_is_skipped_record_by_record_under_a_policy(self, env):
        stream = env.from_batch([1, 2, 3]).map(
            lambda x: soon(x) if x < 3 else x, name="m", on_error="dead_letter"
        )
        got, letters = stream.collect(), stream.dead_letters().collect()
        env.execute()
        assert got == [3]
        assert [letter.value for letter in letters] == [1, 2]
        assert all(isinstance(letter.error, FunctionError) for letter in letters)

    def test_costs_a_plain_function_nothing_after_its_first_batch(self, env):
        depths = []
        env.from_batch(range(10)).sink(lambda x: depths.append(len(inspect.stack())))
        env.execute()
        assert depths[1:] == [depths[0] - 1] * 9


class TestExitingFromAFunction:
    @pytest.mark.parametrize("policy", ["fail", "skip"])
    def test_sys_exit_fails_the_job_by_the_operators_name_whatever_the_policy(self, policy):
        env = LocalEnvironment("errors", {"on_error": policy})
        env.from_batch([1]).map(lambda x: sys.exit(3), name="quitter").sink(print)
        error = failure_of(env)
        assert error.operator == "quitter"
        assert isinstance(error.__cause__, SystemExit)
        assert env.job.status is JobStatus.FAILED

    def test_sys_exit_closes_everything(self):
        env, closed = LocalEnvironment("errors"), []

        class Careful(SourceFunction):
            def get_data_iterator(self):
                return iter([1])

            def close(self):
                closed.append(self)

        env.from_source(Careful).map(lambda x: sys.exit(3)).sink(print)
        with pytest.raises((SystemExit, OperatorError)):
            env.execute()
        assert env.job.status is JobStatus.FAILED
        assert len(closed) == 1
