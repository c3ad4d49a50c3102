"""Pipelines in which event time counts; see `pipelines`."""

from parallel.pipelines import COUNT, key, keyed, later, one, per_key, pipeline, several, timed
from parallel.sources import SplitSource, events
from sage import (
    CountEvictor,
    CountTrigger,
    KeyedProcessFunction,
    ProcessWindowFunction,
    PurgingTrigger,
    ValueState,
    count,
    count_window,
    global_window,
    session_window,
    sliding_time_window,
    sum_of,
    tumbling_time_window,
)

HOWS = ("inner", "left", "right", "outer")


# ---- windows


@pipeline
def tumbling(env):
    return keyed(several(env)).window(tumbling_time_window(1)).count()


@pipeline
def sliding(env):
    return keyed(one(env)).window(sliding_time_window(3, 1)).aggregate(sum_of(1))


@pipeline
def sessions(env):
    return keyed(several(env)).window(session_window(1)).count()


class Spread(ProcessWindowFunction):
    def process(self, key, context, elements):
        yield key, context.window.start, sorted(e[1] for e in elements)


@pipeline
def windows_of_lists(env):
    return keyed(several(env)).window(tumbling_time_window(2)).process(Spread)


@per_key
def windows_by_count(env):
    return (
        one(env).key_by(key).window(count_window(7)).collect_list().map(lambda r: (r.key, r.value))
    )


@per_key
def global_windows_with_a_trigger(env):
    windows = one(env).key_by(key).window(global_window()).trigger(PurgingTrigger(CountTrigger(7)))
    return windows.sum(1).map(lambda r: (r.key, r.value))


@per_key
def windows_with_an_evictor(env):
    stream = timed(one(env)).set_parallelism(1).key_by(key)
    windows = stream.window(tumbling_time_window(5)).trigger(CountTrigger(3))
    fired = windows.evictor(CountEvictor(2)).collect_list()
    return fired.map(lambda r: (r.key, r.start, [e[1] for e in r.value]))


@pipeline
def windows_of_all(env):
    return timed(several(env)).window_all(tumbling_time_window(2)).sum(1)


@pipeline
def windows_of_windows(env):
    """The results of one window are on time for the next, whatever way they take."""
    counts = keyed(several(env)).window(tumbling_time_window(0.2)).count()
    by_start = counts.key_by(lambda w: w.start % 7).window(tumbling_time_window(0.4)).sum("value")
    return by_start, by_start.window_all(tumbling_time_window(0.8)).sum("value")


@pipeline
def windows_with_lateness(env):
    """Nothing comes late; what lateness keeps changes nothing."""
    windows = keyed(several(env)).window(tumbling_time_window(1)).allowed_lateness(60)
    return windows.count(), windows.process(Spread)


@pipeline
def windows_behind_unions(env):
    left, right = timed(one(env)), timed(several(env, 2))
    other = timed(one(env, 3)).rebalance()
    return left.union(right, other).key_by(key).window(tumbling_time_window(1)).count()


@pipeline
def windows_at_one_subtask(env):
    counts = keyed(several(env)).window(tumbling_time_window(1)).count().set_parallelism(1)
    return counts, counts.key_by(lambda w: w.start).window(tumbling_time_window(2)).count()


@pipeline
def sources_at_very_different_times(env):
    """One source is far ahead of the other, whose records are nevertheless on time."""
    early = events(1, COUNT, span=10_000)
    ahead = [(k, n, ms + 1_000_000) for k, n, ms in events(2, 200, span=10_000)]
    left, right = timed(env.from_batch(early)), timed(env.from_source(SplitSource(a=ahead, b=[])))
    return left.union(right).key_by(key).window(tumbling_time_window(1)).count()


@pipeline
def an_empty_source(env):
    left, right = timed(one(env)), timed(env.from_batch([]))
    return left.union(right).key_by(key).window(tumbling_time_window(1)).count()


@pipeline
def windows_behind_async(env):
    counts = keyed(several(env)).window(tumbling_time_window(0.5)).count()
    slow = counts.async_map(_same, ordered=False).key_by(lambda w: w.key)
    return slow.window(tumbling_time_window(1)).sum("value")


async def _same(window):
    await later((window.key, window.start, 0))
    return window


# ---- timers


class Reminder(KeyedProcessFunction):
    """Says for every record, some time later, that the time has come."""

    count = ValueState(int, default=0)

    def execute(self, data, ctx):
        ctx.register_event_timer(ctx.timestamp + 1_000)
        self.count.value += 1

    def on_timer(self, timestamp, ctx):
        self.count.value -= 1
        yield ctx.key, timestamp, ctx.watermark >= timestamp


@pipeline
def event_timers(env):
    due = keyed(several(env)).process(Reminder)
    return due, due.key_by(lambda d: d[0]).window(tumbling_time_window(1)).aggregate(count())


# ---- joins


def names(left, right):
    return left and left[1], right and right[1]


def pair(env, keys=50):
    return keyed(several(env, keys=keys)), keyed(one(env, 2, keys=keys))


@pipeline
def window_joins(env):
    left, right = pair(env)
    return [left.join(right).window(tumbling_time_window(2)).apply(names, how=how) for how in HOWS]


@pipeline
def cogroups(env):
    def group(key, window, lefts, rights):
        yield key, window.start, sorted(lefts), sorted(rights)

    left, right = pair(env)
    return left.cogroup(right).window(session_window(1)).apply(group)


@pipeline
def interval_joins(env):
    left, right = pair(env)
    return [left.interval_join(right).between(-0.5, 1).apply(names, how=how) for how in HOWS]


@pipeline
def interval_join_into_windows(env):
    left, right = pair(env)
    joined = left.interval_join(right).between(0, 3).apply(names, how="left")
    return joined.key_by(lambda p: p[0] % 10).window(tumbling_time_window(1)).count()


@pipeline
def asof_joins(env):
    left, right = pair(env)
    joined = [left.asof_join(right, way, 2) for way in ("backward", "forward", "nearest")]
    return [join.apply(names, how=how) for join in joined for how in ("left", "inner")]


@pipeline
def joins_one_behind_the_other(env):
    left, right = pair(env)
    paired = left.interval_join(right).between(-1, 1).apply(lambda a, b: (a[0], a[1], b[1]))
    third = keyed(one(env, 3, keys=50))
    return paired.key_by(key).asof_join(third).apply(lambda p, t: (*p, t and t[1]))


@pipeline
def windows_joined_with_records(env):
    counts = keyed(several(env)).window(tumbling_time_window(1)).count().key_by(lambda w: w.key)
    records = keyed(one(env, 2))
    made = counts.join(records).window(tumbling_time_window(2)).apply(lambda w, r: (w.value, r[1]))
    return made, counts.window(tumbling_time_window(5)).sum("value")
