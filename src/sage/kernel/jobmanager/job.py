"""A job in this process: its tasks in threads, its state, and the handle that users hold."""

from __future__ import annotations

import atexit
import random
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from sage.common.clock import Clock, Doorbell
from sage.common.errors import JobCancelledError, JobError
from sage.common.log import get_logger
from sage.common.suggest import did_you_mean
from sage.dataflow.graph.job_graph import JobGraph, JobVertex
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.source import ReadSource
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.messages import Subtask
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointStatistics
from sage.kernel.jobmanager.checkpointing import Checkpointing
from sage.kernel.jobmanager.job_metrics import JobMeter, JobMetrics, JobResult
from sage.kernel.jobmanager.job_state import JobStatus, check_transition
from sage.kernel.jobmanager.recovery import SLOT, Recovery, task_name
from sage.kernel.jobmanager.restore import RestoredJob
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.task.failure import empty_engine_frames
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.task import Task

if TYPE_CHECKING:
    from sage.kernel.jobmanager.worker_deployment import WorkerDeployment
    from sage.kernel.runtime.worker.worker_task import WorkerTask


class Job:
    """A job: started once, watched by any thread, kept with its result when it is done.

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
        workers: WorkerDeployment | None = None,
    ) -> None:
        self.env_uuid = env_uuid
        self.graph = graph
        self._on_end = on_end
        self._callbacks: list[Callable[[Job], object]] = []
        self.name = context.job_name
        self.logger = get_logger(self.name)
        self.error: BaseException | None = None
        self._clock: Clock = context.clock
        self._status = JobStatus.CREATED
        self._lock = threading.RLock()  # a signal handler may cancel while it is held
        self._done = threading.Event()
        self._context = context
        self._recovery = recovery or Recovery()
        self._attempt = 1
        self._keep_alive = True
        self._pause = Doorbell()
        self._workers = workers
        layout = None if workers is None else workers.graph
        self._meter = JobMeter(graph, context.clock, layout)
        self._tasks = self._make_tasks(self._recovery.restored)
        self._left = len(self._tasks)

    @property
    def status(self) -> JobStatus:
        """Where the job is in its life."""
        return self._status

    def start(self, *, keep_alive: bool = True) -> None:
        """Start the tasks, each in a thread of its own.

        Args:
            keep_alive: Keep the process alive until the job is done. Otherwise the job is cancelled
                and closed when the process ends.

        Raises:
            JobError: the process can have no more threads; what had been started is closed again.
        """
        with self._lock:
            self._status = check_transition(self._status, JobStatus.RUNNING)
        self._meter.start()
        self._keep_alive = keep_alive
        self._start_tasks()
        if not keep_alive:
            atexit.register(self._end_with_process)
            self.add_done_callback(lambda _: atexit.unregister(self._end_with_process))

    def _make_tasks(self, restored: RestoredJob) -> Sequence[Task | WorkerTask]:
        """Make the tasks of an attempt."""
        if self._workers is not None:
            return self._workers.make_tasks(
                self._context,
                self._meter.counters,
                restored,
                lambda slot: self._reports(Subtask(SLOT, slot)),
            )
        return self._make_tasks_here(restored)

    def _make_tasks_here(self, restored: RestoredJob) -> list[Task]:
        """Make the tasks of this process; those that had ended have only to commit what was left."""
        tasks = []
        for vertex, counters in zip(self.graph.vertices, self._meter.counters, strict=True):
            sources = self._uids(vertex, ReadSource)
            has_ended = bool(sources) and sources <= restored.final_states.uids
            task = Task(
                self.graph.stream_graph,
                vertex,
                self._context,
                counters,
                restored=restored.states,
                has_ended=has_ended,
                reports=self._reports(Subtask(task_name(vertex.id))),
            )
            tasks.append(task)
        return tasks

    def _uids(self, vertex: JobVertex, kind: type[Operator] = Operator) -> frozenset[str]:
        """Return the uids of the operators of a task that are of some kind."""
        nodes = (self.graph.stream_graph.nodes[node] for node in vertex.nodes)
        return frozenset(node.uid for node in nodes if isinstance(node.operator, kind))

    def _start_tasks(self) -> None:
        if self._recovery.checkpoints is not None:
            tasks = {self._subtask(task.vertex): task for task in self._tasks}
            uids = {subtask: self._uids(task.vertex) for subtask, task in tasks.items()}
            running = {subtask: task for subtask, task in tasks.items() if not task.has_ended}
            self._recovery.checkpoints.begin_attempt(self._attempt, running, uids)
        for number, task in enumerate(self._tasks):
            name = f"sage-{self.name}-{task.vertex.id + 1}"
            thread = threading.Thread(
                target=self._run, args=(task,), name=name, daemon=not self._keep_alive
            )
            try:
                thread.start()
            except RuntimeError as error:
                self._give_up(error, len(self._tasks) - number)

    def _subtask(self, vertex: JobVertex) -> Subtask:
        """Return the name under which the state of a task is kept."""
        if self._workers is not None:
            return Subtask(SLOT, vertex.id)
        return Subtask(task_name(vertex.id))

    def _reports(self, subtask: Subtask) -> CheckpointReports | None:
        """Return who a task of this attempt answers to."""
        checkpoints = self._recovery.checkpoints
        return None if checkpoints is None else checkpoints.reports(subtask, self._attempt)

    def _give_up(self, error: RuntimeError, left: int) -> NoReturn:
        """End the job whose last `left` tasks have no thread to run in."""
        told = JobError(f"the job {self.name!r} cannot start a thread: {error}")
        told.__cause__ = error
        for _ in range(left):
            self._task_ended(told)
        self.wait()
        raise told

    def _end_with_process(self) -> None:
        self.cancel()
        self.wait()

    def stop(self) -> None:
        """Let the sources end here; what has been read is processed to the end."""
        for task in self._tasks:
            task.stop()

    def cancel(self) -> None:
        """Leave off after the batches at hand."""
        with self._lock:
            if self._status in (JobStatus.RUNNING, JobStatus.RESTARTING):
                self._status = check_transition(self._status, JobStatus.CANCELLING)
        self._pause.ring()
        for task in self._tasks:
            task.cancel()

    def fail(self, reason: str) -> None:
        """End the job as failed, or start it again, because of something outside of its tasks."""
        self._note_failure(JobError(reason))

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

    def query_state(self, uid: str, name: str, key: Any) -> Any:
        """Return the present value of a key in a state that an operator declares, or None.

        Raises:
            JobError: no running operator has that uid.
        """
        for task in tuple(self._tasks):
            with suppress(KeyError):
                return task.query_state(uid, name, key)
        known = [node.uid for node in self.graph.stream_graph.nodes.values()]
        near = did_you_mean(uid, known)
        raise JobError(f"no running operator of {self.name!r} has the uid {uid!r}.{near}")

    def suspend(self, timeout: float) -> None:
        """Take a last checkpoint if there are any, waiting for it for at most `timeout` seconds."""
        checkpoints = self._recovery.checkpoints
        if checkpoints is None or self._status is not JobStatus.RUNNING:
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
            raise JobError(f"the job {self.name!r} is {self._status}; wait for it first")
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self._status is JobStatus.CANCELED:
            raise JobCancelledError(f"the job {self.name!r} was cancelled")
        return JobResult(self.name, self.env_uuid, self._status, self.metrics)

    @property
    def metrics(self) -> JobMetrics:
        """The figures so far."""
        return self._meter.read(
            tuple(self._tasks),
            restarts=self._attempt - 1,
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

    def _run(self, task: Task | WorkerTask) -> None:
        error: BaseException | None = None
        try:
            task.run()
        except TaskCancelled:
            pass
        except BaseException as failure:  # noqa: BLE001 - kept as the job's error, raised by result()
            error = failure
            empty_engine_frames(error)
        self._task_ended(error)

    def _task_ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._note_failure(error)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and self._workers is not None:
            self._workers.close()
        if last and not self._start_again():
            self._finish()

    def _note_failure(self, error: BaseException) -> None:
        with self._lock:
            if self.error is None:
                self.error = error
                if self._status is JobStatus.RUNNING:
                    self._status = check_transition(self._status, JobStatus.FAILING)
        checkpoints = self._recovery.checkpoints
        for task in self._tasks:
            if checkpoints is not None:
                subtask = self._subtask(task.vertex)
                checkpoints.task_failed(subtask, self._attempt, str(error))
            task.cancel()

    def _start_again(self) -> bool:
        """Start the tasks again after a failure, if the restart strategy says so."""
        recovery, error = self._recovery, self.error
        if error is None or self._status is not JobStatus.FAILING:
            return False
        delay = recovery.strategy.next(self._clock.monotonic(), random.random)
        if delay is None or not isinstance(error, Exception):
            return False
        with self._lock:
            self._status = check_transition(self._status, JobStatus.RESTARTING)
        self.logger.warning(
            "job %r failed and is started again in %.3g s: %s", self.name, delay, error
        )
        until = self._clock.monotonic() + delay
        while self._status is JobStatus.RESTARTING and (
            (left := until - self._clock.monotonic()) > 0
        ):
            self._clock.wait(self._pause, left)
        return self._begin_attempt()

    def _begin_attempt(self) -> bool:
        try:
            restored = self._recovery.latest()
            self._attempt += 1
            tasks = self._make_tasks(restored)
        except Exception as error:
            self.logger.exception("job %r cannot be restored", self.name)
            with self._lock:
                self.error = error
                if self._status is JobStatus.RESTARTING:
                    self._status = check_transition(self._status, JobStatus.FAILING)
            return False
        with self._lock:
            if self._status is not JobStatus.RESTARTING:
                self.error = None  # cancelled meanwhile
                if self._workers is not None:
                    self._workers.close()
                return False
            self.error = None
            self._tasks = tasks
            self._left = len(self._tasks)
            self._status = check_transition(self._status, JobStatus.RUNNING)
        self._start_tasks()
        return True

    def _finish(self) -> None:
        checkpoints = self._recovery.checkpoints
        if checkpoints is not None:
            left = any(task.left_early for task in self._tasks)
            done = self.error is None and self._status is JobStatus.RUNNING and not left
            cancelled = self._status is JobStatus.CANCELLING and self._recovery.delete_on_cancel
            checkpoints.close(f"the job {self.name!r} is over", delete=done or cancelled)
        failures = self._on_end()
        if failures and self.error is None:
            self.error = failures[0]
            with self._lock:
                if self._status is JobStatus.RUNNING:
                    self._status = check_transition(self._status, JobStatus.FAILING)
        with self._lock:
            self._meter.end()
            self._status = check_transition(self._status, self._end_state())
        self._meter.warn_of_unread(self.name)
        self.logger.info("job %s: %s", self.env_uuid, self._status)
        self._done.set()
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                self.logger.exception("a callback of job %r failed", self.name)

    def _end_state(self) -> JobStatus:
        if self.error is not None:
            return JobStatus.FAILED
        cancelling = self._status is JobStatus.CANCELLING
        return JobStatus.CANCELED if cancelling else JobStatus.FINISHED
