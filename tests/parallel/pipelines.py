"""Pipelines whose results do not depend on how many processes run them.

Each takes an environment and returns a stream of results, or several. Those in `PER_KEY` read one
split, straight into `key_by`: what comes out of a key is in order too. Those in `PER_SUBTASK` give
all results once per subtask.
"""

import asyncio
from collections import Counter

from parallel.sources import SplitSource, events
from sage import (
    AggregateFunction,
    BaseJoinFunction,
    BroadcastProcessFunction,
    BroadcastState,
    CoProcessFunction,
    FlatMapFunction,
    KeyedBroadcastProcessFunction,
    KeyedProcessFunction,
    ListState,
    OperatorListState,
    ProcessFunction,
    ValueState,
    count,
    multi,
    sum_of,
    tumbling_time_window,
)

PIPELINES = {}
PER_KEY = set()
PER_SUBTASK = set()
COUNT = 300
DISORDER = 0.5


def pipeline(build):
    """Let a pipeline take part."""
    PIPELINES[build.__name__] = build
    return build


def per_key(build):
    """Let a pipeline take part whose results are in order, key by key."""
    PER_KEY.add(build.__name__)
    return pipeline(build)


def per_subtask(build):
    """Let a pipeline take part whose every subtask gives all results."""
    PER_SUBTASK.add(build.__name__)
    return pipeline(build)


def key(record):
    return record[0]


def time(record):
    return record[2]


def one(env, seed=1, **options):
    """Return records of one split."""
    return env.from_batch(events(seed, COUNT, **options))


def several(env, seed=1, splits=3, **options):
    """Return records of several splits."""
    records = events(seed, COUNT, **options)
    return env.from_source(SplitSource(**{f"s{i}": records[i::splits] for i in range(splits)}))


def timed(stream):
    return stream.assign_timestamps(time, max_out_of_orderness=DISORDER)


def keyed(stream):
    return timed(stream).key_by(key)


# ---- record by record


@pipeline
def maps_and_filters(env):
    return several(env).map(lambda r: r[1] * 2).filter(lambda n: n % 3).map(str)


@pipeline
def more_subtasks_than_splits(env):
    return one(env).map(lambda r: r[1]).rebalance().map(lambda n: n + 1)


@pipeline
def rescaled(env):
    numbers = one(env).map(lambda r: r[1], parallelism=1)
    return numbers.rescale().map(lambda n: n + 1), several(env).rescale().map(lambda r: r[1])


@pipeline
def different_parallelism(env):
    wide = several(env).map(lambda r: r[1])
    narrow = wide.map(lambda n: n + 1).set_parallelism(1)
    return wide, narrow, narrow.map(lambda n: n * 2), narrow.map(str)


@pipeline
def flat_maps(env):
    return several(env).flat_map(lambda r: [r[1]] * (r[1] % 4)).key_by(lambda n: n % 10).count()


class Sides(ProcessFunction):
    def execute(self, data, ctx):
        if data[1] % 3 == 0:
            ctx.output("third", data)
        if data[1] % 5 == 0:
            ctx.output("fifth", (data[1], ctx.timestamp))
        yield data[1], ctx.timestamp


@pipeline
def side_outputs(env):
    main = timed(one(env)).process(Sides)
    third = main.side_output("third").key_by(key).count(emit="final")
    return main, third, main.side_output("fifth").rebalance().map(lambda n: n[0])


@pipeline
def timestamps_cross_exchanges(env):
    return timed(one(env)).rebalance().process(Sides).side_output("fifth").rebalance().map(tuple)


@pipeline
def splits_and_unions(env):
    branches = several(env).split(lambda r: ("a", "b", "c")[r[1] % 3])
    a = branches.select("a").map(lambda r: r[1])
    b = branches.select("b").rebalance().map(lambda r: -r[1])
    return a.union(b, branches.select("c").map(lambda r: r[1]).set_parallelism(1)).map(lambda n: n)


@pipeline
def union_of_keyed(env):
    left, right = one(env, 1).key_by(key), several(env, 2).key_by(key).filter(lambda r: r[1] % 2)
    return left.union(right).map(lambda r: r[1])


