"""Which programs are refused, with what advice, and how those that run are named and shown."""

import functools
import logging
import re
from typing import Literal

import pytest

from sage import (
    BaseCoMapFunction,
    ConfigError,
    FunctionError,
    GraphError,
    LocalEnvironment,
    MapFunction,
    SourceError,
    SourceFunction,
)
from sage.testing import CollectingSink


@pytest.fixture
def env():
    return LocalEnvironment("graph")


def same(x):
    return x


class Scale(MapFunction):
    def __init__(self, factor, offset=0):
        super().__init__()
        self.factor, self.offset = factor, offset

    def execute(self, data):
        return data * self.factor + self.offset


class TestProgramsThatAreRefused:
    def test_an_empty_one(self, env):
        with pytest.raises(GraphError, match="nothing to run"):
            env.execute()

    def test_a_source_alone(self, env):
        env.from_batch([1], name="lonely")
        with pytest.raises(GraphError, match="nothing is done with the records of lonely"):
            env.execute()

    def test_a_future_that_is_never_filled(self, env):
        env.from_batch([1]).union(env.from_future("back")).sink(print)
        with pytest.raises(GraphError, match="'back' is never filled"):
            env.execute()

    def test_a_future_that_is_filled_twice(self, env):
        back, stream = env.from_future("back"), env.from_batch([1])
        stream.fill_future(back)
        with pytest.raises(GraphError, match=r"'back' is filled twice.*union"):
            stream.fill_future(back)

    def test_filling_what_is_no_future(self, env):
        stream = env.from_batch([1])
        with pytest.raises(GraphError, match="from_future"):
            stream.map(same).fill_future(stream)

    @pytest.mark.parametrize("thing", [None, 5, [1], "back"], ids=repr)
    @pytest.mark.parametrize("method", ["union", "connect", "fill_future"])
    def test_joining_a_stream_with_something_else(self, env, method, thing):
        with pytest.raises(GraphError, match=f"{method}.*needs a stream"):
            getattr(env.from_batch([1]), method)(thing)

    @pytest.mark.parametrize("method", ["union", "connect", "fill_future"])
    def test_joining_streams_of_two_environments(self, env, method):
        stranger = LocalEnvironment("other")
        theirs = stranger.from_future("x") if method == "fill_future" else stranger.from_batch([2])
        ours = env.from_batch([1])
        with pytest.raises(GraphError):
            getattr(ours, method)(theirs)

    @pytest.mark.parametrize("fold", ["reduce", "count"])
    def test_final_results_inside_of_a_loop(self, env, fold):
        back = env.from_future("back")
        keyed = env.from_batch([1]).union(back).key_by(same)
        ends = {
            "reduce": lambda: keyed.reduce(max, emit="final", name="late"),
            "count": lambda: keyed.count(emit="final", name="late"),
        }
        ends[fold]().fill_future(back)
        with pytest.raises(GraphError, match=r'late.*feedback loop.*emit="update"'):
            env.execute()

    def test_a_uid_given_twice(self, env):
        env.from_batch([1]).map(same, uid="one").map(same, uid="one").sink(print)
        with pytest.raises(GraphError, match="'one' is given to two operators"):
            env.execute()

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True], ids=repr)
    def test_a_parallelism_that_is_no_number_of_subtasks(self, env, wrong):
        with pytest.raises(GraphError, match="whole number"):
            env.from_batch([1]).map(same, parallelism=wrong)
        with pytest.raises(GraphError, match="whole number"):
            env.set_parallelism(wrong)
        with pytest.raises(GraphError, match="whole number"):
            env.from_batch([1]).set_parallelism(wrong)

    def test_naming_a_union_which_is_no_operator(self, env):
        union = env.from_batch([1]).union(env.from_batch([2]))
        for speak in (
            lambda: union.name("x"),
            lambda: union.uid("x"),
            lambda: union.side_output("x"),
            union.dead_letters,
        ):
            with pytest.raises(GraphError, match="union of 2"):
                speak()

    def test_connecting_with_nothing(self, env):
        with pytest.raises(GraphError, match="at least one"):
            env.from_batch([1]).connect()

    def test_nothing_runs_before_execute(self, env):
        called = []
        env.from_batch(lambda: called.append("source") or [1]).map(called.append).collect()
        env.explain()
        assert called == []


