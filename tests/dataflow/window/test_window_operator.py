"""The general operator: triggers, evictors, functions with state, processing time."""

import operator
from datetime import timedelta

import pytest

from dataflow.window.window_bench import WindowBench
from dataflow.window.window_model import Bag
from sage.dataflow.function.aggregators import count, multi, sum_of
from sage.dataflow.function.keyed import AggregateFunction
from sage.dataflow.time import MAX_WATERMARK
from sage.dataflow.window import (
    ContinuousEventTimeTrigger,
    ContinuousProcessingTimeTrigger,
    CountEvictor,
    CountTrigger,
    DeltaEvictor,
    DeltaTrigger,
    EventTimeTrigger,
    Evictor,
    ProcessWindowFunction,
    TimeEvictor,
    Trigger,
    TriggerResult,
    WindowFunction,
    count_window,
    global_window,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)
from sage.dataflow.window.choice import chosen_path
from sage.dataflow.window.window_contents import applying, processing
from sage.dataflow.window.window_function import aggregating, can_merge, reducing
from sage.dataflow.window.window_operator import WindowSpec


class AsTuple(WindowFunction):
    def apply(self, key, window, values):
        yield tuple(values)


class Plain(AggregateFunction):
    """Counts, and does not say how to merge."""

    def create_accumulator(self):
        return 0

    def add(self, accumulator, data):
        return accumulator + 1

    def get_result(self, accumulator):
        return accumulator


def tuples(assigner, **settings):
    return WindowBench(assigner, finish=applying(AsTuple()), **settings)


def stream(*values, step=1):
    return [("a", value, number * step) for number, value in enumerate(values)]


def test_count_windows():
    run = tuples(count_window(3)).add(*stream(*"abcdefgh"))
    assert run.values() == [tuple("abc"), tuple("def")]
    run.watermark(MAX_WATERMARK)
    assert run.values() == []


def test_sliding_count_windows():
    run = tuples(count_window(3, slide=2)).add(*stream(*"abcdefg"))
    assert run.values() == [tuple("ab"), tuple("bcd"), tuple("def")]


def test_a_count_window_leaves_nothing_behind():
    run = WindowBench(count_window(2), aggregating(count())).add(*stream(1, 2))
    assert run.values() == [2]
    assert not run.table


def test_early_firings_by_count_and_the_final_one():
    run = WindowBench(
        tumbling_time_window(1),
        aggregating(count()),
        trigger=EventTimeTrigger().with_early_firings(every=2),
    )
    run.add(*stream(1, 2, 3, 4, 5))
    assert run.values() == [2, 4]
    assert [r.value for r, _ in run.watermark(999)] == [5]
    assert not run.table


def test_early_firings_by_the_clock_come_only_when_there_is_news():
    run = WindowBench(
        tumbling_time_window(60),
        aggregating(count()),
        trigger=EventTimeTrigger().with_early_firings(every=timedelta(seconds=1)),
    )
    run.clock(5000)
    run.add(*stream(1, 2))
    assert run.clock(5999) == []
    assert [r.value for r, _ in run.clock(6000)] == [2]
    assert run.clock(9000) == []
    run.add(*stream(3))
    assert [r.value for r, _ in run.watermark(59_999)] == [3]
    assert run.clock(20_000) == []
    assert not len(run.timers)


def test_sessions_with_early_firings_merge():
    run = WindowBench(
        session_window(1),
        aggregating(count()),
        trigger=EventTimeTrigger().with_early_firings(every=timedelta(seconds=1)),
    )
    run.add(("a", 1, 0), ("a", 1, 1500))
    run.clock(500)
    run.add(("a", 1, 900))
    assert [r.value for r, _ in run.clock(1000)] == [3]
    assert [r.value for r, _ in run.watermark(2499)] == [3]
    assert not len(run.timers)


@pytest.mark.parametrize("every", [0, timedelta(0), -1])
def test_early_firings_need_some_distance(every):
    with pytest.raises(ValueError, match="every must be at least"):
        EventTimeTrigger().with_early_firings(every)


def test_continuous_firing_by_watermark():
    trigger = ContinuousEventTimeTrigger.of(timedelta(seconds=1))
    run = WindowBench(tumbling_time_window(3), aggregating(count()), trigger=trigger)
    run.add(("a", 1, 100), ("a", 1, 2500))
    assert [r.value for r, _ in run.watermark(999)] == []
    assert [r.value for r, _ in run.watermark(1000)] == [2]
    assert [r.value for r, _ in run.watermark(2999)] == [2, 2]
    assert not run.table
    assert not len(run.timers)


