"""Event time through the real runtime: where it begins, how it moves, and what it passes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage import (
    GraphError,
    LocalEnvironment,
    OperatorError,
    WatermarkGenerator,
    WatermarkStrategy,
    WindowResult,
    bounded_out_of_orderness,
    monotonic_timestamps,
    punctuated,
    tumbling_time_window,
)
from sage.testing import TestSource

SECOND = tumbling_time_window(1)
HIGHEST = 2**63 - 1


def watermarks_seen(stream):
    """Return pairs of each record and the watermark as of then, as process functions see it."""

    def look(record, ctx):
        yield record, ctx.watermark

    return stream.process(look)


def time_of(record):
    return record[1]


def run(build, records, **config):
    env = LocalEnvironment("time", {"batch_size": 1, **config})
    out = build(env.from_batch(records)).collect()
    env.execute(progress=False)
    return list(out)


# ---- timestamps


@pytest.mark.parametrize(
    ("given_time", "ms"),
    [
        (1_500, 1_500),
        (-1, -1),
        (datetime(1970, 1, 1, 0, 0, 2), 2_000),
        (datetime(1970, 1, 1, 8, 0, 2, tzinfo=timezone(timedelta(hours=8))), 2_000),
        (datetime(1970, 1, 1, 0, 0, 2, 999_999, tzinfo=UTC), 2_999),
    ],
)
def test_a_timestamp_is_a_datetime_or_ms(given_time, ms):
    def time_seen(record, ctx):
        return [ctx.timestamp]

    found = run(lambda s: s.assign_timestamps(lambda _: given_time).process(time_seen), ["x"])
    assert found == [ms]


@pytest.mark.parametrize("wrong", [None, 1.5, True, "2024-01-01"])
def test_anything_else_is_an_error_of_the_record(wrong):
    with pytest.raises(OperatorError, match=r"assign_timestamps.* failed on record 'x': TypeError"):
        run(lambda s: s.assign_timestamps(lambda _: wrong), ["x"])


@pytest.mark.parametrize("strategy", [None, punctuated(lambda value, time: None)])
@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_records_without_a_time_go_the_way_of_the_policy(policy, strategy):
    env = LocalEnvironment("time")
    timed = env.from_batch([("a", 1), ("b",), ("c", 3)]).assign_timestamps(
        time_of, watermarks=strategy, on_error=policy, name="time"
    )
    letters = timed.dead_letters().collect() if policy == "dead_letter" else None
    counts = timed.window_all(SECOND).count().collect()
    result = env.execute(progress=False)
    assert [c.value for c in counts] == [2]
    assert result.metrics.operators["time"].errors == 1
    if letters is not None:
        assert [letter.value for letter in letters] == [("b",)]


def test_timestamps_pass_map_flat_map_filter_process_and_split():
    def build(stream):
        timed = stream.assign_timestamps(time_of).map(lambda r: (*r, "m")).filter(lambda r: True)
        flat = timed.flat_map(lambda r: [r, r]).process(lambda r, ctx: [r])
        branch = flat.split(lambda r: "all").select("all")
        return branch.key_by(0).window(SECOND).count()

    found = run(build, [("a", 100), ("a", 900), ("a", 1_000)], batch_size=100)
    assert [(r.start, r.value) for r in found] == [(0, 4), (1_000, 2)]


def test_side_outputs_have_the_time_of_their_record():
    def route(record, ctx):
        ctx.output("side", record)

    def build(stream):
        side = stream.assign_timestamps(time_of).process(route).side_output("side")
        return side.key_by(0).window(SECOND).count()

    assert [(r.start, r.value) for r in run(build, [("a", 5_100)])] == [(5_000, 1)]


@pytest.mark.parametrize("lose", ["map_batch", "dead_letters"])
def test_what_has_no_time_is_told_before_the_start(lose):
    env = LocalEnvironment("time")
    timed = env.from_batch([("a", 1)]).assign_timestamps(time_of)
    if lose == "map_batch":
        timeless = timed.map_batch(list)
    else:
        timeless = timed.map(lambda r: r, on_error="dead_letter").dead_letters()
    timeless.key_by(0).window(SECOND).count().collect()
    with pytest.raises(GraphError, match="works on event time, but its records have none"):
        env.execute(progress=False)


# ---- watermarks


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [None, 99, 299, 299]),
        ({"watermarks": monotonic_timestamps()}, [None, 99, 299, 299]),
        ({"max_out_of_orderness": 0.05}, [None, 49, 249, 249]),
        ({"max_out_of_orderness": timedelta(milliseconds=50)}, [None, 49, 249, 249]),
        ({"watermarks": bounded_out_of_orderness(0.05)}, [None, 49, 249, 249]),
        ({"watermarks": punctuated(lambda r, at: at if r[0] == "m" else None)},
         [None, None, 300, 300]),
    ],
)  # fmt: skip
def test_strategies(options, expected):
    records = [("a", 100), ("m", 300), ("a", 200), ("a", 400)]
    found = run(lambda s: watermarks_seen(s.assign_timestamps(time_of, **options)), records)
    assert [mark if mark >= 0 else None for _, mark in found] == expected


class EveryThird(WatermarkGenerator):
    """A generator of one's own: it speaks up at every third record, and in between now and then."""

    def __init__(self):
        self.count = 0

    def on_event(self, value, timestamp):
        self.count += 1
        return timestamp if self.count % 3 == 0 else None

    def on_periodic(self):
        return self.count