class TestFunctionsThatAreRefused:
    def test_a_side_output_of_what_is_no_process_function(self, env):
        with pytest.raises(GraphError, match="what a process function puts out"):
            env.from_batch([1]).map(same).side_output("late")

    def test_arguments_beside_a_sink_that_is_made_already(self, env):
        with pytest.raises(FunctionError, match="CollectingSink is made already: 1, nmae"):
            env.from_batch([1]).sink(CollectingSink(), 1, nmae="x")

    def test_dead_letters_of_a_sink_that_nobody_reads(self, env):
        env.from_batch([1]).sink(CollectingSink(), on_error="dead_letter", name="s")
        with pytest.raises(GraphError, match="s sends records that fail to the dead letters"):
            env.execute()

    def test_an_aggregate_that_is_a_plain_callable(self, env):
        with pytest.raises(FunctionError, match="create_accumulator, add, get_result"):
            env.from_batch([1]).key_by(same).aggregate(len)

    def test_a_coroutine_function(self, env):
        async def soon(x):
            return x

        with pytest.raises(FunctionError, match="soon is an async function"):
            env.from_batch([1]).map(soon)

    @pytest.mark.parametrize("method", ["map", "filter", "flat_map", "sink", "split", "map_batch"])
    def test_what_gives_a_coroutine_when_it_is_called(self, env, method):
        class Soon:
            async def __call__(self, x):
                return x

        async def many(x):
            yield x

        says = f"async functions are not supported by {method}"
        for function in (Soon(), functools.partial(Soon()), many, functools.partial(many)):
            with pytest.raises(FunctionError, match=says):
                getattr(env.from_batch([1]), method)(function)

    @pytest.mark.parametrize("method", ["from_batch", "from_source"])
    def test_a_source_that_is_an_async_function(self, env, method):
        async def one():
            return [1]

        async def several():
            yield 1

        for function in (one, several):
            with pytest.raises(FunctionError, match=f"not supported by {method}"):
                getattr(env, method)(function)

    def test_a_class_whose_method_is_a_coroutine_function(self, env):
        class Soon(MapFunction):
            async def execute(self, data):
                return data

        with pytest.raises(FunctionError, match=r"Soon.execute is an async function"):
            env.from_batch([1]).map(Soon)

    @pytest.mark.parametrize("thing", [None, 5, "name", [len]], ids=repr)
    @pytest.mark.parametrize("method", ["map", "filter", "flat_map", "process", "sink", "inspect"])
    def test_what_cannot_be_called(self, env, method, thing):
        with pytest.raises(FunctionError, match=re.escape(f"{method}() needs a callable")):
            getattr(env.from_batch([1]), method)(thing)

    @pytest.mark.parametrize(
        ("args", "kwargs", "says"),
        [
            ((), {}, "factor"),
            ((1, 2, 3), {}, "too many positional"),
            ((1,), {"factor": 2}, "multiple values"),
        ],
    )
    def test_a_class_that_cannot_be_constructed(self, env, args, kwargs, says):
        with pytest.raises(FunctionError, match=f"Scale cannot be constructed.*{says}"):
            env.from_batch([1]).map(Scale, *args, **kwargs)

    def test_a_class_without_its_method_names_the_near_miss(self, env):
        class Typo(MapFunction):
            def exceute(self, data):
                return data

        with pytest.raises(FunctionError, match=r"Typo does not define execute.*'exceute'"):
            env.from_batch([1]).map(Typo)

    def test_arguments_beside_an_instance(self, env):
        with pytest.raises(FunctionError, match="beside an instance of Scale"):
            env.from_batch([1]).map(Scale(1), 2)
        with pytest.raises(FunctionError, match="beside an instance of Scale"):
            env.from_batch([1]).map(Scale(1), offset=2)

    def test_positional_arguments_beside_a_callable(self, env):
        with pytest.raises(FunctionError, match=r"functools\.partial"):
            env.from_batch([1]).map(same, 2)

    def test_keyword_arguments_that_a_callable_does_not_take(self, env):
        with pytest.raises(FunctionError, match="nmae"):
            env.from_batch([1]).map(same, nmae="x")

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [("paralelism", "parallelism"), ("onerror", "on_error"), ("on_eror", "on_error")],
    )
    @pytest.mark.parametrize("method", ["map", "filter", "flat_map", "process", "sink"])
    def test_a_misspelt_option(self, env, method, wrong, right):
        with pytest.raises(FunctionError, match=f"'{wrong}'. Did you mean '{right}'"):
            getattr(env.from_batch([1]), method)(same, **{wrong: 1})

    def test_a_constructor_argument_may_look_like_an_option(self, env):
        class Rename(MapFunction):
            def __init__(self, names):
                super().__init__()
                self.names = names

            def execute(self, data):
                return self.names[data]

        got = env.from_batch(["a"]).map(Rename, names={"a": "b"}).collect()
        env.execute()
        assert got == ["b"]

    @pytest.mark.parametrize("policy", ["ignore", "", 1, "FAIL"], ids=repr)
    def test_an_unknown_policy(self, env, policy):
        with pytest.raises(FunctionError, match="on_error is one of 'fail', 'skip'"):
            env.from_batch([1]).map(same, on_error=policy)

    def test_an_unknown_emit(self, env):
        with pytest.raises(FunctionError, match='"update" or "final"'):
            env.from_batch([1]).key_by(same).count(emit="finaly")

    def test_comap_with_one_callable(self, env):
        one = env.from_batch([1])
        with pytest.raises(FunctionError, match=r"map0\(\), map1\(\)"):
            one.connect(one).comap(same)

    def test_a_comap_class_with_too_few_methods(self, env):
        class Two(BaseCoMapFunction):
            def map0(self, data):
                return data

            def map1(self, data):
                return data

        one = env.from_batch([1])
        with pytest.raises(FunctionError, match=r"map2\(\)"):
            one.connect(one, one).map(Two)

    def test_more_callables_than_connected_streams(self, env):
        one = env.from_batch([1])
        with pytest.raises(GraphError, match="3 functions for 2"):
            one.connect(one).map(same, same, same)

    def test_a_misspelt_option_beside_callables_for_connected_streams(self, env):
        one = env.from_batch([1])
        with pytest.raises(FunctionError, match="nmae"):
            one.connect(one).map(same, same, nmae="x")

    @pytest.mark.parametrize("data", [5, None, 1.5], ids=repr)
    def test_a_batch_that_is_no_iterable(self, env, data):
        with pytest.raises(FunctionError, match="needs an iterable"):
            env.from_batch(data)
        with pytest.raises(FunctionError, match="needs a source function"):
            env.from_source(data)

    @pytest.mark.parametrize("data", [[1], iter([1]), "abc"], ids=lambda d: type(d).__name__)
    def test_a_live_source_that_is_at_hand(self, env, data):
        with pytest.raises(FunctionError, match=r"needs a source function.*read by from_batch"):
            env.from_source(data)

    @pytest.mark.parametrize("fields", [("a", 5.0), ("a", None), (0, len)], ids=repr)
    def test_a_field_that_is_none(self, env, fields):
        with pytest.raises(FunctionError, match="a field is a name, a dotted path or an index"):
            env.from_batch([1]).key_by(*fields)

    @pytest.mark.parametrize("method", ["from_text_file", "from_csv", "from_jsonl"])
    def test_a_misspelt_option_of_a_file(self, env, method):
        with pytest.raises(FunctionError, match=f"{method}.*'encodng'. Did you mean 'encoding'"):
            getattr(env, method)("a.txt", encodng="utf-8")

    def test_a_misspelt_option_of_a_socket(self, env):
        with pytest.raises(FunctionError, match=r"'retrys'\. Did you mean 'retries'"):
            env.from_socket_text_stream("localhost", 9999, retrys=3)

    def test_a_type_that_json_cannot_become(self, env):
        with pytest.raises(FunctionError, match=r"from_jsonl\(\): type cannot be 5"):
            env.from_jsonl("a.jsonl", type=5)

    def test_arguments_of_files_and_sockets_that_cannot_be(self, env):
        for given in ({"encoding": 5}, {"header": 5}):
            with pytest.raises(SourceError, match="not 5"):
                env.from_csv("a.csv", **given)
        for host, port in ((5, 9999), ("localhost", "9999"), ("localhost", True)):
            with pytest.raises(SourceError, match="a socket source needs"):
                env.from_socket_text_stream(host, port)

    @pytest.mark.parametrize("limit", [-1, 1.5, "1", True], ids=repr)
    def test_a_limit_that_is_no_number_of_records(self, env, limit):
        with pytest.raises(GraphError, match="limit is a whole number of at least 0"):
            env.from_batch([1]).execute_and_collect(limit=limit)
        assert env.job is None

    @pytest.mark.parametrize("tag", [None, 0, []], ids=repr)
    def test_a_tag_that_is_no_string(self, env, tag):
        with pytest.raises(GraphError, match="the tag of a branch is a string"):
            env.from_batch([1]).split(same)[tag]
        with pytest.raises(GraphError, match="the tag of a side output is a string"):
            env.from_batch([1]).process(same).side_output(tag)

    @pytest.mark.parametrize("kind", ["function", "class", "instance", "partial"])
    def test_a_branch_that_the_function_says_it_never_names(self, env, kind):
        def parity(x) -> Literal["even", "odd"]:
            return "odd" if x % 2 else "even"

        class Parity(MapFunction):
            def execute(self, data: int) -> Literal["even", "odd"]:
                return parity(data)

        given = {"function": parity, "class": Parity, "instance": Parity()}
        parts = env.from_batch([1]).split(given.get(kind, functools.partial(parity)))
        if kind == "partial":  # it does not say
            return
        with pytest.raises(GraphError, match=r"names no branch 'evn'\. Did you mean 'even'"):
            parts["evn"]
        parts["odd"].collect()

    def test_arguments_beside_a_collection(self, env):
        with pytest.raises(FunctionError, match="arguments are for function classes"):
            env.from_batch([1], 2)

    @pytest.mark.parametrize("method", ["from_batch", "from_source"])
    def test_a_source_function_without_a_method(self, env, method):
        class Nothing(SourceFunction):
            pass

        with pytest.raises(FunctionError, match="neither get_data_iterator"):
            getattr(env, method)(Nothing)