def test_continuous_firing_by_the_clock_does_not_run_wild_behind_an_old_window():
    trigger = ContinuousProcessingTimeTrigger.of(1)
    run = WindowBench(tumbling_time_window(3), aggregating(count()), trigger=trigger)
    run.clock(1_000_000_300)
    run.add(("a", 1, 100))
    assert [r.value for r, _ in run.clock(1_000_001_000)] == [1]
    assert [r.value for r, _ in run.clock(1_000_003_500)] == [1, 1]
    run.watermark(2999)
    assert not len(run.timers)


def test_a_delta_trigger_fires_when_far_from_the_last_firing():
    run = tuples(global_window(), trigger=DeltaTrigger(3, lambda old, new: abs(new - old)))
    run.add(*stream(1, 3, 4, 5, 8, 9))
    assert run.values() == [(1, 3, 4, 5), (1, 3, 4, 5, 8, 9)]


def test_a_custom_trigger_keeps_state_and_timers():
    class SecondsAfterFirst(Trigger):
        def on_element(self, value, timestamp, window, ctx):
            if ctx.state.setdefault("first", timestamp) == timestamp:
                ctx.register_event_timer(timestamp + 10)
            return TriggerResult.CONTINUE

        def on_event_time(self, time, window, ctx):
            del ctx.state["first"]
            return TriggerResult.FIRE_AND_PURGE

    run = tuples(global_window(), trigger=SecondsAfterFirst())
    run.add(("a", "x", 5), ("a", "y", 7))
    assert run.watermark(14) == []
    assert [result for result, _ in run.watermark(15)] == [("x", "y")]
    assert not run.table


def test_sessions_refuse_triggers_that_cannot_merge():
    with pytest.raises(ValueError, match="session windows merge"):
        WindowSpec(session_window(1), trigger=DeltaTrigger(1, operator.sub))


@pytest.mark.parametrize(
    ("evictor", "seen"),
    [
        (CountEvictor(2), [(1, 2), (3, 4), (5, 6)]),
        (CountEvictor(1, evict_after=True), [(1, 2), (2, 3, 4), (4, 5, 6)]),
        (TimeEvictor(timedelta(milliseconds=3)), [(1, 2), (2, 3, 4), (4, 5, 6)]),
        (DeltaEvictor(3, lambda one, last: last - one), [(1, 2), (2, 3, 4), (4, 5, 6)]),
    ],
)
def test_evictors(evictor, seen):
    run = tuples(global_window(), trigger=CountTrigger(2), evictor=evictor)
    assert run.add(*stream(1, 2, 3, 4, 5, 6)).values() == seen


def test_a_custom_evictor_and_a_fold():
    class NoOdd(Evictor):
        def before(self, records, window):
            return [record for record in records if record[0] % 2 == 0]

    run = WindowBench(sliding_time_window(0.004, 0.002), aggregating(Bag()), evictor=NoOdd()).add(
        *stream(0, 1, 2, 3)
    )
    assert [r.value for r, _ in run.watermark(MAX_WATERMARK)] == [(0,), (0, 2), (2,)]


def test_a_reduce_that_changes_its_argument_does_not_reach_other_windows():
    run = WindowBench(sliding_time_window(0.004, 0.002), reducing(operator.iadd))
    run.add(*stream([0], [1], [2], [3]))
    values = [r.value for r, _ in run.watermark(MAX_WATERMARK)]
    assert values == [[0, 1], [0, 1, 2, 3], [2, 3]]


def test_a_process_function_behind_an_aggregate_has_state_and_a_side_output():
    class Watch(ProcessWindowFunction):
        cleared = 0

        def process(self, key, context, values):
            context.window_state["n"] = context.window_state.get("n", 0) + 1
            context.key_state["windows"] = context.key_state.get("windows", 0) + 1
            context.output("seen", context.watermark)
            yield key, values, context.window_state["n"], context.key_state["windows"]

        def clear(self, key, context):
            self.cleared += 1

    function = Watch()
    run = WindowBench(
        tumbling_time_window(0.01),
        aggregating(sum_of()),
        finish=processing(function),
        clear=function.clear,
        allowed_lateness_ms=5,
    )
    run.add(("a", 1, 1))
    run.watermark(10)
    run.add(("a", 2, 3), ("a", 4, 11))
    assert run.values() == [("a", [3], 2, 2)]
    assert [result for result, _ in run.watermark(30)] == [("a", [4], 1, 3)]
    assert run.side == [("seen", 10, 9), ("seen", 10, 9), ("seen", 30, 19)]
    assert function.cleared == 2
    assert run.table["a"].key_state == {"windows": 3}


