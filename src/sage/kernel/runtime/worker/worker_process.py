"""The program that runs a slot: `python -m sage.kernel.runtime.worker`.

It is told what to run by a file that it inherits, is stopped and cancelled through standard input,
and tells what becomes of it through what was its standard output. When the slot has ended, it waits to
be told what to run next. It ends when standard input ends: also when the process that started it is
killed.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import IO, Final

import cloudpickle

from sage.common.clock import SystemClock
from sage.dataflow.graph.job_graph import JobVertex
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.exchange.links import Links
from sage.kernel.runtime.service.hosting.remote_services import RemoteServices
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.task.checkpoint_orders import SnapshotFigures, TakeState
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.operator_state import StatePart
from sage.kernel.runtime.task.task import Task
from sage.kernel.runtime.task.task_start import TaskStart
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
    read_message,
    write_message,
)

_TELL_SECONDS: Final = 0.25
_ORPHAN_SECONDS: Final = 5.0
_YOUNG_OBJECTS: Final = 50_000  # a batch of records is garbage in a moment, and in no cycle


class Teller:
    """Tells the parent. For all threads.

    Args:
        pipe: Where the parent reads.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def tell(self, message: Message) -> None:
        """Send a message; if nobody reads any more, it is lost."""
        with self._lock:
            try:
                write_message(self._pipe, message)
            except (BrokenPipeError, ValueError):
                return


class _Lines(io.TextIOBase):
    """Standard output as functions see it: only whole lines leave the process, never torn."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller
        self._begun: dict[int, str] = {}

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As what it is written in the end."""
        return "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Send the lines that are complete."""
        thread = threading.get_ident()
        lines, end, begun = (self._begun.pop(thread, "") + text).rpartition("\n")
        if begun:
            self._begun[thread] = begun
        if end:
            self._teller.tell(Printed(lines + end))
        return len(text)

    def finish(self) -> None:
        """Send what has been begun, as a line of its own."""
        for text in self._begun.values():
            self._teller.tell(Printed(text + "\n"))
        self._begun.clear()