class TestSettings:
    @pytest.mark.parametrize("name", [5, None, b"app"], ids=repr)
    def test_a_name_that_is_no_string(self, name):
        with pytest.raises(ConfigError, match="the name of an environment is a string"):
            LocalEnvironment(name)

    @pytest.mark.parametrize("config", [5, [1], "parallelism"], ids=repr)
    def test_a_configuration_that_is_no_dict(self, config):
        with pytest.raises(ConfigError, match="the configuration is a dict"):
            LocalEnvironment("app", config)

    @pytest.mark.parametrize("policy", ["skp", None, 5, []], ids=repr)
    def test_a_policy_for_the_environment_that_is_none(self, env, policy):
        with pytest.raises(
            ConfigError, match="on_error is one of 'fail', 'skip', 'dead_letter', not"
        ):
            env.set_on_error(policy)

    def test_an_unknown_key_names_the_near_one(self):
        with pytest.raises(ConfigError, match=r"'paralelism'\. Did you mean 'parallelism'"):
            LocalEnvironment("app", {"paralelism": 2})

    @pytest.mark.parametrize(
        "config",
        [
            {"batch_size": 0},
            {"batch_size": "many"},
            {"buffer_size": -1},
            {"parallelism": 0},
            {"parallelism": True},
            {"on_error": "ignore"},
            {"engine_port": 0},
            {"engine_port": 70000},
        ],
        ids=str,
    )
    def test_a_value_that_cannot_be_used(self, config):
        with pytest.raises(ConfigError, match=next(iter(config))):
            LocalEnvironment("app", config)

    def test_a_bad_policy_for_the_environment_changes_nothing(self, env):
        with pytest.raises(ConfigError):
            env.set_on_error("ignore")
        env.from_batch([1]).sink(lambda x: None)
        env.execute()

    @pytest.mark.parametrize(
        "config", [{"checkpoint_interval": 0}, {"restart_strategy": "fixed-dellay"}], ids=str
    )
    def test_settings_of_recovery_are_checked_when_the_job_starts(self, config):
        env = LocalEnvironment("app", config)
        env.from_batch([1]).sink(print)
        with pytest.raises(ConfigError, match=next(iter(config))):
            env.execute()
        with pytest.raises(ConfigError, match=next(iter(config))):
            env.submit()
        assert env.job is None

    def test_checkpoints_go_below_the_state_directory_unless_told(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        env = LocalEnvironment("my app", {"checkpoint_interval": 300})
        env.from_batch([1]).sink(lambda x: None)
        env.execute()
        [home] = (tmp_path / "sage" / "checkpoints").iterdir()
        assert home.name.startswith("my_app-")

    def test_the_settings_of_the_documents_are_accepted(self):
        config = {"engine_host": "127.0.0.1", "engine_port": 19000, "buffer_size": 10_000}
        env = LocalEnvironment("my_local_app", config=config)
        assert env.config == config

    @pytest.mark.parametrize("level", ["DEBUG", "info", "Warning", "ERROR", "CRITICAL"])
    def test_console_log_levels(self, level):
        env = LocalEnvironment(f"console-{level}")
        try:
            env.set_console_log_level(level)
            env.set_console_log_level(level)
            assert len(env.logger.handlers) == 1
            assert env.logger.level == getattr(logging, level.upper())
        finally:
            env.logger.handlers.clear()
            env.logger.propagate = True

    @pytest.mark.parametrize("level", ["LOUD", "", 10, None], ids=repr)
    def test_an_unknown_console_log_level_names_those_there_are(self, env, level):
        with pytest.raises(ValueError, match="DEBUG, INFO, WARNING, ERROR"):
            env.set_console_log_level(level)


class TestOddProgramsThatRun:
    def test_a_source_that_nobody_reads_is_left_out_with_a_warning(self, env, caplog):
        read = []
        env.from_batch(lambda: read.append(1) or [1], name="unread")
        got = env.from_batch([1]).collect()
        with caplog.at_level(logging.WARNING, logger="sage.graph"):
            result = env.execute()
        assert "nobody reads unread: the source is left out" in caplog.text
        assert (got, read) == ([1], [])
        assert "unread" not in result.metrics.operators

    def test_a_stream_without_a_sink_runs_with_a_warning(self, env, caplog):
        seen = []
        env.from_batch([1, 2]).map(seen.append, name="loose")
        with caplog.at_level(logging.WARNING, logger="sage.graph"):
            env.execute()
        assert "the output of loose reaches no sink" in caplog.text
        assert seen == [1, 2]

    def test_an_empty_source_gives_empty_results(self, env):
        stream = env.from_batch([])
        got = stream.map(same).collect()
        counts = stream.key_by(same).count(emit="final").collect()
        assert env.execute().metrics.records_in == 0
        assert (got, counts) == ([], [])

    def test_a_long_chain_of_maps(self, env):
        stream = env.from_batch([0, 1])
        for _ in range(600):
            stream = stream.map(lambda x: x + 1)
        got = stream.collect()
        result = env.execute()
        assert got == [600, 601]
        assert len(result.metrics.operators) == 602
        assert all(m.records_out == 2 for m in list(result.metrics.operators.values())[:-1])

    @pytest.mark.parametrize("kind", ["filter", "flat_map", "inspect", "key_by", "union"])
    def test_a_long_chain_of_other_operators(self, env, kind):
        steps = {
            "filter": lambda s: s.filter(lambda x: True),
            "flat_map": lambda s: s.flat_map(lambda x: [x]),
            "inspect": lambda s: s.inspect(lambda x: None),
            "key_by": lambda s: s.key_by(same),
            "union": lambda s: s.union(env.from_batch([])).map(same),
        }
        stream = env.from_batch([1])
        for _ in range(300):
            stream = steps[kind](stream)
        got = stream.collect()
        env.execute()
        assert got == [1]

    def test_a_long_chain_under_a_policy(self, env):
        env.set_on_error("skip")
        stream = env.from_batch([1])
        for _ in range(300):
            stream = stream.map(same)
        got = stream.collect()
        env.execute()
        assert got == [1]

    def test_many_filters_on_a_keyed_stream_keep_the_key(self, env):
        stream = env.from_batch([5]).key_by(lambda x: "key")
        for _ in range(120):
            stream = stream.filter(lambda x: True)
        got = stream.process(lambda x, ctx: [(ctx.key, x)]).collect()
        env.execute()
        assert got == [("key", 5)]

    def test_nested_flat_maps(self, env):
        stream = env.from_batch([1])
        for i in range(30):
            stream = stream.flat_map(lambda x, i=i: [x, x] if i % 3 == 0 else iter([x]))
        got = stream.key_by(same).count(emit="final").collect()
        env.execute()
        assert got == [(1, 2**10)]

    def test_many_branches_of_one_stream(self, env):
        stream = env.from_batch(range(3))
        branches = [stream.map(lambda x, i=i: x + i).collect() for i in range(200)]
        env.execute()
        assert all(branch == [i, i + 1, i + 2] for i, branch in enumerate(branches))

    def test_a_stream_united_with_itself_comes_twice(self, env):
        stream = env.from_batch([1, 2])
        got = stream.union(stream).collect()
        env.execute()
        assert sorted(got) == [1, 1, 2, 2]

    def test_records_of_branches_that_nobody_selects_are_told_at_the_end(self, env, caplog):
        parts = env.from_batch(range(10)).split(lambda x: "odd" if x % 2 else "even", name="parity")
        parts["odd"].sink(id)
        parts["evn"].sink(id)
        env.execute()
        assert (
            "parity put out 5 records under tags that nobody reads; those read are: 'evn', 'odd'"
            in caplog.text
        )

    def test_values_of_side_outputs_that_nobody_reads_are_told_at_the_end(self, env, caplog):
        env.from_batch([1, 2]).process(lambda x, ctx: ctx.output("late", x), name="p").sink(id)
        env.execute()
        assert (
            "p put out 2 records under tags that nobody reads; those read are: none" in caplog.text
        )


class TestNames:
    def test_names_are_unique_for_same_functions_and_lambdas(self, env):
        stream = env.from_batch([1]).map(same).map(same).map(lambda x: x).map(lambda x: x)
        stream.collect()
        stream.collect()
        names = list(env.execute().metrics.operators)
        assert names[:5] == ["from_batch", "map(same)", "map(same)-2", "map", "map-2"]
        assert sorted(names[5:]) == ["collect", "collect-2"]

    def test_names_are_unique_whatever_the_user_gives(self, env):
        stream = env.from_batch([1])
        for name in ("a", "a-2", "a", "a", "a-2"):
            stream = stream.map(same, name=name)
        stream.collect()
        names = [operator.name for operator in env.execute().metrics.operators.values()]
        assert len(names) == len(set(names)) == 7

    def test_uids_are_unique_beside_names_that_are_generated(self, env):
        env.from_batch([1]).map(same, uid="filter").filter(lambda x: True).collect()
        try:
            operators = env.execute().metrics.operators.values()
        except GraphError:
            return
        assert len({operator.uid for operator in operators}) == len(operators)

    def test_a_name_can_be_given_afterwards(self, env):
        env.from_batch([1]).name("numbers").map(same).name("kept").uid("kept-1").collect()
        metrics = env.execute().metrics
        assert list(metrics.operators) == ["numbers", "kept", "collect"]
        assert metrics["kept"].uid == "kept-1"


class TestTasksAndPlans:
    def program(self, env):
        back = env.from_future('the "way" <back>')
        start = env.from_batch([1, 2], name='in "quotes" \\ & <tags>')
        parts = start.union(back).split(lambda x: "big" if x > 3 else "small", name="split")
        parts["small"].map(lambda x: x * 2, on_error="skip").fill_future(back)
        parts["big"].sink(lambda x: None, name="out")

    def test_two_independent_pipelines_are_two_tasks(self, env):
        one, two = env.from_batch([1]).collect(), env.from_batch([2]).map(same).collect()
        assert env.explain().startswith("job 'graph': 2 tasks\n")
        env.execute()
        assert (one, two) == ([1], [2])

    def test_pipelines_that_meet_are_one_task(self, env):
        env.from_batch([1]).union(env.from_batch([2])).collect()
        assert env.explain().startswith("job 'graph': 1 task\n")

    def test_text_names_every_operator_and_where_its_output_goes(self, env):
        self.program(env)
        text = env.explain()
        for part in ("split", "(small)", "(big)", "[on error: skip]", "(back)", "out"):
            assert part in text
        assert env.explain("text") == text

    def test_mermaid_is_plausible(self, env):
        self.program(env)
        first, *lines = env.explain("mermaid").splitlines()
        assert first == "flowchart LR"
        node = re.compile(r'^    (n\d+)\["([^"<>]*)"\]$')
        edge = re.compile(r'^  (n\d+) (?:-->|-\.->)(?:\|"[^"<>|]*"\|)? (n\d+)$')
        nodes = {m[1] for line in lines if (m := node.match(line))}
        edges = [m for line in lines if (m := edge.match(line))]
        assert len(nodes) + len(edges) + 2 == len(lines)
        assert all({m[1], m[2]} <= nodes for m in edges)
        assert sum("-.->" in line for line in lines) == 1

    def test_dot_is_plausible(self, env):
        self.program(env)
        text = env.explain("dot")
        lines = text.splitlines()
        assert (lines[0], lines[-1]) == ("digraph {", "}")
        assert text.count("{") == text.count("}")
        string = r'"(?:[^"\\]|\\.)*"'
        node = re.compile(rf"^    (n\d+) \[label={string}\];$")
        edge = re.compile(rf"^  (n\d+) -> (n\d+) \[label={string}(?:, style=dashed)?\];$")
        nodes = {m[1] for line in lines if (m := node.match(line))}
        edges = [m for line in lines if (m := edge.match(line))]
        assert len(nodes) == 5
        assert len(edges) == 5
        assert all({m[1], m[2]} <= nodes for m in edges)

    def test_an_unknown_format_names_those_there_are(self, env):
        env.from_batch([1]).collect()
        with pytest.raises(ValueError, match="text, mermaid, dot"):
            env.explain("svg")
