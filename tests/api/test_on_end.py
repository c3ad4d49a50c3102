"""What functions put out when their input has ended; and what is left then."""

import logging
import queue

import pytest

from sage import (
    BroadcastProcessFunction,
    BroadcastState,
    CoFlatMapFunction,
    CoProcessFunction,
    FlatMapFunction,
    FunctionError,
    LocalEnvironment,
    OperatorError,
    ProcessFunction,
    ValueState,
    tumbling_time_window,
)
from sage.testing import TestSource


class Pairs(FlatMapFunction):
    """Puts numbers out in twos, and what is left at the end."""

    def open(self):
        self.kept = []

    def execute(self, data):
        self.kept.append(data)
        if len(self.kept) == 2:
            return [tuple(self.take())]
        return []

    def take(self):
        kept, self.kept = self.kept, []
        return kept

    def on_end(self):
        if self.kept:
            yield tuple(self.take())


def run(build, records, **config):
    env = LocalEnvironment("ends", config)
    out = build(env.from_batch(list(records))).collect()
    result = env.execute(progress=False)
    return list(out), result


@pytest.mark.parametrize(
    ("records", "expected"), [([], []), ([1, 2], [(1, 2)]), ([1, 2, 3], [(1, 2), (3,)])]
)
@pytest.mark.parametrize("function", [Pairs, Pairs()])
def test_a_flat_map_puts_out_what_it_has_kept(function, records, expected):
    found, result = run(lambda s: s.flat_map(function, name="pairs").map(tuple), records)
    assert found == expected
    assert result.metrics.operators["pairs"].records_out == len(expected)


def test_what_is_collected_and_what_is_returned_come_in_order():
    class Says(FlatMapFunction):
        def execute(self, data):
            self.collect(data)

        def on_end(self):
            self.collect("a")
            yield "b"
            self.collect("c")

    class Collects(Says):
        def on_end(self):
            self.collect("a")

    assert run(lambda s: s.flat_map(Says), [1])[0] == [1, "a", "b", "c"]
    assert run(lambda s: s.flat_map(Collects), [1])[0] == [1, "a"]


def test_a_million_records_at_the_end_pass_through():
    class Many(FlatMapFunction):
        def execute(self, data):
            return []

        def on_end(self):
            return range(1_000_000)

    found, _ = run(lambda s: s.flat_map(Many).filter(lambda n: n % 100_000 == 0), [1])
    assert found == list(range(0, 1_000_000, 100_000))


class Totals(ProcessFunction):
    total = ValueState(int, default=0)

    def execute(self, data, ctx):
        self.total.value += data[1]
        yield "record"

    def on_end(self, ctx):
        found = {}
        ctx.apply_to_keyed_state(self.total, lambda key, total: found.update({key: total.value}))
        ctx.output("count", len(found))
        return sorted(found.items())


def test_a_process_function_goes_through_the_state_of_its_keys():
    env = LocalEnvironment("totals")
    totals = env.from_batch([("b", 1), ("a", 2), ("b", 3)]).key_by(0).process(Totals)
    found, counted = totals.collect(), totals.side_output("count").collect()
    env.execute(progress=False)
    assert list(found) == ["record"] * 3 + [("a", 2), ("b", 4)]
    assert list(counted) == [2]


def test_there_is_no_key_at_the_end():
    class Asks(ProcessFunction):
        total = ValueState(int, default=0)

        def execute(self, data, ctx):
            self.total.value += 1

        def on_end(self, ctx):
            yield self.total.value

    with pytest.raises(OperatorError, match="there is no key here"):
        run(lambda s: s.key_by(str).process(Asks), [1])


def test_an_error_is_that_of_the_operator():
    class Fails(FlatMapFunction):
        def execute(self, data):
            return []

        def on_end(self):
            raise ValueError("no more")

    with pytest.raises(OperatorError, match=r"careless.*no more"):
        run(lambda s: s.flat_map(Fails, name="careless"), [1])