class _LogHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as text."""
        self._teller.tell(Logged(record.name, record.levelno, self.format(record)))


class _Reports:
    """Implements `CheckpointReports`: the parent hears of everything."""

    def __init__(self, teller: Teller) -> None:
        self._tell = teller.tell

    def state_taken(
        self, checkpoint_id: int, parts: Mapping[str, StatePart], figures: SnapshotFigures
    ) -> None:
        """Tell it."""
        self._tell(StateTaken(checkpoint_id, parts, figures))

    def state_refused(self, checkpoint_id: int, reason: str) -> None:
        """Tell it."""
        self._tell(StateRefused(checkpoint_id, reason))

    def input_ended(self, last_checkpoint: int, parts: Mapping[str, StatePart]) -> None:
        """Tell it."""
        self._tell(InputEnded(last_checkpoint, parts))

    def committed(self, checkpoint_id: int) -> None:
        """Tell it."""
        self._tell(Committed(checkpoint_id))


class Slot:
    """Runs the subtasks of a slot.

    Args:
        order: What to run.
        last_checkpoint: The number of the last checkpoint before.
        teller: Tells the parent.

    Attributes:
        is_orphan: Whether the parent has ended.
        task: What runs.
    """

    def __init__(self, order: WorkerOrder, last_checkpoint: int, teller: Teller) -> None:
        settings, clock = order.settings, SystemClock()
        self._teller = teller
        self._counters = Counters()
        self._ended = threading.Event()
        self._services = RemoteServices(
            settings.services_token, settings.services, settings.middleware, settings.ray
        )
        self.is_orphan = False
        self._mesh = order.mesh
        self._links = Links(order.mesh, order.slot)
        context = JobContext(
            settings.job_name,
            clock,
            settings.batch_size,
            settings.buffer_size,
            ServiceManager(self._services),
            checkpoints=order.checkpoints,
            state=settings.state,
        )
        exchange = SlotExchange(
            order.graph,
            order.slot,
            self._links,
            batch_size=settings.batch_size,
            buffer_timeout=settings.buffer_timeout,
            monotonic=clock.monotonic,
        )
        self.task = Task(
            order.graph.stream_graph,
            JobVertex(order.slot, order.graph.nodes_of(order.slot), f"slot {order.slot}"),
            context,
            self._counters,
            TaskStart(order.restored, reports=_Reports(teller) if order.checkpoints else None),
            exchange=exchange,
        )
        self.task.last_checkpoint = last_checkpoint

    def run(self) -> Message:
        """Run the slot to its end; return what became of it."""
        telling = threading.Thread(target=self._tell, name="sage-worker-figures", daemon=True)
        telling.start()
        last: Message = Ended()
        try:
            self.task.run()
        except TaskCancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
            last = Failed.of(error)
        finally:
            self._links.close()
            self._services.close()
            if self.is_orphan:  # nobody else will; the last one to end can
                self._mesh.remove()
        self._ended.set()
        telling.join()
        self._tell_counts()
        return last

    def leave_orphaned(self) -> None:
        """Leave off, whatever a function is doing: the parent has ended."""
        self.is_orphan = True
        self.task.cancel()
        timer = threading.Timer(_ORPHAN_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def obey(self, command: Command) -> None:
        """Do as the parent says."""
        match command:
            case Stop():
                self.task.stop()
            case Cancel():
                self.task.cancel()
            case TakeState():
                self.task.take_checkpoint(command)
            case AbortCheckpoint():
                self.task.abort_checkpoint(command.checkpoint_id)
            case Commit():
                self.task.commit_checkpoint(command.checkpoint_id, leave=command.leave)
            case Leave():
                self.task.leave_now()
            case AskState():
                self.task.order(partial(self._answer, command))

    def _answer(self, question: AskState, task: Task) -> None:
        self._teller.tell(StateTold.of(question, task.query_state))

    def _tell(self) -> None:
        while not self._ended.wait(_TELL_SECONDS):
            self._tell_counts()

    def _tell_counts(self) -> None:
        task, counts = self.task, self._counters.snapshot()
        calls = self._services.calls()
        self._teller.tell(
            Counted(counts, task.total_counts(), task.figures, task.watermarks, calls, task.gauges)
        )


class Orders:
    """What the parent says: to the slot that runs, and what to run next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slot: Slot | None = None
        self._early: list[Command] = []
        self._over = False
        self._next: queue.SimpleQueue[NextOrder | None] = queue.SimpleQueue()

    def listen(self) -> None:
        """Hear what the parent says until it has ended."""
        with os.fdopen(os.dup(0), "rb") as pipe:
            while (told := read_message(pipe)) is not None:
                self._take(told)
        with self._lock:
            self._over = True
            if self._slot is not None:
                self._slot.leave_orphaned()
        self._next.put(None)

    def _take(self, told: Command | NextOrder) -> None:
        with self._lock:
            if isinstance(told, NextOrder):
                self._early.clear()  # it was for a slot that has ended
                self._next.put(told)
            elif self._slot is not None:
                self._slot.obey(told)
            else:
                self._early.append(told)

    def begin(self, slot: Slot) -> None:
        """Let a slot hear what is for it."""
        with self._lock:
            self._slot = slot
            for command in self._early:
                slot.obey(command)
            self._early.clear()
            if self._over:
                slot.leave_orphaned()

    def end(self) -> None:
        """Let go of the slot, which has ended."""
        with self._lock:
            self._slot = None

    def wait_next(self) -> NextOrder | None:
        """Return what to run next; None if there is nothing more."""
        return self._next.get()


def main() -> int:
    """Read the order and run it, and those that follow."""
    # Ctrl-C is for the program that submitted the job, which ends it in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    teller = Teller(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    lines = _Lines(teller)
    sys.stdout = lines
    orders = Orders()
    threading.Thread(target=orders.listen, name="sage-worker-orders", daemon=True).start()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    order: NextOrder | None = None
    try:
        order = _first_order(teller)
        while order is not None:
            last = _run(order, orders, teller)
            lines.finish()
            teller.tell(last)
            order = orders.wait_next()
            gc.collect()  # what is left of the slot before would be frozen with the next one
    except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
        teller.tell(Failed.of(error))
        return 1
    return 0


def _first_order(teller: Teller) -> NextOrder:
    """Read the file that was inherited, and do as it says about imports and logs."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        file.seek(0)
        path, level, last_checkpoint, pickled = pickle.load(file)  # noqa: S301 - our parent's
    sys.path[:] = path
    logging.getLogger().addHandler(_LogHandler(teller))
    logging.getLogger("sage").setLevel(level)
    return NextOrder(last_checkpoint, pickled)


def _run(order: NextOrder, orders: Orders, teller: Teller) -> Message:
    """Run a slot; nothing of it is left when this returns."""
    told: WorkerOrder = cloudpickle.loads(order.order)
    slot = Slot(told, order.last_checkpoint, teller)
    gc.freeze()
    orders.begin(slot)
    try:
        return slot.run()
    finally:
        orders.end()
        gc.unfreeze()