@pipeline
def custom_partition(env):
    return several(env).partition_custom(lambda r, n: r[1] % n).map(lambda r: r[1])


@per_subtask
def broadcast_records(env):
    """Every subtask sees all of them."""
    return one(env).broadcast().map(lambda r: r[1], name="all")


@pipeline
def batches(env):
    return several(env).map_batch(lambda records: [r[1] + 1 for r in records])


@pipeline
def bare_values(env):
    values = [None, 0, "", False, b"", (), 1.5, "ü", True, None, 10**30, frozenset([1])] * 20
    stream = env.from_batch(values)
    return (
        stream.map(lambda v: v),
        stream.key_by(lambda v: v).count(emit="final"),
        stream.distinct(),
    )


def fail_at_sevens(record):
    if record[1] % 7 == 0:
        raise ValueError(f"seven: {record[1]}")
    return record


@pipeline
def dead_letters(env):
    good = several(env).map(fail_at_sevens, on_error="dead_letter", name="sevens")
    letters = good.dead_letters().map(lambda d: (d.operator, d.value, str(d.error)))
    return good, letters, letters.key_by(lambda d: d[0]).count(emit="final")


@pipeline
def skipped(env):
    return several(env).map(fail_at_sevens, on_error="skip").key_by(key).count(emit="final")


@pipeline
def keys_that_fail_are_dead_letters(env):
    def fragile(record):
        return fail_at_sevens(record)[0]

    good = several(env).key_by(fragile, on_error="dead_letter")
    return good.count(emit="final"), good.dead_letters().map(lambda d: d.value)


# ---- by key


@per_key
def running_sums(env):
    return one(env).key_by(key).sum(1)


@per_key
def reduce_updates(env):
    return one(env).key_by(key).filter(lambda r: r[1] % 2).reduce(lambda a, b: (*a[:2], b[1]))


@pipeline
def reduce_final(env):
    def total(a, b):
        return a[0], a[1] + b[1], max(a[2], b[2])

    return several(env).key_by(key).reduce(total, emit="final")


class Mean(AggregateFunction):
    def create_accumulator(self):
        return 0, 0

    def add(self, accumulator, data):
        return accumulator[0] + data[1], accumulator[1] + 1

    def get_result(self, accumulator):
        return accumulator[0] / accumulator[1]

    def merge(self, a, b):
        return a[0] + b[0], a[1] + b[1]


@pipeline
def aggregates(env):
    stream = several(env).key_by(key)
    many = multi(n=count(), total=sum_of(1))
    return stream.aggregate(Mean, emit="final"), stream.aggregate(many, emit="final").map(repr)


@pipeline
def distinct_values(env):
    return several(env).map(lambda r: r[1] % 100).distinct(), several(env, 2).distinct(key).map(key)


@per_key
def two_keys_one_behind_the_other(env):
    """The second key is a part of the first: each of its records takes the same way."""
    first = one(env).key_by(lambda r: (r[0], r[0])).sum(1)
    return first.key_by(lambda r: r[0][0]).count()


@pipeline
def counts_of_counts(env):
    counts = several(env, keys=50).key_by(key).count(emit="final")
    return counts.key_by(lambda c: c[1] % 5).count(emit="final")


class Remember(KeyedProcessFunction):
    seen = ListState(int)
    number = ValueState(int, default=0)

    def execute(self, data, ctx):
        self.number.value += 1
        self.seen.append(data[1])
        yield ctx.key, self.number.value, sum(self.seen)


@per_key
def keyed_state(env):
    return one(env).key_by(key).process(Remember)


# ---- at the end


class Batched(FlatMapFunction):
    kept = OperatorListState(int)

    def execute(self, data):
        self.kept.append(data[1])
        if len(self.kept) >= 7:
            yield from self.take()

    def take(self):
        kept = list(self.kept)
        self.kept.clear()
        return kept

    def on_end(self):
        return self.take()


@pipeline
def what_was_kept_for_the_end(env):
    kept = several(env).flat_map(Batched)
    return kept, kept.key_by(lambda n: n % 10).count(emit="final")


