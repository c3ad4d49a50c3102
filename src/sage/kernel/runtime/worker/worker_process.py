"""The program that runs a slot: `python -m sage.kernel.runtime.worker`.

It is told what to run by a file that it inherits, is stopped and cancelled through standard input,
and tells what becomes of it through what was its standard output. It ends when standard input ends:
also when the process that started it is killed.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import sys
import threading
from typing import IO, Final

import cloudpickle

from sage.common.clock import SystemClock
from sage.dataflow.graph.job_graph import JobVertex
from sage.kernel.runtime.exchange.exchange import SlotExchange
from sage.kernel.runtime.exchange.links import Links
from sage.kernel.runtime.service.remote_services import RemoteServices
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.task.operator_context import JobContext
from sage.kernel.runtime.task.task import Task
from sage.kernel.runtime.worker.order import (
    CANCEL,
    STOP,
    Counted,
    Ended,
    Failed,
    Logged,
    Message,
    Printed,
    WorkerOrder,
    write_message,
)

_TELL_SECONDS: Final = 0.25
_ORPHAN_SECONDS: Final = 5.0


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
        """Send what has been begun."""
        for text in self._begun.values():
            self._teller.tell(Printed(text))
        self._begun.clear()


class _LogHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as text."""
        self._teller.tell(Logged(record.name, record.levelno, self.format(record)))


class Slot:
    """Runs the subtasks of a slot.

    Args:
        order: What to run.
        teller: Tells the parent.
    """

    def __init__(self, order: WorkerOrder, teller: Teller) -> None:
        self._order = order
        self._teller = teller
        self._counters = Counters()
        self._ended = threading.Event()
        self._cancelled = False
        self._stopped = False
        self._task: Task | None = None

    def run(self) -> None:
        """Run the slot to its end and tell what became of it."""
        telling = threading.Thread(target=self._tell, name="sage-worker-figures", daemon=True)
        telling.start()
        try:
            self._run()
            last: Message = Ended()
        except TaskCancelled:
            last = Ended()
        except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
            last = Failed.of(error)
        self._ended.set()
        telling.join()
        self._tell_counts()
        self._teller.tell(last)

    def stop(self) -> None:
        """Let the sources end here."""
        self._stopped = True
        if self._task is not None:
            self._task.stop()

    def cancel(self) -> None:
        """Leave off after the batch at hand."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        order, settings = self._order, self._order.settings
        services = RemoteServices(settings.services_token, settings.services, settings.middleware)
        links = Links(order.mesh, order.slot)
        try:
            clock = SystemClock()
            context = JobContext(
                settings.job_name,
                clock,
                settings.batch_size,
                settings.buffer_size,
                ServiceManager(services),
                state=settings.state,
            )
            exchange = SlotExchange(
                order.graph,
                order.slot,
                links,
                batch_size=settings.batch_size,
                buffer_timeout=settings.buffer_timeout,
                monotonic=clock.monotonic,
            )
            vertex = JobVertex(order.slot, order.graph.nodes_of(order.slot), f"slot {order.slot}")
            self._task = Task(
                order.graph.stream_graph, vertex, context, self._counters, exchange=exchange
            )
            if self._stopped:
                self._task.stop()
            self._check_cancelled()
            self._task.run()
        finally:
            links.close()
            services.close()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise TaskCancelled

    def _tell(self) -> None:
        while not self._ended.wait(_TELL_SECONDS):
            self._tell_counts()

    def _tell_counts(self) -> None:
        totals = [] if self._task is None else self._task.total_counts()
        self._teller.tell(Counted(self._counters.snapshot(), totals))


def _obey(slot: Slot) -> None:
    """Do as the parent says, and end with it."""
    while command := os.read(0, 1):
        if command == STOP:
            slot.stop()
        elif command == CANCEL:
            slot.cancel()
    slot.cancel()
    timer = threading.Timer(_ORPHAN_SECONDS, os._exit, (1,))  # whatever a function is doing
    timer.daemon = True
    timer.start()


def main() -> int:
    """Read the order and run it."""
    # Ctrl-C is for the program that submitted the job, which ends it in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    teller = Teller(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    lines = _Lines(teller)
    sys.stdout = lines
    try:
        with os.fdopen(int(sys.argv[1]), "rb") as file:
            file.seek(0)
            path, level, pickled = pickle.load(file)  # noqa: S301 - from our own parent
        sys.path[:] = path
        logging.getLogger().addHandler(_LogHandler(teller))
        logging.getLogger("sage").setLevel(level)
        order: WorkerOrder = cloudpickle.loads(pickled)
    except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
        teller.tell(Failed.of(error))
        return 1
    slot = Slot(order, teller)
    threading.Thread(target=_obey, args=(slot,), name="sage-worker-orders", daemon=True).start()
    slot.run()
    lines.finish()
    return 0
