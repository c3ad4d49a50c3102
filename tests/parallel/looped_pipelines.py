"""Pipelines with feedback loops whose results do not depend on how many processes run them."""

import asyncio

from parallel.pipelines import key, one, pipeline, several, time
from sage import (
    FlatMapFunction,
    KeyedProcessFunction,
    OperatorListState,
    ValueState,
    tumbling_time_window,
)


def half_or_more(n):
    return n // 2 if n % 2 == 0 else 3 * n + 1


@pipeline
def loop(env):
    back = env.from_future("back")
    steps = several(env).map(lambda r: r[1] % 97 + 1).union(back).map(half_or_more)
    steps.filter(lambda n: n > 4).fill_future(back)
    return steps, steps.key_by(lambda n: n % 16).count(emit="final")


@pipeline
def loop_with_keys(env):
    back = env.from_future("keyed back")
    records = one(env, keys=5).map(lambda r: (r[0], 3)).union(back).key_by(key)
    counted = records.map(lambda r: (r[0], r[1] - 1))
    counted.filter(lambda r: r[1] > 0).fill_future(back)
    return counted.key_by(key).count(emit="final")


@pipeline
def loop_whose_records_are_dealt_out(env):
    back = env.from_future("dealt back")
    steps = one(env).map(lambda r: r[1] % 97 + 1).union(back).map(half_or_more)
    steps.filter(lambda n: n > 4).rebalance().fill_future(back)
    return steps


@pipeline
def loop_by_key_on_the_way_back(env):
    back = env.from_future("back by key")
    steps = one(env).map(lambda r: r[1] % 97 + 1).union(back).map(half_or_more)
    steps.filter(lambda n: n > 4).key_by(lambda n: n % 7).fill_future(back)
    return steps.key_by(lambda n: n).count(emit="final")


@pipeline
def loop_by_a_function(env):
    back = env.from_future("back by function")
    steps = several(env).map(lambda r: r[1] % 97 + 1).union(back)
    steps = steps.partition_custom(lambda n, count: n % count).map(half_or_more)
    steps.filter(lambda n: n > 4).fill_future(back)
    return steps


@pipeline
def loop_through_one_subtask(env):
    back = env.from_future("narrow back")
    steps = several(env).map(lambda r: r[1] % 97 + 1).union(back)
    steps = steps.map(half_or_more).set_parallelism(1).map(lambda n: n)
    steps.filter(lambda n: n > 4).fill_future(back)
    return steps


@pipeline
def loop_that_multiplies(env):
    back = env.from_future("tree")
    level = env.from_batch([9, 8]).rebalance().map(lambda n: n).union(back)
    children = level.flat_map(lambda n: [n - 1, n - 1] if n else [])
    children.rebalance().fill_future(back)
    return children, children.key_by(lambda n: n).count(emit="final")


@pipeline
def loop_inside_of_a_loop(env):
    outer, inner = env.from_future("outer"), env.from_future("inner")
    # (a, b): the inner loop counts b down, the outer one a, starting b again.
    records = several(env).map(lambda r: (r[1] % 5, r[1] % 3)).union(outer, inner)
    parts = records.rebalance().split(lambda r: "inner" if r[1] else "outer")
    parts["inner"].map(lambda r: (r[0], r[1] - 1)).rebalance().fill_future(inner)
    restarted = parts["outer"].key_by(key).map(lambda r: (r[0] - 1, 2))
    restarted.filter(lambda r: r[0] > 0).fill_future(outer)
    return restarted


@pipeline
def loops_that_feed_each_other(env):
    one_, two = env.from_future("one"), env.from_future("two")
    a = several(env).map(lambda r: r[1] % 20).union(two).map(lambda n: n - 1)
    b = one_.rebalance().map(lambda n: n - 1)
    a.filter(lambda n: n > 0).fill_future(one_)
    b.filter(lambda n: n > 0).key_by(lambda n: n).fill_future(two)
    return a, b


