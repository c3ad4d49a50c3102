"""What the master of a job says, case by case."""

import pytest

from sage.common.errors import JobStateError
from sage.kernel.checkpoint.restart_strategy import FixedDelay, NoRestart
from sage.kernel.jobmanager.job_master import JobMaster
from sage.kernel.jobmanager.job_messages import (
    CancelRequested,
    CancelTasks,
    CloseCheckpoints,
    CloseServices,
    Deploy,
    DeploymentFailed,
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
from sage.kernel.jobmanager.job_state import JobStatus

BUG = ValueError("bug")


def started(*regions, restarts=1):
    strategy = FixedDelay(restarts, delay=5.0) if restarts else NoRestart()
    master = JobMaster(regions or [(0, 1), (2,)], strategy, lambda: 0.5)
    tasks = tuple(sorted(task for region in regions or [(0, 1), (2,)] for task in region))
    assert master.take(Started(), 0.0) == [Deploy(tasks, 1)]
    return master


def close(status, left_early=False):
    return [CloseCheckpoints(status, left_early), CloseServices()]


def test_a_failure_takes_its_region_down_and_no_other():
    master = started()
    assert master.take(TaskFailed(0, 1, BUG), 1.0) == [FailTasks((0, 1), 1, BUG), CancelTasks((1,))]
    assert (master.status, master.cause) == (JobStatus.FAILING, BUG)
    assert master.take(TaskFailed(1, 1, OSError()), 2.0) == [
        Release((0, 1)),
        ScheduleRestart((0, 1), 1, 5.0, BUG),
    ]
    assert master.status is JobStatus.RESTARTING
    assert master.live == {2: 1}
    assert master.take(RestartDue((0, 1), 1), 7.0) == [Deploy((0, 1), 2)]
    assert (master.status, master.cause) == (JobStatus.RUNNING, None)
    assert master.live == {0: 2, 1: 2, 2: 1}


def test_when_the_strategy_gives_up_all_regions_are_ended():
    master = started(restarts=0)
    assert master.take(TaskFailed(2, 1, BUG), 1.0) == [
        FailTasks((0, 1), 1, BUG),
        CancelTasks((0, 1)),
        FailTasks((2,), 1, BUG),
        Release((2,)),
    ]
    assert master.take(CancelRequested(), 1.0) == []
    master.take(TaskFinished(0, 1), 2.0)
    assert master.take(TaskFinished(1, 1), 2.0) == [Release((0, 1)), *close(JobStatus.FAILING)]
    assert master.take(ServicesEnded(), 3.0) == [Finish(JobStatus.FAILED, BUG)]


def test_a_worker_that_takes_several_regions_down_is_one_failure():
    master = started((0,), (1,), (2,))
    actions = master.take(WorkerLost((0, 2), (1, 1), BUG), 1.0)
    restarts = [action for action in actions if isinstance(action, ScheduleRestart)]
    assert [restart.tasks for restart in restarts] == [(0,), (2,)]
    assert [restart.delay for restart in restarts] == [5.0, 5.0]  # of one restart in all
    assert master.live == {1: 1}


def test_a_cancel_that_meets_a_failure_is_not_forgotten():
    master = started()
    master.take(TaskFailed(0, 1, BUG), 1.0)
    assert master.take(CancelRequested(), 2.0) == [CancelTasks((2,))]
    assert (master.status, master.cause) == (JobStatus.CANCELLING, None)
    assert master.take(TaskFinished(1, 1), 3.0) == [Release((0, 1))]
    assert master.take(TaskFinished(2, 1), 3.0) == [Release((2,)), *close(JobStatus.CANCELLING)]
    assert master.take(ServicesEnded(), 4.0) == [Finish(JobStatus.CANCELED, None)]


def test_a_cancel_ends_what_waits_to_be_started_again():
    master = started((0,))
    master.take(TaskFailed(0, 1, BUG), 1.0)
    assert master.take(CancelRequested(), 2.0) == close(JobStatus.CANCELLING)
    assert master.take(RestartDue((0,), 1), 6.0) == []
    assert master.take(ServicesEnded(), 7.0) == [Finish(JobStatus.CANCELED, None)]


def test_what_cannot_be_ended_in_order_has_failed():
    master = started((0,))
    master.take(CancelRequested(), 1.0)
    master.take(TaskFailed(0, 1, BUG), 2.0)
    assert master.take(ServicesEnded((OSError(),)), 3.0) == [Finish(JobStatus.FAILED, BUG)]


def test_a_service_that_cannot_be_ended_fails_the_job():
    master = started((0,))
    assert master.take(TaskFinished(0, 1), 1.0) == [Release((0,)), *close(JobStatus.RUNNING)]
    assert master.take(CancelRequested(), 2.0) == []  # it is done already
    assert master.take(ServicesEnded((BUG,)), 3.0) == [Finish(JobStatus.FAILED, BUG)]


def test_a_stop_holds_for_the_attempts_that_follow():
    master = started()
    master.take(TaskFailed(2, 1, BUG), 1.0)
    assert master.take(StopRequested(), 2.0) == [StopTasks((0, 1))]
    assert master.take(RestartDue((2,), 1), 6.0) == [Deploy((2,), 2), StopTasks((2,))]


def test_nothing_begins_anew_once_the_job_leaves():
    master = started()
    master.take(Leaving(), 1.0)
    master.take(TaskFinished(2, 1, left_early=True), 2.0)
    assert master.take(TaskFailed(0, 1, BUG), 3.0) == []  # the other one has still to commit
    assert master.take(CancelRequested(), 3.0) == [CancelTasks((1,))]
    assert master.take(TaskFinished(1, 1), 4.0) == [
        Release((0, 1)),
        *close(JobStatus.FAILING, left_early=True),
    ]


def test_what_is_outside_of_all_tasks_fails_all_regions_at_once():
    master = started()
    actions = master.take(JobFailed(BUG), 1.0)
    assert [a.tasks for a in actions if isinstance(a, CancelTasks)] == [(0, 1), (2,)]
    assert master.take(JobFailed(OSError()), 1.0) == []  # is being started again already
    assert master.cause is BUG


def test_an_attempt_that_cannot_be_deployed_is_the_end():
    master = started((0, 1), restarts=5)
    assert master.take(DeploymentFailed((1,), 1, BUG), 1.0) == [
        FailTasks((0, 1), 1, BUG),
        CancelTasks((0,)),
    ]
    assert master.take(TaskFinished(0, 1), 2.0) == [Release((0, 1)), *close(JobStatus.FAILING)]


@pytest.mark.parametrize("fact", [TaskFinished(0, 1), TaskFailed(0, 1, BUG), RestartDue((0,), 1)])
def test_facts_about_attempts_that_are_over_change_nothing(fact):
    master = started((0,), restarts=5)
    master.take(TaskFailed(0, 1, BUG), 1.0)
    master.take(RestartDue((0,), 1), 6.0)
    assert master.take(fact, 7.0) == []
    assert (master.status, master.live) == (JobStatus.RUNNING, {0: 2})


def test_a_job_is_started_once():
    with pytest.raises(JobStateError, match="RUNNING cannot become RUNNING"):
        started().take(Started(), 1.0)
