"""Windows through the real runtime: against the brute-force model, and what their options do."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow.window.window_model import AlignedModel, Bag, SessionModel
from sage import (
    AggregateFunction,
    ContinuousEventTimeTrigger,
    CountEvictor,
    CountTrigger,
    CountWindows,
    EventTimeTrigger,
    GlobalWindows,
    GraphError,
    LocalEnvironment,
    OperatorError,
    ProcessWindowFunction,
    PurgingTrigger,
    SessionWindows,
    SlidingTimeWindows,
    TimeEvictor,
    TumblingTimeWindows,
    WindowFunction,
    WindowResult,
    count_window,
    global_window,
    punctuated,
    session_window,
    sliding_time_window,
    sum_of,
    tumbling_time_window,
)
from sage.testing import TestSource

TIMES = st.integers(-5, 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.sampled_from("abc"), TIMES),
        st.tuples(st.just("mark"), st.none(), TIMES),
    ),
    max_size=40,
)


def number_of(numbered):
    return numbered[0]


class Numbers(Bag):
    """A `Bag` of the numbers of steps."""

    def add(self, accumulator, data):
        return super().add(accumulator, data[0])


class Unmergeable(AggregateFunction):
    """The same without `merge`, which takes sliding windows and sessions off the fast path."""

    def create_accumulator(self):
        return ()

    def add(self, accumulator, data):
        return (*accumulator, data[0])

    def get_result(self, accumulator):
        return tuple(sorted(accumulator))


def from_the_runtime(steps, windows, lateness, *, cuts, bag, process):
    """Run the steps as one source whose batches end at `cuts`; marks go no further than the time."""
    env = LocalEnvironment("windows")
    numbered = list(enumerate(steps))
    ends = [*sorted(cuts), len(numbered)]
    batches = [numbered[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    stream = env.from_source(TestSource(batches)).flat_map(lambda batch: batch)
    timed = stream.assign_timestamps(
        lambda n: n[1][2], watermarks=punctuated(lambda n, _: _mark(n[1]))
    )
    keyed = timed.filter(lambda n: n[1][0] == "record").key_by(lambda n: n[1][1])
    windowed = keyed.window(windows).allowed_lateness(lateness / 1000)
    results = windowed.apply(all_numbers) if process else windowed.aggregate(bag())
    found, late = results.collect(), results.late_records().map(number_of).collect()
    env.execute(progress=False)
    return list(found), list(late)


def all_numbers(key, window, values):
    yield WindowResult(key, *window, tuple(sorted(map(number_of, values))))


def _mark(step):
    return step[2] if step[0] == "mark" else None


def from_the_model(steps, model):
    results, late = [], []
    for number, (kind, key, at) in enumerate(steps):
        if kind == "record":
            fired, refused = model.record(key, number, at)
        else:
            fired, refused = model.advance(at)
        results += fired
        late += refused
    results += model.advance(2**63 - 1)[0]
    return [result for result, _ in results], [number for number, _, _ in late]


def agree(steps, windows, model, lateness, **how):
    expected, expected_late = from_the_model(steps, model)
    found, late = from_the_runtime(steps, windows, lateness, **how)
    assert sorted(found) == sorted(expected)
    assert late == expected_late


HOW = st.fixed_dictionaries(
    {
        "cuts": st.lists(st.integers(0, 40), max_size=3),
        "bag": st.sampled_from([Numbers, Unmergeable]),
        "process": st.booleans(),
    }
)


MOVED_INSIDE_A_BATCH = [("record", "a", 1), ("mark", None, 50), ("record", "a", 2)]


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 12), st.integers(0, 12), HOW)
@example(MOVED_INSIDE_A_BATCH, 10, 0, {"cuts": [], "bag": Numbers, "process": False})
def test_tumbling_windows_are_those_of_the_model(steps, size, lateness, how):
    windows = tumbling_time_window(timedelta(milliseconds=size))
    agree(steps, windows, AlignedModel(size, size, 0, lateness), lateness, **how)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), HOW)
def test_sliding_windows_are_those_of_the_model(steps, size, slide, lateness, how):
    windows = sliding_time_window(size / 1000, slide / 1000)
    agree(steps, windows, AlignedModel(size, slide, 0, lateness), lateness, **how)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 12), st.integers(0, 12), HOW)
def test_sessions_are_those_of_the_model(steps, gap, lateness, how):
    windows = session_window(gap / 1000)
    agree(steps, windows, SessionModel(lambda _: gap, lateness), lateness, **how)


# ---- what is made of windows, and when

ALL = [("a", 1_000, 3), ("b", 2_000, 4), ("a", 4_000, 5), ("a", 61_000, 7)]


def keyed(env, records=ALL):
    return env.from_batch(records).assign_timestamps(lambda r: r[1]).key_by(0)


def results_of(build, records=ALL, **config):
    env = LocalEnvironment("windows", config)
    out = build(keyed(env, records)).collect()
    env.execute(progress=False)
    return list(out)


MINUTES = tumbling_time_window(minutes=1)


def test_results_say_key_and_window():
    first, second, third = results_of(lambda s: s.window(MINUTES).sum(2))
    assert first == WindowResult("a", 0, 60_000, 8)
    assert second == WindowResult("b", 0, 60_000, 4)
    assert third == WindowResult("a", 60_000, 120_000, 7)
    assert third.start_time == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("sum", 8), ("min", 3), ("max", 5), ("mean", 4.0)],
)
def test_ready_made_aggregates(method, expected):
    results = results_of(lambda s: getattr(s.window(MINUTES), method)(2))
    assert results[0].value == expected


def test_lists_and_counts():
    assert results_of(lambda s: s.window(MINUTES).count())[0].value == 2
    assert results_of(lambda s: s.window(MINUTES).collect_list())[0].value == [ALL[0], ALL[2]]


def test_reduce_with_a_function_of_the_result():
    def later(a, b):
        return max(a, b, key=lambda r: r[1])

    def dated(key, window, values):
        (latest,) = values
        yield key, window.end, latest[2]

    results = results_of(lambda s: s.window(MINUTES).reduce(later, process=dated))
    assert results == [("a", 60_000, 5), ("b", 60_000, 4), ("a", 120_000, 7)]


def test_a_window_function_may_give_nothing_or_much():
    class Spread(WindowFunction):
        def apply(self, key, window, values):
            return [key] * (len(values) - 1)

    assert results_of(lambda s: s.window(MINUTES).apply(Spread)) == ["a"]
    assert results_of(lambda s: s.window(MINUTES).apply(lambda *_: None)) == []


@pytest.mark.parametrize("wrong", [3, "ab", b"ab"])
def test_a_window_function_returns_an_iterable(wrong):
    with pytest.raises(OperatorError, match="returns or yields its results"):
        results_of(lambda s: s.window(MINUTES).apply(lambda *_: wrong))


def test_state_of_windows_and_keys():
    class Numbered(ProcessWindowFunction):
        def process(self, key, context, values):
            state = context.key_state
            state["n"] = state.get("n", 0) + 1
            yield key, state["n"], context.watermark >= context.window.max_timestamp

    results = results_of(lambda s: s.window(MINUTES).process(Numbered))
    assert results == [("a", 1, True), ("b", 1, True), ("a", 2, True)]


def test_window_all_has_one_window_for_all():
    env = LocalEnvironment("windows")
    timed = env.from_batch(ALL).assign_timestamps(lambda r: r[1])
    out = timed.window_all(MINUTES).count().collect()
    env.execute(progress=False)
    assert list(out) == [WindowResult(None, 0, 60_000, 3), WindowResult(None, 60_000, 120_000, 1)]


def test_windows_of_windows():
    seconds = [("a", t * 1000, 1) for t in range(0, 7200, 7)]
    hour = timedelta(hours=1)

    def build(stream):
        minutely = stream.window(MINUTES).count()
        return minutely.key_by("key").window(tumbling_time_window(hour)).sum("value")

    found = results_of(build, seconds, batch_size=16)
    expected = [sum(1 for s in seconds if s[1] // 3_600_000 == n) for n in range(2)]
    assert [(r.start, r.value) for r in found] == [(0, expected[0]), (3_600_000, expected[1])]


def test_sliding_windows_overlap():
    windows = sliding_time_window(timedelta(minutes=1), timedelta(seconds=30))
    results = [(r.key, r.start, r.value) for r in results_of(lambda s: s.window(windows).count())]
    assert results == [
        ("a", -30_000, 2),
        ("b", -30_000, 1),
        ("a", 0, 2),
        ("b", 0, 1),
        ("a", 30_000, 1),
        ("a", 60_000, 1),
    ]


def test_a_gap_may_depend_on_the_record():
    windows = session_window(lambda r: timedelta(seconds=r[2]))
    results = results_of(lambda s: s.window(windows).count())
    assert [(r.key, r.start, r.end, r.value) for r in results] == [
        ("b", 2_000, 6_000, 1),
        ("a", 1_000, 9_000, 2),
        ("a", 61_000, 68_000, 1),
    ]


def test_count_windows_need_no_time():
    env = LocalEnvironment("windows")
    numbers = env.from_batch(range(7)).key_by(lambda n: n % 2)
    tumbling = numbers.window(count_window(2)).collect_list().collect()
    sliding = numbers.window(count_window(3, slide=2)).collect_list().collect()
    env.execute(progress=False)
    assert [r.value for r in tumbling] == [[0, 2], [1, 3], [4, 6]]
    assert [r.value for r in sliding] == [[0, 2], [1, 3], [2, 4, 6]]


def test_the_global_window_goes_by_its_trigger():
    env = LocalEnvironment("windows")
    numbers = env.from_batch(range(5)).key_by(lambda _: "all")
    by_count = numbers.window(global_window()).trigger(CountTrigger(2)).sum().collect()
    purged = numbers.window(global_window()).trigger(PurgingTrigger(CountTrigger(2))).sum()
    purged, silent = purged.collect(), numbers.window(global_window()).sum().collect()
    env.execute(progress=False)
    assert [r.value for r in by_count] == [1, 6]
    assert [r.value for r in purged] == [1, 5]
    assert list(silent) == []


def test_names_as_functions_and_as_classes():
    minute, gap = timedelta(minutes=1), timedelta(seconds=3)
    assert TumblingTimeWindows.of(minute) == tumbling_time_window(minutes=1)
    assert SlidingTimeWindows.of(minute, gap) == sliding_time_window(minute, gap)
    assert SessionWindows.of(gap) == session_window(seconds=3)
    assert CountWindows.of(3, 2) == count_window(3, slide=2)
    assert GlobalWindows.of() == global_window()


# ---- triggers, evictors, lateness


def test_early_firings_by_count():
    trigger = EventTimeTrigger().with_early_firings(every=2)
    results = results_of(lambda s: s.window(MINUTES).trigger(trigger).sum(2))
    assert [(r.key, r.start, r.value) for r in results] == [
        ("a", 0, 8),
        ("a", 0, 8),
        ("b", 0, 4),
        ("a", 60_000, 7),
    ]


def test_firings_at_intervals_of_event_time():
    trigger = ContinuousEventTimeTrigger.of(timedelta(seconds=0.5))
    results = results_of(lambda s: s.window(MINUTES).trigger(trigger).sum(2), batch_size=1)
    assert [r.value for r in results if r.key == "a" and r.start == 0][:2] == [3, 8]


def test_an_evictor_thins_windows_out():
    results = results_of(lambda s: s.window(MINUTES).evictor(CountEvictor(1)).sum(2))
    assert [(r.key, r.value) for r in results] == [("a", 5), ("b", 4), ("a", 7)]


LATE = [("a", 0, 1), ("a", 120_000, 2), ("a", 1_000, 4), ("a", 600_000, 8), ("a", 2_000, 16)]


@pytest.mark.parametrize("early", [False, True])
def test_late_records_fire_again_or_go_to_the_side(early):
    env = LocalEnvironment("windows", {"batch_size": 1})
    windowed = keyed(env, LATE).window(MINUTES).allowed_lateness(timedelta(minutes=5))
    if early:
        windowed = windowed.trigger(EventTimeTrigger().with_early_firings(every=100))
    results = windowed.sum(2)
    found, late = results.collect(), results.late_records().collect()
    env.execute(progress=False)
    assert [(r.start, r.value) for r in found if r.start == 0] == [(0, 1), (0, 5)]
    assert list(late) == [("a", 2_000, 16)]


def test_late_records_can_be_put_into_windows_of_their_own():
    env = LocalEnvironment("windows", {"batch_size": 1})
    on_time = keyed(env, LATE).window(MINUTES).sum(2)
    late = on_time.late_records().window_all(tumbling_time_window(minutes=60)).count().collect()
    env.execute(progress=False)
    assert [r.value for r in late] == [2]


# ---- the clock


def test_windows_of_the_clock(live):
    windows = tumbling_time_window(seconds=5, processing_time=True)
    with live(lambda s: s.key_by(lambda _: "all").window(windows).collect_list()) as job:
        job.give("a", "b")
        job.clock.advance(seconds=7)
        assert job.take() == WindowResult("all", 0, 5_000, ["a", "b"])
        job.give("c")
        job.clock.advance(seconds=3)
        assert job.take() == WindowResult("all", 5_000, 10_000, ["c"])
        job.give("d")
    assert job.rest() == []  # as in Flink: the end of input is no time of the clock


def test_early_firings_by_the_clock(live):
    trigger = EventTimeTrigger().with_early_firings(every=timedelta(seconds=2))

    def build(stream):
        timed = stream.assign_timestamps(lambda r: r[1])
        return timed.key_by(0).window(MINUTES).trigger(trigger).count()

    with live(build) as job:
        job.give(("a", 1))
        job.clock.advance(seconds=2)
        assert job.take().value == 1
        job.give(("a", 2))
    assert [r.value for r in job.rest()] == [2]


@pytest.mark.parametrize("stops", [True, False])
def test_stop_fires_windows_and_cancel_does_not(live, stops):
    with live(
        lambda s: s.assign_timestamps(lambda r: r[1]).key_by(0).window(MINUTES).count()
    ) as job:
        job.give(("a", 1), ("a", 2))
        (job.handle.stop if stops else job.handle.cancel)()
    assert [r.value for r in job.rest()] == ([2] if stops else [])


# ---- what goes wrong


def test_windows_on_event_time_need_timestamps():
    env = LocalEnvironment("windows")
    env.from_batch(ALL).key_by(0).window(MINUTES).count().collect()
    with pytest.raises(GraphError, match=r"assign_timestamps.*processing_time=True"):
        env.execute(progress=False)


@pytest.mark.parametrize(
    "said",
    [
        lambda w: w.trigger(EventTimeTrigger()),
        lambda w: w.trigger(PurgingTrigger(EventTimeTrigger())),
        lambda w: w.trigger(ContinuousEventTimeTrigger.of(1)),
        lambda w: w.evictor(TimeEvictor(1)),
    ],
)
def test_triggers_and_evictors_on_event_time_need_timestamps(said):
    env = LocalEnvironment("windows")
    said(env.from_batch(ALL).key_by(0).window(global_window())).count().collect()
    with pytest.raises(GraphError, match="works on event time"):
        env.execute(progress=False)


def test_a_union_with_a_part_without_timestamps_has_none():
    env = LocalEnvironment("windows")
    timed = env.from_batch(ALL).assign_timestamps(lambda r: r[1])
    timed.union(env.from_batch(ALL)).key_by(0).window(MINUTES).count().collect()
    with pytest.raises(GraphError, match="every part of a union"):
        env.execute(progress=False)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_what_fails_as_time_goes_on_fails_the_job(policy):
    env = LocalEnvironment("windows", {"on_error": policy})
    keyed(env).window(MINUTES).apply(lambda key, window, values: 1 / 0).collect()
    with pytest.raises(OperatorError, match=r"window.* failed as time went on: ZeroDivisionError"):
        env.execute(progress=False)


def test_a_record_that_cannot_be_folded_is_an_error_of_the_record():
    env = LocalEnvironment("windows")
    records = [("a", 1, 1), ("a", 2, "x"), ("a", 3, 2)]
    sums = keyed(env, records).window(MINUTES).aggregate(sum_of(2), on_error="dead_letter")
    letters, found = sums.dead_letters().collect(), sums.collect()
    env.execute(progress=False)
    assert [letter.value for letter in letters] == [("a", 2, "x")]
    assert [r.value for r in found] == [3]