class Both(CoProcessFunction):
    def open(self):
        self.seen = []

    def process0(self, data, ctx):
        self.seen.append(("left", data))

    def process1(self, data, ctx):
        self.seen.append(("right", data))

    def on_end(self, ctx):
        return sorted(self.seen)


class FlatBoth(CoFlatMapFunction):
    def flat_map0(self, data):
        return [("left", data)]

    def flat_map1(self, data):
        return [("right", data)]

    def on_end(self):
        return [("end", 0)]


class Rules(BroadcastProcessFunction):
    rules = BroadcastState(str, int)

    def process_element(self, value, ctx):
        return None

    def process_broadcast_element(self, value, ctx):
        self.rules["last"] = value

    def on_end(self, ctx):
        return list(self.rules.items())


def test_functions_of_several_inputs_are_called_once_all_have_ended():
    env = LocalEnvironment("several")
    left, right = env.from_batch([1, 2, 3]), env.from_batch([4])
    processed = left.connect(right).process(Both).collect()
    mapped = left.connect(right).flat_map(FlatBoth).collect()
    ruled = left.connect(right.broadcast()).process(Rules).collect()
    one_for_all = left.connect(right).flat_map(Pairs).collect()
    env.execute(progress=False)
    assert list(processed) == [("left", 1), ("left", 2), ("left", 3), ("right", 4)]
    assert mapped[-1] == ("end", 0)
    assert list(ruled) == [("last", 4)]
    assert sorted(n for pair in one_for_all for n in pair) == [1, 2, 3, 4]


def test_rules_stay_as_they_are_at_the_end():
    class Changes(Rules):
        def on_end(self, ctx):
            self.rules.clear()

    env = LocalEnvironment("changes")
    env.from_batch([1]).connect(env.from_batch([4]).broadcast()).process(Changes)
    with pytest.raises(OperatorError, match="only be changed in process_broadcast_element"):
        env.execute(progress=False)


def test_one_after_the_other_from_the_source_down():
    class Counts(ProcessFunction):
        def open(self):
            self.count = 0

        def execute(self, data, ctx):
            self.count += 1
            yield data

        def on_end(self, ctx):
            yield self.count

    found, _ = run(lambda s: s.process(Counts).process(Counts).process(Counts), "ab")
    assert found == ["a", "b", 2, 3, 4]


# ---- event time


class LastOne(ProcessFunction):
    """Puts records out one late, and tells of timers."""

    def open(self):
        self.last = None

    def execute(self, data, ctx):
        last, self.last = self.last, data
        if ctx.key is not None:
            ctx.register_event_timer(ctx.timestamp + 5_000)
        return [] if last is None else [last]

    def on_timer(self, timestamp, ctx):
        return [("timer", timestamp)]

    def on_end(self, ctx):
        return [("end", ctx.timestamp)]


class Late(FlatMapFunction):
    """Puts records out when the next has come, the last at the end."""

    def open(self):
        self.last = []

    def execute(self, data):
        self.last.append(data)
        return [self.last.pop(0)] if len(self.last) > 1 else []

    def on_end(self):
        return self.last


def at(record):
    return record[1]


RECORDS = [("a", 1_000), ("b", 2_000), ("c", 12_000), ("d", 13_000)]


@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize("delay", [0, 3])
def test_windows_behind_it_count_what_comes_at_the_end(batch_size, delay):
    env = LocalEnvironment("windows", {"batch_size": batch_size})
    timed = env.from_batch(RECORDS).assign_timestamps(at, max_out_of_orderness=delay)
    windows = timed.flat_map(Late).window_all(tumbling_time_window(10)).count()
    found, late = windows.collect(), windows.late_records().collect()
    env.execute(progress=False)
    assert sum(r.value for r in found) == 4
    assert list(late) == []


