"""What goes in and out of the master of a job: facts and actions, all of them immutable.

A *task* is one deployed subtask, or one slot with a subtask of each operator; it goes by its number.
An *attempt* is one deployment of some tasks. Its number is above those of all attempts before, so a
fact tells by it which deployment it is about.
"""

from __future__ import annotations

from dataclasses import dataclass

from sage.kernel.jobmanager.job_state import JobStatus

# ---- facts


@dataclass(frozen=True)
class Started:
    """Somebody has started the job."""


@dataclass(frozen=True)
class TaskFinished:
    """A task has ended and is not there any more: it is done, or has left off because it was told to.

    Attributes:
        task: Which.
        attempt: Of which attempt.
        left_early: Whether it was told to leave before its input had ended.
    """

    task: int
    attempt: int
    left_early: bool = False


@dataclass(frozen=True)
class TaskFailed:
    """A task has failed and is not there any more."""

    task: int
    attempt: int
    cause: BaseException


@dataclass(frozen=True)
class WorkerLost:
    """What ran some tasks has died, or has not been heard of for so long that it counts as dead.

    That is one failure, however many tasks it ran. None of them is there any more.

    Attributes:
        tasks: The tasks.
        attempts: The attempt of each of them.
        cause: What is known about it.
    """

    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    cause: BaseException


@dataclass(frozen=True)
class JobFailed:
    """Something outside of the tasks has failed, such as too many checkpoints in a row."""

    cause: BaseException


@dataclass(frozen=True)
class DeploymentFailed:
    """Tasks could not be deployed. Trying again would not help.

    Attributes:
        tasks: Those that are not there; others of the same attempt may be.
        attempt: Which attempt.
        cause: Why.
    """

    tasks: tuple[int, ...]
    attempt: int
    cause: BaseException


@dataclass(frozen=True)
class RestartDue:
    """The time has come that `ScheduleRestart` asked for.

    Attributes:
        tasks: What is to be deployed again.
        attempt: The attempt that had failed.
    """

    tasks: tuple[int, ...]
    attempt: int


@dataclass(frozen=True)
class CancelRequested:
    """Somebody wants the job to leave off."""


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the sources to end where they are."""


@dataclass(frozen=True)
class Leaving:
    """All tasks are being told to leave, their state being in a savepoint or a last checkpoint."""


@dataclass(frozen=True)
class ServicesEnded:
    """What `CloseCheckpoints` and `CloseServices` asked for has been done.

    Attributes:
        failures: What failed.
    """

    failures: tuple[BaseException, ...] = ()


Fact = (
    Started
    | TaskFinished
    | TaskFailed
    | WorkerLost
    | JobFailed
    | DeploymentFailed
    | RestartDue
    | CancelRequested
    | StopRequested
    | Leaving
    | ServicesEnded
)

# ---- actions


@dataclass(frozen=True)
class Deploy:
    """Start these tasks.

    In the first attempt they go on from what the job was given, later from the latest checkpoint.
    Tell `TaskFinished`, `TaskFailed` or `WorkerLost` once for each, or `DeploymentFailed`.
    """

    tasks: tuple[int, ...]
    attempt: int


@dataclass(frozen=True)
class FailTasks:
    """Checkpoints no longer count on these tasks, since one of them, or the job, has failed.

    Attributes:
        tasks: All tasks that go together, also those that have ended or failed themselves.
        attempt: Which attempt of theirs.
        cause: Why.
    """

    tasks: tuple[int, ...]
    attempt: int
    cause: BaseException


@dataclass(frozen=True)
class CancelTasks:
    """Let these tasks leave off."""

    tasks: tuple[int, ...]


@dataclass(frozen=True)
class StopTasks:
    """Let the sources of these tasks end where they are."""

    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Release:
    """None of these tasks is there any more: what joined them can go."""

    tasks: tuple[int, ...]


@dataclass(frozen=True)
class ScheduleRestart:
    """Tell `RestartDue` after a delay.

    Attributes:
        tasks: What is going to be deployed again.
        attempt: The attempt that has failed.
        delay: Seconds.
        cause: Why.
    """

    tasks: tuple[int, ...]
    attempt: int
    delay: float
    cause: BaseException


@dataclass(frozen=True)
class CloseCheckpoints:
    """Take no more checkpoints.

    Attributes:
        status: What the job is now: `RUNNING` if all has gone well.
        left_early: Whether tasks have left before their input had ended: others may go on from here.
    """

    status: JobStatus
    left_early: bool


@dataclass(frozen=True)
class CloseServices:
    """End what the tasks have used, then tell `ServicesEnded`."""


@dataclass(frozen=True)
class Finish:
    """The job is over.

    Attributes:
        status: `FINISHED`, `CANCELED` or `FAILED`.
        cause: Why it failed; None if it has not.
    """

    status: JobStatus
    cause: BaseException | None


Action = (
    Deploy
    | FailTasks
    | CancelTasks
    | StopTasks
    | Release
    | ScheduleRestart
    | CloseCheckpoints
    | CloseServices
    | Finish
)