def test_sessions_have_no_window_state():
    class Wrong(ProcessWindowFunction):
        def process(self, key, context, values):
            context.window_state["n"] = 1

    run = WindowBench(session_window(1), finish=processing(Wrong())).add(("a", 1, 0))
    with pytest.raises(RuntimeError, match="session windows have no window_state"):
        run.watermark(MAX_WATERMARK)


def test_windows_on_processing_time():
    run = tuples(tumbling_time_window(1, processing_time=True))
    run.clock(100)
    run.add(("a", "x", 77_000))
    run.clock(998)
    run.add(("a", "y", 0))
    assert [(result, ts) for result, ts in run.clock(999)] == [(("x", "y"), 999)]
    run.clock(1000)
    run.add(("a", "z", 0))
    assert [result for result, _ in run.clock(5000)] == [("z",)]
    assert not run.table
    assert not run.late


@pytest.mark.parametrize("assigner", [tumbling_time_window(1), session_window(1)])
def test_a_function_that_fails_at_the_end_of_a_window_does_not_keep_it(assigner):
    class Fails(WindowFunction):
        def apply(self, key, window, values):
            raise ZeroDivisionError

    run = WindowBench(assigner, finish=applying(Fails())).add(("a", 1, 0))
    with pytest.raises(ZeroDivisionError):
        run.watermark(999)
    assert not run.table
    assert not len(run.timers)


def test_a_count_window_that_fails_does_not_grow():
    class FailsAtTwo(WindowFunction):
        def apply(self, key, window, values):
            assert 2 not in values
            return [tuple(values)]

    run = WindowBench(count_window(2), finish=applying(FailsAtTwo()))
    with pytest.raises(AssertionError):
        run.add(*stream(1, 2))
    assert not run.table
    run.add(*stream(3, 4))
    assert run.values() == [(3, 4)]


def test_a_merged_session_leaves_no_timer_behind():
    run = tuples(session_window(1), allowed_lateness_ms=500)
    run.add(*[("a", "x", 300 * number) for number in range(50)])
    assert len(run.timers) == 2  # the end of the one session, and when it is cleaned up
    assert len(run.table["a"].windows) == 1


def test_sessions_on_processing_time():
    run = tuples(session_window(1, processing_time=True)).add(("a", "x", 0))
    run.clock(600)
    run.add(("a", "y", 0))
    assert run.clock(1598) == []
    assert [result for result, _ in run.clock(1599)] == [("x", "y")]
    assert not run.table
    assert not len(run.timers)


def test_an_aggregate_without_merge_can_still_be_used_for_sessions():
    run = WindowBench(session_window(1), aggregating(Plain()))
    run.add(("a", 1, 0), ("a", 1, 1500), ("a", 1, 800))
    assert [(r.start, r.end, r.value) for r, _ in run.watermark(MAX_WATERMARK)] == [(0, 2500, 3)]


def test_a_function_that_fails_leaves_the_windows_as_they_were():
    run = WindowBench(session_window(1), aggregating(sum_of()))
    run.add(("a", 1, 0), ("a", 2, 1500))
    with pytest.raises(TypeError):
        run.add(("a", "x", 800))
    run.add(("a", 4, 800))
    assert [r.value for r, _ in run.watermark(MAX_WATERMARK)] == [7]
    assert not run.table


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("panes", {"assigner": tumbling_time_window(1), "fold": aggregating(Plain())}),
        ("panes", {"assigner": sliding_time_window(2, 1), "fold": aggregating(count())}),
        ("panes", {"assigner": sliding_time_window(1, 2), "fold": aggregating(Plain())}),
        ("general", {"assigner": sliding_time_window(2, 1), "fold": aggregating(Plain())}),
        ("sessions", {"assigner": session_window(1), "fold": reducing(max)}),
        ("general", {"assigner": session_window(1), "fold": aggregating(Plain())}),
        ("general", {"assigner": tumbling_time_window(1), "finish": applying(AsTuple())}),
        ("general", {"assigner": count_window(1), "fold": aggregating(count())}),
        (
            "general",
            {
                "assigner": tumbling_time_window(1, processing_time=True),
                "fold": aggregating(count()),
            },
        ),
        (
            "general",
            {
                "assigner": tumbling_time_window(1),
                "fold": aggregating(count()),
                "trigger": EventTimeTrigger().with_early_firings(5),
            },
        ),
        (
            "general",
            {
                "assigner": tumbling_time_window(1),
                "fold": aggregating(count()),
                "evictor": CountEvictor(1),
            },
        ),
    ],
)
def test_the_fast_paths_are_taken_where_they_can(path, settings):
    assert chosen_path(WindowSpec(**settings)) == path


def test_whether_an_aggregate_merges_is_seen_through_multi():
    assert can_merge(multi(n=count(), total=sum_of()))
    assert not can_merge(multi(n=count(), plain=Plain()))