def test_it_comes_after_the_timers_and_is_not_late():
    env = LocalEnvironment("timers")
    timed = env.from_batch(RECORDS).assign_timestamps(at)
    processed = timed.key_by(lambda r: "all").process(LastOne)
    times = processed.process(lambda record, ctx: [(record, ctx.timestamp)]).collect()
    windows = processed.window_all(tumbling_time_window(10)).collect_list()
    found, late = windows.collect(), windows.late_records().collect()
    env.execute(progress=False)
    assert [r for r, _ in times][-3:] == [("timer", 17_000), ("timer", 18_000), ("end", 13_000)]
    assert times[-1][1] == 13_000
    assert ("end", 13_000) in found[1].value
    assert list(late) == []


@pytest.mark.parametrize("records", [[], RECORDS])
def test_time_assigned_anew_behind_it_does_not_end_before(records):
    class Closing(FlatMapFunction):
        def execute(self, data):
            return [data]

        def on_end(self):
            return [("z", 50_000)]

    async def same(record):
        return record

    env = LocalEnvironment("anew")
    closed = env.from_batch(records).assign_timestamps(at).flat_map(Closing)
    windows = closed.async_map(same).assign_timestamps(at).window_all(tumbling_time_window(10))
    counts = windows.count()
    found, late = counts.collect(), counts.late_records().collect()
    env.execute(progress=False)
    assert sum(r.value for r in found) == len(records) + 1
    assert found[-1].start == 50_000
    assert list(late) == []


def test_without_records_the_time_is_the_first_there_is():
    env = LocalEnvironment("none")
    timed = env.from_batch([]).assign_timestamps(at)
    found = timed.process(LastOne).window_all(tumbling_time_window(10)).count().collect()
    env.execute(progress=False)
    assert [(r.start, r.value) for r in found] == [(0, 1)]


# ---- not at every end


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_it_is_called_after_a_stop_and_not_when_cancelled(how):
    seen, found = queue.Queue(), []
    env = LocalEnvironment("left")
    numbers = env.from_source(TestSource([1, TestSource.PAUSE(3_600), 2]))
    numbers.inspect(seen.put).flat_map(Pairs).sink(found.append)
    job = env.submit_async()
    assert seen.get(timeout=10) == 1
    getattr(job, how)()
    job.wait(10)
    assert found == ([(1,)] if how == "stop" else [])


def test_it_is_not_called_when_the_job_fails():
    found = []
    env = LocalEnvironment("failed")
    env.from_source(TestSource([1, TestSource.ABORT()])).flat_map(Pairs).sink(found.append)
    with pytest.raises(OperatorError, match="the fault"):
        env.execute(progress=False)
    assert found == []


# ---- timers that nobody waits for


class Reminds(ProcessFunction):
    def execute(self, data, ctx):
        ctx.register_processing_timer(ctx.now_ms() + 3_600_000 + data)
        ctx.register_processing_timer(ctx.now_ms() + 3_600_000 + data)
        if data == 0:
            ctx.delete_processing_timer(ctx.now_ms() + 3_600_000)


def test_timers_on_the_clock_that_are_dropped_are_told_once(live, caplog):
    def build(numbers):
        return numbers.key_by(str).process(Reminds, name="reminds")

    with caplog.at_level(logging.WARNING), live(build) as job:
        job.give(0, 1, 2)
    (told,) = [r.getMessage() for r in caplog.records]
    assert told.startswith("reminds: the input has ended, and 2 timers on processing time")


def test_without_such_timers_nothing_is_told(live, caplog):
    def build(numbers):
        return numbers.key_by(str).process(Reminds)

    with caplog.at_level(logging.WARNING), live(build) as job:
        job.give(0)
    assert caplog.records == []


def test_async_flat_map_refuses_a_function_whose_end_it_would_not_call():
    class AtEnd(FlatMapFunction):
        async def execute(self, data):
            return [data]

        def on_end(self):
            return ["end"]

    stream = LocalEnvironment("end").from_batch([1])
    for function in (AtEnd, AtEnd()):
        with pytest.raises(FunctionError, match=r"on_end\(\) .* would never be called"):
            stream.async_flat_map(function)
