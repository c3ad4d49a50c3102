"""`BroadcastProcessFunction`: records of one stream, and rules of another that everybody knows."""

import pytest

from sage import (
    BroadcastProcessFunction,
    BroadcastState,
    FunctionError,
    GraphError,
    KeyedBroadcastProcessFunction,
    ListState,
    LocalEnvironment,
    OperatorError,
    StateError,
    ValueState,
)


class Above(BroadcastProcessFunction):
    """Lets numbers through that are above a limit, and says which limit there is."""

    limits = BroadcastState(str, int)

    def process_element(self, value, ctx):
        if value > self.limits.get("limit", 0):
            yield value
        else:
            ctx.output("below", value)

    def process_broadcast_element(self, value, ctx):
        if value < 0:
            del self.limits["limit"]
        else:
            self.limits["limit"] = value
        ctx.output("rules", dict(self.limits))
        return [("limit", value)]


def test_records_go_by_the_rules_that_have_come_so_far(live):
    def build(numbers, rules):
        return numbers.connect(rules.broadcast()).process(Above)

    with live(build, inputs=2) as job:
        job.give(1)
        job.give(5, to=1)
        job.give(5, 6)
        job.give(-1, to=1)
        job.give(2)
        found = [job.take() for _ in range(5)]
    assert found == [1, ("limit", 5), 6, ("limit", -1), 2]


def test_both_methods_have_side_outputs():
    env = LocalEnvironment("sides")
    limited = env.from_batch([1, 2]).connect(env.from_batch([9]).broadcast()).process(Above)
    main, rules = limited.collect(), limited.side_output("rules").collect()
    below = limited.side_output("below").collect()
    env.execute(progress=False)
    assert list(rules) == [{"limit": 9}]
    assert sorted([*main, *below], key=str) == sorted([("limit", 9), 1, 2], key=str)


class Held(KeyedBroadcastProcessFunction):
    """Holds the records of a key until there is a rule; then it puts them out, and all later ones."""

    rules = BroadcastState(str, int)
    waiting = ListState(int)
    count = ValueState(int, default=0)

    def process_element(self, value, ctx):
        self.count.value += 1
        if "factor" in self.rules:
            yield ctx.key, value[1] * self.rules["factor"], self.count.value
        else:
            self.waiting.append(value[1])

    def process_broadcast_element(self, value, ctx):
        self.rules["factor"] = value
        released = []

        def release(key, waiting):
            released.extend((key, item * value, self.count.value) for item in waiting)
            waiting.clear()

        ctx.apply_to_keyed_state(self.waiting, release)
        return released


def test_a_rule_reaches_the_state_of_every_key(live):
    def build(records, rules):
        return records.key_by(0).connect(rules.broadcast()).process(Held)

    with live(build, inputs=2) as job:
        job.give(("a", 1), ("b", 2), ("a", 3))
        job.give(10, to=1)
        found = sorted(job.take() for _ in range(3))
        assert found == [("a", 10, 2), ("a", 30, 2), ("b", 20, 1)]
        job.give(100, to=1)  # nothing waits any more
        job.give(("b", 4))
        assert job.take() == ("b", 400, 2)


def run(function, records=(("a", 1), ("b", 2)), rules=(7,), **options):
    env = LocalEnvironment("broadcast")
    keyed = env.from_batch(list(records)).key_by(0)
    out = keyed.connect(env.from_batch(list(rules)).broadcast()).process(function, **options)
    found, dead = out.collect(), out.dead_letters().collect()
    env.execute(progress=False)
    return list(found), list(dead)


@pytest.mark.parametrize(
    "change",
    [
        lambda rules: rules.__setitem__("x", 1),
        lambda rules: rules.pop("there", 0),
        lambda rules: rules.update(x=1),
        lambda rules: rules.clear(),
        lambda rules: rules.setdefault("x", 1),
    ],
)
def test_the_record_side_cannot_change_broadcast_state(change):
    class Writes(BroadcastProcessFunction):
        rules = BroadcastState(str, int)

        def open(self):
            self.rules["there"] = 1

        def process_element(self, value, ctx):
            change(self.rules)

        def process_broadcast_element(self, value, ctx):
            self.rules["there"] = value

    with pytest.raises(OperatorError, match="only be changed in process_broadcast_element") as told:
        run(Writes)
    assert isinstance(told.value.__cause__, StateError)


def test_a_rule_after_a_record_can_be_changed_again_and_errors_are_skipped():
    class Mixed(BroadcastProcessFunction):
        rules = BroadcastState(str, int)

        def process_element(self, value, ctx):
            self.rules["record"] = 1

        def process_broadcast_element(self, value, ctx):
            self.rules["rule"] = value
            yield dict(self.rules)
            self.rules["late"] = value  # a generator is still at it

    found, dead = run(Mixed, rules=(1, 2, 3), on_error="dead_letter")
    assert found == [{"rule": 1}, {"rule": 2, "late": 1}, {"rule": 3, "late": 2}]
    assert [letter.value for letter in dead] == [("a", 1), ("b", 2)]


