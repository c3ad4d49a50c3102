"""Functions in all the shapes that users write: callables, classes, instances; and what they see."""

import dataclasses
import functools
import logging
from collections import Counter

import pytest

from sage import (
    AggregateFunction,
    BaseCoMapFunction,
    BaseFunction,
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    FieldKeyByFunction,
    FlatMapFunction,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
)
from sage.testing import ManualClock

ODD_VALUES = [None, 0, "", False, (), 0.0, [], {}]


@pytest.fixture
def env():
    return LocalEnvironment("functions")


def run(stream):
    got = stream.collect()
    stream._host.execute()
    return list(got)


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Add(MapFunction):
    def __init__(self, amount, **params):
        super().__init__(**params)
        self.amount = amount

    def execute(self, data):
        return data + self.amount


class TestShapesOfFunctions:
    @pytest.mark.parametrize(
        ("function", "args", "kwargs"),
        [
            (lambda x: x + 1, (), {}),
            (functools.partial(lambda a, x: a + x, 1), (), {}),
            ((1).__add__, (), {}),
            (Add, (1,), {}),
            (Add, (), {"amount": 1}),
            (Add(1), (), {}),
        ],
        ids=["lambda", "partial", "method", "class", "keywords", "instance"],
    )
    def test_map_takes_them_all(self, env, function, args, kwargs):
        assert run(env.from_batch([1, 2]).map(function, *args, **kwargs)) == [2, 3]

    def test_a_type_is_a_callable(self, env):
        assert run(env.from_batch(["1", "2"]).map(int)) == [1, 2]

    def test_a_dataclass_is_a_callable(self, env):
        assert run(env.from_batch([1]).map(Point)) == [Point(1)]

    def test_an_object_with_call_is_a_callable(self, env):
        class Twice:
            def __call__(self, x):
                return 2 * x

        assert run(env.from_batch([1]).map(Twice())) == [2]

    def test_a_class_with_execute_needs_no_base(self, env):
        class Twice:
            def execute(self, data):
                return 2 * data

        assert run(env.from_batch([1]).map(Twice)) == [2]
        assert run(env.from_batch([1]).map(Twice())) == [2]

    @pytest.mark.parametrize("instance", [False, True])
    def test_an_aggregate_needs_no_base(self, env, instance):
        class Total:
            def create_accumulator(self):
                return 0

            def add(self, accumulator, data):
                return accumulator + data

            def get_result(self, accumulator):
                return accumulator

        keyed = env.from_batch([1, 2]).key_by(lambda x: "k")
        function = Total() if instance else Total
        assert run(keyed.aggregate(function)) == [("k", 1), ("k", 3)]

    @pytest.mark.parametrize("instance", [False, True])
    def test_a_comap_needs_no_base(self, env, instance):
        class Tag:
            def map0(self, data):
                return (0, data)

            def map1(self, data):
                return (1, data)

        both = env.from_batch(["a"]).connect(env.from_batch(["b"]))
        assert sorted(run(both.comap(Tag() if instance else Tag))) == [(0, "a"), (1, "b")]

    @pytest.mark.parametrize("instance", [False, True])
    def test_a_source_needs_no_base(self, env, instance):
        class Three:
            def get_data_iterator(self):
                return iter([1, 2, 3])

        source = Three() if instance else Three
        batch, live = env.from_batch(source).collect(), env.from_source(source).collect()
        env.execute()
        assert batch == live == [1, 2, 3]

    def test_short_names_of_the_documents_work_too(self, env):
        stream = env.from_batch([[1, 1], [2]]).flatmap(lambda x: x).keyby(lambda x: x)
        got = []
        stream.reduce(lambda a, b: a + b).add_sink(got.append)
        env.execute()
        assert got == [1, 2, 2]


