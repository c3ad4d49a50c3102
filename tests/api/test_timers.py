"""Timers of process functions, on event time and on the clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage import (
    CoProcessFunction,
    LocalEnvironment,
    OperatorError,
    ProcessFunction,
    StateError,
    ValueState,
    tumbling_time_window,
)


class Alarm(ProcessFunction):
    """A record `(key, time, after)` sets a timer `after` later; the timer tells when it was due."""

    def execute(self, data, ctx):
        ctx.register_event_timer(data[1] + data[2])

    def on_timer(self, timestamp, ctx):
        yield ctx.key, timestamp, ctx.timestamp, ctx.watermark >= timestamp


def run(function, records, *, batch_size=100, assign=True):
    env = LocalEnvironment("timers", {"batch_size": batch_size})
    stream = env.from_batch(records)
    if assign:
        stream = stream.assign_timestamps(lambda r: r[1])
    out = stream.key_by(0).process(function).collect()
    env.execute(progress=False)
    return list(out)


def test_timers_come_in_order_of_time_with_their_key():
    records = [("a", 10, 500), ("b", 20, 100), ("a", 30, 1)]
    assert run(Alarm, records) == [
        ("a", 31, 31, True),
        ("b", 120, 120, True),
        ("a", 510, 510, True),
    ]


TIMERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.integers(0, 50)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(TIMERS, st.sampled_from([1, 3, 100]))
def test_every_timer_comes_once(records, batch_size):
    """In time order between one watermark and the next; one for each key and time while it waits."""
    in_order = sorted(records, key=lambda r: r[1])
    found = run(Alarm, in_order, batch_size=batch_size)
    expected = {(key, at + after) for key, at, after in in_order}
    assert {(key, at) for key, at, _, _ in found} == expected
    assert len(found) == len(expected)
    assert [at for _, at, _, _ in found] == sorted(at for _, at, _, _ in found)
    assert all(due for *_, due in found)


def test_a_timer_may_set_another_which_comes_too():
    class Countdown(ProcessFunction):
        def execute(self, data, ctx):
            ctx.register_event_timer(data[1])

        def on_timer(self, timestamp, ctx):
            if timestamp < 30:
                ctx.register_event_timer(timestamp + 10)
            return [timestamp]

    assert run(Countdown, [("a", 5)]) == [5, 15, 25, 35]


def test_a_timer_can_be_taken_back():
    class Changeable(ProcessFunction):
        def execute(self, data, ctx):
            (ctx.register_event_timer if data[2] else ctx.delete_event_timer)(100)

        def on_timer(self, timestamp, ctx):
            yield ctx.key

    assert run(Changeable, [("a", 1, True), ("b", 2, True), ("a", 3, False)]) == ["b"]


def test_results_of_timers_have_their_time():
    env = LocalEnvironment("timers")
    timed = env.from_batch([("a", 10, 2_000), ("a", 20, 2_500)]).assign_timestamps(lambda r: r[1])
    alarms = timed.key_by(0).process(Alarm).key_by(0)
    counts = alarms.window(tumbling_time_window(1)).count().collect()
    env.execute(progress=False)
    assert [(r.start, r.value) for r in counts] == [(2_000, 2)]


def test_a_timer_may_use_side_outputs():
    class Aside(Alarm):
        def on_timer(self, timestamp, ctx):
            ctx.output("due", (ctx.key, timestamp))

    env = LocalEnvironment("timers")
    timed = env.from_batch([("a", 1, 2)]).assign_timestamps(lambda r: r[1])
    due = timed.key_by(0).process(Aside).side_output("due").collect()
    env.execute(progress=False)
    assert list(due) == [("a", 3)]


class Timeout(ProcessFunction):
    """Tells of keys that have been silent for ten seconds of the clock."""

    def open(self):
        self.due = {}

    def execute(self, data, ctx):
        if ctx.key in self.due:
            ctx.delete_processing_timer(self.due[ctx.key])
        self.due[ctx.key] = ctx.now_ms() + 10_000
        ctx.register_processing_timer(self.due[ctx.key])

    def on_timer(self, timestamp, ctx):
        yield ctx.key, timestamp, ctx.timestamp


def test_timers_on_the_clock(live):
    with live(lambda s: s.key_by(lambda r: r).process(Timeout)) as job:
        job.give("a", "b")
        job.clock.advance(seconds=6)
        job.give("a")
        job.clock.advance(seconds=6)
        assert job.take() == ("b", 10_000, None)
        assert job.results.empty()
        job.clock.advance(seconds=4)
        assert job.take() == ("a", 16_000, None)
        job.give("a")
    assert job.rest() == []  # as in Flink: timers on the clock that are left at the end are dropped


@pytest.mark.parametrize("kind", ["event", "processing"])
def test_timers_need_a_key(kind):
    def register(record, ctx):
        getattr(ctx, f"register_{kind}_timer")(1)

    env = LocalEnvironment("timers")
    env.from_batch([("a", 1)]).assign_timestamps(lambda r: r[1]).process(register).collect()
    with pytest.raises(OperatorError, match="timers belong to keys") as caught:
        env.execute(progress=False)
    assert isinstance(caught.value.__cause__, StateError)


def test_timers_on_event_time_need_timestamps():
    with pytest.raises(OperatorError, match="timers on event time need timestamps"):
        run(Alarm, [("a", 1, 2)], assign=False)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_timer_that_fails_ends_the_job(policy):
    class Broken(Alarm):
        def on_timer(self, timestamp, ctx):
            raise LookupError(ctx.key)

    env = LocalEnvironment("timers", {"on_error": policy})
    timed = env.from_batch([("a", 1, 2)]).assign_timestamps(lambda r: r[1])
    timed.key_by(0).process(Broken).collect()
    with pytest.raises(OperatorError, match=r"Broken.* failed as time went on: LookupError: a"):
        env.execute(progress=False)


class Mixed(CoProcessFunction):
    """Its first input has keys, its second has none."""

    count = ValueState(int, default=0)

    def process0(self, data, ctx):
        self.count.value += 1
        yield ctx.key, self.count.value

    def process1(self, data, ctx):
        for use in (lambda: self.count.value, lambda: ctx.register_processing_timer(1)):
            with pytest.raises(StateError, match=r"use.*key_by"):
                use()
        yield ctx.key, None


def test_an_input_without_keys_does_not_see_the_key_of_another(live):
    def build(keyed, other):
        return keyed.key_by(str).connect(other).process(Mixed)

    with live(build, inputs=2) as job:
        job.give(1, 1)
        job.give(1, to=1)
        job.give(1)
        found = [job.take() for _ in range(4)]
    assert found == [("1", 1), ("1", 2), (None, None), ("1", 3)]