@pipeline
def loop_behind_a_loop(env):
    first, second = env.from_future("first"), env.from_future("second")
    a = several(env).map(lambda r: r[1] % 20).union(first).rebalance().map(lambda n: n - 1)
    a.filter(lambda n: n > 0).fill_future(first)
    b = a.filter(lambda n: n % 3 == 0).union(second).map(lambda n: n - 1)
    b.filter(lambda n: n > 0).key_by(lambda n: n).fill_future(second)
    return a, b


class UpToThree(KeyedProcessFunction):
    seen = ValueState(int, default=0)

    def execute(self, data, ctx):
        self.seen.value += 1
        if self.seen.value <= 3:
            ctx.output("again", data)
        yield data, self.seen.value


@pipeline
def loop_with_state(env):
    back = env.from_future("stateful back")
    records = env.from_batch(list("abcdefgh")).union(back)
    counts = records.key_by(lambda name: name).process(UpToThree)
    counts.side_output("again").fill_future(back)
    return counts


@pipeline
def loop_fed_by_final_results(env):
    back = env.from_future("final back")
    totals = several(env).key_by(lambda r: r[1] % 10).count(emit="final")
    left = totals.map(lambda pair: pair[1] + pair[0]).union(back).rebalance().map(lambda n: n - 3)
    left.filter(lambda n: n > 0).fill_future(back)
    return left, left.key_by(lambda n: n % 4).count(emit="final")


@pipeline
def retries_through_a_loop(env):
    def works_at_the_third_attempt(pair):
        if pair[1] < 3 and pair[0] % 7 == 0:
            raise ConnectionError(pair)
        return pair

    back = env.from_future("retried")
    done = several(env).map(lambda r: (r[1], 1)).union(back)
    done = done.map(works_at_the_third_attempt, on_error="dead_letter", name="fragile")
    again = done.dead_letters().map(lambda letter: (letter.value[0], letter.value[1] + 1))
    again.rebalance().fill_future(back)
    return done


class UntilTheEnd(FlatMapFunction):
    """Keeps everything to the end; what comes back after it goes on at once."""

    kept = OperatorListState(int)

    def open(self):
        self.is_over = False

    def execute(self, data):
        if self.is_over:
            yield data
        else:
            self.kept.append(data)

    def on_end(self):
        self.is_over = True
        return list(self.kept)


@pipeline
def what_was_kept_for_the_end_goes_round(env):
    back = env.from_future("round at the end")
    steps = several(env).map(lambda r: r[1] % 9).union(back)
    steps = steps.key_by(lambda n: n % 5).flat_map(UntilTheEnd).rebalance().flat_map(UntilTheEnd)
    again = steps.filter(lambda n: n > 0).map(lambda n: n - 1)
    again.rebalance().fill_future(back)
    return again, again.key_by(lambda n: n).count(emit="final")


@pipeline
def event_time_in_a_loop(env):
    """Nothing is late: what goes round may be as old as it likes."""
    back = env.from_future("timed back")
    records = several(env).union(back).assign_timestamps(time, max_out_of_orderness=100_000)
    steps = records.rebalance().map(lambda r: (r[0], r[1] // 2, r[2]))
    steps.filter(lambda r: r[1] > 0).rebalance().fill_future(back)
    return steps.key_by(key).window(tumbling_time_window(1)).count()


async def soon(n):
    await asyncio.sleep(0)
    return n - 1


@pipeline
def asynchronous_loop(env):
    back = env.from_future("async back")
    steps = several(env).map(lambda r: r[1] % 20).union(back).async_map(soon, ordered=False)
    steps.filter(lambda n: n > 0).rebalance().fill_future(back)
    return steps


@pipeline
def batches_in_a_loop(env):
    back = env.from_future("batched back")
    steps = several(env).map(lambda r: r[1] % 20).union(back)
    steps = steps.map_batch(lambda numbers: [n - 1 for n in numbers])
    steps.filter(lambda n: n > 0).key_by(lambda n: n).fill_future(back)
    return steps
