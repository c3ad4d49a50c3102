"""`LocalEnvironment`: runs the pipeline in the calling process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from sage.common.clock import Clock
from sage.common.errors import JobStateError, JobTimeoutError
from sage.core.api.base_environment import BaseEnvironment
from sage.core.api.interrupt import announce_cancel, raising_interrupts, unwatch, watch
from sage.core.api.job_handle import JobHandle, Response
from sage.core.api.metrics_server import MetricsServer
from sage.core.api.parallel_settings import plan_workers
from sage.core.api.progress import show_progress, wants_progress
from sage.core.api.recovery_settings import make_recovery
from sage.kernel.jobmanager.job import Job
from sage.kernel.jobmanager.job_metrics import JobResult
from sage.kernel.jobmanager.job_state import JobStatus
from sage.kernel.jobmanager.layout import layout_of
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.task.operator_context import JobContext

_LAST_CHECKPOINT_SECONDS = 10.0


class LocalEnvironment(BaseEnvironment):
    """Runs a pipeline in this process, in a thread of its own.

    As a context manager it is closed at the end of the block: a job that still runs is cancelled,
    with a warning.

    Args:
        name: The name of the job.
        config: Settings; see `EnvironmentConfig` for the keys.
        clock: Where processing time comes from; tests hand in `sage.testing.ManualClock`.

    Examples:
        >>> env = LocalEnvironment("example")
        >>> doubled = env.from_batch([1, 2, 3]).map(lambda x: x * 2).collect()
        >>> env.execute().status
        <JobStatus.FINISHED: 'FINISHED'>
        >>> list(doubled)
        [2, 4, 6]
    """

    def __init__(
        self,
        name: str = "localenvironment",
        config: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, config, clock=clock)
        self._job: Job | None = None
        self._handle: JobHandle | None = None
        self._from_savepoint: str | None = None
        self._allow_non_restored = False
        self._end_view: Callable[[], None] = lambda: None
        self._metrics_server: MetricsServer | None = None

    @property
    def job(self) -> JobHandle | None:
        """The job that was submitted last, the same handle each time; None before the first."""
        return self._handle

    def submit(self, autostop: bool = False) -> str:
        """Start the pipeline in the background.

        The process stays alive until the job is done, also when the main program has ended; Ctrl-C
        cancels the job. If it fails, the error is logged and kept in `env.job.error`.

        Args:
            autostop: Wait until the job is done, and raise if it failed.

        Returns:
            The identity of the environment.

        Raises:
            GraphError: the program cannot run; nothing has been started.
            JobStateError: the job submitted before is still running.
        """
        if autostop:
            self.execute(progress=False)
            return self.env_uuid
        self.submit_async()
        return self.env_uuid

    def submit_async(self) -> JobHandle:
        """Start the pipeline and return its handle, which can be awaited.

        Raises:
            GraphError: the program cannot run; nothing has been started.
            JobStateError: the job submitted before is still running.
        """
        job, handle = self._start(is_watched=True)
        job.add_done_callback(_log_failure)
        return handle

    def submit_detached(self) -> JobHandle:
        """Start the pipeline as a job that does not keep the process alive.

        If it still runs at the end of the process, it is cancelled and closed then.
        """
        _, handle = self._start(keep_alive=False, is_watched=True)
        return handle

    def restore_from(
        self, savepoint: str | os.PathLike[str], *, allow_non_restored_state: bool = False
    ) -> None:
        """Let the next job start from a savepoint.

        Args:
            savepoint: Its directory.
            allow_non_restored_state: Leave out the state of operators that the program does not
                have any more; otherwise that is an error.
        """
        self._from_savepoint = os.fspath(savepoint)
        self._allow_non_restored = allow_non_restored_state

    def serve_metrics(self, port: int = 0) -> MetricsServer:
        """Serve the figures of this environment's job and services to Prometheus.

        They are at `http://127.0.0.1:<port>/metrics` until the job has ended, or the environment is
        closed. The extra `metrics` is needed.

        Args:
            port: The port; 0: any that is free, which the answer tells.

        Raises:
            ConfigError: the extra is not installed, or the port is taken.

        Examples:
            >>> from urllib.request import urlopen
            >>> with LocalEnvironment("example") as env:
            ...     server = env.serve_metrics()
            ...     with urlopen(server.url) as answer:
            ...         answer.status
            200
        """
        self._close_metrics()
        self._metrics_server = server = MetricsServer(
            self.name, port, lambda: self._job, self.services
        )
        self.logger.info("figures for Prometheus are at %s", server.url)
        return server

    def _close_metrics(self) -> None:
        if self._metrics_server is not None:
            self._metrics_server.close()

    def execute(
        self,
        timeout: float | None = None,
        progress: bool | None = None,
        *,
        live: bool | None = None,
        from_savepoint: str | os.PathLike[str] | None = None,
        allow_non_restored_state: bool = False,
    ) -> JobResult:
        """Run the pipeline and wait for its end.

        Args:
            timeout: After so many seconds the job is cancelled.
            progress: Show a progress bar and a summary on standard error; None: where that is a
                terminal.
            live: Show operators, slots, checkpoints and services on standard error while the job
                runs, instead of a progress bar; None: as `live_view` in the configuration says.
                Where standard error is no terminal, they are printed once, at the end.
            from_savepoint: The directory of a savepoint to start from.
            allow_non_restored_state: Leave out the state of operators that the program does not
                have any more.

        Raises:
            GraphError: the program cannot run; nothing has been read.
            OperatorError: a function, source or sink failed.
            JobCancelledError: the job was cancelled from another thread.
            JobTimeoutError: it was not done in time.
            KeyboardInterrupt: Ctrl-C; the job has been cancelled and everything closed, after a
                last checkpoint if checkpoints are taken.
        """
        live = self._settings.live_view if live is None else live
        shown = wants_progress(progress) and not live
        if from_savepoint is not None:
            self.restore_from(from_savepoint, allow_non_restored_state=allow_non_restored_state)
        before = self._job
        try:
            job, _ = self._start(live=live)
            with raising_interrupts():
                done = show_progress(job, timeout) if shown else job.wait(timeout)
        except BaseException as error:
            if self._job is not None and self._job is not before:
                _end_early(self._job, error)
            raise
        finally:
            if self._job is not before:
                self._end_view()
                self._close_metrics()
        if not done:
            job.cancel()
            job.wait()
            if job.status is not JobStatus.FINISHED:
                told = f"the job {self.name!r} was not done after {timeout} s"
                raise JobTimeoutError(told) from job.error
        return job.result()

    def wait(self, timeout: float | None = None) -> Response:
        """Wait until the job is done, for at most `timeout` seconds."""
        return self._answer("wait", timeout)

    def stop(self, timeout: float | None = None) -> Response:
        """Let the sources end here and wait until what they have read is processed."""
        return self._answer("stop", timeout)

    def cancel(self, timeout: float | None = None) -> Response:
        """Leave off after the records at hand and wait until everything is closed."""
        return self._answer("cancel", timeout)

    def close(self) -> Response:
        """Cancel the job if it still runs. Closing twice, or before a job, is no error."""
        job = self.job
        if job is None or job.status.is_terminal:
            self._close_metrics()
            self.services.stop_all()
            return Response(status="success", message="closed", env_uuid=self.env_uuid)
        return job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._job is not None and self._job.status is JobStatus.RUNNING:
            self.logger.warning(
                "the job %r is cancelled, because it still runs at the end of the with block of its "
                "environment; to let it end, call env.wait() inside of the block",
                self.name,
            )
        self.close()

    def _answer(self, what: str, timeout: float | None) -> Response:
        job = self.job
        if job is None:
            message = f"cannot {what}: no job has been submitted"
            return Response(status="error", message=message, env_uuid=self.env_uuid)
        methods = {"wait": job.wait, "stop": job.stop, "cancel": job.cancel}
        return methods[what](timeout)

    def _start(
        self, *, keep_alive: bool = True, live: bool | None = None, is_watched: bool = False
    ) -> tuple[Job, JobHandle]:
        if self._job is not None and not self._job.status.is_terminal:
            raise JobStateError(
                f"the job {self.name!r} is still {self._job.status}; wait for it, or stop it first"
            )
        server, port = self._metrics_server, self._settings.metrics_port
        if port is not None and (server is None or not server.is_open):
            self.serve_metrics(port)
        try:
            job, handle = self._make_job()
            if self._settings.live_view if live is None else live:
                self._begin_view(job)
            job.add_done_callback(lambda _: self._close_metrics())
            if is_watched:  # before it starts: after an interrupt in between it would run for ever
                watch(job)
                job.add_done_callback(unwatch)
            job.start(keep_alive=keep_alive)
        except BaseException:
            self._close_metrics()
            raise
        return job, handle

    def _make_job(self) -> tuple[Job, JobHandle]:
        plan = self._plan()
        for warning in plan.stream_graph.warnings:
            self.logger.warning("%s", warning)
        settings = self._settings
        context = JobContext(
            self.name,
            self._clock,
            settings.batch_size,
            settings.buffer_size,
            ServiceManager(self),
            state=self._state_backend,
        )
        workers = plan_workers(plan.stream_graph, settings, context, self.services)
        recovery = make_recovery(
            self.name,
            self._config,
            layout_of(
                plan.stream_graph,
                None if workers is None else workers.graph,
                settings.max_parallelism,
            ),
            self._clock,
            self._fail_job,
            from_savepoint=self._from_savepoint,
            allow_non_restored_state=self._allow_non_restored,
        )
        groups = recovery.restored.max_parallelism
        if workers is not None and groups is not None:
            workers.graph = replace(workers.graph, max_parallelism=groups)
        self._from_savepoint = None  # it was for this job alone
        context = replace(context, checkpoints=recovery.checkpoints is not None)
        try:
            self.services.start_all()
        except BaseException:
            if recovery.checkpoints is not None:
                recovery.checkpoints.close("the job could not be started", delete=False)
            raise
        try:
            self._job = job = Job(
                plan,
                context,
                self.env_uuid,
                on_end=self.services.stop_all,
                recovery=recovery,
                workers=workers,
            )
        except BaseException:
            self.services.stop_all()
            if recovery.checkpoints is not None:
                recovery.checkpoints.close("the job could not be started", delete=False)
            raise
        self._handle = handle = JobHandle(job)
        if workers is not None:
            self.services.remote_calls = lambda: job.metrics.calls
        return job, handle

    def _begin_view(self, job: Job) -> None:
        # rich takes a while to import, and most programs do without.
        from sage.core.api.live_screen import SCREEN  # noqa: PLC0415
        from sage.core.api.live_view import JobView  # noqa: PLC0415

        end = self._end_view = SCREEN.begin(JobView(job, self.services.status, self._clock))
        job.add_done_callback(lambda _: end())

    def _fail_job(self, reason: str) -> None:
        if self._job is not None:
            self._job.fail(reason)


def _end_early(job: Job, error: BaseException) -> None:
    """End a job whose program has been interrupted, perhaps before it was told of its start."""
    if isinstance(error, KeyboardInterrupt):
        announce_cancel(job)
        job.suspend(_LAST_CHECKPOINT_SECONDS)
    if job.status is not JobStatus.CREATED:
        job.cancel()
        job.wait()


def _log_failure(job: Job) -> None:
    if job.error is not None:
        job.logger.error("job %r failed: %s", job.name, job.error, exc_info=job.error)
