"""Joins as users write them, run by the real engine."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.joins.join_model import asof_model, interval_model, window_join_model
from sage import (
    FunctionError,
    GraphError,
    LocalEnvironment,
    OperatorError,
    count_window,
    punctuated,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)
from sage.core.api.function.join_function import BaseJoinFunction
from sage.testing import TestSource

SECOND = 1000


@pytest.fixture
def env():
    return LocalEnvironment("joins")


def stream(env, *records, out_of_orderness=0):
    """Return a stream of `(key, ms, ...)`, keyed."""
    timed = env.from_batch(records).assign_timestamps(
        lambda record: record[1], max_out_of_orderness=out_of_orderness
    )
    return timed.key_by(0)


def sides(env, *records):
    """Return the left and the right records `(side, ms)` of one source, whose order is certain."""
    timed = env.from_source(TestSource(records)).assign_timestamps(lambda record: record[1])
    left, right = (timed.filter(lambda r, s=s: r[0] == s) for s in ("left", "right"))
    return left.key_by(lambda r: "key"), right.key_by(lambda r: "key")


def rows(env, joined):
    """Return the results, sorted."""
    collected = joined.collect()
    env.execute()
    return sorted(collected, key=repr)


CLICKS = [("a", 1_000, "c1"), ("b", 2_000, "c2"), ("a", 61_000, "c3")]
SALES = [("a", 30_000, "s1"), ("a", 59_999, "s2"), ("c", 61_000, "s3")]


def names(left, right):
    return (left and left[2], right and right[2])


class TestWindowJoin:
    @pytest.mark.parametrize(
        ("how", "alone"),
        [
            ("inner", []),
            ("left", [("c2", None), ("c3", None)]),
            ("right", [(None, "s3")]),
            ("outer", [("c2", None), ("c3", None), (None, "s3")]),
        ],
    )
    def test_pairs_of_one_key_and_window(self, env, how, alone):
        windows = stream(env, *CLICKS).join(stream(env, *SALES)).window(tumbling_time_window(60))
        expected = [("c1", "s1"), ("c1", "s2"), *alone]
        assert rows(env, windows.apply(names, how=how)) == sorted(expected, key=repr)

    def test_results_are_tuples_unless_told_otherwise(self, env):
        joined = stream(env, ("a", 1)).join(stream(env, ("a", 2))).window(tumbling_time_window(1))
        assert rows(env, joined.apply()) == [(("a", 1), ("a", 2))]

    def test_results_have_the_time_of_their_window(self, env):
        joined = stream(env, ("a", 1)).join(stream(env, ("a", 2))).window(tumbling_time_window(1))
        timed = joined.apply().process(lambda pair, ctx: [ctx.timestamp])
        assert rows(env, timed) == [999]

    def test_sliding_windows_give_a_pair_once_for_each(self, env):
        windows = sliding_time_window(2, 1)
        joined = stream(env, ("a", 1_000)).join(stream(env, ("a", 1_500))).window(windows)
        assert len(rows(env, joined.apply())) == 2

    def test_sessions_reach_over_both_sides(self, env):
        left = stream(env, ("a", 0), ("a", 4_000), ("a", 20_000))
        joined = left.join(stream(env, ("a", 2_000))).window(session_window(2))
        assert rows(env, joined.apply(lambda a, b: (a[1], b[1]))) == [(0, 2000), (4000, 2000)]

    def test_count_windows_need_no_time(self, env):
        left = env.from_batch([("a", 1)]).key_by(0)
        right = env.from_batch([("a", 2)]).key_by(0)
        joined = left.join(right).window(count_window(2)).apply(lambda a, b: a[1] + b[1])
        assert rows(env, joined) == [3]

    def test_late_records_of_both_sides_come_as_they_were(self, env):
        left, right = sides(env, ("left", 0), ("right", 5_000), ("right", 1), ("left", 2))
        joined = left.join(right).window(tumbling_time_window(1)).apply()
        late = joined.late_records().collect()
        assert rows(env, joined) == []
        assert list(late) == [("right", 1), ("left", 2)]

    def test_a_window_with_allowed_lateness_fires_again(self, env):
        left, right = sides(env, ("left", 0), ("right", 1), ("left", 5_000), ("right", 2))
        windows = left.join(right).window(tumbling_time_window(1)).allowed_lateness(10)
        assert rows(env, windows.apply(lambda a, b: (a[1], b[1]))) == [(0, 1), (0, 1), (0, 2)]

    def test_a_stream_can_be_joined_with_itself(self, env):
        ticks = stream(env, ("a", 1), ("a", 2))
        joined = ticks.join(ticks).window(tumbling_time_window(1))
        assert rows(env, joined.apply(lambda a, b: (a[1], b[1]))) == [
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
        ]

    def test_a_function_class_has_arguments(self, env):
        class Add:
            def __init__(self, more):
                self.more = more

            def execute(self, left, right):
                return left[1] + right[1] + self.more

        joined = stream(env, ("a", 1)).join(stream(env, ("a", 2))).window(tumbling_time_window(1))
        assert rows(env, joined.apply(Add, 10)) == [13]

    def test_a_function_that_fails_fails_the_job(self, env):
        joined = stream(env, ("a", 1)).join(stream(env, ("a", 2))).window(tumbling_time_window(1))
        joined.apply(lambda left, right: 1 / 0, name="divide").collect()
        with pytest.raises(OperatorError, match="divide failed"):
            env.execute()


class TestCoGroup:
    def test_gives_both_sides_of_a_window(self, env):
        def lengths(key, window, lefts, rights):
            yield key, window.start, [r[2] for r in lefts], [r[2] for r in rights]

        grouped = stream(env, *CLICKS).cogroup(stream(env, *SALES))
        assert rows(env, grouped.window(tumbling_time_window(60)).apply(lengths)) == [
            ("a", 0, ["c1"], ["s1", "s2"]),
            ("a", 60_000, ["c3"], []),
            ("b", 0, ["c2"], []),
            ("c", 60_000, [], ["s3"]),
        ]

    def test_may_give_nothing(self, env):
        grouped = stream(env, *CLICKS).cogroup(stream(env, *SALES))
        windows = grouped.window(tumbling_time_window(60))
        assert rows(env, windows.apply(lambda *_: None)) == []

    def test_refuses_what_is_no_iterable(self, env):
        grouped = stream(env, *CLICKS).cogroup(stream(env, *SALES))
        grouped.window(tumbling_time_window(60)).apply(lambda *_: 7).collect()
        with pytest.raises(OperatorError, match="returns or yields its results"):
            env.execute()


class TestIntervalJoin:
    def test_bounds_are_part_of_the_interval_unless_told_otherwise(self, env):
        left = stream(env, ("a", 10_000))
        right = stream(env, *(("a", 10_000 + ms) for ms in (-2_001, -2_000, 0, 3_000, 3_001)))
        joined = left.interval_join(right)

        def distances(**more):
            between = joined.between(timedelta(seconds=-2), 3, **more)
            return between.apply(lambda a, b: b[1] - a[1]).collect()

        closed, opened = distances(), distances(lower_inclusive=False, upper_inclusive=False)
        env.execute()
        assert sorted(closed) == [-2_000, 0, 3_000]
        assert list(opened) == [0]

    def test_results_have_the_later_time(self, env):
        joined = stream(env, ("a", 5)).interval_join(stream(env, ("a", 3))).between(-1, 1).apply()
        assert rows(env, joined.process(lambda pair, ctx: [ctx.timestamp])) == [5]

    def test_windows_behind_an_outer_join_lose_nothing(self, env):
        lefts = [(n % 3, n * 100) for n in range(300)]
        joined = stream(env, *lefts).interval_join(stream(env, *lefts[::2])).between(0, 0.7)
        alone = joined.apply(how="left").window_all(tumbling_time_window(1)).count()
        late = alone.late_records().collect()
        counts = rows(env, alone)
        assert list(late) == []
        expected, _ = interval_model(
            [("left", k, t, (k, t)) for k, t in lefts]
            + [("right", k, t, (k, t)) for k, t in lefts[::2]],
            0,
            700,
            "left",
        )
        per_second = Counter()
        for (_, ts), count in expected.items():
            per_second[ts // SECOND * SECOND] += count
        assert {c.start: c.value for c in counts} == per_second

    def test_a_function_that_fails_on_a_record_obeys_the_policy(self, env):
        joined = stream(env, ("a", 1), ("b", 1)).interval_join(stream(env, ("a", 2), ("b", 2)))
        divided = joined.between(0, 1).apply(
            lambda a, b: 1 // (a[0] == "a"), on_error="dead_letter"
        )
        letters = divided.dead_letters().collect()
        assert rows(env, divided) == [1]
        assert [letter.value[0] for letter in letters] == ["b"]


class TestAsofJoin:
    @pytest.mark.parametrize(
        ("direction", "tolerance", "expected"),
        [
            ("backward", None, [1_000, 4_000, None]),
            ("backward", 0.5, [None, 4_000, None]),
            ("forward", None, [4_000, 4_000, 1_000]),
            ("nearest", None, [1_000, 4_000, 1_000]),
            ("nearest", timedelta(milliseconds=400), [None, 4_000, None]),
        ],
    )
    def test_finds_the_nearest_in_time(self, env, direction, tolerance, expected):
        left = stream(env, ("a", 0), ("a", 2_000), ("a", 4_000), out_of_orderness=10)
        right = stream(env, ("a", 4_000), ("a", 1_000), ("b", 2_000), out_of_orderness=10)
        joined = left.asof_join(right, direction, tolerance).apply(lambda a, b: (a[1], b and b[1]))
        found = dict(rows(env, joined))
        assert [found[2_000], found[4_000], found[0]] == expected

    def test_results_have_the_time_of_the_left_record(self, env):
        left, right = stream(env, ("a", 5)), stream(env, ("a", 30))
        joined = left.asof_join(right, "forward").apply()
        assert rows(env, joined.process(lambda pair, ctx: [ctx.timestamp])) == [5]

    def test_inner_leaves_out_what_finds_none(self, env):
        left, right = stream(env, ("a", 5), ("b", 5)), stream(env, ("a", 3))
        joined = left.asof_join(right).apply(how="inner")
        assert rows(env, joined) == [(("a", 5), ("a", 3))]


class Names(BaseJoinFunction):
    """Users have the tag 0; visits have the tag 1, and wait for their user."""

    def __init__(self, greeting="hello"):
        super().__init__()
        self.greeting, self.names, self.waiting = greeting, {}, {}

    def execute(self, payload, key, tag):
        if tag == 0:
            self.names[key] = payload["name"]
        else:
            self.waiting[key] = self.waiting.get(key, 0) + payload["times"]
        if key not in self.names:
            return []
        return [f"{self.greeting} {self.names[key]}"] * self.waiting.pop(key, 0)


USERS = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]
VISITS = [{"user": 2, "times": 2}, {"user": 1, "times": 1}, {"user": 3, "times": 1}]


class TestKeyedJoin:
    def test_one_function_sees_both_streams(self, env):
        both = env.from_batch(USERS).connect(env.from_batch(VISITS)).key_by("id", "user")
        assert rows(env, both.join(Names, "hi")) == ["hi Ada", "hi Bob", "hi Bob"]

    def test_streams_may_be_keyed_before_they_are_connected(self, env):
        users = env.from_batch(USERS).keyby("id").filter(lambda user: user["id"] > 1)
        both = users.connect(env.from_batch(VISITS).keyby("user"))
        assert rows(env, both.join(Names())) == ["hello Bob", "hello Bob"]

    def test_it_is_a_join(self):
        assert Names().is_join

    @pytest.mark.parametrize("keyed", ["first", "second"])
    def test_streams_without_a_key_are_refused(self, env, keyed):
        first, second = env.from_batch(USERS), env.from_batch(VISITS)
        first = first.key_by("id") if keyed == "first" else first
        second = second.key_by("user") if keyed == "second" else second
        with pytest.raises(GraphError, match=r"use key_by\(\.\.\.\)"):
            first.connect(second).join(Names)

    def test_a_key_is_lost_in_a_map(self, env):
        users = env.from_batch(USERS).key_by("id").map(dict)
        with pytest.raises(GraphError, match="those of the first stream have none"):
            users.connect(env.from_batch(VISITS).key_by("user")).join(Names)

    def test_more_than_two_streams_are_refused(self, env):
        users = env.from_batch(USERS).key_by("id")
        with pytest.raises(GraphError, match="3 are connected"):
            users.connect(users, users).join(Names)

    def test_none_is_no_list(self, env):
        class Nothing(BaseJoinFunction):
            def execute(self, payload, key, tag):
                return None

        users = env.from_batch(USERS).key_by("id")
        users.connect(users).join(Nothing).collect()
        with pytest.raises(OperatorError, match="must return an iterable"):
            env.execute()


AIRLINES = {"AA": "American", "DL": None}


class Airlines:
    """A service."""

    def get(self, code):
        return AIRLINES.get(code)

    def lower(self, code):
        return code.lower()


class TestLookupJoin:
    @pytest.mark.parametrize("table", [AIRLINES, AIRLINES.get, "airlines"])
    @pytest.mark.parametrize(
        ("how", "alone"), [("inner", []), ("left", [("??", None), ("DL", None)])]
    )
    def test_looks_up_what_belongs_to_a_record(self, env, table, how, alone):
        env.register_service("airlines", Airlines)
        flights = env.from_batch([{"to": "AA"}, {"to": "DL"}, {"to": "??"}])
        named = flights.lookup_join(table, key="to", how=how, apply=lambda f, name: (f["to"], name))
        assert rows(env, named) == sorted([("AA", "American"), *alone], key=repr)

    def test_results_are_tuples_unless_told_otherwise(self, env):
        named = env.from_batch(["AA"]).lookup_join(AIRLINES, key=str)
        assert rows(env, named) == [("AA", "American")]

    def test_another_method_of_a_service(self, env):
        env.register_service("airlines", Airlines)
        named = env.from_batch(["AA"]).lookup_join("airlines", key=str, method="lower")
        assert rows(env, named) == [("AA", "aa")]

    def test_event_time_goes_on_behind_it(self, env):
        ticks = env.from_batch([5, 7]).assign_timestamps(int)
        named = ticks.lookup_join({5: "five"}, key=int)
        assert rows(env, named.process(lambda pair, ctx: [ctx.timestamp])) == [5]

    def test_a_failing_look_up_obeys_the_policy(self, env):
        ratios = env.from_batch([0, 2]).lookup_join(lambda n: 2 // n, key=int, on_error="skip")
        assert rows(env, ratios) == [(2, 1)]

    def test_records_that_are_not_in_the_table_are_counted(self, env):
        env.from_batch(["AA", "??"]).lookup_join(AIRLINES, key=str, name="named").collect()
        figures = env.execute().metrics.operators["named"]
        assert (figures.records_in, figures.records_out) == (2, 1)

    @pytest.mark.parametrize("table", [7, None, ["AA"]])
    def test_what_is_no_table_is_refused(self, env, table):
        with pytest.raises(FunctionError, match="looks up in a mapping"):
            env.from_batch(["AA"]).lookup_join(table, key=str)

    def test_mistakes_in_options_are_refused(self, env):
        with pytest.raises(GraphError, match="how is one of 'inner', 'left', not 'outer'"):
            env.from_batch(["AA"]).lookup_join(AIRLINES, key=str, how="outer")
        with pytest.raises(FunctionError, match="unknown option 'nam'"):
            env.from_batch(["AA"]).lookup_join(AIRLINES, key=str, nam="x")


class TestMistakes:
    @pytest.mark.parametrize("method", ["join", "cogroup", "interval_join", "asof_join"])
    def test_streams_without_a_key_are_refused(self, env, method):
        plain, keyed = env.from_batch([1]), env.from_batch([1]).key_by(int)
        with pytest.raises(GraphError, match=r"the first stream have none: use key_by\(\.\.\.\)"):
            getattr(plain, method)(keyed)
        with pytest.raises(GraphError, match=r"the second stream have none: use key_by\(\.\.\.\)"):
            getattr(keyed, method)(plain)
        with pytest.raises(GraphError, match="needs a stream, not 7"):
            getattr(keyed, method)(7)

    def test_streams_without_event_time_are_refused(self, env):
        timed, keyed = stream(env, ("a", 1)), env.from_batch([("a", 1)]).key_by(0)
        timed.interval_join(keyed).between(0, 1).apply().collect()
        with pytest.raises(GraphError, match="works on event time, but its records have none"):
            env.execute()

    def test_what_cannot_be_said(self, env):
        a = stream(env, ("a", 1))
        with pytest.raises(GraphError, match="between"):
            a.interval_join(a).apply()
        with pytest.raises(GraphError, match="no time between 1 and 1"):
            a.interval_join(a).between(1, 1, upper_inclusive=False)
        with pytest.raises(GraphError, match="how is one of"):
            a.interval_join(a).between(0, 1).apply(how="cross")
        with pytest.raises(GraphError, match="direction is one of"):
            a.asof_join(a, "sideways")
        with pytest.raises(GraphError, match="tolerance must not be negative"):
            a.asof_join(a, tolerance=-1)
        with pytest.raises(GraphError, match="how is one of"):
            a.join(a).window(tumbling_time_window(1)).apply(how="cross")
        with pytest.raises(GraphError, match="needs windows"):
            a.join(a).window(5)
        with pytest.raises(FunctionError, match="arguments without a function"):
            a.join(a).window(tumbling_time_window(1)).apply(more=1)


# ---- random streams through the engine


@st.composite
def steps(draw):
    kinds = st.sampled_from(["left", "left", "right", "right", "watermark"])
    times = st.one_of(st.integers(-5, 25), st.integers(-50, 100))
    drawn = draw(st.lists(st.tuples(kinds, st.sampled_from(["a", "b"]), times), max_size=25))
    return [(kind, key, ts, number) for number, (kind, key, ts) in enumerate(drawn)]


def as_model(given_steps):
    return [("watermark", s[2]) if s[0] == "watermark" else s for s in given_steps]


def run(given_steps, batch_size, join):
    """Run a join of one source, parted; watermarks come exactly where the steps say."""
    env = LocalEnvironment("model")
    says = punctuated(lambda step, ts: ts if step[0] == "watermark" else None)
    both = env.from_source(TestSource(given_steps, batch_size)).assign_timestamps(
        lambda step: step[2], watermarks=says
    )
    left, right = (both.filter(lambda s, k=k: s[0] == k).key_by(1) for k in ("left", "right"))
    joined = join(left, right)
    out = joined.process(lambda pair, ctx: [(pair, ctx.timestamp)]).collect()
    late = joined.late_records().process(lambda s, ctx: [(s[3], ctx.timestamp)]).collect()
    env.execute()
    return Counter(out), Counter(late)


def as_numbers(left, right):
    return (None if left is None else left[3], None if right is None else right[3])


small = settings(max_examples=40, deadline=None)
hows = st.sampled_from(["inner", "left", "right", "outer"])


@small
@given(stream=steps(), batch=st.integers(1, 9), how=hows, low=st.integers(-9, 9))
def test_interval_joins_agree_with_the_model(stream, batch, how, low):
    def join(left, right):
        return left.interval_join(right).between(low / 1000, 0.01).apply(as_numbers, how=how)

    assert run(stream, batch, join) == interval_model(as_model(stream), low, 10, how)


@small
@given(
    stream=steps(),
    batch=st.integers(1, 9),
    direction=st.sampled_from(["backward", "forward", "nearest"]),
    tolerance=st.none() | st.integers(0, 12),
)
def test_asof_joins_agree_with_the_model(stream, batch, direction, tolerance):
    def join(left, right):
        seconds = None if tolerance is None else tolerance / 1000
        return left.asof_join(right, direction, seconds).apply(as_numbers)

    assert run(stream, batch, join) == asof_model(as_model(stream), direction, tolerance, "left")


@small
@given(stream=steps(), batch=st.integers(1, 9), how=hows, slide=st.sampled_from([5, 10]))
def test_window_joins_agree_with_the_model(stream, batch, how, slide):
    def join(left, right):
        windows = sliding_time_window(0.01, slide / 1000)
        return left.join(right).window(windows).apply(as_numbers, how=how)

    def windows_of(ts):
        return [(s, s + 10) for s in range(ts - 9, ts + 1) if s % slide == 0]

    assert run(stream, batch, join) == window_join_model(as_model(stream), windows_of, how)
