"""The coordinator of checkpoints as a pure state machine: facts in, decisions out.

It reads no clock, sends nothing and writes nothing: times come in as arguments (seconds on a clock
that never goes back), and each method returns the list of decisions that its caller carries out in
order. Messages may be lost, late, doubled or out of order: no checkpoint is then completed wrongly,
at worst it is aborted at its timeout.

What the subtasks do, so that a completed checkpoint is consistent:

* A barrier or trigger whose number is not above the last one seen is ignored.
* A triggered subtask that has no inputs takes its snapshot between two batches. One that has
  inputs takes it when the last of them has ended, which counts as alignment.
* `NotifyAborted` never allows a sink to throw away what it has prepared: a later checkpoint that
  completes commits that as well.
* A subtask that has ended tells it again whenever it is triggered, with the last number it saw
  before its end: the checkpoints up to that number hold an earlier state than the final one.

A failure takes down the subtask and all that are joined with it, directly or not: records went
between them. Others may go on. Wait until `is_storing` is false and read the store, then `restart`
those that are down: otherwise a checkpoint of the failed attempt might become the latest one behind
the new attempt's back. Nothing begins before all are back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.messages import (
    Abort,
    CheckpointRules,
    Complete,
    CompletedCheckpoint,
    Decision,
    FailJob,
    NotifyAborted,
    NotifyComplete,
    Reject,
    Request,
    Subtask,
    SubtaskSnapshot,
    Trigger,
)

NOTIFY_AGAIN: Final = 10.0
"""Seconds after which a notification that is not acknowledged is sent again."""


@dataclass
class _Pending:
    checkpoint_id: int
    attempt: int
    started: float
    request: Request | None
    snapshots: dict[Subtask, SubtaskSnapshot] = field(default_factory=dict)
    triggered: set[Subtask] = field(default_factory=set)
    storing: bool = False


@dataclass
class _Notice:
    checkpoint_id: int
    waiting: set[Subtask]
    ended: frozenset[Subtask]
    again_at: float


class _Ended(NamedTuple):
    snapshot: SubtaskSnapshot
    last_checkpoint: int


class CheckpointCoordinator:
    """Decides when the checkpoints of one job begin, complete and are aborted.

    Calls come from one thread. A fact about an older attempt, another checkpoint or an unknown
    subtask is ignored; hearing a fact twice changes nothing.

    Args:
        rules: When checkpoints are taken.
        first_id: The number of the first one: above all that were ever used for this job.

    Examples:
        >>> coordinator = CheckpointCoordinator(CheckpointRules(interval=10.0), first_id=1)
        >>> coordinator.restart(1, {Subtask("numbers"): ()}, now=0.0)
        []
        >>> coordinator.tick(10.0)[0].checkpoint_id
        1
        >>> [done] = coordinator.acknowledge(
        ...     Subtask("numbers"), 1, 1, SubtaskSnapshot("42 records"), now=10.1
        ... )
        >>> done.checkpoint.snapshots[Subtask("numbers")].handle
        '42 records'
        >>> coordinator.store_finished(1, now=10.2)[0].checkpoint_id
        1
    """

    def __init__(self, rules: CheckpointRules, first_id: int) -> None:
        self._rules = rules
        self._next_id = first_id
        self._attempt = 0
        self._attempts: dict[Subtask, int] = {}
        self._stopped = True
        self._down: set[Subtask] = set()
        self._upstream: dict[Subtask, frozenset[Subtask]] = {}
        self._ended: dict[Subtask, _Ended] = {}
        self._committed: set[Subtask] = set()
        self._pending: _Pending | None = None
        self._notice: _Notice | None = None
        self._requests: deque[Request] = deque()
        self._failures = 0
        self._due = float("inf")
        self._pause_ends = float("-inf")

    @property
    def attempt(self) -> int:
        """The number of the latest attempt."""
        return self._attempt

    def attempt_of(self, subtask: Subtask) -> int | None:
        """Return the number of the attempt in which a subtask runs; None if it is down or unknown."""
        return None if subtask in self._down else self._attempts.get(subtask)

    @property
    def all_ended(self) -> bool:
        """Whether every subtask has ended."""
        return bool(self._upstream) and self._ended.keys() >= self._upstream.keys()

    @property
    def pending_id(self) -> int | None:
        """The number of the checkpoint that is under way."""
        return self._pending.checkpoint_id if self._pending else None

    @property
    def is_storing(self) -> bool:
        """Whether a checkpoint is being written down: `restart` and `stop` have to wait for it."""
        return self._pending is not None and self._pending.storing

    @property
    def all_committed(self) -> bool:
        """Whether every subtask has ended and knows that its final state is in a checkpoint."""
        return bool(self._upstream) and self._committed >= self._upstream.keys()

    def reserve_id(self) -> int:
        """Use up a number for what is not a checkpoint: none will have it."""
        self._next_id += 1
        return self._next_id - 1

    def next_tick(self) -> float:
        """Return when `tick` may next decide something; infinity: not before another fact."""
        times = [float("inf")]
        if self._notice is not None:
            times.append(self._notice.again_at)
        if self._pending is not None and not self._pending.storing:
            times.append(self._pending.started + self._rules.timeout)
        elif self._pending is None and self._is_running():
            times.append(max(self._due, self._pause_ends))
            times.extend([float("-inf")] if self._requests else [])
        return min(times)

    def restart(
        self,
        attempt: int,
        upstream: Mapping[Subtask, Collection[Subtask]],
        now: float,
        ended: Mapping[Subtask, SubtaskSnapshot] | None = None,
    ) -> list[Decision]:
        """An attempt begins, of all subtasks or of those that were down; the others go on.

        Args:
            attempt: Its number; it only grows.
            upstream: For every subtask of the attempt those whose records it reads, back edges of
                loops left out.
            now: The time.
            ended: The subtasks that are not started, since the restored checkpoint holds their
                final state.

        Raises:
            CheckpointError: `attempt` is not above the last one, or `is_storing`.
        """
        if attempt <= self._attempt:
            raise CheckpointError(f"attempt {attempt} cannot follow attempt {self._attempt}")
        self._demand_not_storing()
        decisions = self._abort_pending("the job was started again", now)
        self._attempt = attempt
        if upstream.keys() >= self._upstream.keys():
            self._begin_all(now)
        self._upstream |= {subtask: frozenset(inputs) for subtask, inputs in upstream.items()}
        self._attempts |= dict.fromkeys(upstream, attempt)
        self._down -= upstream.keys()
        self._forget(upstream.keys())
        given = ended or {}
        self._ended |= {s: _Ended(replace(snap, ended=True), 0) for s, snap in given.items()}
        self._committed |= given.keys()
        return decisions

    def _begin_all(self, now: float) -> None:
        """Begin with the interval anew: nothing goes on."""
        self._stopped = False
        self._upstream, self._attempts, self._ended = {}, {}, {}
        self._down, self._committed = set(), set()
        self._notice = None
        self._failures = 0
        self._due = float("inf") if self._rules.interval is None else now + self._rules.interval

    def _forget(self, subtasks: Collection[Subtask]) -> None:
        """Forget what subtasks have told that are down, or begin anew."""
        for subtask in subtasks:
            self._ended.pop(subtask, None)
        self._committed.difference_update(subtasks)
        if self._notice is not None:
            self._notice.waiting.difference_update(subtasks)
            if not self._notice.waiting:
                self._notice = None

    def stop(self, reason: str, now: float) -> list[Decision]:
        """The job is over: nothing is triggered any more.

        Raises:
            CheckpointError: `is_storing`.
        """
        self._demand_not_storing()
        decisions = self._abort_pending(reason, now)
        decisions += [Reject(request, reason) for request in self._requests]
        self._requests.clear()
        self._notice = None
        self._stopped = True
        return decisions

    def request(self, request: Request, now: float) -> list[Decision]:
        """Somebody wants a checkpoint or savepoint; it is the next to begin, after earlier requests.

        It bides its time while the job is being started again.
        """
        busy = self._pending.request if self._pending else None
        known = {r.request_id for r in self._requests} | ({busy.request_id} if busy else set())
        if request.request_id not in known:
            self._requests.append(request)
        return self.tick(now)

    def tick(self, now: float) -> list[Decision]:
        """Time has passed."""
        decisions = self._notify_again(now)
        pending = self._pending
        if pending and not pending.storing and now >= pending.started + self._rules.timeout:
            missing = ", ".join(f"{s.task}[{s.number}]" for s in self._missing(pending)[:5])
            reason = f"not acknowledged within {self._rules.timeout:g} s by {missing}"
            decisions += self._fail_pending(reason, now)
        return decisions + self._begin_if_due(now)

    def acknowledge(
        self,
        subtask: Subtask,
        checkpoint_id: int,
        attempt: int,
        snapshot: SubtaskSnapshot,
        now: float,
    ) -> list[Decision]:
        """A subtask has taken its snapshot, and its state is where it cannot be lost."""
        pending = self._collecting(subtask, checkpoint_id, attempt)
        if pending is None:
            return []
        pending.snapshots.setdefault(subtask, snapshot)
        return self._complete_if_all(pending, now)

    def decline(
        self, subtask: Subtask, checkpoint_id: int, attempt: int, reason: str, now: float
    ) -> list[Decision]:
        """A subtask could not take its snapshot."""
        if self._collecting(subtask, checkpoint_id, attempt) is None:
            return []
        decisions = self._fail_pending(f"{subtask.task}[{subtask.number}]: {reason}", now)
        return decisions + self._begin_if_due(now)

    def subtask_ended(
        self,
        subtask: Subtask,
        attempt: int,
        snapshot: SubtaskSnapshot,
        last_checkpoint: int,
        now: float,
    ) -> list[Decision]:
        """A subtask has ended; from now on it counts as acknowledged, with its final state.

        Args:
            subtask: Which.
            attempt: In which attempt.
            snapshot: Its final state.
            last_checkpoint: The highest number it took or skipped a snapshot for before its end;
                0 for none. Up to this number only its own acknowledgement counts.
            now: The time.
        """
        if attempt != self.attempt_of(subtask) or subtask in self._ended:
            return []
        self._ended[subtask] = _Ended(replace(snapshot, ended=True), last_checkpoint)
        pending = self._pending
        if pending is None or pending.storing:
            return []
        if pending.checkpoint_id > last_checkpoint:
            pending.snapshots.setdefault(subtask, self._ended[subtask].snapshot)
        return self._trigger_roots(pending) + self._complete_if_all(pending, now)

    def subtask_failed(
        self, subtask: Subtask, attempt: int, reason: str, now: float
    ) -> list[Decision]:
        """A subtask has failed, and with it all that are joined with it: they begin anew.

        A checkpoint that waits for acknowledgements is aborted; one that is being written down
        has them all, and goes on.
        """
        if attempt != self.attempt_of(subtask):
            return []
        joined = self._joined_with(subtask)
        self._down |= joined
        self._forget(joined)
        if self.is_storing:
            return []
        return self._abort_pending(f"{subtask.task}[{subtask.number}] failed: {reason}", now)

    def _joined_with(self, subtask: Subtask) -> set[Subtask]:
        """Return the subtasks to which records go from a subtask or come from there, by any way."""
        found, frontier = {subtask}, [subtask]
        while frontier:
            here = frontier.pop()
            beside = {s for s, inputs in self._upstream.items() if here in inputs}
            fresh = (beside | self._upstream[here]) - found
            found |= fresh
            frontier += fresh
        return found

    def store_finished(self, checkpoint_id: int, now: float) -> list[Decision]:
        """The checkpoint is written down, whole."""
        pending = self._stored(checkpoint_id)
        if pending is None:
            return []
        self._pending = None
        self._pause_ends = now + self._rules.min_pause
        if pending.request is None or pending.request.target is None:
            self._failures = 0
        return self._notify(pending, now) + self._begin_if_due(now)

    def store_failed(self, checkpoint_id: int, reason: str, now: float) -> list[Decision]:
        """The checkpoint could not be written down, and does not count."""
        pending = self._stored(checkpoint_id)
        if pending is None:
            return []
        return self._fail_pending(reason, now) + self._begin_if_due(now)

    def notify_acknowledged(
        self, subtask: Subtask, checkpoint_id: int, attempt: int
    ) -> list[Decision]:
        """A subtask has heard that a checkpoint is complete, and has committed."""
        notice = self._notice
        if notice is None or checkpoint_id != notice.checkpoint_id:
            return []
        if attempt != self.attempt_of(subtask):
            return []
        notice.waiting.discard(subtask)
        if subtask in notice.ended:
            self._committed.add(subtask)
        if not notice.waiting:
            self._notice = None
        return []

    def _is_running(self) -> bool:
        """Say whether checkpoints can begin: all subtasks are there, or have ended."""
        return not self._stopped and not self._down

    def _begin_if_due(self, now: float) -> list[Decision]:
        if not self._is_running() or self._pending is not None:
            return []
        if self._requests:
            return self._begin(self._requests.popleft(), now)
        if self._rules.interval is None or now < max(self._due, self._pause_ends):
            return []
        following = self._due + self._rules.interval
        # What was missed is not made up for.
        self._due = following if following > now else now + self._rules.interval
        return self._begin(None, now)

    def _begin(self, request: Request | None, now: float) -> list[Decision]:
        pending = _Pending(self._next_id, self._attempt, now, request)
        self._next_id += 1
        self._pending = pending
        for subtask, ended in self._ended.items():
            pending.snapshots[subtask] = ended.snapshot
        return self._trigger_roots(pending) + self._complete_if_all(pending, now)

    def _trigger_roots(self, pending: _Pending) -> list[Decision]:
        """Trigger the subtasks that no barrier will reach, since all their inputs have ended."""
        roots = [
            subtask
            for subtask, inputs in self._upstream.items()
            if subtask not in pending.snapshots
            and subtask not in pending.triggered
            and self._ended.keys() >= inputs
        ]
        pending.triggered.update(roots)
        if not roots:
            return []
        return [Trigger(pending.checkpoint_id, pending.attempt, tuple(roots), pending.request)]

    def _missing(self, pending: _Pending) -> list[Subtask]:
        return [subtask for subtask in self._upstream if subtask not in pending.snapshots]

    def _collecting(self, subtask: Subtask, checkpoint_id: int, attempt: int) -> _Pending | None:
        """Return the pending checkpoint if it is the one meant and waits for acknowledgements."""
        pending = self._pending
        if pending is None or pending.storing or attempt != self.attempt_of(subtask):
            return None
        return pending if pending.checkpoint_id == checkpoint_id else None

    def _complete_if_all(self, pending: _Pending, now: float) -> list[Decision]:
        if self._missing(pending):
            return []
        pending.storing = True
        return [
            Complete(
                CompletedCheckpoint(
                    checkpoint_id=pending.checkpoint_id,
                    attempt=pending.attempt,
                    request=pending.request,
                    duration=now - pending.started,
                    snapshots=dict(pending.snapshots),
                )
            )
        ]

    def _stored(self, checkpoint_id: int) -> _Pending | None:
        pending = self._pending
        if pending is None or not pending.storing or pending.checkpoint_id != checkpoint_id:
            return None
        return pending

    def _abort_pending(self, reason: str, now: float) -> list[Decision]:
        pending, self._pending = self._pending, None
        if pending is None:
            return []
        self._pause_ends = now + self._rules.min_pause
        decisions: list[Decision] = [Abort(pending.checkpoint_id, reason, pending.request)]
        gone = self._ended.keys() | self._down
        running = tuple(s for s in self._upstream if s not in gone)
        if running and not self._stopped:
            decisions.append(NotifyAborted(pending.checkpoint_id, pending.attempt, running))
        return decisions

    def _fail_pending(self, reason: str, now: float) -> list[Decision]:
        """Abort, and fail the job if this was one failure in a row too many."""
        requested = self._pending is not None and self._pending.request is not None
        decisions = self._abort_pending(reason, now)
        if requested or not self._is_running():
            return decisions
        self._failures += 1
        if self._failures > self._rules.tolerated_failures:
            many = f"{self._failures} checkpoints in a row have failed, the last one: {reason}"
            self._down = set(self._upstream)
            self._notice = None
            self._failures = 0
            decisions.append(FailJob(many))
        return decisions

    def _notify(self, pending: _Pending, now: float) -> list[Decision]:
        """Spread the news; a savepoint belongs to the user, so sinks do not commit for it."""
        savepoint = pending.request is not None and pending.request.target is not None
        if savepoint or self._stopped:
            return []
        ended = frozenset(s for s, snapshot in pending.snapshots.items() if snapshot.ended)
        waiting = self._upstream.keys() - self._committed - self._down
        self._notice = None
        if not waiting:
            return []
        self._notice = _Notice(pending.checkpoint_id, waiting, ended, now)
        return self._notify_again(now)

    def _notify_again(self, now: float) -> list[Decision]:
        notice = self._notice
        if notice is None or now < notice.again_at:
            return []
        notice.again_at = now + NOTIFY_AGAIN
        subtasks = tuple(s for s in self._upstream if s in notice.waiting)
        return [NotifyComplete(notice.checkpoint_id, self._attempt, subtasks)]

    def _demand_not_storing(self) -> None:
        if self.is_storing:
            number = self.pending_id
            raise CheckpointError(f"checkpoint {number} is being written down: wait for the store")