def test_a_generator_of_ones_own():
    strategy = WatermarkStrategy(EveryThird)
    records = [("a", t) for t in (10, 20, 30, 40)]
    found = run(
        lambda s: watermarks_seen(s.assign_timestamps(time_of, watermarks=strategy)), records
    )
    assert [mark for _, mark in found][1:] == [1, 2, 30]


@pytest.mark.parametrize("method", ["on_event", "on_periodic"])
def test_a_generator_that_fails_is_told_as_its_operator(method):
    def fail(self, *_):
        raise LookupError("no idea")

    broken = type("Broken", (EveryThird,), {method: fail})

    def build(stream):
        timed = stream.assign_timestamps(time_of, watermarks=WatermarkStrategy(broken))
        return timed.window_all(SECOND).count()

    with pytest.raises(OperatorError, match=r"assign_timestamps.* failed .*LookupError: no idea"):
        run(build, [("a", 1)])


def test_a_failing_punctuation_is_an_error_of_the_record():
    def build(stream):
        marks = punctuated(lambda r, at: 1 // r[2])
        timed = stream.assign_timestamps(time_of, watermarks=marks, on_error="skip")
        return timed.window_all(SECOND).count()

    assert [r.value for r in run(build, [("a", 1, 1), ("a", 2, 0), ("a", 3, 1)])] == [2]


def test_both_ways_to_say_it_are_one_too_many():
    env = LocalEnvironment("time")
    with pytest.raises(GraphError, match="either max_out_of_orderness or watermarks"):
        env.from_batch([]).assign_timestamps(
            time_of, max_out_of_orderness=1, watermarks=monotonic_timestamps()
        )
    with pytest.raises(GraphError, match="watermarks is a WatermarkStrategy"):
        env.from_batch([]).assign_timestamps(time_of, watermarks=EveryThird)


# ---- several inputs


def two_inputs(live, build, **options):
    def timed(stream):
        return stream.assign_timestamps(time_of, **options)

    return live(lambda a, b: build(timed(a), timed(b)), inputs=2)


def count_union(first, second):
    return first.union(second).key_by(0).window(SECOND).count()


def test_a_union_takes_the_least_watermark(live):
    with two_inputs(live, count_union) as job:
        job.give(("a", 100), ("a", 5_000), to=0)
        job.give(("a", 200), to=1)
        assert job.results.empty()
        job.give(("a", 1_000), to=1)
        assert (job.take().value, job.results.empty()) == (2, True)
    assert [(r.start, r.value) for r in job.rest()] == [(1_000, 1), (5_000, 1)]


def test_connected_streams_take_the_least_watermark(live):
    def build(first, second):
        def look(record, ctx):
            yield record[0], ctx.watermark

        return first.connect(second).process(look, look)

    with two_inputs(live, build) as job:
        job.give(("a", 5_000), ("a", 6_000), to=0)
        job.give(("b", 300), ("b", 400), to=1)
        job.give(("a", 7_000), to=0)
    assert [mark for _, mark in job.rest()][-2:] == [299, 399]


def test_a_source_that_ends_early_holds_nobody_back(live):
    with two_inputs(live, count_union) as job:
        job.give(("a", 100), ("a", 5_000), to=0)
        job.end(1)
        assert job.take().value == 1


def test_an_idle_source_holds_nobody_back_and_comes_back(live):
    with two_inputs(live, count_union, idleness=10) as job:
        job.give(("a", 100), to=1)
        job.clock.advance(seconds=6)
        job.give(("a", 200), ("a", 5_000), to=0)
        assert job.results.empty()
        job.clock.advance(seconds=5)  # the second has been silent for 11 seconds, the first for 5
        assert job.take().value == 2
        job.give(("a", 5_100), to=1)  # it counts again
        job.give(("a", 9_000), to=0)
        assert job.results.empty()
        job.give(("a", 6_000), to=1)
        assert (job.take().start, job.results.empty()) == (5_000, True)
    assert [r.start for r in job.rest()] == [6_000, 9_000]


def test_without_idleness_a_silent_source_holds_time_for_ever(live):
    with two_inputs(live, count_union) as job:
        job.give(("a", 200), ("a", 5_000), to=0)
        job.clock.advance(seconds=10_000)
        job.give(("a", 6_000), to=0)
        assert job.results.empty()
    assert len(job.rest()) == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50)), max_size=30),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50)), max_size=30),
    st.integers(0, 50),
)
def test_in_a_union_nothing_is_late_that_was_in_time_in_its_part(first, second, bound):
    """Whatever the progress of the parts: only their own disorder makes records late."""
    env = LocalEnvironment("time", {"batch_size": 2})
    parts = [
        env.from_source(TestSource(part)).assign_timestamps(
            time_of, max_out_of_orderness=bound / 1000
        )
        for part in (first, second)
    ]
    results = parts[0].union(parts[1]).key_by(0).window(tumbling_time_window(0.01)).count()
    counts, late = results.collect(), results.late_records().collect()
    env.execute(progress=False)
    assert sum(r.value for r in counts) + len(late) == len(first) + len(second)
    if all(_disorder(part) <= bound for part in (first, second)):
        assert not late
        expected = {(key, at // 10 * 10) for key, at in [*first, *second]}
        assert sorted((r.key, r.start) for r in counts) == sorted(expected)


def _disorder(part):
    highest = worst = 0
    for _, at in part:
        highest = max(highest, at)
        worst = max(worst, highest - at)
    return worst


def test_time_behind_a_loop_waits_for_what_goes_round():
    """Each record goes round until it is at most 1000, one second earlier each time."""
    env = LocalEnvironment("time", {"batch_size": 2})
    head = env.from_future("again")
    records = env.from_batch([("a", 3_500), ("a", 2_500)]).union(head)
    timed = records.assign_timestamps(time_of, max_out_of_orderness=10)
    timed.filter(lambda r: r[1] > 1_000).map(lambda r: (r[0], r[1] - 1_000)).fill_future(head)
    results = timed.key_by(0).window(SECOND).count()
    counts, late = results.collect(), results.late_records().collect()
    env.execute(progress=False)
    assert [(r.start, r.value) for r in counts] == [(0, 2), (1_000, 2), (2_000, 2), (3_000, 1)]
    assert list(late) == []


def test_the_end_of_a_bounded_input_is_the_end_of_time():
    ends = []

    def look(key, window, values):
        ends.append(window.end)
        return []

    env = LocalEnvironment("time")
    timed = env.from_batch([("a", 1), ("a", 9_999)]).assign_timestamps(
        time_of, max_out_of_orderness=timedelta(days=365)
    )
    timed.key_by(0).window(SECOND).apply(look).collect()
    env.execute(progress=False)
    assert ends == [1_000, 10_000]


# ---- time that moves while results are on their way


def _windows_of_windows(first, *, punctuated_first):
    """Two branches behind `first`: one assigns time anew, the other goes on with that of `first`."""
    ten = tumbling_time_window(10)

    def anew():
        marks = first.assign_timestamps(_end_of, watermarks=punctuated(lambda r, at: at))
        return marks.key_by(lambda r: 0).window(ten).count().collect()

    def further():
        windows = first.key_by(lambda r: 0).window(ten).count()
        return windows.collect(), windows.late_records().collect()

    if punctuated_first:
        again, (found, late) = anew(), further()
    else:
        (found, late), again = further(), anew()
    return found, late, again


def _end_of(result):
    return result.end - 1


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("punctuated_first", [True, False])
def test_time_assigned_anew_in_one_branch_moves_that_branch_only(batch_size, punctuated_first):
    records = [("a", 100), ("b", 200), ("a", 1_100), ("b", 1_200), ("a", 5_000), ("b", 61_000)]
    env = LocalEnvironment("branches", {"batch_size": batch_size})
    seconds = env.from_batch(records).assign_timestamps(time_of).key_by(0).window(SECOND).count()
    found, late, again = _windows_of_windows(seconds, punctuated_first=punctuated_first)
    env.execute(progress=False)
    assert [(r.start, r.value) for r in found] == [(0, 5), (60_000, 1)]
    assert [(r.start, r.value) for r in again] == [(0, 5), (60_000, 1)]
    assert list(late) == []


@pytest.mark.parametrize("punctuated_first", [True, False])
def test_so_does_time_that_was_held_by_an_asynchronous_operator(punctuated_first):
    async def as_window(n):
        return WindowResult("k", n * 1_000, n * 1_000 + 1_000, n)

    env = LocalEnvironment("held", {"batch_size": 100})
    numbers = env.from_batch(range(40)).assign_timestamps(lambda n: n * 1_000)
    results = numbers.async_map(as_window)
    found, late, again = _windows_of_windows(results, punctuated_first=punctuated_first)
    env.execute(progress=False)
    expected = [(start, 10) for start in range(0, 40_000, 10_000)]
    assert [(r.start, r.value) for r in found] == expected
    assert [(r.start, r.value) for r in again] == expected
    assert list(late) == []


def test_a_union_waits_for_the_branch_whose_records_are_still_on_their_way():
    records = [(key, at) for at in range(0, 30_000, 500) for key in "abc"]
    env = LocalEnvironment("union")
    seconds = env.from_batch(records).assign_timestamps(time_of).key_by(0).window(SECOND).count()
    anew = seconds.assign_timestamps(_end_of, watermarks=punctuated(lambda r, at: at))
    windows = anew.union(seconds).key_by(lambda r: 0).window(tumbling_time_window(10)).count()
    found, late = windows.collect(), windows.late_records().collect()
    env.execute(progress=False)
    assert [(r.start, r.value) for r in found] == [(at, 60) for at in range(0, 30_000, 10_000)]
    assert list(late) == []
