"""A job in this process: its tasks in threads, its state, and the handle that users hold."""

from __future__ import annotations

import atexit
import random
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any

from sage.common.clock import Clock, Doorbell
from sage.common.errors import JobCancelledError, JobError, WorkerLostError
from sage.common.latch import Latch
from sage.common.log import get_logger
from sage.common.suggest import did_you_mean
from sage.dataflow.graph.job_graph import JobGraph
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointStatistics
from sage.kernel.jobmanager.checkpointing import Checkpointing
from sage.kernel.jobmanager.deployment import Deployment, TaskHandle
from sage.kernel.jobmanager.job_master import JobMaster
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
from sage.kernel.jobmanager.job_metrics import JobMeter, JobMetrics, JobResult
from sage.kernel.jobmanager.job_state import JobStatus
from sage.kernel.jobmanager.local_deployment import LocalDeployment
from sage.kernel.jobmanager.recovery import Recovery
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.task.failure import empty_engine_frames
from sage.kernel.runtime.task.operator_context import JobContext


class Job:
    """A job: started once, watched by any thread, kept with its result when it is done.

    What becomes of it is decided by its `JobMaster`, which one thread of the job owns: it hears what
    tasks, timers and users tell, one fact at a time, and carries out what the master says.

    `await job` waits for the end without blocking the event loop and gives the `JobResult`.

    Args:
        graph: The plan.
        context: What all tasks share.
        env_uuid: The identity of the environment.
        on_end: Called when all tasks have ended, before the job is done; returns what failed.
        recovery: How state is kept and a failed job started again.
        workers: Lays the job out over processes; None: all of it runs in this one.
    """

    def __init__(
        self,
        graph: JobGraph,
        context: JobContext,
        env_uuid: str,
        on_end: Callable[[], list[Exception]] = list,
        recovery: Recovery | None = None,
        *,
        workers: Deployment | None = None,
    ) -> None:
        self.env_uuid = env_uuid
        self.graph = graph
        self._on_end = on_end
        self._callbacks: list[Callable[[Job], object]] = []
        self.name = context.job_name
        self.logger = get_logger(self.name)
        self._clock: Clock = context.clock
        self._lock = threading.Lock()
        self._begun = Latch()  # the first attempt, or it could not be
        self._done = Latch()
        self._context = context
        self._recovery = recovery or Recovery()
        if self._recovery.checkpoints is not None:
            self._recovery.checkpoints.on_leave = lambda: self._tell(Leaving())
        self._keep_alive = True
        self._deployment = LocalDeployment(graph) if workers is None else workers
        self._master = JobMaster(self._regions(), self._recovery.strategy, random.random)
        self._facts: deque[Fact] = deque()
        self._bell = Doorbell()
        self._timers: list[tuple[float, RestartDue]] = []
        self._meter = JobMeter(graph, context.clock, self._deployment.layout)
        count = sum(map(len, self._deployment.regions))
        self._tasks = self._make_tasks(range(count), 1, self._recovery.restored)
        self._not_started: JobError | None = None
        self._unclosed: list[Exception] = []

    def _regions(self) -> tuple[tuple[int, ...], ...]:
        """Return the tasks that are started again together."""
        regions = self._deployment.regions
        if self._recovery.failover == "region":
            return regions
        return (tuple(sorted(task for region in regions for task in region)),)

    @property
    def status(self) -> JobStatus:
        """Where the job is in its life."""
        return self._master.status

    @property
    def error(self) -> BaseException | None:
        """Why the job has failed, or is being started again; None if it is neither."""
        return self._master.cause

    def start(self, *, keep_alive: bool = True) -> None:
        """Start the tasks, each in a thread of its own.

        Args:
            keep_alive: Keep the process alive until the job is done. Otherwise the job is cancelled
                and closed when the process ends.

        Raises:
            JobError: the process can have no more threads; what had been started is closed again.
        """
        self._meter.start()
        self._keep_alive = keep_alive
        self._tell(Started())
        self._start_serving()
        # Not done here: a handler of Ctrl-C may wait for the job's end, and this thread with it.
        self._begun.wait()
        if self._not_started is not None:
            self.wait()
            raise self._not_started
        if not keep_alive:
            atexit.register(self._end_with_process)
            self.add_done_callback(lambda _: atexit.unregister(self._end_with_process))

    def _start_serving(self) -> None:
        name, daemon = f"sage-{self.name}-master", not self._keep_alive
        thread = threading.Thread(target=self._serve, name=name, daemon=daemon)
        try:
            thread.start()
        except RuntimeError as error:
            self._not_started = self._no_thread(error)
            self._tell(DeploymentFailed((), 1, self._not_started))
            self._serve()

    def _end_with_process(self) -> None:
        self.cancel()
        self.wait()

    def stop(self) -> None:
        """Let the sources end here; what has been read is processed to the end."""
        self._tell(StopRequested())

    def cancel(self) -> None:
        """Leave off after the batches at hand."""
        self._tell(CancelRequested())

    def fail(self, reason: str) -> None:
        """End the job as failed, or start it again, because of something outside of its tasks."""
        self._tell(JobFailed(JobError(reason)))

    # ---- checkpoints

    def checkpoint(self) -> Future[str]:
        """Take a checkpoint now; the future gives its number.

        Raises:
            JobError: the job takes no checkpoints.
        """
        return self._checkpoints().request()

    def savepoint(self, target: str) -> Future[str]:
        """Take a savepoint into the directory `target`; the future gives the path.

        Raises:
            JobError: the job takes no checkpoints.
        """
        return self._checkpoints().request(target)

    def stop_with_savepoint(self, target: str) -> Future[str]:
        """Take a savepoint and end the job right there: nothing comes out after it.

        Raises:
            JobError: the job takes no checkpoints.
        """
        return self._checkpoints().request(target, leave=True)

    def query_state(self, uid: str, name: str, key: Any, timeout: float) -> Any:
        """Return the present value of a key in a state that an operator declares, or None.

        Raises:
            JobError: no running operator has that uid.
            JobTimeoutError: the process that has the state has not answered within `timeout` seconds.
        """
        for number in self._deployment.owners(uid, key):
            with suppress(KeyError):
                return self._tasks[number].query_state(uid, name, key, timeout)
        known = [node.uid for node in self.graph.stream_graph.nodes.values()]
        near = did_you_mean(uid, known)
        raise JobError(f"no running operator of {self.name!r} has the uid {uid!r}.{near}")

    def suspend(self, timeout: float) -> None:
        """Take a last checkpoint if there are any, waiting for it for at most `timeout` seconds."""
        checkpoints = self._recovery.checkpoints
        if checkpoints is None or self.status is not JobStatus.RUNNING:
            return
        try:
            number = checkpoints.request(leave=True).result(timeout)
        except (CheckpointError, TimeoutError) as error:
            self.logger.warning("no last checkpoint could be taken: %s", error)
        else:
            self.logger.info("checkpoint %s was taken; the job goes on from it", number)
            self._done.wait(timeout)  # until sinks have committed

    @property
    def checkpoint_statistics(self) -> CheckpointStatistics:
        """What became of the checkpoints so far."""
        checkpoints = self._recovery.checkpoints
        return CheckpointStatistics() if checkpoints is None else checkpoints.statistics

    def _checkpoints(self) -> Checkpointing:
        if self._recovery.checkpoints is None:
            raise JobError(
                f"the job {self.name!r} takes no checkpoints; call env.enable_checkpointing(...) first"
            )
        return self._recovery.checkpoints

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done, for at most `timeout` seconds; say whether it is."""
        return self._done.wait(timeout)

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Let `callback(job)` be called once the job is done: by its last thread, or at once."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def result(self) -> JobResult:
        """Return how the job ended.

        Raises:
            OperatorError: a function, source or sink failed.
            JobCancelledError: the job was cancelled.
            JobError: the job is not done.
        """
        if not self._done.is_set():
            raise JobError(f"the job {self.name!r} is {self.status}; wait for it first")
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.status is JobStatus.CANCELED:
            raise JobCancelledError(f"the job {self.name!r} was cancelled")
        return JobResult(self.name, self.env_uuid, self.status, self.metrics)

    @property
    def metrics(self) -> JobMetrics:
        """The figures so far."""
        return self._meter.read(
            tuple(self._tasks),
            restarts=self._master.restarts,
            checkpoints=self.checkpoint_statistics,
        )

    def __await__(self) -> Generator[Any, None, JobResult]:
        import asyncio  # only for those who await  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not done.done():
                done.set_result(None)

        self.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(end))
        yield from done
        return self.result()

    # ---- facts in, actions out

    def _tell(self, fact: Fact) -> None:
        """Tell the master something; from any thread, and from handlers of signals."""
        self._facts.append(fact)
        self._bell.ring()

    def _serve(self) -> None:
        """Hear facts and carry out what follows, until the job is done."""
        while not self._done.is_set():
            while self._facts:
                actions = self._master.take(self._facts.popleft(), self._clock.monotonic())
                self._carry_out(actions)
                self._begun.set()
            if not self._done.is_set():
                self._wait_for_facts()

    def _wait_for_facts(self) -> None:
        if not self._timers:
            self._bell.wait()
            return
        due, fact = min(self._timers, key=itemgetter(0))
        if due > self._clock.monotonic():
            self._clock.wait_until(self._bell, due)
        else:
            self._timers.remove((due, fact))
            self._facts.append(fact)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Deploy():
                    self._deploy(action)
                case FailTasks():
                    self._fail_tasks(action)
                case CancelTasks():
                    for number in action.tasks:
                        self._tasks[number].cancel()
                case StopTasks():
                    for number in action.tasks:
                        self._tasks[number].stop()
                case ScheduleRestart():
                    self._schedule_restart(action)
                case _:
                    self._end(action)

    def _end(self, action: Release | CloseCheckpoints | CloseServices | Finish) -> None:
        try:
            match action:
                case Release():
                    self._deployment.release(action.tasks)
                case CloseCheckpoints():
                    self._close_checkpoints(action)
                case CloseServices():
                    self._deployment.close()
                    self._unclosed += self._on_end()
                case Finish():
                    self._finish()
        except Exception as error:  # noqa: BLE001 - told: the job has failed
            self._unclosed.append(error)
        if isinstance(action, CloseServices):
            self._tell(ServicesEnded(tuple(self._unclosed)))

    def _deploy(self, deploy: Deploy) -> None:
        left = list(deploy.tasks)
        try:
            self._prepare(deploy)
            self._start_threads(deploy.attempt, left)
        except BaseException as error:  # noqa: BLE001 - told; the job fails, or is started again
            self._tell(DeploymentFailed(tuple(left), deploy.attempt, error))

    def _prepare(self, deploy: Deploy) -> None:
        """Make tasks; those of the first attempt have been made already."""
        try:
            if deploy.attempt > 1:
                restored = self._recovery.latest()
                made = self._make_tasks(deploy.tasks, deploy.attempt, restored)
                tasks = list(self._tasks)
                for number, task in zip(deploy.tasks, made, strict=True):
                    tasks[number] = task
                self._tasks = tasks
            self._begin_checkpoints(deploy)
        except Exception:
            self.logger.exception("job %r cannot be restored", self.name)
            raise

    def _make_tasks(
        self, tasks: Sequence[int], attempt: int, restored: RestoredJob
    ) -> list[TaskHandle]:
        """Make the tasks of an attempt."""

        def reports(task: int) -> CheckpointReports | None:
            checkpoints = self._recovery.checkpoints
            if checkpoints is None:
                return None
            return checkpoints.reports(self._deployment.subtask(task), attempt)

        context, counters = self._context, self._meter.counters
        return self._deployment.make_tasks(tasks, context, counters, restored, reports)

    def _begin_checkpoints(self, deploy: Deploy) -> None:
        if self._recovery.checkpoints is None:
            return
        deployment = self._deployment
        tasks = {deployment.subtask(number): self._tasks[number] for number in deploy.tasks}
        uids = {deployment.subtask(number): deployment.uids(number) for number in deploy.tasks}
        running = {subtask: task for subtask, task in tasks.items() if not task.has_ended}
        self._recovery.checkpoints.begin_attempt(deploy.attempt, running, uids)

    def _start_threads(self, attempt: int, left: list[int]) -> None:
        """Start the threads of tasks; what is left could not be."""
        while left:
            number = left[0]
            name = f"sage-{self.name}-{number + 1}"
            run = partial(self._run, number, attempt, self._tasks[number])
            thread = threading.Thread(target=run, name=name, daemon=not self._keep_alive)
            try:
                thread.start()
            except RuntimeError as error:
                self._not_started = self._no_thread(error)
                raise self._not_started from error
            del left[0]

    def _no_thread(self, error: RuntimeError) -> JobError:
        told = JobError(f"the job {self.name!r} cannot start a thread: {error}")
        told.__cause__ = error
        return told

    def _run(self, number: int, attempt: int, task: TaskHandle) -> None:
        """Run a task, and tell what became of it."""
        try:
            task.run()
        except TaskCancelled:
            fact: Fact = TaskFinished(number, attempt, task.left_early)
        except WorkerLostError as error:
            fact = WorkerLost((number,), (attempt,), error)
        except BaseException as error:  # noqa: BLE001 - told; kept as the job's error
            empty_engine_frames(error)
            fact = TaskFailed(number, attempt, error)
        else:
            fact = TaskFinished(number, attempt, task.left_early)
        self._tell(fact)

    def _fail_tasks(self, failure: FailTasks) -> None:
        checkpoints = self._recovery.checkpoints
        if checkpoints is not None:
            subtasks = [self._deployment.subtask(number) for number in failure.tasks]
            checkpoints.tasks_failed(subtasks, failure.attempt, str(failure.cause))

    def _schedule_restart(self, restart: ScheduleRestart) -> None:
        part = "" if len(restart.tasks) == len(self._tasks) else "a part of "
        self.logger.warning(
            "%sjob %r failed and is started again in %.3g s: %s",
            part,
            self.name,
            restart.delay,
            restart.cause,
        )
        fact = RestartDue(restart.tasks, restart.attempt)
        self._timers.append((self._clock.monotonic() + restart.delay, fact))

    def _close_checkpoints(self, close: CloseCheckpoints) -> None:
        checkpoints = self._recovery.checkpoints
        if checkpoints is None:
            return
        done = close.status is JobStatus.RUNNING and not close.left_early
        cancelled = close.status is JobStatus.CANCELLING and self._recovery.delete_on_cancel
        checkpoints.close(f"the job {self.name!r} is over", delete=done or cancelled)

    def _finish(self) -> None:
        self._meter.end()
        self._meter.warn_of_unread(self.name)
        self.logger.info("job %s: %s", self.env_uuid, self.status)
        with self._lock:
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                self.logger.exception("a callback of job %r failed", self.name)
