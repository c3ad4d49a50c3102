"""Cases of Flink's WindowOperatorTest, with sums in place of its reduce."""

import operator

import pytest

from dataflow.window.window_bench import WindowBench
from sage.dataflow.function.aggregators import count, sum_of
from sage.dataflow.time import MAX_WATERMARK
from sage.dataflow.window import (
    CountTrigger,
    EventTimeTrigger,
    PurgingTrigger,
    WindowResult,
    global_window,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)
from sage.dataflow.window.pane_windows import PaneWindows
from sage.dataflow.window.session_windows import KeyedSessions
from sage.dataflow.window.window_function import aggregating, reducing

OUT_OF_ORDER = [
    *[("key2", 1, 3999), ("key2", 1, 3000), ("key1", 1, 20), ("key1", 1, 0), ("key1", 1, 999)],
    *[("key2", 1, 1998), ("key2", 1, 1999), ("key2", 1, 1000)],
]


class FastBench:
    """The fast paths, driven as the general operator is."""

    def __init__(self, assigner, fold, allowed_lateness_ms=0):
        self.out, self.late = [], []
        kind = KeyedSessions if assigner.merges else PaneWindows
        self.make = lambda: kind(
            assigner,
            fold,
            allowed_lateness_ms,
            lambda result, ts: self.out.append((result, ts)),
            lambda *late: self.late.append(late),
        )
        self.fast = self.make()

    def add(self, *records):
        for record in records:
            self.fast.add(*record)
        return self

    def results(self):
        taken, self.out = self.out, []
        return taken

    def watermark(self, watermark):
        return self.results() + self.fast.advance(watermark)

    def restore(self):
        state, self.fast = self.fast.full_state(), self.make()
        self.fast.load(state)


both = pytest.mark.parametrize("bench", [WindowBench, FastBench])


def told(results):
    for result, ts in results:
        assert ts == result.end - 1
    return sorted((r.key, r.value, ts) for r, ts in results)


@both
def test_sliding_windows(bench):
    run = bench(sliding_time_window(3, 1), reducing(operator.add)).add(*OUT_OF_ORDER)
    assert told(run.watermark(999)) == [("key1", 3, 999)]
    assert told(run.watermark(1999)) == [("key1", 3, 1999), ("key2", 3, 1999)]
    assert told(run.watermark(2999)) == [("key1", 3, 2999), ("key2", 3, 2999)]
    run.restore()
    assert told(run.watermark(3999)) == [("key2", 5, 3999)]
    assert told(run.watermark(4999)) == [("key2", 2, 4999)]
    assert told(run.watermark(5999)) == [("key2", 2, 5999)]
    assert run.watermark(6999) == run.watermark(7999) == []


@both
def test_tumbling_windows(bench):
    run = bench(tumbling_time_window(3), aggregating(count())).add(*OUT_OF_ORDER)
    assert run.watermark(999) == run.watermark(1999) == []
    run.restore()
    assert told(run.watermark(2999)) == [("key1", 3, 2999), ("key2", 3, 2999)]
    assert run.watermark(3999) == run.watermark(4999) == []
    assert told(run.watermark(5999)) == [("key2", 2, 5999)]
    assert run.watermark(MAX_WATERMARK) == []


@both
def test_sessions(bench):
    run = bench(session_window(3), aggregating(sum_of()))
    run.add(
        ("key2", 1, 0), ("key2", 2, 1000), ("key2", 3, 2500), ("key1", 1, 10), ("key1", 2, 1000)
    )
    run.restore()
    run.add(("key1", 3, 2500), ("key2", 4, 5501), ("key2", 5, 6000), ("key2", 5, 6000))
    run.add(("key2", 6, 6050))
    assert sorted(result for result, _ in run.watermark(12000)) == [
        WindowResult("key1", 10, 5500, 6),
        WindowResult("key2", 0, 5500, 6),
        WindowResult("key2", 5501, 9050, 20),
    ]
    run.add(("key2", 10, 15000), ("key2", 20, 15000))
    assert told(run.watermark(17999)) == [("key2", 30, 17999)]


@both
def test_sessions_exactly_one_gap_apart_are_one(bench):
    run = bench(session_window(3), aggregating(count()))
    run.add(("a", 1, 0), ("a", 1, 3000), ("b", 1, 0), ("b", 1, 3001))
    ends = told(run.watermark(MAX_WATERMARK))
    assert ends == [("a", 2, 5999), ("b", 1, 2999), ("b", 1, 6000)]


@both
def test_a_record_joins_the_sessions_on_both_sides(bench):
    run = bench(session_window(3), aggregating(sum_of()))
    run.add(("a", 1, 0), ("a", 2, 5000), ("a", 4, 2500))
    assert [result for result, _ in run.watermark(7999)] == [WindowResult("a", 0, 8000, 7)]