class TestTheLifeOfAFunction:
    def test_open_records_close_with_the_context_from_open_on(self, env):
        events = []

        class Careful(BaseFunction):
            def __init__(self):
                super().__init__()
                events.append(("init", self.ctx))

            def open(self):
                events.append(("open", self.ctx.operator_name))

            def execute(self, data):
                events.append(("execute", data))
                return data

            def close(self):
                events.append(("close", self.ctx.operator_name))

        run(env.from_batch([1, 2]).map(Careful, name="careful"))
        assert events == [
            ("init", None),
            ("open", "careful"),
            ("execute", 1),
            ("execute", 2),
            ("close", "careful"),
        ]

    def test_the_context_says_where_the_function_is(self):
        env = LocalEnvironment("where", clock=ManualClock(start_ms=77))
        seen = []

        class Looks(MapFunction):
            def execute(self, data):
                c = self.ctx
                seen.append((c.job_name, c.operator_name, c.subtask_index, c.parallelism))
                seen.append((self.name, self.logger.name, c.now_ms()))
                return data

        assert Looks().name == "Looks"
        assert isinstance(Looks().logger, logging.Logger)
        run(env.from_batch([1]).map(Looks, name="looker"))
        assert seen == [("where", "looker", 0, 1), ("looker", "sage.where.looker", 77)]

    def test_a_keyed_table_is_the_operators_own(self, env):
        class Counts(MapFunction):
            def execute(self, data):
                table = self.ctx.keyed_table("counts")
                table[data] = table.get(data, 0) + 1
                return table[data]

        stream = env.from_batch("aab")
        first, second = stream.map(Counts).collect(), stream.map(Counts).collect()
        env.execute()
        env.execute()
        assert first == second == [1, 2, 1]

    def test_keywords_that_the_constructor_does_not_take_are_kept_as_params(self, env):
        class Scale(BaseFunction):
            def execute(self, data):
                return data * self.params["factor"]

        class Strict(MapFunction):
            def __init__(self, first):
                super().__init__()
                self.first = first

            def execute(self, data):
                return (self.first, dict(self.params))

        assert run(env.from_batch([2]).map(Scale, factor=3)) == [6]
        assert run(env.from_batch([0]).map(Strict, 1, other=2)) == [(1, {"other": 2})]
        assert run(env.from_batch([0]).map(Add, 1, other=2)) == [1]

    def test_a_constructor_need_not_call_that_of_the_base(self, env):
        class Quiet(MapFunction):
            def __init__(self, value):
                self.value = value

            def execute(self, data):
                return (self.value, dict(self.params), self.name)

        got = run(env.from_batch([0]).map(Quiet, 1, extra=2, name="q"))
        assert got == [(1, {"extra": 2}, "q")]

    def test_an_instance_is_opened_and_closed_at_each_run(self, env):
        class Counts(MapFunction):
            opened = closed = 0

            def open(self):
                self.opened += 1

            def close(self):
                self.closed += 1

            def execute(self, data):
                return data

        counts = Counts()
        env.from_batch([1]).map(counts).collect()
        env.execute()
        env.execute()
        assert (counts.opened, counts.closed) == (2, 2)