class CountTimes(ProcessFunction):
    seen = OperatorListState(str)

    def execute(self, data, ctx):
        self.seen.append(data[0])

    def on_end(self, ctx):
        yield from Counter(self.seen).items()


@pipeline
def an_end_behind_an_end(env):
    counts = several(env).process(CountTimes)
    return (
        counts.key_by(key).sum(1, emit="final").process(CountTimes).key_by(key).sum(1, emit="final")
    )


# ---- asynchronous


async def soon(record):
    await asyncio.sleep(0)
    return record[1]


@pipeline
def async_maps(env):
    ordered = several(env).async_map(soon, capacity=10)
    unordered = several(env, 2).async_map(soon, ordered=False)
    return ordered, unordered.key_by(lambda n: n % 10).count(emit="final")


@per_key
def async_map_in_order(env):
    return one(env).key_by(key).map(tuple).async_map(later).map(lambda r: r)


async def later(record):
    await asyncio.sleep(0.001 if record[1] % 50 == 0 else 0)
    return record


@pipeline
def async_map_holds_time(env):
    slow = timed(one(env)).async_map(later, ordered=False)
    return slow.key_by(key).window(tumbling_time_window(1)).count()


# ---- rules for everybody


class Factors(BroadcastProcessFunction):
    """Keeps all records to the end: by then every subtask has all rules."""

    rules = BroadcastState(int, int)
    kept = OperatorListState(int)

    def process_element(self, value, ctx):
        self.kept.append(value[1])

    def process_broadcast_element(self, value, ctx):
        self.rules[value] = value

    def on_end(self, ctx):
        total = sum(self.rules.values())
        return [(number, total) for number in self.kept]


class KeyedFactors(KeyedBroadcastProcessFunction):
    rules = BroadcastState(int, int)
    kept = ListState(int)

    def process_element(self, value, ctx):
        self.kept.append(value[1])

    def process_broadcast_element(self, value, ctx):
        self.rules[value] = value

    def on_end(self, ctx):
        total, found = sum(self.rules.values()), []
        ctx.apply_to_keyed_state(
            self.kept, lambda key, kept: found.extend((key, n, total) for n in kept)
        )
        return found


@pipeline
def rules_reach_all(env):
    def rules():
        return env.from_batch(range(100)).broadcast()

    plain = several(env).connect(rules()).process(Factors)
    return plain, several(env, 2).key_by(key).connect(rules()).process(KeyedFactors)


class BothCounts(CoProcessFunction):
    left = ValueState(int, default=0)
    right = ValueState(int, default=0)

    def process0(self, data, ctx):
        self.left.value += 1
        if self.left.value % 10 == 0:
            yield ctx.key, "left", self.left.value

    def process1(self, data, ctx):
        self.right.value += data[1]
        ctx.output("right", (ctx.key, data[1]))


@pipeline
def connected(env):
    def both(a, b):
        return a.key_by(key).connect(b.key_by(key))

    processed = both(several(env), one(env, 2)).process(BothCounts)
    mapped = several(env, 3).connect(one(env, 4)).map(lambda r: ("l", r[1]), lambda r: ("r", r[1]))
    return processed, processed.side_output("right").map(tuple), mapped


class KeepsAll(BaseJoinFunction):
    """Pairs all records of a key with all of the other stream."""

    left = ListState(int)
    right = ListState(int)

    def execute(self, payload, key, tag):
        mine, others = (self.left, self.right) if tag == 0 else (self.right, self.left)
        mine.append(payload[1])
        return [(payload[1], o) if tag == 0 else (o, payload[1]) for o in others]


@pipeline
def keyed_join(env):
    left, right = several(env, keys=200), one(env, 2, keys=200)
    return left.key_by(key).connect(right.key_by(key)).join(KeepsAll)


@pipeline
def lookups(env):
    names = {f"k{i}": i for i in range(10)}
    left = several(env).lookup_join(names, key=0, how="left")
    return left, several(env, 2).lookup_join(names.get, key=0, how="inner")
