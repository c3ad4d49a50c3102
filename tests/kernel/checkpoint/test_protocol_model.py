"""Whatever is lost, late, doubled or out of order: what the coordinator completes is consistent.

The model runs subtasks that count the records on each of their channels. A checkpoint is consistent
if, on every channel, as many records have been sent in the sender's snapshot as have been received
in the receiver's. There are two parts that nothing joins: each fails, and is started again, by itself.
"""

from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from sage.kernel.checkpoint.messages import (
    Abort,
    CheckpointRules,
    Complete,
    FailJob,
    NotifyComplete,
    Reject,
    Request,
    Subtask,
    SubtaskSnapshot,
    Trigger,
)
from sage.kernel.checkpoint.protocol import CheckpointCoordinator

S0, S1, M0, M1, K = (
    Subtask("source", 0),
    Subtask("source", 1),
    Subtask("middle", 0),
    Subtask("middle", 1),
    Subtask("sink"),
)
S2, K2 = Subtask("other source"), Subtask("other sink")
UPSTREAM = {S0: (), S1: (), M0: (S0, S1), M1: (S0, S1), K: (M0, M1), S2: (), K2: (S2,)}
SOURCES = (S0, S1, S2)
REGIONS = ((S0, S1, M0, M1, K), (S2, K2))
RULES = CheckpointRules(interval=10.0, timeout=50.0, tolerated_failures=2)
EMPTY = {subtask: ({}, {}, False) for subtask in UPSTREAM}
ANY = st.integers(0, 10_000)


class Runner:
    """One subtask: aligns barriers, counts records, tells the coordinator."""

    def __init__(self, subtask, attempt, channels, tell, state):
        self.subtask, self.attempt, self.channels, self.tell = subtask, attempt, channels, tell
        sent, received, self.ended = state
        self.sent, self.received = dict(sent), dict(received)
        self.downstream = [d for d, inputs in UPSTREAM.items() if subtask in inputs]
        self.inputs = set(UPSTREAM[subtask])
        self.finished_inputs, self.arrived = set(), set()
        self.aligning, self.last, self.triggered = None, 0, 0
        if self.ended:
            self.emit("end")

    def emit(self, item):
        for down in self.downstream:
            self.channels[self.subtask, down].append(item)
            if item == "record":
                self.sent[down] = self.sent.get(down, 0) + 1

    def state(self):
        return (dict(self.sent), dict(self.received), self.ended)

    def readable(self):
        blocked = self.arrived if self.aligning else set()
        return [
            u for u in UPSTREAM[self.subtask] if u not in blocked and self.channels[u, self.subtask]
        ]

    def read(self, up):
        item = self.channels[up, self.subtask].popleft()
        if item == "record":
            self.received[up] = self.received.get(up, 0) + 1
            self.emit("record")
        elif item == "end":
            self.finished_inputs.add(up)
            self.check_aligned()
        elif item > max(self.last, (self.aligning or 0) - 1):
            if item != self.aligning:
                self.aligning, self.arrived = item, set()
            self.arrived.add(up)
            self.check_aligned()

    def check_aligned(self):
        if self.aligning and self.arrived | self.finished_inputs == self.inputs:
            self.snapshot(self.aligning)
        if self.inputs == self.finished_inputs and self.triggered > self.last:
            self.snapshot(self.triggered)

    def snapshot(self, number):
        self.last, self.aligning, self.arrived = number, None, set()
        self.emit(number)
        handle = SubtaskSnapshot(self.state())
        self.tell(("acknowledge", self.subtask, number, self.attempt, handle))

    def trigger(self, number):
        if self.ended:
            self.tell_ended()
        elif number > self.last:
            self.triggered = max(self.triggered, number)
            if self.inputs == self.finished_inputs:
                self.snapshot(number)

    def end(self):
        self.ended = True
        self.emit("end")
        self.tell_ended()

    def tell_ended(self):
        handle = SubtaskSnapshot(self.state())
        self.tell(("subtask_ended", self.subtask, self.attempt, handle, self.last))