class TestFlatMapFunction:
    def modes(self):
        class CollectOnly(FlatMapFunction):
            def execute(self, data):
                self.collect((data, "c1"))
                self.collect((data, "c2"))

        class ReturnOnly(FlatMapFunction):
            def execute(self, data):
                return [(data, "r")]

        class Both(FlatMapFunction):
            def execute(self, data):
                self.collect((data, "c"))
                return ((data, "r1"), (data, "r2"))

        class Generator(FlatMapFunction):
            def execute(self, data):
                self.collect((data, "c1"))
                yield (data, "y")
                self.collect((data, "c2"))

        class Nothing(FlatMapFunction):
            def execute(self, data):
                return None

        class Iterates(FlatMapFunction):
            def execute(self, data):
                return iter([(data, "i")])

        return {
            CollectOnly: ["c1", "c2"],
            ReturnOnly: ["r"],
            Both: ["c", "r1", "r2"],
            Generator: ["c1", "y", "c2"],
            Nothing: [],
            Iterates: ["i"],
        }

    @pytest.mark.parametrize("batch_size", [1, 1024])
    @pytest.mark.parametrize("instance", [False, True])
    def test_what_is_collected_and_what_is_returned_go_out_in_order(self, instance, batch_size):
        for cls, marks in self.modes().items():
            env = LocalEnvironment("modes", {"batch_size": batch_size})
            stream = env.from_batch([None, 0]).flat_map(cls() if instance else cls, name="f")
            got = stream.collect()
            metrics = env.execute().metrics
            expected = [(record, mark) for record in (None, 0) for mark in marks]
            assert got == expected, cls
            assert metrics["f"].records_out == len(expected)

    def test_collect_through_the_attribute_out_is_the_same(self, env):
        class Out(FlatMapFunction):
            def execute(self, data):
                self.out.collect(data)

        assert run(env.from_batch([1, 2]).flat_map(Out)) == [1, 2]

    def test_a_generator_gives_its_items_before_it_has_ended(self, env):
        order = []

        def noisy(x):
            for i in range(3):
                order.append(("made", i))
                yield i

        env.from_batch([0]).flat_map(noisy).sink(lambda i: order.append(("seen", i)))
        env.execute()
        assert order == [(what, i) for i in range(3) for what in ("made", "seen")]


class Keys(CoProcessFunction):
    def process0(self, data, ctx):
        yield ctx.key, data

    process1 = process0


class TestConnectedStreams:
    def test_one_instance_serves_all_inputs(self, env):
        class Rates(BaseCoMapFunction):
            made = 0

            def __init__(self):
                super().__init__()
                type(self).made += 1
                self.seen = 0

            def map0(self, data):
                self.seen += 1
                return self.seen

            map1 = map0

        one, two = env.from_batch([1, 2]), env.from_batch([3])
        assert sorted(run(one.connect(two).map(Rates))) == [1, 2, 3]
        assert Rates.made == 1

    def test_three_streams_with_a_method_or_a_callable_each(self, env):
        class Three(BaseCoMapFunction):
            def map0(self, data):
                return ("a", data)

            def map1(self, data):
                return ("b", data)

            def map2(self, data):
                return ("c", data)

        def connected():
            return env.from_batch([1]).connect(env.from_batch([2]), env.from_batch([None]))

        by_class = connected().comap(Three).collect()
        by_callable = (
            connected().comap(lambda x: ("a", x), lambda x: ("b", x), lambda x: ("c", x)).collect()
        )
        env.execute()
        assert (
            Counter(by_class) == Counter(by_callable) == Counter([("a", 1), ("b", 2), ("c", None)])
        )

    def test_one_callable_for_all(self, env):
        assert sorted(run(env.from_batch([1]).connect(env.from_batch([2])).map(str))) == ["1", "2"]

    def test_a_co_flat_map_may_return_none_or_yield(self, env):
        class Some(CoFlatMapFunction):
            def flat_map0(self, data):
                return None

            def flat_map1(self, data):
                yield data
                yield data

        assert run(env.from_batch([1]).connect(env.from_batch([2])).flat_map(Some)) == [2, 2]

    def test_a_co_process_sees_keys_and_side_outputs(self, env):
        class Sides(CoProcessFunction):
            def process0(self, data, ctx):
                ctx.output("left", (ctx.key, data))

            def process1(self, data, ctx):
                return [(ctx.key, data)]

        both = env.from_batch([{"id": 0}]).connect(env.from_batch([{"id": None}])).key_by("id")
        stream = both.process(Sides)
        main, left = stream.collect(), stream.side_output("left").collect()
        env.execute()
        assert main == [(None, {"id": None})]
        assert left == [(0, {"id": 0})]

    def test_keys_take_the_options_of_all_operators(self, env):
        one, other = env.from_batch(["a", 1]), env.from_batch(["b"])
        keyed = one.connect(other).key_by(len, name="length", uid="key", on_error="dead_letter")
        got = keyed.process(Keys).collect()
        letters = env.dead_letters().collect()
        env.execute()
        assert got == [(1, "a"), (1, "b")]
        assert [(letter.value, letter.operator) for letter in letters] == [(1, "length")]
        assert [step.uid for step in env.pipeline if step.uid] == ["key-0", "key-1"]

    def test_function_classes_have_types(self, env):
        class Tag(CoMapFunction[int, str, str]):
            def map0(self, data):
                return f"number {data}"

            def map1(self, data):
                return f"word {data}"

        assert run(env.from_batch([1]).connect(env.from_batch(["a"])).map(Tag)) == [
            "number 1",
            "word a",
        ]

    def test_a_stream_connected_with_itself(self, env):
        stream = env.from_batch([1, 2])
        got = run(stream.connect(stream).map(lambda x: x, lambda x: -x))
        assert sorted(got) == [-2, -1, 1, 2]


