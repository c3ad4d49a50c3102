"""Every machine gives what the brute-force model gives, step by step, also across restores.

`SAGE_WINDOW_EXAMPLES` sets how many random streams each test draws.
"""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.window.window_model import (
    AlignedModel,
    GeneralMachine,
    InlinedPaneMachine,
    PaneMachine,
    SessionMachine,
    SessionModel,
    agree,
    spec_of,
)
from sage.dataflow.window.assigner import (
    SessionWindows,
    SlidingTimeWindows,
    TumblingTimeWindows,
)

drawn = settings(max_examples=int(os.environ.get("SAGE_WINDOW_EXAMPLES", "300")), deadline=None)
lateness = st.sampled_from([0, 0, 1, 5, 40])
# Mostly records; times far apart now and then, so that there are idle gaps.
times = st.one_of(st.integers(-15, 40), st.integers(-15, 40), st.integers(-200, 300))
streams = st.lists(st.tuples(st.integers(0, 8), st.sampled_from("aab"), times), max_size=40)


@drawn
@given(steps=streams, size=st.integers(1, 12), offset=st.integers(-11, 11), late=lateness)
def test_tumbling_windows(steps, size, offset, late):
    assigner = TumblingTimeWindows(size_ms=size, slide_ms=size, offset_ms=offset % size)
    spec = spec_of(assigner, late)
    model = AlignedModel(size, size, offset, late)
    agree(model, [GeneralMachine(spec), PaneMachine(spec), InlinedPaneMachine(spec)], steps)


@drawn
@given(
    steps=streams,
    size=st.integers(1, 14),
    slide=st.integers(1, 10),
    offset=st.integers(-9, 9),
    late=lateness,
)
def test_sliding_windows_also_with_gaps(steps, size, slide, offset, late):
    assigner = SlidingTimeWindows(size_ms=size, slide_ms=slide, offset_ms=offset % slide)
    spec = spec_of(assigner, late)
    model = AlignedModel(size, slide, offset, late)
    agree(model, [GeneralMachine(spec), PaneMachine(spec), InlinedPaneMachine(spec)], steps)


@drawn
@given(steps=streams, gap=st.integers(1, 9), late=lateness)
def test_sessions(steps, gap, late):
    spec = spec_of(SessionWindows(gap_ms=gap), late)
    agree(SessionModel(lambda _: gap, late), [GeneralMachine(spec), SessionMachine(spec)], steps)


@drawn
@given(steps=streams, late=lateness)
def test_sessions_whose_gap_comes_with_the_record(steps, late):
    spec = spec_of(SessionWindows(gap_of=lambda value: _gap(value) / 1000), late)
    agree(SessionModel(_gap, late), [GeneralMachine(spec), SessionMachine(spec)], steps)


def _gap(value):
    return 1 + value * 7 % 13
