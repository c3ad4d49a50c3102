"""Every join gives what the brute-force model gives, also across snapshots and restores.

`SAGE_JOIN_EXAMPLES` sets how many random streams each test draws.
"""

import os
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.joins.join_model import (
    asof_model,
    interval_model,
    run,
    session_join_model,
    window_join_model,
)
from sage.dataflow.operator.joins.asof_join import AsofJoin, AsofRule
from sage.dataflow.operator.joins.interval_join import Interval, IntervalJoin
from sage.dataflow.operator.joins.window_join import WindowJoin
from sage.dataflow.operator.window import WindowSettings
from sage.dataflow.window.assigner import SessionWindows, SlidingTimeWindows, TumblingTimeWindows
from sage.dataflow.window.trigger import EventTimeTrigger

drawn = settings(max_examples=int(os.environ.get("SAGE_JOIN_EXAMPLES", "200")), deadline=None)
times = st.one_of(st.integers(-5, 25), st.integers(-5, 25), st.integers(-100, 200))
hows = st.sampled_from(["inner", "left", "right", "outer"])
places = st.sets(st.integers(0, 40), max_size=3)


@st.composite
def streams(draw):
    """Steps of a stream: mostly records, each with a value of its own.

    Most times are near to the watermark, which creeps, so that it comes to stand at every place.
    """
    drawn_steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["left", "right", "left", "right", "watermark"]),
                st.sampled_from(["a", "a", "a", 0, None]),
                st.one_of(st.integers(-2, 12), st.integers(-2, 12), st.none()),
                times,
            ),
            max_size=40,
        )
    )
    watermark, steps = 0, []
    for number, (kind, key, near, far) in enumerate(drawn_steps):
        if kind == "watermark":
            watermark = far if near is None else watermark + max(near, 0) // 4
            steps.append((kind, watermark))
        else:
            steps.append((kind, key, far if near is None else watermark + near, number))
    return steps


def context(results):
    runtime = SimpleNamespace(now_ms=lambda: 0)
    return SimpleNamespace(results=results, entries=[], functions=[], runtime=runtime)


def joiner_adders(live):
    return live.joiner.add_left, live.joiner.add_right


def agree(operator, adders, steps, expected, snapshots):
    restores, changes = snapshots
    live, results = run(
        lambda out: operator.create_live(context(out)), adders, steps, restores, changes
    )
    assert (results.out, results.late) == expected
    assert results.overtaken == []
    return live


@drawn
@given(
    steps=streams(),
    bounds=st.tuples(st.integers(-12, 12), st.integers(-12, 12)).map(sorted),
    how=hows,
    snapshots=st.tuples(places, places),
)
def test_interval_joins(steps, bounds, how, snapshots):
    operator = IntervalJoin(interval=Interval(*bounds, how))
    live = agree(operator, joiner_adders, steps, interval_model(steps, *bounds, how), snapshots)
    assert live.joiner.entries.table == {}


@drawn
@given(
    steps=streams(),
    direction=st.sampled_from(["backward", "forward", "nearest"]),
    tolerance=st.none() | st.integers(0, 9),
    how=st.sampled_from(["left", "inner"]),
    snapshots=st.tuples(places, places),
)
def test_asof_joins(steps, direction, tolerance, how, snapshots):
    operator = AsofJoin(rule=AsofRule(direction, tolerance, how))
    expected = asof_model(steps, direction, tolerance, how)
    live = agree(operator, joiner_adders, steps, expected, snapshots)
    for entry in live.joiner.entries.table.values():
        assert not entry.waiting
        assert len(entry.right) <= (tolerance is None and direction != "forward")


def window_adders(live):
    def add(side):
        def taken(key, value, ts):
            if hasattr(live, "operator"):
                live.operator.add(key, (side, value), ts, 0)
            else:
                (getattr(live, "windows", None) or live.sessions).add(key, (side, value), ts)

        return taken

    return add(0), add(1)


class OtherTrigger(EventTimeTrigger):
    """Fires at the same times, and is none of those for which there is a fast path."""


paths = st.sampled_from([None, OtherTrigger()])


@drawn
@given(
    steps=streams(),
    size=st.integers(1, 12),
    slide=st.integers(1, 10),
    tumbling=st.booleans(),
    how=hows,
    trigger=paths,
    snapshots=st.tuples(places, places),
)
def test_joins_in_tumbling_and_sliding_windows(
    steps, size, slide, tumbling, how, trigger, snapshots
):
    slide = size if tumbling else slide
    kind = TumblingTimeWindows if tumbling else SlidingTimeWindows
    operator = WindowJoin(
        settings=WindowSettings(kind(size_ms=size, slide_ms=slide), trigger), how=how
    )

    def windows_of(ts):
        return [(s, s + size) for s in range(ts - size + 1, ts + 1) if s % slide == 0]

    agree(operator, window_adders, steps, window_join_model(steps, windows_of, how), snapshots)


@drawn
@given(
    steps=streams(),
    gap=st.integers(1, 9),
    of_record=st.booleans(),
    how=hows,
    trigger=paths,
    snapshots=st.tuples(places, places),
)
def test_joins_in_sessions(steps, gap, of_record, how, trigger, snapshots):
    assigner = SessionWindows(gap_ms=gap)
    if of_record:
        assigner = SessionWindows(gap_of=lambda value: gap / 1000 + 0 * value)
    operator = WindowJoin(settings=WindowSettings(assigner, trigger), how=how)
    agree(operator, window_adders, steps, session_join_model(steps, gap, how), snapshots)
