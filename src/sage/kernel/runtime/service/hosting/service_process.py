"""The program that runs in a service's own process: `python -m sage.kernel.runtime.service`.

It is told what to run by a file that it inherits, says through standard output when it is ready, and
ends when standard input ends: also when the process that started it is killed. What the service
prints goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from sage.common.errors import (
    MessageTooLargeError,
    QueueClosedError,
    QueueError,
    QueueHandleClosedError,
    QueueNotFoundError,
)
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.channel.queue_handles import QueueHandles
from sage.kernel.runtime.service.channel.service_address import ServiceAddress, lane_reader
from sage.kernel.runtime.service.channel.service_message import (
    HEADER_BYTES,
    Kind,
    ServiceResponse,
    failure,
    pack_header,
    pack_response,
    read_address,
    read_answer_head,
    read_header,
    read_lane,
    read_request,
    read_request_head,
)
from sage.kernel.runtime.service.channel.slots import NoSlots
from sage.kernel.runtime.service.hosting.remote_services import RemoteServices
from sage.kernel.runtime.service.hosting.service_context import ServiceContext
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.transport import queue_files
from sage.kernel.transport.sage_queue import SageQueue

READY = b"R"
FAILED = b"F"
_LOOK_SECONDS = 0.05
_ORPHAN_SECONDS = 5.0
_IDLE_SECONDS = 60.0


@dataclass(frozen=True)
class ProcessOrder:
    """What a service process is to run; it travels pickled.

    Attributes:
        factory: Makes the service.
        task_class: The class of service task that answers its requests.
        address: Where it takes requests.
        replica: Which replica it is.
        others: The other services it may call.
        middleware: What is around its own calls of other services.
    """

    factory: ServiceFactory
    task_class: type[BaseServiceTask]
    address: ServiceAddress
    replica: int
    others: tuple[ServiceAddress, ...]
    middleware: tuple[ServiceMiddleware, ...] = ()


class ServiceWorker:
    """Reads the requests of one replica and answers them.

    Args:
        task: The service.
        address: Where it takes requests.
        replica: Which replica it is.
        close_idle: Lets the queues go by which the service itself calls others.
    """

    def __init__(
        self,
        task: BaseServiceTask,
        address: ServiceAddress,
        replica: int,
        close_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._task = task
        self._close_own_idle = close_idle
        self._requests = SageQueue.open(address.requests(replica))
        self._control = SageQueue.open(address.control(replica))
        self._lanes = QueueHandles(_has_reader)
        self._cancelled: dict[tuple[str, int], None] = {}
        self._slots = task.new_slots()
        # Without slots there is nothing to be given back: most calls are spared the asking.
        self._release = None if type(self._slots) is NoSlots else self._slots.release
        self._threads: list[threading.Thread] = []

    def refuse_leftovers(self) -> None:
        """Answer what was sent to an earlier life of this replica, which will never be executed."""
        while True:
            try:
                frame = self._requests.get_nowait()
            except queue.Empty:
                return
            self._send(read_lane(frame), pack_header(Kind.STALE, read_header(frame).number))

    def start(self) -> None:
        """Let threads work on requests."""
        for number in range(self._task.options.max_concurrency):
            self._start(self._work, f"sage-service-{self._task.name}-{number}")
        self._start(self._listen, f"sage-service-{self._task.name}-control")

    def stop(self) -> None:
        """Take no more requests, finish those that have come, and let the queues go."""
        self._requests.shutdown()
        self._control.shutdown()
        for thread in self._threads:
            thread.join()
        self._slots.wait_free()  # until the last `async def` has answered
        for handles in (self._requests, self._control, self._lanes):
            handles.close()

    def _start(self, work: Any, name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            self._slots.acquire()
            try:
                frame = self._requests.get()
            except QueueClosedError:
                self._slots.release()
                return
            self.handle(frame)

    def handle(self, frame: bytes) -> None:
        """Answer a request, unless nobody waits for it any more."""
        size, number, deadline = read_request_head(frame)
        start = HEADER_BYTES + size
        address = read_address(frame[HEADER_BYTES:start])
        lane = address[0]
        # Nobody waits any more: it is not even unpickled.
        given_up = self._cancelled and (lane, number) in self._cancelled
        if given_up or deadline <= time.monotonic():
            self._cancelled.pop((lane, number), None)
            self._slots.release()
            return

        def respond(response: ServiceResponse) -> None:
            if self._release is not None:
                self._release()
            self._send(lane, pack_response(response))

        try:
            request = read_request(number, deadline, address, frame, start)
        except Exception as error:  # noqa: BLE001 - told to the caller
            told = TypeError(f"the arguments cannot be read: {type(error).__name__}: {error}")
            respond(failure(number, told))
            return
        self._task.run_request(request, respond)
        if self._cancelled and (lane, number) in self._cancelled:  # it was given up meanwhile
            self._task.cancel_request(lane, number)

    def _listen(self) -> None:
        """Take note of the requests that callers give up on."""
        while True:
            try:
                frame = self._control.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._close_idle()
                continue
            except QueueClosedError:
                return
            lane, number = read_lane(frame), read_header(frame).number
            # First marked, then cancelled: whoever is about to begin with it looks again afterwards.
            self._cancelled[lane, number] = None
            self._task.cancel_request(lane, number)
            while len(self._cancelled) > 10_000:  # most of them were answered long ago
                self._cancelled.pop(next(iter(self._cancelled)), None)

    def _close_idle(self) -> None:
        self._lanes.close_idle()
        self._close_own_idle()

    def _send(self, name: str, frame: bytes) -> None:
        """Put an answer into a lane, waiting for room as long as its reader lives."""
        try:
            self._lanes.touch(name)
            lane = self._lanes[name]
            while True:
                try:
                    lane.put(frame, True, _LOOK_SECONDS)
                except queue.Full:
                    self._lanes.touch(name)
                    if not _has_reader(name):
                        raise QueueNotFoundError(f"nobody reads {name}") from None
                else:
                    return
        except MessageTooLargeError as error:
            told = TypeError(f"the result is larger than the way back to the caller: {error}")
            self._send(name, pack_response(failure(read_answer_head(frame)[2], told)))
        except QueueHandleClosedError:  # just now, as nobody had used it
            self._lanes.drop(name)
            self._send(name, frame)
        except QueueError:  # the caller is gone, and with it whoever would miss the answer
            self._lanes.drop(name)


def _has_reader(lane: str) -> bool:
    try:
        return lane_reader(lane) in queue_files.peers(lane)
    except FileNotFoundError:
        return False


def _end_within(seconds: float) -> None:
    """End this process for sure, whatever a method of the service is doing."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def run(order: ProcessOrder, say: Any, life: int) -> None:
    """Run a service until standard input ends."""
    parent = os.getppid()
    services = RemoteServices(order.address.token, order.others, order.middleware)
    context = ServiceContext(order.factory.name, services)
    task = order.task_class(order.factory, context)
    task.replica = order.replica
    task.make_service()
    try:
        worker = ServiceWorker(task, order.address, order.replica, services.close_idle)
        if life > 1:  # what came before the first one was ready is not left over
            worker.refuse_leftovers()
        worker.start()
        say(READY)
        sys.stdin.buffer.read()
        if os.getppid() != parent:  # it was killed: nobody will kill this one if it does not end
            _end_within(_ORPHAN_SECONDS)
        worker.stop()
    finally:
        task.unmake_service()
        services.close()


def _read_order(fd: int) -> tuple[list[str], bytes]:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)  # earlier lives have read it too
        path, order = pickle.load(file)  # noqa: S301 - from our own parent
        return path, order


def main() -> int:
    """Read the order, run it, and tell of failures before the service was ready."""
    # Ctrl-C is for the program that started this one, which ends it in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    said = []

    def say(what: bytes, text: bytes = b"") -> None:
        said.append(what)
        answers.write(what + len(text).to_bytes(4, "big") + text)

    try:
        path, order = _read_order(int(sys.argv[1]))
        sys.path[:] = path
        run(cloudpickle.loads(order), say, int(sys.argv[2]))
    except BaseException as error:
        if said:
            raise
        import traceback  # noqa: PLC0415

        say(FAILED, "".join(traceback.format_exception(error)).encode())
        return 1
    return 0
