"""`JobHandle`: what a user holds of a job that has been submitted."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any, Literal, TypedDict

from sage.common.suggest import shorten
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointStatistics
from sage.kernel.jobmanager.job import Job
from sage.kernel.jobmanager.job_metrics import JobMetrics, JobResult
from sage.kernel.jobmanager.job_state import JobStatus


class Response(TypedDict):
    """What `wait`, `stop`, `cancel` and `close` answer."""

    status: Literal["success", "error"]
    message: str
    env_uuid: str


class JobHandle:
    """A job that has been submitted. All methods may be called from any thread.

    `await handle` waits for the end without blocking the event loop and gives the `JobResult`.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def env_uuid(self) -> str:
        """The identity of the environment that was submitted."""
        return self._job.env_uuid

    @property
    def status(self) -> JobStatus:
        """Where the job is in its life; a string such as `"RUNNING"`."""
        return self._job.status

    @property
    def metrics(self) -> JobMetrics:
        """The figures so far, by operator."""
        return self._job.metrics

    @property
    def error(self) -> BaseException | None:
        """Why the job failed; None if it has not."""
        return self._job.error

    def result(self, timeout: float | None = None) -> JobResult:
        """Wait for the end and return the result.

        Raises:
            OperatorError: a function, source or sink failed.
            JobCancelledError: the job was cancelled.
            JobError: it is not done within `timeout` seconds.
        """
        self._job.wait(timeout)
        return self._job.result()

    def wait(self, timeout: float | None = None) -> Response:
        """Wait until the job is done, for at most `timeout` seconds."""
        if not self._job.wait(timeout):
            return self._respond("error", f"still {self.status} after {timeout} s")
        return self._ended()

    def stop(
        self, timeout: float | None = None, *, savepoint: str | os.PathLike[str] | None = None
    ) -> Response:
        """Let the sources end here and wait until what they have read is processed.

        Args:
            timeout: For how many seconds to wait.
            savepoint: Take a savepoint into this directory instead, and end right there: windows that
                are still open do not fire, and nothing comes out that the savepoint does not know of.
                The answer's message is where it is.
        """
        if savepoint is None:
            self._job.stop()
            return self.wait(timeout)
        target = os.fspath(savepoint)
        try:
            where = self._job.stop_with_savepoint(target).result(timeout)
        except TimeoutError:
            told = f"no savepoint within {timeout} s; it is still taken into {target}, and ends the job"
            return self._respond("error", told)
        answer = self.wait(timeout)
        return self._respond("success", where) if answer["status"] == "success" else answer

    def checkpoint(self, timeout: float | None = None) -> str:
        """Take a checkpoint now and return its number.

        Raises:
            CheckpointError: it failed.
            JobError: the job takes no checkpoints.
            TimeoutError: it was not done within `timeout` seconds.
        """
        return self._job.checkpoint().result(timeout)

    def savepoint(self, path: str | os.PathLike[str], timeout: float | None = None) -> str:
        """Take a savepoint and return its directory, a new one in `path`.

        It can be moved and copied, and is kept until somebody removes it.

        Raises:
            CheckpointError: it failed.
            JobError: the job takes no checkpoints.
            TimeoutError: it was not done within `timeout` seconds.
        """
        return self._job.savepoint(os.fspath(path)).result(timeout)

    def query_state(self, operator_uid: str, name: str, key: Any, *, timeout: float = 10.0) -> Any:
        """Return the present value of a key in a state of a running operator; None if it has none.

        At a parallelism above 1 the process that owns the key tells it, between two batches.

        Args:
            operator_uid: The `uid=` that was given to the operator.
            name: The name of the state: that of the attribute that declares it.
            key: The key.
            timeout: Seconds to wait for that process.

        Raises:
            JobError: no running operator has that uid.
            JobTimeoutError: the process has not answered in time.
            TypeError: the key has no hash, or, at a parallelism above 1, none that is the same in
                every process.
        """
        return self._job.query_state(operator_uid, name, key, timeout)

    @property
    def checkpoints(self) -> CheckpointStatistics:
        """What became of the checkpoints so far."""
        return self._job.checkpoint_statistics

    def cancel(self, timeout: float | None = None) -> Response:
        """Leave off after the records at hand and wait until everything is closed."""
        self._job.cancel()
        if not self._job.wait(timeout):
            return self._respond("error", f"still {self.status} after {timeout} s")
        if self.status is JobStatus.CANCELED:
            return self._respond("success", "the job was cancelled")
        return self._ended()

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Let `callback` be called once the job is done, from one of its threads or at once."""
        self._job.add_done_callback(lambda _: callback())

    def close(self) -> Response:
        """Cancel the job if it still runs."""
        return self.cancel()

    def __await__(self) -> Generator[Any, None, JobResult]:
        return self._job.__await__()

    def __repr__(self) -> str:
        return f"<JobHandle {self._job.name!r} {self.status}>"

    def _ended(self) -> Response:
        error = self.error
        if error is not None:
            return self._respond("error", f"the job failed: {str(error) or shorten(error)}")
        if self.status is JobStatus.CANCELED:
            return self._respond("error", "the job was cancelled before it was done")
        return self._respond("success", f"the job is {self.status}")

    def _respond(self, status: Literal["success", "error"], message: str) -> Response:
        return Response(status=status, message=message, env_uuid=self.env_uuid)
