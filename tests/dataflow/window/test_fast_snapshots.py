"""Snapshots of the fast paths: what is in them, and what joining those of several subtasks gives."""

import pickle

import pytest

from sage.dataflow.function.aggregators import collect, count, sum_of
from sage.dataflow.window import WindowResult, session_window, sliding_time_window
from sage.dataflow.window.assigner import TumblingTimeWindows
from sage.dataflow.window.pane_windows import PaneWindows
from sage.dataflow.window.session_windows import KeyedSessions
from sage.dataflow.window.window_function import aggregating, reducing

TEN = TumblingTimeWindows(size_ms=10, slide_ms=10)


def stored(state):
    return pickle.loads(pickle.dumps(state))


def test_changes_are_what_was_touched():
    windows = PaneWindows(TEN, aggregating(count()))
    for key in range(1000):
        windows.add(key, "x", 5)
    assert len(windows.take_changes()["panes"][0]) == 1000
    windows.add(7, "x", 6)
    windows.add("new", "x", 16)
    assert windows.take_changes()["panes"] == {0: {7: 2}, 10: {"new": 1}}
    assert windows.take_changes()["panes"] == {}
    assert len(windows.advance(9)) == 1000
    assert windows.take_changes()["dropped"] == [0]
    assert windows.full_state()["panes"] == {10: {"new": 1}}


def test_a_pane_that_is_gone_does_not_come_back():
    windows = PaneWindows(TEN, aggregating(count()))
    windows.add("a", "x", 5)
    chain = [stored(windows.take_changes())]
    windows.advance(9)
    chain.append(stored(windows.take_changes()))
    restored = PaneWindows(TEN, aggregating(count()))
    restored.load(*chain)
    assert restored.full_state() == {"panes": {}, "dropped": [], "watermark": 9, "ahead": {}}


def test_keys_of_a_tumbling_window_come_in_the_order_of_their_arrival():
    windows = PaneWindows(TEN, aggregating(count()))
    for key in "dab":
        windows.add(key, "x", 5)
    windows.take_changes()
    for key in "cbd":
        windows.add(key, "x", 5)
    assert [(r.key, r.value) for r, _ in windows.advance(9)] == [
        ("d", 2),
        ("a", 1),
        ("b", 2),
        ("c", 1),
    ]


def test_no_window_fires_twice_for_a_key_whose_subtask_was_ahead():
    def subtask(key, watermark):
        windows = PaneWindows(sliding_time_window(0.03, 0.01), aggregating(sum_of()))
        for at in (5, 15, 25):
            windows.add(key, 1, at)
        fired = windows.advance(watermark)
        return stored(windows.full_state()), [r.end for r, _ in fired]

    (behind, first), (ahead, second) = subtask("a", 9), subtask("b", 29)
    assert (first, second) == ([10], [10, 20, 30])
    for states in ([behind, ahead], [ahead, behind]):
        joined = PaneWindows(sliding_time_window(0.03, 0.01), aggregating(sum_of()))
        for state in states:
            joined.load(stored(state))
        joined.load()
        again = PaneWindows(sliding_time_window(0.03, 0.01), aggregating(sum_of()))
        again.load(stored(joined.full_state()))
        results = [(r.key, r.end, r.value) for r, _ in again.advance(100)]
        assert sorted(results) == [
            *[("a", 20, 2), ("a", 30, 3), ("a", 40, 2), ("a", 50, 1)],
            *[("b", 40, 2), ("b", 50, 1)],
        ]


def test_a_record_behind_the_watermark_makes_the_very_next_window_fire():
    windows = PaneWindows(sliding_time_window(0.004, 0.001), aggregating(count()))
    windows.advance(10)
    windows.add("a", "x", 9)
    assert windows.next_fire == 11
    assert windows.advance(11) == [(WindowResult("a", 8, 12, 1), 11)]


@pytest.mark.parametrize("panes_per_window", [2, 10, 300])
def test_the_merges_of_a_slide_do_not_grow_with_the_window(panes_per_window):
    merges = 0

    def add(a, b):
        nonlocal merges
        merges += 1
        return a + b

    slides, keys = 2000, 3
    assigner = sliding_time_window(panes_per_window / 1000, 0.001)
    windows = PaneWindows(assigner, reducing(add))
    fired = []
    for at in range(slides):
        for key in range(keys):
            windows.add(key, 1, at)
        fired += windows.advance(at)
    assert fired[-1] == (WindowResult(2, at + 1 - panes_per_window, at + 1, panes_per_window), at)
    assert merges / (slides * keys) < 3


def test_changed_sessions_are_stored_whole():
    sessions = KeyedSessions(session_window(0.01), aggregating(collect()))
    for key, at in [("a", 0), ("a", 50), ("b", 0), ("c", 0)]:
        sessions.add(key, at, at)
    assert set(sessions.take_changes()["sessions"]) == set("abc")
    sessions.add("a", 52, 52)
    expected = [(0, 10, [0], False), (50, 62, [50, 52], False)]
    assert stored(sessions.take_changes())["sessions"] == {"a": expected}
    sessions.advance(9)
    changes = sessions.take_changes()
    assert changes["sessions"] == {"a": [(50, 62, [50, 52], False)]}
    assert sorted(changes["dropped"]) == ["b", "c"]


def test_a_record_that_fails_leaves_the_sessions_as_they_were():
    sessions = KeyedSessions(session_window(1), aggregating(sum_of()))
    sessions.add("a", 1, 0)
    sessions.add("a", 2, 1500)
    with pytest.raises(TypeError):
        sessions.add("a", "x", 800)
    sessions.add("a", 4, 800)
    assert [r.value for r, _ in sessions.advance(10_000)] == [7]
