"""What runs in a Ray actor: one replica of a service, with threads to work on its requests.

The actor is an asynchronous one. Its event loop only takes requests and hands answers out; the
methods of the service run in threads of their own, so that a call can be cancelled, and the actor
asked how it is, while all of them are busy. Requests and answers are the frames of
`service_message`, and so errors, deadlines and causes are those of every other service.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Final

import cloudpickle

from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.channel.service_message import (
    HEADER_BYTES,
    ServiceResponse,
    failure,
    pack_response,
    read_address,
    read_request,
    read_request_head,
)
from sage.kernel.runtime.service.hosting.service_context import ServiceContext
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig

CONTROL: Final = "control"
"""The concurrency group of all that must not wait behind requests."""

ACTOR_OPTIONS: Final = {"concurrency_groups": {CONTROL: 64}}
WAITING: Final = 10_000
"""How many requests the event loop of an actor takes in before Ray keeps them."""


@dataclass(frozen=True)
class RayAddress:
    """Where a service that runs in Ray actors takes its requests. Can be pickled.

    Attributes:
        token: Stands for the environment; the Ray namespace of its actors.
        number: Which of the environment's services this is.
        name: The name of the service.
        replicas: How many instances there are.
        calls: What is said about its calls.
        queue_timeout: Seconds to wait while `queue_bytes` are under way; None: until the deadline.
        queue_bytes: How many bytes of requests one caller has under way to a replica.
    """

    token: str
    number: int
    name: str
    replicas: int
    calls: PolicyConfig = field(default_factory=PolicyConfig)
    queue_timeout: float | None = None
    queue_bytes: int = 4 << 20

    def actor(self, replica: int) -> str:
        """Return the name of the actor that is a replica."""
        return f"{self.token}-a{self.number}-{replica}"


@dataclass(frozen=True)
class RayServices:
    """Where another process of this machine finds the Ray services of an environment.

    Attributes:
        cluster: The address of the Ray that runs them, as `ray.init(address=...)` takes it.
        addresses: Theirs.
    """

    cluster: str
    addresses: tuple[RayAddress, ...]


@dataclass(frozen=True)
class RayOrder:
    """What an actor is to run; it travels pickled.

    Attributes:
        factory: Makes the service.
        task_class: The class of service task that answers its requests.
        address: Where it takes requests.
        replica: Which replica it is.
        others: The other Ray services, which it may call.
        elsewhere: The names of the services that it cannot reach.
        middleware: What is around its own calls of other services.
    """

    factory: ServiceFactory
    task_class: type[BaseServiceTask]
    address: RayAddress
    replica: int
    others: tuple[RayAddress, ...] = ()
    elsewhere: tuple[str, ...] = ()
    middleware: tuple[ServiceMiddleware, ...] = ()


def pack_order(order: RayOrder) -> tuple[list[str], bytes]:
    """Return where modules are found here, and the order."""
    return list(sys.path), cloudpickle.dumps(order)


@dataclass(eq=False)
class _Waiting:
    """A request that waits for a thread, and the coroutine that waits for its answer."""

    frame: bytes
    deadline: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[bytes]

    def respond(self, frame: bytes) -> None:
        """Hand the answer to the event loop."""
        self.loop.call_soon_threadsafe(self._set, frame)

    def _set(self, frame: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(frame)


class RayReplica:
    """One replica of a service; the class of the actor.

    A service that cannot be made at first leaves an actor that says why when asked by `ready`; one
    that cannot be made again after a death ends the actor, and Ray starts it again.

    Args:
        packed: What `pack_order` returned.
    """

    def __init__(self, packed: tuple[list[str], bytes]) -> None:
        path, order = packed
        # On another machine these are not there; modules are then Ray's `runtime_env` to bring.
        sys.path += [entry for entry in path if entry not in sys.path and os.path.isdir(entry)]
        self._requests: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._cancelled: dict[tuple[str, int], None] = {}
        self._threads: list[threading.Thread] = []
        self._failure = ""
        try:
            self._make(cloudpickle.loads(order))
        except BaseException:
            import ray  # only actors come here  # noqa: PLC0415

            if ray.get_runtime_context().was_current_actor_reconstructed:
                raise
            self._failure = traceback.format_exc()

    def _make(self, order: RayOrder) -> None:
        from sage.kernel.runtime.service.channel.ray_channel import RayDirectory  # noqa: PLC0415 - a circle

        self._services = RayDirectory(
            order.address.token, order.others, order.elsewhere, order.middleware
        )
        context = ServiceContext(order.factory.name, self._services)
        self._task = order.task_class(order.factory, context)
        self._task.replica = order.replica
        self._task.make_service()
        self._slots = self._task.new_slots()
        for number in range(self._task.options.max_concurrency):
            name = f"sage-service-{self._task.name}-{number}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    # ---- what is called from outside

    async def ready(self) -> tuple[int, str]:
        """Return the process's number, and why the service could not be made; empty: it could."""
        return os.getpid(), self._failure

    async def answer(self, frame: bytes, seconds: float) -> bytes:
        """Answer a request.

        Args:
            frame: The request.
            seconds: How long its caller still waits; clocks differ from machine to machine.
        """
        loop = asyncio.get_running_loop()
        until = time.monotonic() + seconds
        waiting = _Waiting(frame, until, loop, loop.create_future())
        self._requests.put(waiting)
        return await waiting.answer

    async def cancel(self, lane: str, number: int) -> None:
        """Take note that a caller has given up on a request."""
        self._cancelled[lane, number] = None
        self._task.cancel_request(lane, number)
        while len(self._cancelled) > 10_000:  # most of them were answered long ago
            self._cancelled.pop(next(iter(self._cancelled)), None)

    async def statistics(self) -> dict[str, Any]:
        """Return how many calls this replica had, and how many failed."""
        return self._task.get_statistics()

    async def stop(self) -> str:
        """Finish the calls at hand and let the service go; return what failed, empty: nothing."""
        if self._failure:
            return ""
        return await asyncio.to_thread(self._stop)

    # ---- threads

    def _stop(self) -> str:
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()
        self._slots.wait_free()  # until the last `async def` has answered
        try:
            self._task.unmake_service()
        except Exception:  # noqa: BLE001 - told to who stops the service
            return traceback.format_exc()
        finally:
            self._services.close()
        return ""

    def _work(self) -> None:
        while True:
            self._slots.acquire()
            waiting = self._requests.get()
            if waiting is None:
                self._slots.release()
                return
            self._handle(waiting)

    def _handle(self, waiting: _Waiting) -> None:
        frame = waiting.frame
        size, number, _ = read_request_head(frame)
        start = HEADER_BYTES + size
        address = read_address(frame[HEADER_BYTES:start])
        lane = address[0]
        given_up = self._cancelled and (lane, number) in self._cancelled
        if given_up or waiting.deadline <= time.monotonic():
            self._cancelled.pop((lane, number), None)
            self._slots.release()
            waiting.respond(b"")  # nobody waits any more: it is not even unpickled
            return

        def respond(response: ServiceResponse) -> None:
            self._slots.release()
            waiting.respond(pack_response(response))

        try:
            request = read_request(number, waiting.deadline, address, frame, start)
        except Exception as error:  # noqa: BLE001 - told to the caller
            told = TypeError(f"the arguments cannot be read: {type(error).__name__}: {error}")
            respond(failure(number, told))
            return
        self._task.run_request(request, respond)
