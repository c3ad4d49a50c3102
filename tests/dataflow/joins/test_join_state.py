"""What joins keep: no more than may still meet, and snapshots no more than what changed."""

from types import SimpleNamespace

import pytest

from dataflow.joins.join_model import Gathered
from sage.dataflow.operator.joins.asof_join import AsofJoiner, AsofRule
from sage.dataflow.operator.joins.interval_join import Interval, IntervalJoiner
from sage.dataflow.operator.joins.pairing import as_tuple
from sage.dataflow.operator.joins.window_join import Sides, join_spec, merged
from sage.dataflow.operator.window import WindowSettings
from sage.dataflow.window.windows import session_window, sliding_time_window, tumbling_time_window


@pytest.mark.parametrize("how", ["inner", "left", "outer"])
def test_an_endless_interval_join_keeps_a_bounded_number_of_records(how):
    joiner = IntervalJoiner(Interval(-10, 10, how), as_tuple, Gathered())
    for ts in range(5_000):
        joiner.add_left("a", ts, ts)
        joiner.add_right(ts % 7, ts, ts)
        joiner.advance(ts - 5)
        kept = [len(e.left) + len(e.right) for e in joiner.entries.table.values()]
        assert sum(kept) <= 80


@pytest.mark.parametrize("direction", ["backward", "forward", "nearest"])
@pytest.mark.parametrize("tolerance", [None, 20])
def test_an_endless_asof_join_keeps_a_bounded_number_of_records(direction, tolerance):
    joiner = AsofJoiner(AsofRule(direction, tolerance), as_tuple, Gathered())
    for ts in range(3_000):
        joiner.add_right("a", ts, ts)
        joiner.add_right("only right", ts, ts)
        if ts % 3 == 0:
            joiner.add_left("a", ts, ts)
        joiner.advance(ts - 5)
        kept = [len(e.waiting) + len(e.right) for e in joiner.entries.table.values()]
        assert sum(kept) <= 60


def test_a_forward_join_without_tolerance_holds_event_time_until_the_partner_is_there():
    joiner = AsofJoiner(AsofRule("forward"), as_tuple, results := Gathered())
    joiner.add_left("a", "left", 10)
    joiner.advance(50)
    assert joiner.held_until() == 9
    joiner.add_right("a", "right", 60)
    joiner.advance(60)
    assert joiner.held_until() == 60
    assert list(results.out) == [(("left", "right"), 10)]


def test_a_right_record_stays_while_a_left_one_waits_for_a_nearer_one():
    joiner = AsofJoiner(AsofRule("nearest", 6), as_tuple, results := Gathered())
    joiner.add_right("a", "right", 5)
    joiner.add_left("a", "left", 10)
    joiner.advance(10)
    joiner.add_left("a", "too far", 12)
    joiner.advance(12)
    assert not results.out
    joiner.advance(18)
    assert list(results.out) == [(("left", "right"), 10), (("too far", None), 12)]


def test_a_nearest_record_is_not_certain_while_one_as_near_less_one_may_come():
    joiner = AsofJoiner(AsofRule("nearest"), as_tuple, results := Gathered())
    joiner.add_right("a", "five before", 5)
    joiner.add_left("a", "left", 10)
    joiner.advance(13)
    joiner.add_right("a", "four behind", 14)
    joiner.advance(20)
    assert list(results.out) == [(("left", "four behind"), 10)]


def test_an_outer_interval_join_holds_event_time_by_the_longest_wait():
    joiner = IntervalJoiner(Interval(-3, 10, "outer"), as_tuple, Gathered())
    joiner.advance(100)
    assert joiner.held_until() == 90


def test_a_snapshot_holds_the_keys_that_changed():
    joiner = IntervalJoiner(Interval(0, 10), as_tuple, Gathered())
    for key in "abc":
        joiner.add_left(key, key, 1)
    assert set(joiner.entries.take_changes(0)["entries"]) == {"a", "b", "c"}
    joiner.add_left("b", "more", 30)
    joiner.advance(11)
    changes = joiner.entries.take_changes(11)
    assert set(changes["entries"]) == {"b"}
    assert sorted(changes["dropped"]) == ["a", "c"]
    assert joiner.entries.take_changes(11) == {"entries": {}, "dropped": [], "watermark": 11}


def test_a_record_that_failed_leaves_the_join_as_it_was_or_with_the_record():
    def pair(left, right):
        raise ValueError

    joiner = IntervalJoiner(Interval(0, 10), pair, Gathered())
    joiner.add_left("a", "left", 1)
    with pytest.raises(ValueError):
        joiner.add_right("a", "right", 5)
    with pytest.raises(TypeError):
        joiner.add_left([], "left", 1)
    joiner.advance(1_000)
    assert not joiner.entries.table


def test_records_are_parted_as_they_come_where_they_are_in_one_window():
    folded = {
        name: join_spec(WindowSettings(windows)).fold is not None
        for name, windows in {
            "tumbling": tumbling_time_window(1),
            "sliding": sliding_time_window(2, 1),
            "sessions": session_window(1),
            "by the clock": tumbling_time_window(1, processing_time=True),
        }.items()
    }
    assert folded == {"tumbling": True, "sliding": False, "sessions": True, "by the clock": False}


def test_merging_never_copies_records():
    record = SimpleNamespace()
    both = merged(Sides([record], []), Sides([], [record]))
    assert both.parts[0][0] is record
    assert both.parts[1][0] is record
