"""`WorkerTask`: stands in this process for a slot that runs in a process of its own."""

from __future__ import annotations

import io
import logging
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Final

from sage.common.errors import OperatorError, WorkerLostError
from sage.common.log import get_logger
from sage.dataflow.graph.job_graph import JobVertex
from sage.kernel.runtime.exchange.figures import SlotFigures
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.task.checkpoint_orders import CheckpointReports, TakeState
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.worker.idle_workers import IdleWorkers, close_pipes
from sage.kernel.runtime.worker.order import (
    AbortCheckpoint,
    AskState,
    Cancel,
    Command,
    Commit,
    Committed,
    Counted,
    Ended,
    Failed,
    InputEnded,
    Leave,
    Logged,
    Message,
    NextOrder,
    Printed,
    StateRefused,
    StateTaken,
    StateTold,
    Stop,
    WorkerOrder,
    pickle_order,
    read_message,
    write_message,
)
from sage.kernel.runtime.worker.questions import Questions

_PATIENCE: Final = 5.0
_START_SECONDS: Final = 60.0


class WorkerTask:
    """Runs a slot in a process of its own; `run` returns when that has ended.

    Args:
        order: What it runs.
        counters: Where to note what it has counted.
        idle: Processes that have run slots before, and where this one's goes if another attempt may
            follow.
        reports: Who is told about checkpoints; None: none are taken.

    Attributes:
        vertex: The operators of the slot.
        input_ended: Whether its input has ended, which has been reported before.
        last_checkpoint: The number of the last checkpoint before it runs.
        figures: What it does with its time, as last heard.
        watermarks: How far event time has come for its operators, as last heard.
        gauges: What its sources say of themselves, as last heard.
        calls: What it knows of its calls to services, by service, as last heard.
        has_ended: Always false: a slot that has nothing to do is not made.
    """

    has_ended: Final = False

    def __init__(
        self,
        order: WorkerOrder,
        counters: Counters,
        idle: IdleWorkers,
        reports: CheckpointReports | None = None,
    ) -> None:
        self._idle = idle
        self.input_ended = self._left = self._has_counted = False
        self.last_checkpoint = 0
        self._reports = reports
        self._heartbeat_timeout = order.settings.heartbeat_timeout
        self.vertex = JobVertex(order.slot, order.graph.nodes_of(order.slot), f"slot {order.slot}")
        self._name = f"worker {order.slot}"
        self._order: bytes | None = pickle_order(order)
        self._counters = counters
        self._totals: list[int | None] = []
        self.figures = SlotFigures(order.slot)
        self.watermarks: Mapping[int, int] = {}
        self.gauges: Mapping[int, Mapping[str, int]] = {}
        self.calls: Mapping[str, Calls] = {}
        self._logger = get_logger(order.settings.job_name, f"worker-{order.slot}")
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()  # a signal handler may cancel while it is held
        self._killer: threading.Timer | None = None
        self._said: list[Command] = []
        self._questions = Questions(self._name, self._say)

    @property
    def has_counted(self) -> bool:
        """Whether records have been counted since it was started."""
        return self._has_counted

    @property
    def pid(self) -> int | None:
        """The process, if it has been started."""
        return None if self._process is None else self._process.pid

    def run(self) -> None:
        """Start the process, or let one that waits go on, and listen to it until the slot has ended.

        Raises:
            OperatorError: a function, source or sink failed.
            WorkerLostError: the process died, or has not been heard of.
            TaskCancelled: the slot was cancelled.
        """
        try:
            self._run()
        finally:
            self._questions.close()

    def _run(self) -> None:
        if Cancel() in self._said:
            raise TaskCancelled
        process = self._start()
        code, error, goes_on = 0, None, False
        try:
            last = self._listen(process)
            error = last.unwrap(self._name) if isinstance(last, Failed) else None
            goes_on = self._may_go_on(last, error)
            code = 0 if goes_on else self._wait_end(process)
        finally:
            self._let_go(process, end=not goes_on)
        if Cancel() in self._said:
            raise TaskCancelled
        if error is not None:
            raise error
        if last is None:
            raise WorkerLostError(f"{self._name} died ({_how(code)})")

    def _may_go_on(self, last: Message | None, error: BaseException | None) -> bool:
        """Say whether the process may run another attempt: the slot was ended or failed in order."""
        ended = isinstance(last, Ended) and Cancel() in self._said
        return ended or isinstance(error, OperatorError)

    def stop(self) -> None:
        """Let the sources end here."""
        self._say(Stop())

    def cancel(self) -> None:
        """Leave off after the batch at hand; a process that does not is killed."""
        self._say(Cancel())

    @property
    def left_early(self) -> bool:
        """Whether it was told to leave before its input had ended."""
        return self._left and not self.input_ended

    def take_checkpoint(self, order: TakeState) -> None:
        """Take the state when all that comes before the checkpoint has been processed."""
        self._say(order)

    def abort_checkpoint(self, checkpoint_id: int) -> None:
        """Go on: the checkpoint will not be."""
        self._say(AbortCheckpoint(checkpoint_id))

    def commit_checkpoint(self, checkpoint_id: int, *, leave: bool = False) -> None:
        """Let sinks commit what belongs to checkpoints up to this one; with `leave`, end after it."""
        self._left = self._left or leave
        self._say(Commit(checkpoint_id, leave))

    def leave_now(self) -> None:
        """Read no more and put nothing more out."""
        self._left = True
        self._say(Leave())

    def total_counts(self) -> list[int | None]:
        """Return how many records each source of the slot will give."""
        return self._totals

    def query_state(self, uid: str, name: str, key: Any, timeout: float) -> Any:
        """Return the present value of a key in a state of an operator; from any thread.

        Raises:
            KeyError: the process has ended.
            JobTimeoutError: it has not answered within `timeout` seconds.
        """
        return self._questions.ask(uid, name, key, timeout)

    # ---- the process

    def _start(self) -> subprocess.Popen[bytes]:
        order, self._order = self._order, None
        assert order is not None
        process = self._idle.take(self.vertex.id)
        if process is None or not self._go_on(process, order):
            process = self._spawn(order)
        with self._lock:
            self._process = process
            for command in self._said:
                self._tell(process, command)
        return process

    def _go_on(self, process: subprocess.Popen[bytes], order: bytes) -> bool:
        """Give a process that waits its next order; false if it has died."""
        assert process.stdin is not None
        try:
            write_message(process.stdin, NextOrder(self.last_checkpoint, order))
        except BrokenPipeError:
            process.kill()
            process.wait()
            close_pipes(process)
            return False
        return True

    def _spawn(self, order: bytes) -> subprocess.Popen[bytes]:
        with os.fdopen(os.memfd_create("sage-worker-order"), "wb") as file:
            level = logging.getLogger("sage").getEffectiveLevel()
            pickle.dump((sys.path, level, self.last_checkpoint, order), file)
            file.flush()
            return subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-m", "sage.kernel.runtime.worker", str(file.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=(file.fileno(),),
            )

    def _say(self, command: Command) -> None:
        with self._lock:
            if self._process is None or not isinstance(command, AskState):
                self._said.append(command)
            if self._process is not None:
                self._tell(self._process, command)

    def _tell(self, process: subprocess.Popen[bytes], command: Command) -> None:
        _write(process.stdin, command)
        if isinstance(command, Cancel) and self._killer is None:
            self._killer = threading.Timer(_PATIENCE, self._kill)
            self._killer.daemon = True
            self._killer.start()

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._logger.warning("the process does not leave off and is killed")
                self._process.kill()

    def _listen(self, process: subprocess.Popen[bytes]) -> Message | None:
        """Take what the process tells; return its last word, None if it said none."""
        assert process.stdout is not None
        # Without a buffer, so that nothing has been read ahead of what is waited for.
        with io.FileIO(process.stdout.fileno(), closefd=False) as pipe:
            patience = max(_START_SECONDS, self._heartbeat_timeout)
            while select.select([pipe], [], [], patience)[0]:
                patience = self._heartbeat_timeout
                message = read_message(pipe)
                if message is None or isinstance(message, (Ended, Failed)):
                    return message
                self._heard(message)
        process.kill()
        told = f"{self._name} has not been heard of for {patience:g} s and is killed"
        raise WorkerLostError(told)

    def _heard(self, message: Message) -> None:
        if isinstance(message, Counted):
            self._has_counted = self._has_counted or any(message.values.values())
            self._counters.replace(message.values)
            self._totals, self.figures = message.totals, message.figures
            self.watermarks, self.calls = message.watermarks, message.calls
            self.gauges = message.gauges
        elif isinstance(message, Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif isinstance(message, Printed):
            sys.stdout.write(message.text)
        elif isinstance(message, StateTold):
            self._questions.answered(message)
        elif self._reports is not None:
            self._report(self._reports, message)

    def _report(self, reports: CheckpointReports, message: Message) -> None:
        match message:
            case StateTaken():
                reports.state_taken(message.checkpoint_id, message.parts, message.figures)
            case StateRefused():
                reports.state_refused(message.checkpoint_id, message.reason)
            case InputEnded():
                self.input_ended = True
                reports.input_ended(message.last_checkpoint, message.parts)
            case Committed():
                reports.committed(message.checkpoint_id)

    def _wait_end(self, process: subprocess.Popen[bytes]) -> int:
        with self._lock, suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()  # it waits for another order otherwise
        try:
            return process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._logger.warning("the process did not end in time and is killed")
            process.kill()
            return process.wait()

    def _let_go(self, process: subprocess.Popen[bytes], *, end: bool) -> None:
        if end and process.poll() is None:
            process.kill()
            process.wait()
        with self._lock:
            self._process = None
            if self._killer is not None:
                self._killer.cancel()
        if end:
            close_pipes(process)
        else:
            self._idle.keep(self.vertex.id, process)


def _write(pipe: IO[bytes] | None, command: Command) -> None:
    with suppress(BrokenPipeError, ValueError):  # it has ended
        if pipe is not None:
            write_message(pipe, command)


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
