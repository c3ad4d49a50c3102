"""The rules of the coordinator, one by one."""

import pytest

from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.messages import (
    Abort,
    CheckpointRules,
    Complete,
    FailJob,
    NotifyAborted,
    NotifyComplete,
    Reject,
    Request,
    Subtask,
    SubtaskSnapshot,
    Trigger,
)
from sage.kernel.checkpoint.protocol import NOTIFY_AGAIN, CheckpointCoordinator

A, B = Subtask("a"), Subtask("b")
CHAIN = {A: (), B: (A,)}
SAVEPOINT = Request("mine", "/target")


def started(first_id=1, **rules):
    coordinator = CheckpointCoordinator(CheckpointRules(**{"interval": 10.0, **rules}), first_id)
    assert coordinator.restart(1, CHAIN, now=0.0) == []
    return coordinator


def snapshot(what="state"):
    return SubtaskSnapshot(what, size=7, written=3)


def acknowledge_all(coordinator, number, now, attempt=1):
    assert coordinator.acknowledge(A, number, attempt, snapshot(), now) == []
    return coordinator.acknowledge(B, number, attempt, snapshot(), now)


def complete(coordinator, number, now):
    assert kinds(acknowledge_all(coordinator, number, now)) == [Complete]
    return coordinator.store_finished(number, now)


def kinds(decisions):
    return [type(decision) for decision in decisions]


def test_a_checkpoint_goes_from_the_sources_to_the_store_and_back_to_all():
    coordinator = started()
    assert coordinator.tick(9.9) == []
    assert coordinator.next_tick() == 10.0
    assert coordinator.tick(10.0) == [Trigger(1, 1, (A,))]
    assert coordinator.next_tick() == 610.0
    [done] = acknowledge_all(coordinator, 1, 11.0)
    assert done.checkpoint.duration == 1.0
    assert done.checkpoint.snapshots == {A: snapshot(), B: snapshot()}
    assert coordinator.is_storing
    assert coordinator.store_finished(1, 12.0) == [NotifyComplete(1, 1, (A, B))]
    assert not coordinator.is_storing
    assert coordinator.store_finished(1, 12.0) == []


def test_one_checkpoint_at_a_time_and_the_next_when_it_is_due():
    coordinator = started()
    coordinator.tick(10.0)
    assert coordinator.tick(20.0) == []
    assert kinds(complete(coordinator, 1, 25.0)) == [NotifyComplete, Trigger]
    assert coordinator.pending_id == 2


def test_what_was_missed_is_not_made_up_for():
    coordinator = started()
    coordinator.tick(55.0)
    complete(coordinator, 1, 56.0)
    assert kinds(coordinator.tick(64.9)) == []
    assert kinds(coordinator.tick(65.0)) == [Trigger]


def test_the_pause_counts_from_the_end_of_the_last_one():
    coordinator = started(min_pause=8.0)
    coordinator.tick(10.0)
    complete(coordinator, 1, 18.0)
    assert coordinator.tick(25.9) == []
    assert kinds(coordinator.tick(26.0)) == [Trigger]


def test_without_interval_only_requests_are_served():
    coordinator = started(interval=None)
    assert coordinator.tick(1e9) == []
    assert coordinator.request(Request("now"), 1e9) == [Trigger(1, 1, (A,), Request("now"))]


def test_a_checkpoint_that_takes_too_long_is_aborted_and_fails_the_job():
    coordinator = started(timeout=5.0)
    coordinator.tick(10.0)
    coordinator.acknowledge(A, 1, 1, snapshot(), 11.0)
    abort, notice, failure = coordinator.tick(15.0)
    assert abort == Abort(1, "not acknowledged within 5 s by b[0]")
    assert notice == NotifyAborted(1, 1, (A, B))
    assert isinstance(failure, FailJob)
    assert coordinator.tick(1000.0) == []


def test_failures_in_a_row_are_tolerated_up_to_a_number():
    coordinator = started(tolerated_failures=1)
    coordinator.tick(10.0)
    assert FailJob not in kinds(coordinator.decline(B, 1, 1, "no", 11.0))
    coordinator.tick(20.0)
    complete(coordinator, 2, 21.0)
    coordinator.tick(30.0)
    assert FailJob not in kinds(coordinator.decline(B, 3, 1, "no", 31.0))
    coordinator.tick(40.0)
    acknowledge_all(coordinator, 4, 41.0)
    decisions = coordinator.store_failed(4, "disk full", 42.0)
    assert kinds(decisions) == [Abort, NotifyAborted, FailJob]
    assert "disk full" in decisions[-1].reason


def test_a_failed_savepoint_does_not_fail_the_job():
    coordinator = started()
    coordinator.request(SAVEPOINT, 1.0)
    decisions = coordinator.decline(A, 1, 1, "no", 2.0)
    assert kinds(decisions) == [Abort, NotifyAborted]
    assert decisions[0].request == SAVEPOINT
    assert kinds(coordinator.tick(10.0)) == [Trigger]