class TestProcess:
    def test_returns_yields_or_puts_out_to_the_sides(self, env):
        class Route(ProcessFunction):
            def execute(self, data, ctx):
                if data is None:
                    ctx.output("none", data)
                else:
                    yield data

        stream = env.from_batch([1, None, 0]).process(Route, name="route")
        main, none = stream.collect(), stream.side_output("none").collect()
        metrics = env.execute().metrics
        assert (main, none) == ([1, 0], [None])
        assert (metrics["route"].records_in, metrics["route"].records_out) == (3, 2)

    def test_the_key_is_that_of_the_record(self, env):
        keyed = env.from_batch([None, 0, "", 5]).key_by(lambda x: x)
        got = run(keyed.process(lambda x, ctx: [(ctx.key, x)]))
        assert got == [(None, None), (0, 0), ("", ""), (5, 5)]

    def test_there_is_no_key_on_a_stream_without_keys(self, env):
        stream = env.from_batch([1]).key_by(lambda x: x).map(lambda x: x)
        assert run(stream.process(lambda x, ctx: [ctx.key])) == [None]

    def test_a_side_output_that_nobody_reads_is_counted(self, env):
        stream = env.from_batch([1, 2]).process(lambda x, ctx: ctx.output("lost", x), name="p")
        stream.sink(print)
        assert env.execute().metrics["p"].unrouted == 2


class TestValuesThatAreFalse:
    @pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
    def test_they_are_records_like_any_other(self, env, value):
        stream = env.from_batch([value, value])
        results = [
            stream.collect(),
            stream.map(lambda x: x).collect(),
            stream.filter(lambda x: True).collect(),
            stream.flat_map(lambda x: [x]).collect(),
            stream.flat_map(lambda x: (y for y in [x])).collect(),
            stream.process(lambda x, ctx: [x]).collect(),
            stream.map_batch(lambda batch: batch).collect(),
            stream.split(lambda x: "t")["t"].collect(),
            stream.union(env.from_batch([])).collect(),
            env.from_source(lambda: iter([value, value])).collect(),
        ]
        env.execute()
        assert all(result == [value, value] for result in results)

    @pytest.mark.parametrize("key", [None, 0, "", False, (), 0.0], ids=repr)
    def test_they_are_keys_like_any_other(self, env, key):
        keyed = env.from_batch([1, 2]).key_by(lambda x: key)
        reduced = keyed.reduce(lambda a, b: a + b).collect()
        counted = keyed.count(emit="final").collect()
        first = keyed.distinct().collect()
        env.execute()
        assert (reduced, counted, first) == ([1, 3], [(key, 2)], [1])

    def test_a_reduce_may_return_none_and_go_on(self, env):
        keyed = env.from_batch([1, 2, 3]).key_by(lambda x: 0)
        got = run(keyed.reduce(lambda a, b: None if b == 2 else (a, b)))
        assert got == [1, None, (None, 3)]

    def test_an_accumulator_may_be_none(self, env):
        class Last(AggregateFunction):
            def create_accumulator(self):
                return None

            def add(self, accumulator, data):
                return data

            def get_result(self, accumulator):
                return accumulator

        keyed = env.from_batch([None, 0, None]).key_by(lambda x: 0)
        assert run(keyed.aggregate(Last)) == [(0, None), (0, 0), (0, None)]

    def test_distinct_by_a_key_that_is_an_index_or_none(self, env):
        records = [("a", 1), ("a", 2), ("b", 1)]
        by_index = env.from_batch(records).distinct(0).collect()
        by_itself = env.from_batch([None, None, 0]).distinct().collect()
        env.execute()
        assert by_index == [("a", 1), ("b", 1)]
        assert by_itself == [None, 0]


