"""Whatever comes late, doubled, or at a bad time: the master of a job keeps its promises.

The model is a world in which tasks run, end and fail when they like, and in which facts travel: they
wait in a bag, from which they come in any order, some of them twice. What the master asks for is
carried out at once, or cannot be.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sage.kernel.checkpoint.restart_strategy import FixedDelay
from sage.kernel.jobmanager.job_master import JobMaster
from sage.kernel.jobmanager.job_messages import (
    CancelRequested,
    DeploymentFailed,
    JobFailed,
    Leaving,
    RestartDue,
    ServicesEnded,
    Started,
    StopRequested,
    TaskFailed,
    TaskFinished,
    WorkerLost,
)
from sage.kernel.jobmanager.job_state import TRANSITIONS, JobStatus

ANY = st.integers(0, 10_000)
REGIONS = st.sampled_from(
    [[(0,)], [(0, 1, 2)], [(0,), (1,), (2,)], [(0, 2), (1,)], [(1, 3), (0, 2)]]
)
NOT_RUNNING = (JobStatus.CREATED, JobStatus.CANCELED, JobStatus.FINISHED, JobStatus.FAILED)


class FaultError(Exception):
    """A failure of which the job can be started again."""


class World(RuleBasedStateMachine):
    @initialize(
        regions=REGIONS,
        restarts=st.sampled_from([50, 50, 50, 2, 0]),
        cancelled=st.sampled_from([False] * 9 + [True]),
    )
    def start(self, regions, restarts, cancelled):
        self.regions, self.now = regions, 0.0
        self.strategy = FixedDelay(restarts, delay=1.0)
        self.master = JobMaster(regions, self.strategy, lambda: 0.5)
        self.tasks = sorted(task for region in regions for task in region)
        self.running = {}  # the attempt of every task that is there
        self.told_to_end, self.stopped = set(), set()
        self.facts, self.old, self.causes = [], [], []
        self.attempts = set()
        self.released = set(self.tasks)
        self.seen, self.closed = [self.master.status], []
        self.finish, self.cannot_deploy = None, False
        self.stop_heard, self.cancelled, self.last = False, cancelled, {}
        if cancelled:
            self.hear(CancelRequested())
        self.hear(Started())

    # ---- carrying out

    def hear(self, fact):
        before = self.master.status
        actions = self.master.take(fact, self.now)
        self.follow(before, self.master.status)
        for action in actions:
            assert self.finish is None, f"{action} after the end"
            getattr(self, f"do_{type(action).__name__}")(action)

    def follow(self, before, after):
        """A fact may take the job through several states, each step of which is legal."""
        reached, frontier = {before}, {before}
        while frontier := {s for f in frontier for s in TRANSITIONS[f]} - reached:
            reached |= frontier
        assert after in reached
        assert before is after or not before.is_terminal
        if after is not before:
            self.seen.append(after)

    def do_Deploy(self, action):
        assert action.attempt not in self.attempts
        assert action.attempt > max(self.attempts, default=0)
        self.attempts.add(action.attempt)
        assert not self.closed
        assert not self.cancelled
        for task in action.tasks:
            assert task not in self.running, "two live attempts"
            assert task in self.released, "what joined the tasks was still there"
        self.released -= set(action.tasks)
        if self.cannot_deploy:
            self.cannot_deploy = False
            there, missing = action.tasks[1:], action.tasks[:1]
            error = FaultError("no deployment")
            self.send(DeploymentFailed(missing, action.attempt, error))
            self.causes.append(error)
        else:
            there = action.tasks
        for task in there:
            self.running[task] = action.attempt
            self.told_to_end.discard(task)
            self.stopped.discard(task)

    def do_FailTasks(self, action):
        assert any(set(region) == set(action.tasks) for region in self.regions)
        assert action.cause in self.causes

    def do_CancelTasks(self, action):
        assert action.tasks
        self.told_to_end.update(action.tasks)

    def do_StopTasks(self, action):
        assert self.stop_heard
        self.stopped.update(action.tasks)

    def do_Release(self, action):
        assert not self.running.keys() & set(action.tasks), "released under a live task"
        assert not self.released & set(action.tasks)
        self.released.update(action.tasks)

    def do_ScheduleRestart(self, action):
        assert action.delay == 1.0
        assert not self.cancelled
        self.send(RestartDue(action.tasks, action.attempt))

    def do_CloseCheckpoints(self, action):
        assert not self.running
        self.closed.append("checkpoints")

    def do_CloseServices(self, action):
        self.closed.append("services")

    def do_Finish(self, action):
        assert self.closed == ["checkpoints", "services"]
        assert self.released == set(self.tasks)
        assert action.status is self.master.status
        assert action.status.is_terminal
        self.finish = action

    # ---- what happens

    def send(self, fact):
        self.facts.append(fact)
        if isinstance(fact, (TaskFinished, TaskFailed)):
            self.last[fact.task] = type(fact)

    def end_task(self, index, fact):
        task = sorted(self.running)[index % len(self.running)]
        attempt = self.running.pop(task)
        self.send(fact(task, attempt))

    @precondition(lambda self: len(self.attempts) > 3 and self.running)
    @rule(index=ANY, early=st.booleans())
    def a_task_ends(self, index, early):
        self.end_task(index, lambda task, attempt: TaskFinished(task, attempt, early))

    @precondition(lambda self: self.running)
    @rule(index=ANY)
    def a_task_fails(self, index):
        self.end_task(index, lambda task, attempt: TaskFailed(task, attempt, self.fault()))

    @precondition(lambda self: self.running)
    @rule(index=ANY, count=st.integers(1, 3))
    def a_worker_is_lost(self, index, count):
        lost = (sorted(self.running) * 2)[index % len(self.running) :][:count]
        lost = list(dict.fromkeys(lost))
        attempts = tuple(self.running.pop(task) for task in lost)
        self.last |= dict.fromkeys(lost, WorkerLost)
        self.send(WorkerLost(tuple(lost), attempts, self.fault()))

    def fault(self):
        self.causes.append(FaultError(len(self.causes)))
        return self.causes[-1]

    @precondition(lambda self: self.told_to_end & self.running.keys())
    @rule(fails=st.booleans())
    def those_told_to_end_do(self, fails):
        for task in sorted(self.told_to_end & self.running.keys()):
            attempt = self.running.pop(task)
            made = TaskFailed(task, attempt, self.fault()) if fails else TaskFinished(task, attempt)
            self.send(made)

    @precondition(lambda self: self.finish is None)
    @rule(kind=st.sampled_from(["job", "job", "stop", "deploy", "stray"]))
    def from_outside(self, kind):
        if kind == "job":
            self.send(JobFailed(self.fault()))
        elif kind == "stray" and not self.closed:
            self.hear(ServicesEnded())
        elif kind == "stop":
            self.send(StopRequested())
        else:
            self.cannot_deploy = len(self.attempts) > 4

    @precondition(lambda self: self.finish is None and len(self.attempts) > 2)
    @rule(kind=st.sampled_from(["cancel", "leave", "cancel", "fatal"]), rarely=st.integers(0, 5))
    def what_leads_to_the_end(self, kind, rarely):
        if rarely > 3 and kind == "cancel":
            self.deliver(CancelRequested())
        elif rarely > 3 and kind == "leave":
            self.send(Leaving())
        elif rarely == 5 and self.running:
            self.causes.append(KeyboardInterrupt())  # of these no job is started again
            self.end_task(0, lambda task, attempt: TaskFailed(task, attempt, self.causes[-1]))

    @precondition(lambda self: self.running and len(self.attempts) > 2)
    @rule(index=ANY, kind=st.sampled_from(["cancel", "job", "fatal", "none", "none", "none"]))
    def trouble_while_a_region_goes_down(self, index, kind):
        self.a_task_fails(index)
        self.deliver(self.facts.pop())
        if kind == "cancel":
            self.deliver(CancelRequested())
        elif kind == "job":
            self.deliver(JobFailed(self.fault()))
        elif kind == "fatal" and self.running:
            self.what_leads_to_the_end(kind, 5)
            self.deliver(self.facts.pop())

    @precondition(lambda self: self.running)
    @rule(index=ANY, old=ANY, at_once=st.booleans())
    def a_region_goes_down_and_comes_back(self, index, old, at_once):
        self.a_task_fails(index)
        self.all_facts_arrive()
        self.those_told_to_end_do(fails=at_once)
        self.all_facts_arrive()
        self.an_old_fact_comes_again(old)
        self.all_facts_arrive()
        self.an_old_fact_comes_again(old + 1)

    @precondition(lambda self: self.closed == ["checkpoints", "services"])
    @rule(fails=st.booleans())
    def services_end(self, fails):
        self.send(ServicesEnded((self.fault(),) if fails else ()))

    # ---- what the master hears

    def deliver(self, fact):
        before, closed = self.master.status, bool(self.closed)
        self.stop_heard |= isinstance(fact, StopRequested)
        self.old.append(fact)
        self.hear(fact)
        if before is JobStatus.FAILING and isinstance(self.master.cause, KeyboardInterrupt):
            assert self.master.status in (before, JobStatus.FAILED)  # that is decided
        if isinstance(fact, CancelRequested):
            self.cancelled |= self.master.status is JobStatus.CANCELLING
            if before in (JobStatus.RUNNING, JobStatus.RESTARTING) and not closed:
                assert self.cancelled

    @precondition(lambda self: self.facts)
    @rule(index=ANY, twice=st.booleans())
    def a_fact_arrives(self, index, twice):
        fact = self.facts.pop(index % len(self.facts))
        self.deliver(fact)
        if twice:
            self.deliver(fact)

    @precondition(lambda self: self.facts)
    @rule()
    def all_facts_arrive(self):
        """Those also that are sent meanwhile."""
        while self.facts:
            self.deliver(self.facts.pop(0))

    @precondition(lambda self: self.old)
    @rule(index=ANY)
    def an_old_fact_comes_again(self, index):
        once = (TaskFinished, TaskFailed, WorkerLost, DeploymentFailed, RestartDue, ServicesEnded)
        heard = [fact for fact in self.old if isinstance(fact, once)]
        if heard:
            fact = heard[index % len(heard)]
            before = (self.master.status, self.master.live, self.master.cause)
            self.hear(fact)
            assert (self.master.status, self.master.live, self.master.cause) == before

    # ---- what always holds

    @invariant()
    def the_end_is_the_end(self):
        if not hasattr(self, "finish"):
            return
        if self.finish is None:
            assert not self.master.status.is_terminal
            return
        assert self.master.status is self.finish.status is self.seen[-1]
        assert not self.running
        assert (self.finish.status is JobStatus.FAILED) == (self.finish.cause is not None)
        assert self.master.cause is self.finish.cause

    @invariant()
    def causes_are_kept(self):
        if not hasattr(self, "finish"):
            return
        cause, status = self.master.cause, self.master.status
        assert cause is None or cause in self.causes
        if status in (JobStatus.FAILING, JobStatus.RESTARTING, JobStatus.FAILED):
            assert cause is not None
        if status in (JobStatus.RUNNING, JobStatus.FINISHED, JobStatus.CANCELED):
            assert cause is None

    @invariant()
    def the_master_knows_of_every_task_that_is_there(self):
        if hasattr(self, "finish"):
            assert self.running.items() <= self.master.live.items()

    @invariant()
    def what_shall_not_run_is_told_to_end(self):
        if hasattr(self, "finish"):
            there = self.running.keys() - self.told_to_end
            if any(isinstance(fact, Leaving) for fact in self.old):
                return  # it ends by itself
            if self.master.status is JobStatus.CANCELLING or not isinstance(
                self.master.cause, (FaultError, type(None))
            ):
                assert not there
            failing = {id(fact) for fact in self.facts}
            for fact in self.old:
                if isinstance(fact, TaskFailed) and id(fact) not in failing:
                    [region] = [r for r in self.regions if fact.task in r]
                    assert not [t for t in there & set(region) if self.running[t] == fact.attempt]

    @invariant()
    def no_more_restarts_than_the_strategy_allows(self):
        if hasattr(self, "finish"):
            widest = max(len(self.regions), 1)
            assert len(self.attempts) <= 1 + self.strategy.attempts * widest

    def teardown(self):
        """Let everything arrive and everything end: so does the job."""
        if not hasattr(self, "finish"):
            return
        for _ in range(100):
            while self.facts:
                self.deliver(self.facts.pop(0))
            if self.finish is not None:
                break
            for task in sorted(self.running):
                self.send(TaskFinished(task, self.running.pop(task)))
            if not self.facts:
                assert self.closed == ["checkpoints", "services"]
                self.send(ServicesEnded())
        assert self.finish is not None, "the job never ends"
        self.the_end_is_the_end()
        if self.finish.status is JobStatus.FINISHED:
            assert not self.cancelled
            assert self.last == dict.fromkeys(self.tasks, TaskFinished)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