def test_requests_are_queued_and_served_out_of_turn():
    coordinator = started(min_pause=100.0)
    coordinator.tick(10.0)
    assert coordinator.request(SAVEPOINT, 11.0) == []
    assert coordinator.request(SAVEPOINT, 11.0) == []
    assert coordinator.request(Request("second"), 11.0) == []
    decisions = complete(coordinator, 1, 12.0)
    assert decisions[1:] == [Trigger(2, 1, (A,), SAVEPOINT)]
    decisions = complete(coordinator, 2, 13.0)
    assert decisions == [Trigger(3, 1, (A,), Request("second"))]  # no commits for a savepoint


@pytest.mark.parametrize(
    ("subtask", "number", "attempt"), [(B, 2, 1), (B, 1, 0), (Subtask("stranger"), 1, 1), (A, 1, 1)]
)
def test_stale_foreign_and_repeated_acknowledgements_change_nothing(subtask, number, attempt):
    coordinator = started()
    coordinator.tick(10.0)
    coordinator.acknowledge(A, 1, 1, snapshot("first"), 11.0)
    assert coordinator.acknowledge(subtask, number, attempt, snapshot("again"), 11.0) == []
    [done] = coordinator.acknowledge(B, 1, 1, snapshot(), 11.0)
    assert done.checkpoint.snapshots[A].handle == "first"


def test_an_ended_subtask_counts_with_its_final_state_and_its_readers_are_triggered():
    coordinator = started()
    coordinator.tick(10.0)
    assert coordinator.subtask_ended(A, 1, snapshot("final"), 0, 11.0) == [Trigger(1, 1, (B,))]
    [done] = coordinator.acknowledge(B, 1, 1, snapshot(), 12.0)
    assert done.checkpoint.snapshots[A] == SubtaskSnapshot("final", 7, 3, ended=True)
    coordinator.store_finished(1, 13.0)
    assert coordinator.tick(20.0) == [Trigger(2, 1, (B,))]


def test_the_final_state_does_not_stand_for_a_checkpoint_taken_before_the_end():
    coordinator = started()
    coordinator.tick(10.0)
    coordinator.acknowledge(B, 1, 1, snapshot(), 11.0)
    coordinator.subtask_ended(A, 1, snapshot("final"), 1, 12.0)  # has overtaken this one:
    [done] = coordinator.acknowledge(A, 1, 1, snapshot("at the barrier"), 13.0)
    assert done.checkpoint.snapshots[A].handle == "at the barrier"


def test_when_all_have_ended_one_more_checkpoint_lets_them_commit():
    coordinator = started()
    coordinator.subtask_ended(A, 1, snapshot(), 0, 1.0)
    coordinator.subtask_ended(B, 1, snapshot(), 0, 1.0)
    [done] = coordinator.request(Request("last"), 2.0)
    assert all(s.ended for s in done.checkpoint.snapshots.values())
    assert coordinator.store_finished(1, 3.0) == [NotifyComplete(1, 1, (A, B))]
    coordinator.notify_acknowledged(A, 1, 1)
    assert not coordinator.all_committed
    coordinator.notify_acknowledged(B, 1, 1)
    assert coordinator.all_committed


def test_a_notification_is_sent_again_to_those_that_do_not_answer():
    coordinator = started(interval=None)
    coordinator.request(Request("one"), 0.0)
    complete(coordinator, 1, 1.0)
    coordinator.notify_acknowledged(A, 1, 1)
    assert coordinator.next_tick() == 1.0 + NOTIFY_AGAIN
    assert coordinator.tick(1.0 + NOTIFY_AGAIN) == [NotifyComplete(1, 1, (B,))]
    coordinator.notify_acknowledged(B, 1, 1)
    assert coordinator.next_tick() == float("inf")


def test_a_failed_subtask_aborts_the_checkpoint_and_nothing_begins_before_the_restart():
    coordinator = started()
    coordinator.tick(10.0)
    coordinator.acknowledge(A, 1, 1, snapshot(), 11.0)
    [abort] = coordinator.subtask_failed(B, 1, "bug", 12.0)
    assert abort == Abort(1, "b[0] failed: bug")
    assert coordinator.tick(100.0) == coordinator.request(SAVEPOINT, 100.0) == []
    coordinator.restart(2, CHAIN, 101.0)
    assert coordinator.next_tick() == float("-inf")
    assert coordinator.tick(101.0) == [Trigger(2, 2, (A,), SAVEPOINT)]
    assert coordinator.acknowledge(A, 2, 1, snapshot(), 102.0) == []
    assert kinds(acknowledge_all(coordinator, 2, 103.0, attempt=2)) == [Complete]


