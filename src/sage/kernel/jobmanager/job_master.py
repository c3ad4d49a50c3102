"""The master of one job as a pure state machine: facts in, actions out.

It reads no clock, starts no thread, sends nothing: times come in as arguments (seconds on a clock that
never goes back), and `take` returns what its caller carries out in order. Where the tasks run is not
its business: in this process, in others of the machine, or anywhere else.

A *region* is a set of tasks that are started again together, since records go between them. When a
task fails, those of its region are ended and, if the restart strategy says so, deployed again from the
latest checkpoint; other regions go on as if nothing had happened. When the strategy gives up, all are
ended, and the job has failed with that cause.

Facts may come late, doubled, or about attempts that are over: those change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sage.kernel.checkpoint.restart_strategy import RestartStrategy
from sage.kernel.jobmanager.job_messages import (
    Action,
    CancelRequested,
    CancelTasks,
    CloseCheckpoints,
    CloseServices,
    Deploy,
    DeploymentFailed,
    Fact,
    FailTasks,
    Finish,
    JobFailed,
    Leaving,
    Release,
    RestartDue,
    ScheduleRestart,
    ServicesEnded,
    Started,
    StopRequested,
    StopTasks,
    TaskFailed,
    TaskFinished,
    WorkerLost,
)
from sage.kernel.jobmanager.job_state import (
    JobStatus,
    RegionStatus,
    check_region_transition,
    check_transition,
)


@dataclass(eq=False)
class _Region:
    """Tasks that are started again together.

    Attributes:
        tasks: All of them.
        status: Where the region is.
        attempt: The present one, or the last.
        live: The tasks of that attempt that have not ended.
        cause: Why it is failing or restarting.
        delay: Seconds until it is started again then.
    """

    tasks: tuple[int, ...]
    status: RegionStatus = RegionStatus.CREATED
    attempt: int = 0
    live: set[int] = field(default_factory=set)
    cause: BaseException | None = None
    delay: float = 0.0

    def go(self, following: RegionStatus) -> None:
        self.status = check_region_transition(self.status, following)

    def begin(self, attempt: int) -> None:
        self.go(RegionStatus.RUNNING)
        self.attempt, self.live, self.cause = attempt, set(self.tasks), None

    def present(self) -> tuple[int, ...]:
        return tuple(task for task in self.tasks if task in self.live)


class JobMaster:
    """Decides what becomes of one job. Calls come from one thread at a time.

    Args:
        regions: The tasks of the job by region; each task is in one.
        strategy: Whether and when what has failed is started again. Each failure counts once,
            however many tasks it takes down.
        random: Returns a number from 0 to below 1, as `random.random` does.

    Examples:
        >>> from sage.kernel.checkpoint.restart_strategy import FixedDelay
        >>> master = JobMaster([(0,), (1,)], FixedDelay(delay=5.0), lambda: 0.5)
        >>> master.take(Started(), now=0.0)
        [Deploy(tasks=(0, 1), attempt=1)]
        >>> fail, release, restart = master.take(TaskFailed(1, 1, ValueError("bug")), now=7.0)
        >>> restart.delay, restart.tasks, str(master.status)
        (5.0, (1,), 'RESTARTING')
        >>> master.take(RestartDue((1,), attempt=1), now=12.0)
        [Deploy(tasks=(1,), attempt=2)]
        >>> master.take(TaskFinished(0, 1), now=13.0), master.take(TaskFinished(1, 1), now=13.0)
        ([Release(tasks=(0,))], [])
        >>> release, *close = master.take(TaskFinished(1, 2), now=14.0)
        >>> [type(action).__name__ for action in close]
        ['CloseCheckpoints', 'CloseServices']
        >>> master.take(ServicesEnded(), now=15.0)
        [Finish(status=<JobStatus.FINISHED: 'FINISHED'>, cause=None)]
    """

    def __init__(
        self,
        regions: Iterable[Sequence[int]],
        strategy: RestartStrategy,
        random: Callable[[], float],
    ) -> None:
        self._regions = tuple(_Region(tuple(tasks)) for tasks in regions)
        self._region_of = {task: region for region in self._regions for task in region.tasks}
        self._strategy = strategy
        self._random = random
        self._status = JobStatus.CREATED
        self._attempt = 0
        self._cause: BaseException | None = None
        self._cancelled = self._stopping = self._closing = False
        self._leaving = self._left_early = False

    @property
    def status(self) -> JobStatus:
        """Where the job is in its life: `FAILING` or `RESTARTING` if any of its regions is."""
        return self._status

    @property
    def cause(self) -> BaseException | None:
        """What has failed: for good, or until all regions run again; None if nothing has."""
        if self._cause is not None:
            return self._cause
        waiting = (RegionStatus.FAILING, RegionStatus.RESTARTING)
        return next((r.cause for r in self._regions if r.status in waiting), None)

    @property
    def restarts(self) -> int:
        """How often the job, or a region of it, has been deployed again."""
        return max(0, self._attempt - 1)

    @property
    def live(self) -> dict[int, int]:
        """The attempt of each task that has been deployed and has not ended."""
        return {task: region.attempt for region in self._regions for task in region.present()}

    def take(self, fact: Fact, now: float) -> list[Action]:
        """Take a fact in; return what is to be done.

        Raises:
            JobStateError: `Started`, and the job has been started before.
        """
        actions = _HANDLERS[type(fact)](self, fact, now)
        return actions + self._settle()

    # ---- facts

    def _start(self, _: Started, now: float) -> list[Action]:
        if self._closing:
            return []
        self._status = check_transition(self._status, JobStatus.RUNNING)
        self._attempt += 1
        for region in self._regions:
            region.begin(self._attempt)
        return self._deploy(tuple(self._region_of), self._attempt)

    def _task_finished(self, fact: TaskFinished, now: float) -> list[Action]:
        if self._end_task(fact.task, fact.attempt) is not None:
            self._left_early |= fact.left_early
        return []

    def _task_failed(self, fact: TaskFailed, now: float) -> list[Action]:
        region = self._end_task(fact.task, fact.attempt)
        return [] if region is None else self._fail([region], fact.cause, now)

    def _worker_lost(self, fact: WorkerLost, now: float) -> list[Action]:
        ended = [self._end_task(*task) for task in zip(fact.tasks, fact.attempts, strict=True)]
        hit = list(dict.fromkeys(region for region in ended if region is not None))
        return self._fail(hit, fact.cause, now) if hit else []

    def _job_failed(self, fact: JobFailed, now: float) -> list[Action]:
        if self._status is JobStatus.CREATED:
            return self._doom(fact.cause)
        ending = self._status is JobStatus.CANCELLING
        return [] if ending else self._fail(self._regions, fact.cause, now)

    def _deployment_failed(self, fact: DeploymentFailed, now: float) -> list[Action]:
        running = (RegionStatus.RUNNING, RegionStatus.FAILING)
        hit = [r for r in self._regions if r.attempt == fact.attempt and r.status in running]
        for task in fact.tasks:
            self._end_task(task, fact.attempt)
        return self._doom(fact.cause) if hit and not self._cancelled else []

    def _restart_due(self, fact: RestartDue, now: float) -> list[Action]:
        region = self._region_of[fact.tasks[0]]
        if region.status is not RegionStatus.RESTARTING or region.attempt != fact.attempt:
            return []
        self._attempt += 1
        region.begin(self._attempt)
        return self._deploy(region.tasks, self._attempt)

    def _cancel(self, _: CancelRequested, now: float) -> list[Action]:
        if self._leaving and self._cause is not None and self.live:
            return [CancelTasks(tuple(self.live))]  # those that were let commit
        if self._is_settled() or self._cancelled:
            return []
        self._cancelled = True
        if self._status is not JobStatus.CREATED:
            self._status = check_transition(self._status, JobStatus.CANCELLING)
        return self._end_regions()

    def _stop(self, _: StopRequested, now: float) -> list[Action]:
        self._stopping = True  # also those that are deployed from now on
        running = (r for r in self._regions if r.status is RegionStatus.RUNNING)
        tasks = tuple(task for region in running for task in region.present())
        return [StopTasks(tasks)] if tasks else []

    def _leave(self, _: Leaving, now: float) -> list[Action]:
        self._leaving = True
        return []

    def _services_ended(self, fact: ServicesEnded, now: float) -> list[Action]:
        if not self._closing or self._status.is_terminal:
            return []
        if fact.failures and self._cause is None:
            self._cause = fact.failures[0]
            if self._status is JobStatus.RUNNING:
                self._status = check_transition(self._status, JobStatus.FAILING)
        self._status = check_transition(self._status, self._end_status())
        return [Finish(self._status, self._cause)]

    # ---- what follows

    def _end_task(self, task: int, attempt: int) -> _Region | None:
        """Take note that a task is not there any more; return its region, None if that is no news."""
        region = self._region_of.get(task)
        if region is None or region.attempt != attempt or task not in region.live:
            return None
        region.live.discard(task)
        return region

    def _is_settled(self) -> bool:
        """Say whether how the job ends has been decided."""
        return self._cause is not None or self._closing

    def _deploy(self, tasks: tuple[int, ...], attempt: int) -> list[Action]:
        deploy: list[Action] = [Deploy(tasks, attempt)]
        return [*deploy, StopTasks(tasks)] if self._stopping else deploy

    def _fail(self, regions: Iterable[_Region], cause: BaseException, now: float) -> list[Action]:
        """Something has failed that takes regions down; those that are down already stay so."""
        hit = [region for region in regions if region.status is RegionStatus.RUNNING]
        if self._is_settled():
            return []
        if self._cancelled:
            self._cause = cause  # it could not be ended in order
            return []
        if not hit:
            return []
        delay = self._next_delay(cause, now)
        if delay is None:
            return self._doom(cause)
        actions: list[Action] = []
        for region in hit:
            region.go(RegionStatus.FAILING)
            region.cause, region.delay = cause, delay
            actions += _take_down(region, cause)
        return actions

    def _next_delay(self, cause: BaseException, now: float) -> float | None:
        """Return after how long what has failed is started again; None: the job has failed.

        A job whose state is in a savepoint, and of which parts have left, does not begin anew.
        """
        if self._leaving or not isinstance(cause, Exception):
            return None
        return self._strategy.next(now, self._random)

    def _doom(self, cause: BaseException) -> list[Action]:
        """The job has failed for good."""
        if self._is_settled():
            return []
        self._cause = cause
        if self._status in (JobStatus.RUNNING, JobStatus.RESTARTING):
            self._status = check_transition(self._status, JobStatus.FAILING)
        return self._end_regions(cause)

    def _end_regions(self, cause: BaseException | None = None) -> list[Action]:
        """End what runs, and start nothing again.

        What is leaving ends by itself: it is to commit what the savepoint holds.
        """
        actions: list[Action] = []
        for region in self._regions:
            if region.status is RegionStatus.RUNNING:
                if cause is None or not self._leaving:
                    actions += _take_down(region, cause)
                region.go(RegionStatus.ENDING)
            elif region.status is RegionStatus.FAILING:
                region.go(RegionStatus.ENDING)
            elif region.status in (RegionStatus.CREATED, RegionStatus.RESTARTING):
                region.go(RegionStatus.ENDED)
        return actions

    def _settle(self) -> list[Action]:
        """Go on where nothing runs any more, and end the job when nothing will."""
        actions: list[Action] = []
        for region in self._regions:
            running = region.status not in (RegionStatus.CREATED, RegionStatus.ENDED)
            if running and region.status is not RegionStatus.RESTARTING and not region.live:
                actions += self._region_is_down(region)
        if not self._closing and all(r.status is RegionStatus.ENDED for r in self._regions):
            self._closing = True
            return [*actions, CloseCheckpoints(self._status, self._left_early), CloseServices()]
        self._follow_regions()
        return actions

    def _region_is_down(self, region: _Region) -> list[Action]:
        """All tasks of a region have ended."""
        actions: list[Action] = [Release(region.tasks)]
        if region.status is RegionStatus.FAILING and region.cause is not None:
            region.go(RegionStatus.RESTARTING)
            return [
                *actions,
                ScheduleRestart(region.tasks, region.attempt, region.delay, region.cause),
            ]
        region.go(RegionStatus.ENDED)
        return actions

    def _follow_regions(self) -> None:
        """Let the status of the job be that of its worst region, while it is to go on."""
        if self._is_settled() or self._cancelled or self._status is JobStatus.CREATED:
            return
        states = {region.status for region in self._regions}
        if RegionStatus.FAILING in states:
            following = JobStatus.FAILING
        elif RegionStatus.RESTARTING in states:
            following = JobStatus.RESTARTING
        else:
            following = JobStatus.RUNNING
        for step in _steps(self._status, following):
            self._status = check_transition(self._status, step)

    def _end_status(self) -> JobStatus:
        if self._cause is not None:
            return JobStatus.FAILED
        return JobStatus.CANCELED if self._cancelled else JobStatus.FINISHED


def _take_down(region: _Region, cause: BaseException | None) -> list[Action]:
    """Return what ends the tasks of a region."""
    actions: list[Action] = []
    if cause is not None:
        actions.append(FailTasks(region.tasks, region.attempt, cause))
    if region.live:
        actions.append(CancelTasks(region.present()))
    return actions


def _steps(current: JobStatus, following: JobStatus) -> tuple[JobStatus, ...]:
    """Return by which states a job gets there: a region may have failed and ended in one fact."""
    if current is following:
        return ()
    if (current, following) == (JobStatus.RUNNING, JobStatus.RESTARTING):
        return (JobStatus.FAILING, JobStatus.RESTARTING)
    return (following,)


_HANDLERS: Final[dict[type[Any], Callable[[JobMaster, Any, float], list[Action]]]] = {
    Started: JobMaster._start,
    TaskFinished: JobMaster._task_finished,
    TaskFailed: JobMaster._task_failed,
    WorkerLost: JobMaster._worker_lost,
    JobFailed: JobMaster._job_failed,
    DeploymentFailed: JobMaster._deployment_failed,
    RestartDue: JobMaster._restart_due,
    CancelRequested: JobMaster._cancel,
    StopRequested: JobMaster._stop,
    Leaving: JobMaster._leave,
    ServicesEnded: JobMaster._services_ended,
}
"""What becomes of each kind of fact; the transitions are in the tables of `job_state`."""