@both
def test_late_records_of_tumbling_windows(bench):
    run = bench(tumbling_time_window(2), aggregating(count())).add(("key2", 1, 500))
    assert run.watermark(1985) == []
    run.add(("key2", 1, 1980))
    assert told(run.watermark(1999)) == [("key2", 2, 1999)]
    run.add(("key2", 1, 1998), ("key2", 1, 2001))
    assert run.late == [(1, "key2", 1998)]
    assert run.watermark(2999) == []
    assert told(run.watermark(3999)) == [("key2", 1, 3999)]


@both
def test_a_record_is_late_for_sliding_windows_only_when_all_are_past(bench):
    run = bench(sliding_time_window(3, 1), aggregating(count())).add(("key2", 1, 1000))
    assert told(run.watermark(1999)) == [("key2", 1, 1999)]
    run.add(("key2", 1, 2000))
    assert told(run.watermark(3000)) == [("key2", 2, 2999)]
    run.add(("key2", 1, 1999), ("key2", 1, 2000), ("key2", 1, 3000))
    run.add(("key1", 1, 999))
    assert run.late == [(1, "key1", 999)]
    assert told(run.watermark(3999)) == [("key2", 5, 3999)]
    assert told(run.watermark(4999)) == [("key2", 3, 4999)]


@both
def test_late_records_that_are_allowed_fire_again(bench):
    run = bench(tumbling_time_window(2), aggregating(count()), allowed_lateness_ms=500)
    run.add(("a", 1, 500))
    assert told(run.watermark(2300)) == [("a", 1, 1999)]
    run.add(("a", 1, 1997), ("b", 1, 0))
    assert told(run.results()) == [("a", 2, 1999), ("b", 1, 1999)]
    assert run.watermark(2498) == []
    run.add(("a", 1, 0))
    assert told(run.results()) == [("a", 3, 1999)]
    assert run.watermark(2499) == []
    run.add(("a", 1, 1999))
    assert run.late == [(1, "a", 1999)]
    assert run.watermark(MAX_WATERMARK) == []


@both
def test_a_late_record_may_extend_a_session_that_fired(bench):
    run = bench(session_window(3), aggregating(sum_of()), allowed_lateness_ms=1000)
    run.add(("a", 1, 0))
    assert told(run.watermark(3500)) == [("a", 1, 2999)]
    run.add(("a", 2, 200))
    assert told(run.results()) == [("a", 3, 3199)]
    run.add(("a", 4, 3100))
    assert run.results() == []
    assert told(run.watermark(6099)) == [("a", 7, 6099)]
    run.add(("a", 8, -3001))
    assert run.late == [(8, "a", -3001)]


@both
def test_a_record_joins_a_live_session_however_old_it_is(bench):
    run = bench(session_window(3), aggregating(count())).add(("a", 1, 0), ("a", 1, 2900))
    assert run.watermark(5000) == []
    run.add(("a", 1, -2000))
    assert [result for result, _ in run.watermark(5899)] == [WindowResult("a", -2000, 5900, 3)]
    assert not run.late


@both
def test_windows_at_the_end_of_time_are_cleaned_up_then(bench):
    run = bench(tumbling_time_window(2), aggregating(count()), allowed_lateness_ms=MAX_WATERMARK)
    run.add(("a", 1, 0))
    assert told(run.watermark(MAX_WATERMARK - 1)) == [("a", 1, 1999)]
    run.add(("a", 1, 0))
    assert told(run.results()) == [("a", 2, 1999)]
    run.watermark(MAX_WATERMARK)
    run.add(("a", 1, 0))
    assert run.late == [(1, "a", 0)]


def test_purging_forgets_what_has_fired():
    run = WindowBench(
        tumbling_time_window(2),
        aggregating(count()),
        trigger=PurgingTrigger(EventTimeTrigger()),
        allowed_lateness_ms=500,
    )
    run.add(("key2", 1, 500))
    run.watermark(1500)
    run.add(("key2", 1, 1300))
    assert told(run.watermark(2300)) == [("key2", 2, 1999)]
    run.add(("key2", 1, 1997))
    assert told(run.results()) == [("key2", 1, 1999)]
    run.watermark(6000)
    run.add(("key2", 1, 1998))
    assert run.late == [(1, "key2", 1998)]
    run.watermark(7000)
    assert not run.table
    assert not len(run.timers)


def test_a_count_trigger_on_the_global_window():
    trigger = PurgingTrigger(CountTrigger(4))
    run = WindowBench(global_window(), reducing(operator.add), trigger=trigger)
    run.add(*[("key2", 1, 0)] * 3, *[("key1", 1, 0)] * 2)
    run.restore()
    run.add(("key2", 1, 10_000), ("key1", 1, 5))
    assert [(r.key, r.value, ts) for r, ts in run.results()] == [("key2", 4, MAX_WATERMARK)]
    run.add(("key1", 1, 5), *[("key2", 1, 0)] * 2)
    assert [(r.key, r.value) for r, _ in run.results()] == [("key1", 4)]
    assert list(run.table) == ["key2"]