class Reminder(KeyedBroadcastProcessFunction):
    """After a time that is a rule, puts out how many records of a key there were."""

    after = BroadcastState(str, int)
    count = ValueState(int, default=0)

    def process_element(self, value, ctx):
        if not self.count.value:
            ctx.register_event_timer(ctx.timestamp + self.after.get("ms", 50))
        self.count.value += 1

    def process_broadcast_element(self, value, ctx):
        self.after["ms"] = value[1]
        return [("rule at", ctx.timestamp)]

    def on_timer(self, timestamp, ctx):
        yield ctx.key, timestamp, self.count.value, dict(self.after)


def test_timers_have_the_state_of_their_key_and_read_the_rules(live):
    def build(records, rules):
        timed = [s.assign_timestamps(lambda r: r[0]) for s in (records, rules)]
        return timed[0].key_by(1).connect(timed[1].broadcast()).process(Reminder)

    with live(build, inputs=2) as job:
        job.give((0, 30), to=1)
        assert job.take() == ("rule at", 0)
        job.give((10, "a"), (20, "a"), (30, "b"), (1000, "c"))
        job.give((45, 5), to=1)
        assert job.take() == ("rule at", 45)
        assert job.take() == ("a", 40, 2, {"ms": 5})
        job.give((1000, 5), to=1)
        assert job.take() == ("rule at", 1000)
        assert job.take() == ("b", 60, 1, {"ms": 5})


def test_timers_cannot_change_broadcast_state():
    class Writes(KeyedBroadcastProcessFunction):
        rules = BroadcastState(str, int)

        def process_element(self, value, ctx):
            ctx.register_event_timer(ctx.timestamp)

        def process_broadcast_element(self, value, ctx):
            self.rules["x"] = 1

        def on_timer(self, timestamp, ctx):
            self.rules["x"] = 2

    env = LocalEnvironment("timer")
    one, two = (env.from_batch([1, 2]).assign_timestamps(lambda r: r) for _ in range(2))
    one.key_by(str).connect(two.broadcast()).process(Writes)
    with pytest.raises(OperatorError, match="only be changed in process_broadcast_element"):
        env.execute(progress=False)


def test_there_is_no_key_where_rules_come(live):
    class Keyless(KeyedBroadcastProcessFunction):
        count = ValueState(int, default=0)

        def process_element(self, value, ctx):
            self.count.value += 1

        def process_broadcast_element(self, value, ctx):
            try:
                self.count.value += 1
            except StateError as error:
                yield str(error)

    def build(records, rules):
        keyed_rules = rules.key_by(str)  # a key of its own does not make it one of the function
        return records.key_by(0).connect(keyed_rules.broadcast()).process(Keyless)

    with live(build, inputs=2) as job:
        job.give(("a", 1))
        job.give(1, to=1)
        assert "there is no key here" in job.take()


def test_apply_to_keyed_state_needs_state_of_keys():
    class Wrong(BroadcastProcessFunction):
        rules = BroadcastState(str, int)

        def process_element(self, value, ctx):
            return None

        def process_broadcast_element(self, value, ctx):
            ctx.apply_to_keyed_state(self.rules, print)

    with pytest.raises(OperatorError, match="needs state of keys"):
        run(Wrong)


def test_without_keys_there_are_no_timers():
    class Timer(BroadcastProcessFunction):
        def process_element(self, value, ctx):
            ctx.register_processing_timer(1)

        def process_broadcast_element(self, value, ctx):
            return None

    env = LocalEnvironment("unkeyed")
    env.from_batch([1]).connect(env.from_batch([2]).broadcast()).process(Timer)
    with pytest.raises(OperatorError, match="timers belong to keys"):
        env.execute(progress=False)


def test_any_class_with_the_methods_and_arguments_of_the_constructor_will_do():
    class Plain:
        def __init__(self, factor):
            self.factor = factor

        def process_element(self, value, ctx):
            return [value[1] * self.factor]

        def process_broadcast_element(self, value, ctx):
            return [value]

    env = LocalEnvironment("plain")
    one, two = env.from_batch([("a", 2)]).key_by(0), env.from_batch([1])
    found = one.connect(two.broadcast()).process(Plain, 10, name="by rules").collect()
    result = env.execute(progress=False)
    assert sorted(found) == [1, 20]
    assert "by rules" in result.metrics.operators


def connected(how):
    env = LocalEnvironment("wrong")
    one, two = env.from_batch([1]), env.from_batch([2])
    return {
        "not broadcast": lambda: one.connect(two),
        "the wrong way round": lambda: one.broadcast().connect(two),
        "both": lambda: one.broadcast().connect(two.broadcast()),
        "a third": lambda: one.connect(two.broadcast(), two.broadcast()),
        "a key too late": lambda: one.connect(two.broadcast()).key_by(str),
    }[how]()


@pytest.mark.parametrize(
    "how", ["not broadcast", "the wrong way round", "both", "a third", "a key too late"]
)
def test_the_second_of_two_streams_is_broadcast(how):
    with pytest.raises(GraphError, match=r"stream\.connect\(rules\.broadcast\(\)\)"):
        connected(how).process(Above)


def test_both_methods_are_needed():
    class Half(BroadcastProcessFunction):
        def process_element(self, value, ctx):
            return None

    with pytest.raises(FunctionError, match=r"does not define process_broadcast_element\(\)"):
        connected("not broadcast").process(Half)
