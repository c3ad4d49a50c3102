"""Carries out what the coordinator of checkpoints decides, for a job whose tasks are in this process.

One thread owns the coordinator, the store and the chains of state. Tasks are given orders, which they
obey between two batches, and answer by facts that are put into this thread's queue. State is pickled
in the task's thread and written in this one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sage.common.clock import Clock, Doorbell
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.common.suggest import shorten
from sage.kernel.checkpoint.checkpoint_config import CheckpointConfig
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.messages import (
    Abort,
    Complete,
    CompletedCheckpoint,
    Decision,
    FailJob,
    NotifyComplete,
    Reject,
    Request,
    Subtask,
    SubtaskSnapshot,
    Trigger,
)
from sage.kernel.checkpoint.metadata import CheckpointMetadata, Chunk, SubtaskState
from sage.kernel.checkpoint.protocol import CheckpointCoordinator
from sage.kernel.checkpoint.store import CheckpointStore
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointLog, CheckpointStatistics
from sage.kernel.jobmanager.restore import EndedTasks
from sage.kernel.runtime.task.checkpoint_orders import (
    CheckpointedTask,
    CheckpointReports,
    SnapshotFigures,
    TakeState,
)
from sage.kernel.runtime.task.operator_state import StatePart

Fact = Callable[[], list[Decision]]
Chain = tuple[Chunk, ...]

_END = "end of input"


@dataclass
class _Running:
    """A task of the present attempt.

    Attributes:
        task: The task.
        chains: The state of its operators as the last checkpoint holds it, by their uid.
    """

    task: CheckpointedTask
    chains: dict[str, Chain] = field(default_factory=dict)


class Checkpointing:
    """The checkpoints of one job.

    Args:
        job: The name under which they are kept.
        config: When they are taken.
        store: Where they are kept.
        clock: The job's clock.
        fail_job: Called with the reason when too many have failed.

    Attributes:
        ended: What the next attempt needs to know of tasks that had ended.
        layout: How the subtasks are laid out over processes; kept in every checkpoint.
        on_leave: Called before all tasks are told to end after a savepoint or a last checkpoint.
        first_id: The number of the first checkpoint of this job; those before are of earlier runs.
    """

    def __init__(
        self,
        job: str,
        config: CheckpointConfig,
        store: CheckpointStore,
        clock: Clock,
        fail_job: Callable[[str], None],
    ) -> None:
        self._job = job
        self._config = config
        self._store = store
        self._clock = clock
        self._fail_job = fail_job
        self.first_id = store.next_id()
        self._coordinator = CheckpointCoordinator(config.rules, self.first_id)
        self._uids: dict[Subtask, Collection[str]] = {}
        self._running: dict[Subtask, _Running] = {}
        self._requests: dict[str, Future[str]] = {}
        self._leaving: set[str] = set()
        self._facts: deque[Fact] = deque()
        self._bell = Doorbell()
        self._closed = self._over = False
        self._logger = get_logger("checkpoint")
        self._thread = threading.Thread(target=self._run, name="sage-checkpoints", daemon=True)
        self._log = CheckpointLog()
        self.ended = EndedTasks()
        self.layout: dict[str, Any] = {}
        self.on_leave: Callable[[], None] = lambda: None

    @property
    def statistics(self) -> CheckpointStatistics:
        """What became of the checkpoints so far."""
        return self._log.statistics

    # ---- for the job

    def begin_attempt(
        self,
        number: int,
        tasks: Mapping[Subtask, CheckpointedTask],
        uids: Mapping[Subtask, Collection[str]],
    ) -> None:
        """Take checkpoints of these tasks from now on; when it returns, they may begin and end.

        Tasks of other attempts go on.

        Args:
            number: That of the attempt.
            tasks: Those that are started.
            uids: The uids of the operators of all tasks of the attempt, also of those that are not
                started.
        """

        def begin() -> list[Decision]:
            last = self._store.next_id() - 1  # a sink must never see a number of before again
            for task in tasks.values():
                task.last_checkpoint = last
            for subtask in uids:
                self._running.pop(subtask, None)
            self._running |= {subtask: _Running(task) for subtask, task in tasks.items()}
            self._uids |= uids
            upstream: dict[Subtask, tuple[Subtask, ...]] = dict.fromkeys(uids, ())
            try:
                ended = {subtask: self._final(subtask) for subtask in uids if subtask not in tasks}
            except CheckpointError as error:
                self._fail_job(f"the state of tasks that have ended cannot be kept: {error}")
                return []
            now = self._clock.monotonic()
            decisions = self._coordinator.restart(number, upstream, now, ended=ended)
            return decisions + self._go_on_to_end(now)

        self._tell(begin)
        if not self._thread.is_alive():
            self._thread.start()
        self.wait_stored()

    def tasks_failed(self, subtasks: Collection[Subtask], attempt: int, reason: str) -> None:
        """Take note that tasks are started again: nothing begins before their next attempt."""

        def fail() -> list[Decision]:
            now = self._clock.monotonic()
            return [
                decision
                for subtask in subtasks
                for decision in self._coordinator.subtask_failed(subtask, attempt, reason, now)
            ]

        self._tell(fail)

    def reports(self, subtask: Subtask, attempt: int) -> CheckpointReports:
        """Return who a task of an attempt answers to."""
        return _Reports(self, subtask, attempt)

    def request(self, target: str | None = None, *, leave: bool = False) -> Future[str]:
        """Ask for a checkpoint, or a savepoint into the directory `target`.

        Args:
            target: None: a checkpoint into the store.
            leave: Let the tasks put nothing more out after it, and end there.

        Returns:
            Gives where it is, or raises `CheckpointError`.
        """
        asked = Request(new_uuid(), target)
        future: Future[str] = Future()
        self._requests[asked.request_id] = future
        if leave:
            self._leaving.add(asked.request_id)
        self._tell(lambda: self._coordinator.request(asked, self._clock.monotonic()))
        if self._over:
            self._reject_all("the job is over")
        return future

    def wait_stored(self) -> None:
        """Wait until nothing is being written down: afterwards the store tells where to go on."""
        settled = threading.Event()
        self._tell(partial(_nothing, settled.set))
        settled.wait()

    def close(self, reason: str, *, delete: bool) -> None:
        """Take no more checkpoints; may be called twice.

        Args:
            reason: What to tell those who have asked for one.
            delete: Whether those that were taken are removed.
        """
        if self._closed:
            return
        if self._thread.is_alive():
            self._tell(lambda: self._coordinator.stop(reason, self._clock.monotonic()))
            self.wait_stored()
        self._closed = True
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join()
        self._over = True
        self._reject_all(reason)
        try:
            if delete:
                self._store.delete_all()
        finally:
            self._store.close()

    def _reject_all(self, reason: str) -> None:
        """Tell those who asked so late that nobody heard them."""
        while self._requests:
            with suppress(KeyError):  # by another thread, which answers
                self._requests.popitem()[1].set_exception(CheckpointError(reason))

    # ---- in the thread

    def _tell(self, fact: Fact) -> None:
        self._facts.append(fact)
        self._bell.ring()

    def _run(self) -> None:
        while not self._closed:
            while self._facts:
                self._take_in(self._facts.popleft())
            now = self._clock.monotonic()
            due = self._coordinator.next_tick()
            if due <= now:
                self._take_in(partial(self._coordinator.tick, now))
            elif not self._closed:
                self._clock.wait_until(self._bell, due)

    def _take_in(self, fact: Fact) -> None:
        """Hear a fact and do what follows; what nobody foresaw fails the job, not this thread."""
        try:
            self._carry_out(fact())
        except Exception as error:
            self._logger.exception("checkpoints of job %r", self._job)
            self._fail_job(f"checkpoints cannot be taken: {shorten(error)}")

    def _carry_out(self, decisions: list[Decision]) -> None:
        waiting = deque(decisions)
        while waiting:
            waiting.extend(self._do(waiting.popleft()))

    def _do(self, decision: Decision) -> list[Decision]:
        match decision:
            case Trigger():
                self._trigger(decision)
            case Complete():
                return self._complete(decision.checkpoint)
            case Abort():
                self._abort(decision)
            case NotifyComplete():
                for subtask in decision.subtasks:
                    self._running[subtask].task.commit_checkpoint(decision.checkpoint_id)
            case Reject():
                self._answer(decision.request, CheckpointError(decision.reason))
            case FailJob():
                self._fail_job(decision.reason)
        return []

    def _trigger(self, trigger: Trigger) -> None:
        try:
            self._store.begin(trigger.checkpoint_id)
        except CheckpointError as error:
            subtask = trigger.subtasks[0]
            attempt = self._coordinator.attempt_of(subtask) or trigger.attempt
            self.decline(subtask, trigger.checkpoint_id, attempt, str(error))
            return
        self._log.begin(self._clock.monotonic())
        request = trigger.request
        savepoint = request is not None and request.target is not None
        hold = request is not None and request.request_id in self._leaving
        for subtask in trigger.subtasks:
            running = self._running[subtask]
            chains = {} if savepoint or not self._config.incremental else running.chains
            increments = frozenset(uid for uid, chain in chains.items() if not needs_full(chain))
            running.task.take_checkpoint(TakeState(trigger.checkpoint_id, increments, hold))

    def decline(self, subtask: Subtask, number: int, attempt: int, reason: str) -> None:
        """Take note that the state of a task could not be taken; from any thread."""
        now = self._clock.monotonic
        self._tell(lambda: self._coordinator.decline(subtask, number, attempt, reason, now()))

    def acknowledge(
        self,
        subtask: Subtask,
        number: int,
        attempt: int,
        parts: Mapping[str, StatePart],
        figures: SnapshotFigures,
    ) -> None:
        """Take the state of a task; from any thread."""
        self._tell(partial(self._acknowledge, subtask, number, attempt, parts, figures))

    def end_input(
        self, subtask: Subtask, attempt: int, parts: Mapping[str, StatePart], last: int
    ) -> None:
        """Take the final state of a task; from any thread."""
        self._tell(partial(self._ended, subtask, attempt, parts, last))

    def note_commit(self, subtask: Subtask, number: int, attempt: int) -> None:
        """Take note that the sinks of a task have committed; from any thread."""
        self._tell(partial(self._committed, subtask, number, attempt))

    def _acknowledge(
        self,
        subtask: Subtask,
        number: int,
        attempt: int,
        parts: Mapping[str, StatePart],
        figures: SnapshotFigures,
    ) -> list[Decision]:
        now = self._clock.monotonic
        if self._is_over(subtask, attempt) or self._coordinator.pending_id != number:
            return []
        try:
            snapshot = self._write(subtask, number, parts)
        except CheckpointError as error:
            return self._coordinator.decline(subtask, number, attempt, str(error), now())
        self._log.taken(subtask, figures, snapshot, now())
        return self._coordinator.acknowledge(subtask, number, attempt, snapshot, now())

    def _ended(
        self, subtask: Subtask, attempt: int, parts: Mapping[str, StatePart], last: int
    ) -> list[Decision]:
        now = self._clock.monotonic
        if self._is_over(subtask, attempt):
            return []
        try:
            snapshot = self._write(subtask, self._begin_final(), parts)
        except (CheckpointError, OSError) as error:
            self._fail_job(f"the final state cannot be kept: {error}")
            return []
        decisions = self._coordinator.subtask_ended(subtask, attempt, snapshot, last, now())
        self._running[subtask].chains = {}
        return decisions + self._go_on_to_end(now())

    def _go_on_to_end(self, now: float) -> list[Decision]:
        """If all tasks have ended, take the checkpoint that commits all, or let them leave."""
        if self._coordinator.all_committed:
            self._let_all_leave()
        elif self._coordinator.all_ended:
            return self._coordinator.request(Request(_END), now)
        return []

    def _let_all_leave(self) -> None:
        for running in self._running.values():
            running.task.leave_now()

    def _begin_final(self) -> int:
        """Begin a number for final states: with that of a checkpoint they would be swept away."""
        number = self._coordinator.reserve_id()
        self._store.begin(number)
        return number

    def _final(self, subtask: Subtask) -> SubtaskSnapshot:
        """Return the state of a task that had ended, taken over into the store if it is elsewhere."""
        uids, all_chains, read = self._uids[subtask], self.ended.chains, self.ended.read
        chains = {uid: all_chains[uid] for uid in uids if uid in all_chains}
        if read is not None:
            number, write = self._begin_final(), self._store.chunks.write
            chains = {
                uid: tuple(write(number, read(chunk)) for chunk in chain)
                for uid, chain in chains.items()
            }
        size = sum(chunk.size for chain in chains.values() for chunk in chain)
        return SubtaskSnapshot(chains, size)

    def _is_over(self, subtask: Subtask, attempt: int) -> bool:
        """Say whether an attempt of a task is over, or given up: what it tells does not count."""
        return self._coordinator.attempt_of(subtask) != attempt

    def _write(
        self, subtask: Subtask, number: int, parts: Mapping[str, StatePart]
    ) -> SubtaskSnapshot:
        """Write the parts as chunks, and put them at the end of the chains."""
        chains, written = dict(self._running[subtask].chains), 0
        for uid, part in parts.items():
            chunk = self._store.chunks.write(number, part.data)
            written += chunk.size
            chains[uid] = (chunk,) if part.full else (*chains[uid], chunk)
        size = sum(chunk.size for chain in chains.values() for chunk in chain)
        return SubtaskSnapshot(chains, size, written)

    def _complete(self, checkpoint: CompletedCheckpoint) -> list[Decision]:
        number, now = checkpoint.checkpoint_id, self._clock.monotonic
        metadata = CheckpointMetadata(
            number,
            self._job,
            self._clock.now_ms(),
            tuple(_subtask_state(s, n, self._uids[s]) for s, n in checkpoint.snapshots.items()),
            attempt=checkpoint.attempt,
            details=self.layout,
        )
        request = checkpoint.request
        try:
            if request is not None and request.target is not None:
                where = str(self._store.save(metadata, Path(request.target)))
                self._break_chains()  # what it took is in the savepoint alone
            else:
                self._store.begin(number)  # if all tasks have ended, nobody was told to begin
                self._store.commit(metadata)
                where = str(number)
                for subtask, snapshot in checkpoint.snapshots.items():
                    if not snapshot.ended:
                        self._running[subtask].chains = snapshot.handle
        except (CheckpointError, OSError) as error:
            if request is not None and request.request_id == _END:
                self._fail_job(f"the last checkpoint failed: {error}")
            return self._coordinator.store_failed(number, str(error), now())
        self._log.complete(checkpoint, metadata.created_ms)
        decisions = self._coordinator.store_finished(number, now())
        self._answer(request, where)
        if request is not None and request.request_id in self._leaving:
            self._let_leave(number)
        return decisions

    def _let_leave(self, number: int) -> None:
        """Let the tasks commit what a last savepoint holds, and end."""
        self.on_leave()
        for running in self._running.values():
            running.task.commit_checkpoint(number, leave=True)

    def _abort(self, abort: Abort) -> None:
        self._logger.warning("checkpoint %d was given up: %s", abort.checkpoint_id, abort.reason)
        self._break_chains()  # what tasks have told as changed will not be told again
        self._store.abort(abort.checkpoint_id)
        self._log.fail(abort.reason)
        self._answer(abort.request, CheckpointError(abort.reason))
        if abort.request is not None:
            self._leaving.discard(abort.request.request_id)
        for running in self._running.values():
            running.task.abort_checkpoint(abort.checkpoint_id)

    def _break_chains(self) -> None:
        for running in self._running.values():
            running.chains = {}

    def _committed(self, subtask: Subtask, number: int, attempt: int) -> list[Decision]:
        decisions = self._coordinator.notify_acknowledged(subtask, number, attempt)
        if self._coordinator.all_committed:
            self._let_all_leave()
        return decisions

    def _answer(self, request: Request | None, answer: str | CheckpointError) -> None:
        future = None if request is None else self._requests.pop(request.request_id, None)
        if future is None:
            return
        if isinstance(answer, str):
            future.set_result(answer)
        else:
            future.set_exception(answer)


def needs_full(chain: Chain) -> bool:
    """Say whether a state is to be written whole: there is nothing before, or too much has followed.

    What followed is at most as large as the whole, so that the bytes written in the long run, and
    those read to restore, are at most about twice those of the state and its changes.

    Examples:
        >>> needs_full(())
        True
    """
    return not chain or sum(chunk.size for chunk in chain[1:]) > chain[0].size


def _subtask_state(
    subtask: Subtask, snapshot: SubtaskSnapshot, uids: Collection[str]
) -> SubtaskState:
    chains: Mapping[str, Chain] = snapshot.handle
    counts = {uid: len(chain) for uid, chain in chains.items()}
    chunks = tuple(chunk for chain in chains.values() for chunk in chain)
    details: dict[str, Any] = {"operators": counts}
    if snapshot.ended:
        details["uids"] = sorted(uids)  # by which the task is recognised in a changed program
    return SubtaskState(subtask.task, subtask.number, chunks, snapshot.ended, details)


@dataclass(frozen=True)
class _Reports:
    """Implements `CheckpointReports` for one task of one attempt."""

    checkpointing: Checkpointing
    subtask: Subtask
    attempt: int

    def state_taken(
        self, checkpoint_id: int, parts: Mapping[str, StatePart], figures: SnapshotFigures
    ) -> None:
        """Hand the state on."""
        self.checkpointing.acknowledge(self.subtask, checkpoint_id, self.attempt, parts, figures)

    def state_refused(self, checkpoint_id: int, reason: str) -> None:
        """Hand the reason on."""
        self.checkpointing.decline(self.subtask, checkpoint_id, self.attempt, reason)

    def input_ended(self, last_checkpoint: int, parts: Mapping[str, StatePart]) -> None:
        """Hand the final state on."""
        self.checkpointing.end_input(self.subtask, self.attempt, parts, last_checkpoint)

    def committed(self, checkpoint_id: int) -> None:
        """Hand it on."""
        self.checkpointing.note_commit(self.subtask, checkpoint_id, self.attempt)


def _nothing(then: Callable[[], object]) -> list[Decision]:
    then()
    return []