class Cluster(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.coordinator = CheckpointCoordinator(RULES, first_id=1)
        self.facts, self.orders, self.storing = [], [], []
        self.stored = EMPTY
        self.begun, self.done, self.aborted, self.rejected = set(), set(), set(), set()
        self.asked, self.answered = set(), set()
        self.attempt, self.down, self.channels, self.runners = 0, set(), {}, {}
        self.start(REGIONS)

    def start(self, regions):
        self.attempt += 1
        self.down -= set(regions)
        upstream = {s: UPSTREAM[s] for region in regions for s in region}
        self.channels |= {(u, d): deque() for d, inputs in upstream.items() for u in inputs}
        ended = {s: SubtaskSnapshot(self.stored[s]) for s in upstream if self.stored[s][2]}
        for subtask in upstream:
            state = self.stored[subtask]
            self.runners[subtask] = Runner(
                subtask, self.attempt, self.channels, self.facts.append, state
            )
        self.carry_out(self.coordinator.restart(self.attempt, upstream, self.now, ended))

    def carry_out(self, decisions):
        for decision in decisions:
            if isinstance(decision, Trigger):
                assert decision.attempt == self.attempt
                assert not self.down
                assert decision.checkpoint_id >= max(self.begun, default=0)
                self.begun.add(decision.checkpoint_id)
                self.orders += [
                    (s, self.runners[s].attempt, decision.checkpoint_id) for s in decision.subtasks
                ]
            elif isinstance(decision, Complete):
                self.check(decision.checkpoint)
                self.begun.add(decision.checkpoint.checkpoint_id)
                self.storing.append(decision.checkpoint)
            elif isinstance(decision, Abort):
                assert decision.checkpoint_id in self.begun - self.aborted - self.done
                assert decision.checkpoint_id not in {c.checkpoint_id for c in self.storing}
                self.aborted.add(decision.checkpoint_id)
                self.answer(decision.request)
            elif isinstance(decision, Reject):
                self.answer(decision.request)
            elif isinstance(decision, NotifyComplete):
                assert decision.checkpoint_id in self.done
                assert not {s for region in self.down for s in region} & set(decision.subtasks)
            elif isinstance(decision, FailJob):
                self.down = set(REGIONS)

    def answer(self, request):
        if request is not None:
            assert request.request_id not in self.answered
            self.answered.add(request.request_id)

    def check(self, checkpoint):
        number = checkpoint.checkpoint_id
        assert not self.storing
        assert number not in self.done | self.aborted
        assert checkpoint.snapshots.keys() == UPSTREAM.keys()
        states = {subtask: s.handle for subtask, s in checkpoint.snapshots.items()}
        for down, inputs in UPSTREAM.items():
            for up in inputs:
                sent, received = states[up][0].get(down, 0), states[down][1].get(up, 0)
                assert sent == received, f"checkpoint {number}: {up} -> {down}"
        for subtask, snapshot in checkpoint.snapshots.items():
            assert snapshot.ended == states[subtask][2]

    def pick(self, bag, index, keep=False):
        index %= len(bag)
        return bag[index] if keep else bag.pop(index)

    def deliver(self, fact):
        name, *arguments = fact
        self.carry_out(getattr(self.coordinator, name)(*arguments, self.now))

    @rule(index=st.integers(0, 2), records=st.integers(1, 3))
    def produce(self, index, records):
        source = self.runners[SOURCES[index]]
        for _ in range(0 if source.ended else records):
            source.emit("record")

    @rule(choices=st.lists(ANY, min_size=1, max_size=12))
    def consume(self, choices):
        for choice in choices:
            ready = [(r, up) for r in self.runners.values() if not r.ended for up in r.readable()]
            if ready:
                runner, up = ready[choice % len(ready)]
                runner.read(up)

    @rule()
    def all_channels_flow(self):
        while ready := [
            (r, up) for r in self.runners.values() if not r.ended for up in r.readable()
        ]:
            runner, up = ready[0]
            runner.read(up)

    @rule(index=ANY)
    def end(self, index):
        able = [r for r in self.runners.values() if not r.ended and r.inputs == r.finished_inputs]
        if able:
            able[index % len(able)].end()

    @precondition(lambda self: self.orders)
    @rule(index=ANY, twice=st.booleans())
    def order_arrives(self, index, twice):
        subtask, attempt, number = self.pick(self.orders, index, twice)
        if attempt == self.runners[subtask].attempt:
            self.runners[subtask].trigger(number)

    @precondition(lambda self: self.orders)
    @rule()
    def all_orders_arrive(self):
        while self.orders:
            self.order_arrives(0, twice=False)

    @precondition(lambda self: self.facts)
    @rule(index=ANY, twice=st.booleans())
    def fact_arrives(self, index, twice):
        self.deliver(self.pick(self.facts, index, twice))

    @precondition(lambda self: self.facts)
    @rule(newest_first=st.booleans())
    def all_facts_arrive(self, newest_first):
        while self.facts:
            self.deliver(self.facts.pop(-1 if newest_first else 0))

    @rule(seconds=st.sampled_from([10.0, 10.0, 10.0, 1.0, 60.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.carry_out(self.coordinator.tick(self.now))

    @rule(savepoint=st.booleans())
    def ask(self, savepoint):
        request = Request(f"request {len(self.asked)}", "/somewhere" if savepoint else None)
        self.asked.add(request.request_id)
        self.carry_out(self.coordinator.request(request, self.now))

    @precondition(lambda self: self.storing)
    @rule(works=st.sampled_from([True, True, True, False]))
    def store_answers(self, works):
        checkpoint = self.storing.pop()
        number = checkpoint.checkpoint_id
        if works:
            self.done.add(number)
            self.answer(checkpoint.request)
            if checkpoint.request is None or checkpoint.request.target is None:
                self.stored = {s: snap.handle for s, snap in checkpoint.snapshots.items()}
            self.carry_out(self.coordinator.store_finished(number, self.now))
        else:
            self.carry_out(self.coordinator.store_failed(number, "disk full", self.now))

    @rule(kind=st.sampled_from(["lose fact", "lose order", "decline", "fail", "stale"]), index=ANY)
    def trouble(self, kind, index):
        subtask = list(UPSTREAM)[index % len(UPSTREAM)]
        number = self.coordinator.pending_id
        if kind == "lose fact" and self.facts:
            self.pick(self.facts, index)
        elif kind == "lose order" and self.orders:
            self.pick(self.orders, index)
        elif kind in {"decline", "stale"} and number is not None:
            attempt = self.runners[subtask].attempt - (kind == "stale")
            self.deliver(("decline", subtask, number, attempt, "no"))
        elif kind == "fail":
            self.down |= {region for region in REGIONS if subtask in region}
            self.deliver(("subtask_failed", subtask, self.runners[subtask].attempt, "bug"))

    @rule(ending=st.integers(0, 7), deliver=st.booleans(), random=st.randoms(use_true_random=False))
    def busy_round(self, ending, deliver, random):
        self.time_passes(10.0)
        random.shuffle(self.orders)
        for order in self.orders[:]:
            if random.random() < 0.8:
                self.orders.remove(order)
                if order[1] == self.runners[order[0]].attempt:
                    self.runners[order[0]].trigger(order[2])
        self.produce(0, 2)
        self.produce(1, 3)
        self.produce(2, 1)
        if ending < 2:
            self.end(ending)
        self.all_channels_flow()
        random.shuffle(self.facts)
        while deliver and self.facts:
            self.deliver(self.facts.pop())
        if random.random() < 0.1:
            self.trouble("fail", random.randrange(len(UPSTREAM)))
        if self.storing and random.random() < 0.5:
            self.store_answers(works=True)

    @precondition(lambda self: self.down)
    @rule(index=ANY, together=st.booleans())
    def restart(self, index, together):
        if self.storing:
            self.store_answers(works=True)
        down = [region for region in REGIONS if region in self.down]
        self.start(down if together else [down[index % len(down)]])

    def teardown(self):
        for _ in range(2):
            if self.storing:
                self.store_answers(works=True)
            self.now += RULES.timeout
            self.carry_out(self.coordinator.tick(self.now))
        if self.storing:
            self.store_answers(works=True)
        while self.coordinator.is_storing:
            self.store_answers(works=True)
        self.carry_out(self.coordinator.stop("the end", self.now))
        assert self.coordinator.pending_id is None
        assert self.begun == self.done | self.aborted
        assert not self.done & self.aborted
        assert self.asked == self.answered


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=70,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