class TestKeys:
    @dataclasses.dataclass
    class Order:
        customer: dict
        amount: int

    def test_fields_paths_and_indices(self, env):
        orders = [self.Order({"id": i % 2}, i) for i in range(4)]
        by_path = env.from_batch(orders).key_by("customer.id").sum("amount", emit="final").collect()
        rows = [("a", 1), ("b", 2), ("a", 3)]
        by_index = env.from_batch(rows).key_by(0).sum(1, emit="final").collect()
        by_several = env.from_batch(rows).key_by(0, 1).count(emit="final").collect()
        by_class = env.from_batch(rows).key_by(FieldKeyByFunction, 0).count(emit="final").collect()
        env.execute()
        assert by_path == [(0, 2), (1, 4)]
        assert by_index == [("a", 4), ("b", 2)]
        assert by_several == [(("a", 1), 1), (("b", 2), 1), (("a", 3), 1)]
        assert by_class == [("a", 2), ("b", 1)]

    def test_min_max_and_several_folds_of_one_keyed_stream(self, env):
        keyed = env.from_batch([3, 1, 2]).key_by(lambda x: "k")
        low, high = keyed.min().collect(), keyed.max(emit="final").collect()
        env.execute()
        assert low == [("k", 3), ("k", 1), ("k", 1)]
        assert high == [("k", 3)]

    def test_a_reduce_function_class(self, env):
        class Longest(ReduceFunction):
            def execute(self, accumulated, data):
                return max(accumulated, data, key=len)

        keyed = env.from_batch(["a", "bbb", "cc"]).key_by(lambda x: 0)
        assert run(keyed.reduce(Longest, emit="final")) == ["bbb"]


class TestBatches:
    def test_a_batch_function_sees_at_most_batch_size_records(self):
        env = LocalEnvironment("batches", {"batch_size": 4})
        sizes = run(env.from_batch(range(10)).map_batch(lambda batch: [len(batch)]))
        assert sum(sizes) == 10
        assert max(sizes) <= 4

    @pytest.mark.parametrize("form", ["list", "numpy", "arrow"])
    def test_formats(self, env, form):
        def double(batch):
            if form == "arrow":
                import pyarrow.compute as pc

                return pc.multiply(batch, 2)
            return [2 * x for x in batch] if form == "list" else batch * 2

        assert run(env.from_batch([1, 2, 3]).map_batch(double, format=form)) == [2, 4, 6]

    @pytest.mark.parametrize("instance", [False, True])
    def test_a_batch_function_may_be_a_class_with_arguments(self, env, instance):
        class Shift(MapFunction):
            def __init__(self, by, factor=1):
                super().__init__()
                self.by, self.factor = by, factor

            def open(self):
                self.opened = True

            def execute(self, data):
                assert self.opened
                return [x * self.factor + self.by for x in data]

        numbers = env.from_batch([1, 2])
        shifted = (
            numbers.map_batch(Shift(10, factor=2), name="s")
            if instance
            else numbers.map_batch(Shift, 10, factor=2, name="s")
        )
        assert run(shifted) == [12, 14]

    def test_an_unknown_format_is_refused(self, env):
        with pytest.raises(Exception, match="format"):
            env.from_batch([1]).map_batch(lambda b: b, format="pandas").collect()

    def test_print_writes_a_line_per_record(self, env, capsys):
        stream = env.from_batch([None, "a"])
        stream.print("in")
        stream.print()
        env.execute()
        out = capsys.readouterr().out.splitlines()
        assert sorted(out) == ["None", "a", "in | None", "in | a"]
