"""Records under way, against a model that looks at everything that has happened from the start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.dataflow.operator.in_flight import Call, OrderedInFlight, UnorderedInFlight
from sage.dataflow.time import MIN_WATERMARK

ADD, MARK = "add", "mark"

steps = st.lists(
    st.one_of(st.just((ADD, 0)), st.just((MARK, 0)), st.integers(0, 30).map(lambda n: ("end", n))),
    max_size=60,
)


class Model:
    """Keeps the whole history, and asks for each record whether it may leave."""

    def __init__(self, ordered):
        self.ordered = ordered
        self.entries = []  # calls and watermarks, for ever
        self.left = []

    def may_leave(self, call):
        place = self.entries.index(call)
        before = self.entries[:place]
        if self.ordered:
            barrier = before
        else:
            marks = [i for i, entry in enumerate(before) if isinstance(entry, int)]
            barrier = before[: marks[-1]] if marks else []
        return call.done and all(e in self.left for e in barrier if isinstance(e, Call))

    def released(self):
        found = MIN_WATERMARK
        for place, entry in enumerate(self.entries):
            if isinstance(entry, int) and all(
                e in self.left for e in self.entries[:place] if isinstance(e, Call)
            ):
                found = entry
        return found

    def waiting(self):
        return [e for e in self.entries if isinstance(e, Call) and e not in self.left]


@pytest.mark.parametrize("ordered", [True, False])
@given(steps=steps)
def test_records_leave_when_the_model_says_so_and_never_earlier(ordered, steps):
    records = OrderedInFlight() if ordered else UnorderedInFlight()
    model, running, watermark = Model(ordered), [], 0
    for what, number in steps:
        if what == ADD:
            call = Call(len(model.entries))
            records.add(call)
            model.entries.append(call)
            running.append(call)
        elif what == MARK:
            watermark += 1
            records.add_watermark(watermark)
            model.entries.append(watermark)
        elif running:
            call = running.pop(number % len(running))
            call.done = True
            records.end(call)
        for call in records.leaving():
            assert model.may_leave(call)
            model.left.append(call)
        assert not any(model.may_leave(call) for call in model.waiting())
        assert records.released == model.released()
        assert len(records) == len(model.waiting())
    if ordered:
        assert [call.value for call in model.left] == sorted(call.value for call in model.left)


@pytest.mark.parametrize("ordered", [True, False])
@given(steps=steps)
def test_entries_are_what_has_not_left_in_order(ordered, steps):
    records = OrderedInFlight() if ordered else UnorderedInFlight()
    added, left, running, watermark = [], [], [], 0
    for what, number in steps:
        if what == ADD:
            running.append(Call(len(added)))
            added.append(running[-1])
            records.add(running[-1])
        elif what == MARK:
            watermark += 1
            records.add_watermark(watermark)
        elif running:
            call = running.pop(number % len(running))
            call.done = True
            records.end(call)
        left += records.leaving()
    entries = list(records.entries())
    assert [e for e in entries if isinstance(e, Call)] == [c for c in added if c not in left]
    marks = [e for e in entries if isinstance(e, int)]
    assert marks == sorted(marks)
    assert all(mark > records.released for mark in marks)
    assert max([records.released, *marks]) == (watermark or MIN_WATERMARK)


def test_watermarks_with_nothing_between_them_are_one():
    records = UnorderedInFlight()
    call = Call("a")
    records.add(call)
    for watermark in (1, 2, 3):
        records.add_watermark(watermark)
    assert list(records.entries()) == [call, 3]
