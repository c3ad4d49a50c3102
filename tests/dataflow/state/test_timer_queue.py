"""`TimerQueue`: order, coalescing, changes and restoring, against a sorted list."""

import pickle

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.dataflow.state.timers import HeapTimers, TimerQueue

TIMES, KEYS = st.integers(-3, 12), st.sampled_from(["a", "b", 1, None])


class QueueAgainstDict(RuleBasedStateMachine):
    """The model is a dict timer → number of its registration."""

    def __init__(self):
        super().__init__()
        self.queue, self.model, self.count = TimerQueue(), {}, 0
        self.chain, self.at_save = [], {}

    @rule(ts=TIMES, key=KEYS, namespace=st.sampled_from([None, "w"]))
    def register(self, ts, key, namespace):
        self.queue.register(ts, key, namespace)
        self.count += 1
        self.model.setdefault((ts, key, namespace), self.count)

    @rule(ts=TIMES, key=KEYS)
    def delete(self, ts, key):
        self.queue.delete(ts, key)
        self.model.pop((ts, key, None), None)

    def expected(self, time):
        return sorted((t for t in self.model if t[0] <= time), key=lambda t: (t[0], self.model[t]))

    @rule(time=TIMES)
    def fire(self, time):
        expected = self.expected(time)
        assert list(self.queue.pop_due(time)) == expected
        for timer in expected:
            del self.model[timer]

    @rule()
    def save(self):
        self.chain.append(pickle.dumps(self.queue.take_changes()))
        self.at_save = dict(self.model)

    @rule()
    def restore(self):
        self.queue, self.model = TimerQueue(), dict(self.at_save)
        for changes in self.chain:
            self.queue.apply(pickle.loads(changes))

    @rule(keep=KEYS)
    def restrict(self, keep):
        self.queue.restrict(lambda key: key == keep)
        self.model = {timer: n for timer, n in self.model.items() if timer[1] == keep}

    @invariant()
    def agrees(self):
        assert len(self.queue) == len(self.model)
        assert self.queue.next_time == min((timer[0] for timer in self.model), default=None)


TestQueueAgainstDict = QueueAgainstDict.TestCase
TestQueueAgainstDict.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_timers_registered_while_firing_fire_too_when_due():
    queue = TimerQueue()
    queue.register(1, "a")
    queue.register(3, "a")
    fired = []
    for ts, key, _ in queue.pop_due(3):
        fired.append(ts)
        if ts == 1:
            queue.register(2, key)
            queue.register(4, key)
    assert fired == [1, 2, 3]
    assert queue.next_time == 4


def test_timers_of_two_queues_come_together():
    parts = [TimerQueue(), TimerQueue()]
    parts[0].register(1, "text")
    parts[1].register(1, 7)
    queue = TimerQueue()
    queue.load({**parts[0].full(), **parts[1].full()})
    assert sorted(map(str, queue.pop_due(1))) == ["(1, 'text', None)", "(1, 7, None)"]


def test_deleted_timers_do_not_pile_up():
    queue = TimerQueue()
    for ts in range(10_000):
        queue.register(ts, "a")
        queue.delete(ts, "a")
    assert len(queue._heap) < 100


def test_both_kinds_of_time():
    timers = HeapTimers()
    timers.register_event(5, "a", None)
    timers.register_processing(6, "b", None)
    timers.register_processing(7, "b", None)
    timers.delete_processing(6, "b", None)
    assert timers.next_processing() == 7
    assert list(timers.due_events(9)) == [(5, "a", None)]
    assert list(timers.due_processing(9)) == [(7, "b", None)]
    assert len(timers) == 0
