"""Pipelines with every kind of state; each takes a stream of numbers and returns what to commit.

A number is a record, and its event time in seconds too, so that some come late.
"""

from sage import (
    ContinuousEventTimeTrigger,
    CountTrigger,
    ProcessFunction,
    ProcessWindowFunction,
    PurgingTrigger,
    count,
    count_window,
    global_window,
    mean,
    multi,
    session_window,
    sliding_time_window,
    sum_of,
    tumbling_time_window,
)


def by_three(n):
    return n % 3


def seconds(n):
    return n * 1000


def timed(numbers):
    return numbers.assign_timestamps(seconds, max_out_of_orderness=2)


class Alarm(ProcessFunction):
    """Tells the sum of a key's records so far, three seconds of event time after each of them."""

    def open(self):
        self.sums = {}

    def execute(self, data, ctx):
        ctx.register_event_timer(ctx.timestamp + 3000)
        if data % 5 == 0:
            ctx.output("fives", ("five", data))

    def on_timer(self, timestamp, ctx):
        yield ("alarm", ctx.key, timestamp)


class Spread(ProcessWindowFunction):
    """Keeps the records of a window."""

    def process(self, key, context, elements):
        records = sorted(elements)
        yield (key, context.window.start, tuple(records))


def running_reduce(env, numbers):
    return [numbers.key_by(by_three).reduce(lambda a, b: a + b)]


def running_aggregate(env, numbers):
    return [numbers.key_by(by_three).aggregate(multi(n=count(), mean=mean()))]


def final_aggregate(env, numbers):
    return [numbers.key_by(by_three).aggregate(sum_of(), emit="final")]


def distinct(env, numbers):
    return [numbers.distinct()]


def tumbling(env, numbers):
    windows = timed(numbers).key_by(by_three).window(tumbling_time_window(seconds=5))
    summed = windows.allowed_lateness(3).sum()
    return [summed, summed.late_records()]


def sliding(env, numbers):
    windows = timed(numbers).key_by(by_three).window(sliding_time_window(7, 3))
    return [windows.aggregate(multi(n=count(), sum=sum_of()))]


def sessions(env, numbers):
    return [timed(numbers).key_by(by_three).window(session_window(4)).sum()]


def kept_windows(env, numbers):
    windows = timed(numbers).key_by(by_three).window(sliding_time_window(6, 2))
    return [windows.process(Spread)]


def triggered(env, numbers):
    windows = timed(numbers).key_by(by_three).window(tumbling_time_window(seconds=9))
    return [windows.trigger(ContinuousEventTimeTrigger.of(2)).apply(_counted)]


def _counted(key, window, records):
    yield (key, window.start, len(list(records)))


def counted(env, numbers):
    keyed = numbers.key_by(by_three)
    purged = keyed.window(global_window()).trigger(PurgingTrigger(CountTrigger(4))).sum()
    return [keyed.window(count_window(3)).sum(), purged]


def timers(env, numbers):
    alarms = timed(numbers).key_by(by_three).process(Alarm)
    return [alarms, alarms.side_output("fives")]


def loop(env, numbers):
    back = env.from_future("back")
    steps = numbers.union(back).map(lambda n: n // 2)
    steps.filter(lambda n: n > 1).fill_future(back)
    return [steps.key_by(lambda n: n).count(emit="final")]


def split(env, numbers):
    parts = numbers.split(lambda n: "even" if n % 2 == 0 else "odd")
    return [parts["even"].key_by(by_three).sum(), parts["odd"].key_by(by_three).count()]


PIPELINES = (
    running_reduce, running_aggregate, final_aggregate, distinct, tumbling, sliding, sessions,
    kept_windows, triggered, counted, timers, loop, split,
)  # fmt: skip