def test_a_failure_does_not_stop_what_is_being_written_down_and_the_restart_waits_for_it():
    coordinator = started()
    coordinator.tick(10.0)
    acknowledge_all(coordinator, 1, 11.0)
    assert coordinator.subtask_failed(B, 1, "bug", 12.0) == []
    with pytest.raises(CheckpointError, match="wait for the store"):
        coordinator.restart(2, CHAIN, 12.0)
    assert coordinator.store_finished(1, 13.0) == []
    coordinator.restart(2, CHAIN, 14.0, ended={A: snapshot("final")})
    assert coordinator.tick(24.0) == [Trigger(2, 2, (B,))]


def test_attempts_only_grow_and_ids_begin_where_they_are_told():
    coordinator = started(first_id=42)
    with pytest.raises(CheckpointError, match="cannot follow"):
        coordinator.restart(1, CHAIN, 1.0)
    assert coordinator.tick(10.0) == [Trigger(42, 1, (A,))]


def test_a_stopped_job_answers_all_requests():
    coordinator = started()
    coordinator.request(SAVEPOINT, 1.0)
    coordinator.request(Request("waiting"), 1.0)
    decisions = coordinator.stop("cancelled", 2.0)
    assert kinds(decisions) == [Abort, NotifyAborted, Reject]
    assert decisions[0].request == SAVEPOINT
    assert decisions[-1] == Reject(Request("waiting"), "cancelled")
    assert coordinator.tick(1000.0) == []


def test_a_reserved_number_is_that_of_no_checkpoint():
    coordinator = started()
    assert coordinator.reserve_id() == 1
    assert coordinator.tick(10.0) == [Trigger(2, 1, (A,))]
    assert coordinator.reserve_id() == 3
    complete(coordinator, 2, 11.0)
    assert coordinator.tick(20.0) == [Trigger(4, 1, (A,))]


C = Subtask("c")


def apart():
    """Return a coordinator of a chain and of a subtask that nothing joins with it."""
    coordinator = CheckpointCoordinator(CheckpointRules(interval=10.0), 1)
    coordinator.restart(1, {**CHAIN, C: ()}, now=0.0)
    return coordinator


def test_a_failure_aborts_the_checkpoint_for_those_that_go_on():
    coordinator = apart()
    coordinator.tick(10.0)
    coordinator.acknowledge(C, 1, 1, snapshot(), 11.0)
    abort, notice = coordinator.subtask_failed(B, 1, "bug", 12.0)
    assert (type(abort), notice) == (Abort, NotifyAborted(1, 1, (C,)))
    assert coordinator.tick(100.0) == []  # a part is missing


def test_those_that_were_down_begin_a_further_attempt_and_the_others_go_on_with_theirs():
    coordinator = apart()
    coordinator.subtask_failed(A, 1, "bug", 1.0)
    assert [coordinator.attempt_of(s) for s in (A, B, C)] == [None, None, 1]
    coordinator.restart(2, CHAIN, now=2.0)
    assert [coordinator.attempt_of(s) for s in (A, B, C)] == [2, 2, 1]
    assert coordinator.tick(10.0) == [Trigger(1, 2, (A, C))]
    for subtask, attempt in ((A, 1), (C, 2)):  # neither is what runs
        coordinator.acknowledge(subtask, 1, attempt, snapshot("wrong"), 11.0)
    coordinator.acknowledge(A, 1, 2, snapshot(), 11.0)
    coordinator.acknowledge(C, 1, 1, snapshot(), 11.0)
    [done] = coordinator.acknowledge(B, 1, 2, snapshot(), 11.0)
    assert {s.handle for s in done.checkpoint.snapshots.values()} == {"state"}


def test_one_that_has_ended_stays_so_when_others_begin_anew():
    coordinator = apart()
    coordinator.subtask_ended(C, 1, snapshot("final"), 0, 1.0)
    coordinator.subtask_failed(A, 1, "bug", 2.0)
    coordinator.restart(2, CHAIN, now=3.0)
    assert coordinator.tick(10.0) == [Trigger(1, 2, (A,))]
    [done] = acknowledge_all(coordinator, 1, 11.0, attempt=2)
    assert done.checkpoint.snapshots[C].handle == "final"
    assert coordinator.store_finished(1, 12.0) == [NotifyComplete(1, 2, (A, B, C))]


def test_what_was_not_heard_of_by_those_that_fail_is_not_told_again():
    coordinator = apart()
    coordinator.tick(10.0)
    coordinator.acknowledge(C, 1, 1, snapshot(), 11.0)
    complete(coordinator, 1, 11.0)
    coordinator.subtask_failed(A, 1, "bug", 12.0)
    assert coordinator.tick(11.0 + NOTIFY_AGAIN) == [NotifyComplete(1, 1, (C,))]
