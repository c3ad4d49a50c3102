"""`BaseServiceTask`: a service and its life, with threads of this process to work on its calls."""

from __future__ import annotations

import inspect
import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sage.common.errors import ConfigError, ServiceUnavailableError
from sage.common.log import get_logger
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    failure,
)
from sage.kernel.runtime.service.channel.slots import NoSlots, Slots
from sage.kernel.runtime.service.hosting.service_executor import Respond, ServiceExecutor
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.tracing import run_traced


class RequestQueue(Protocol):
    """Where requests wait for a service."""

    def qsize(self) -> int:
        """Return how many waited a moment ago."""
        ...

    def empty(self) -> bool:
        """Return whether none waited a moment ago."""
        ...


_HOOKS = frozenset({"setup", "start", "stop", "cleanup"})


class BaseServiceTask:
    """A service with its life: made, started, called, stopped.

    A service is any object. Where it has them, `setup` and `start` are called before the first
    call, `stop` and `cleanup` after the last one, each once and without arguments; `health_check`
    says whether it is well.

    A subclass may override `handle_request`, or define `custom_handle_request(request)`, which
    returns the result.

    Args:
        service_factory: Makes the service.
        ctx: What the service finds as its `ctx`, if it has such an attribute.

    Examples:
        >>> from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
        >>> task = BaseServiceTask(ServiceFactory("cache", dict))
        >>> task.start_service()
        >>> task.get_service_status()["status"]
        'running'
        >>> task.stop_service()
    """

    custom_handle_request: Callable[[ServiceRequest], Any] | None = None
    replica: int = 0

    def __init__(self, service_factory: ServiceFactory, ctx: Any = None) -> None:
        self.service_factory = service_factory
        self.name = service_factory.name
        self.options = service_factory.options
        self.ctx = ctx
        self.service: Any = None
        self.logger = get_logger("service", self.name)
        self._executor: ServiceExecutor | None = None
        self._execute: Callable[[ServiceRequest, Respond], None] = self._refuse
        self._started_at: float | None = None
        self._calls = self._failures = 0
        self._lifecycle = threading.Lock()
        self._requests: queue.SimpleQueue[ServiceFuture | None] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._deserted = False
        self._slots = NoSlots()

    # ---- life

    @property
    def is_running(self) -> bool:
        """Whether the service takes calls."""
        return self._started_at is not None

    def start_service(self) -> None:
        """Make the service and let it take calls. Starting twice is no error.

        Raises:
            Exception: the service's own, from its constructor, `setup` or `start`.
            ConfigError: it is to run inline and has batched methods.
        """
        with self._lifecycle:
            if self._started_at is None:
                self._start()
                self._started_at = time.monotonic()

    def stop_service(self) -> None:
        """Finish the calls at hand and let the service go. Stopping twice is no error.

        Raises:
            Exception: the service's own, from `stop` or `cleanup`; both have been called.
        """
        with self._lifecycle:
            if self._started_at is not None:
                self._started_at = None
                self._stop()

    def get_service_status(self) -> dict[str, Any]:
        """Return the name, whether it runs, for how long, and how many calls it had."""
        up = None if self._started_at is None else time.monotonic() - self._started_at
        return {
            "name": self.name,
            "status": "running" if self.is_running else "stopped",
            "isolation": self.options.isolation,
            "uptime_seconds": up,
            **self.get_statistics(),
        }

    def get_statistics(self) -> dict[str, Any]:
        """Return how many calls the service had, and how many of them failed."""
        own, executor = (self._calls, self._failures), self._executor
        # A task that answers requests itself counts them; the executor counts what it is asked.
        calls, failures = (
            own if executor is None or any(own) else (executor.calls, executor.failures)
        )
        return {"calls": calls, "failures": failures}

    def _start(self) -> None:
        self.make_service()
        self._slots = self.new_slots()
        if self.options.inline:
            return
        self._deserted = False
        # A thread that only begins coroutines need not be one of many that take turns.
        for number in range(1 if self._only_begins() else self.options.max_concurrency):
            name = f"sage-service-{self.name}-{number}"
            worker = threading.Thread(target=self._work, name=name, daemon=True)
            worker.start()
            self._workers.append(worker)

    def _stop(self) -> None:
        for _ in self._workers:
            self._requests.put(None)
        for worker in self._workers:
            worker.join()
        self._workers.clear()
        self._deserted = True
        self._refuse_waiting()
        self._slots.wait_free()
        self.unmake_service()

    # ---- requests

    def send(self, future: ServiceFuture) -> None:
        """Take a call; `future.complete` is called with the response.

        Raises:
            ServiceUnavailableError: the service does not take calls.
        """
        if self._started_at is None:
            raise ServiceUnavailableError(f"the service {self.name!r} is not running")
        if future.admit is not None:
            future.admit(0)  # nothing is copied
        if self.options.inline:
            self.run_request(future.request, future.complete)
        else:
            self._requests.put(future)
            if self._deserted:  # it came too late for the threads
                self._refuse_waiting()

    @property
    def request_queue(self) -> RequestQueue | None:
        """Where requests wait for a thread of the service; None if it runs inline."""
        return None if self.options.inline else self._requests

    def _refuse_waiting(self) -> None:
        """Answer what no thread will take any more."""
        while not self._requests.empty():
            try:
                future = self._requests.get_nowait()
            except queue.Empty:
                return
            if future is not None:
                stopped = ServiceUnavailableError(f"the service {self.name!r} has been stopped")
                future.complete(failure(future.request.request_id, stopped, executed=False))

    def handle_request(self, request: ServiceRequest) -> ServiceResponse:
        """Answer a request by calling the method that it names; to be overridden."""
        answered: queue.SimpleQueue[ServiceResponse] = queue.SimpleQueue()
        self._running_executor().execute(request, answered.put)
        return answered.get()

    def run_request(self, request: ServiceRequest, respond: Respond) -> None:
        """Answer a request, through `handle_request` where a subclass overrides it."""
        if request.trace_context is None:
            self._execute(request, respond)
        else:
            run_traced(request, self._execute, respond)

    def _execute_overridden(self, request: ServiceRequest, respond: Respond) -> None:
        response = self._answer(request)
        self._calls += 1
        self._failures += not response.success
        respond(response)

    def _answer(self, request: ServiceRequest) -> ServiceResponse:
        try:
            response = self.handle_request(request)
        except BaseException as error:  # noqa: BLE001 - it is the caller's to handle
            return failure(request.request_id, error, traceback.format_exc())
        response.request_id = request.request_id
        return response

    def _refuse(self, request: ServiceRequest, respond: Respond) -> None:
        raise ServiceUnavailableError(f"the service {self.name!r} is not running")

    def cancel_request(self, lane: str, number: int) -> None:
        """Cancel a request that an `async def` method is working on."""
        if self._executor is not None:
            self._executor.cancel(lane, number)

    def new_slots(self) -> NoSlots:
        """Return what bounds the requests that are worked on at a time, for a service that is made.

        A plain method keeps its thread until it has answered, so the number of threads is the bound;
        an `async def` leaves its thread at once. A batched method does so too; there, the executor
        bounds how many batches and other calls are worked on, and enough are let in here for as many
        batches to become full.
        """
        if (batched := self._running_executor().batched) is not None:
            return Slots(batched.room, batched.drain)
        methods = (getattr(type(self.service), name, None) for name in dir(type(self.service)))
        leaves = any(inspect.iscoroutinefunction(method) for method in methods)
        return Slots(self.options.max_concurrency) if leaves else NoSlots()

    def _only_begins(self) -> bool:
        """Say whether all methods are `async def`, so that no request keeps its thread."""
        if self.custom_handle_request is not None or self._running_executor().batched is not None:
            return False
        if type(self).handle_request is not BaseServiceTask.handle_request:
            return False
        names = {name for name in dir(type(self.service)) if not name.startswith("_")} - _HOOKS
        methods = [getattr(type(self.service), name, None) for name in names]
        return bool(methods) and all(map(inspect.iscoroutinefunction, methods))

    def make_service(self) -> None:
        """Make the service object and call the hooks of its beginning.

        Raises:
            Exception: what the constructor or a hook raised; `cleanup` has then been called.
        """
        self.service = self.service_factory.create_service(self.ctx)
        self._executor = ServiceExecutor(
            self.name,
            self.service,
            self.custom_handle_request,
            self.replica,
            self.options.max_concurrency,
        )
        overridden = type(self).handle_request is not BaseServiceTask.handle_request
        self._execute = self._execute_overridden if overridden else self._executor.execute
        try:
            self._refuse_inline_batches(self._executor)
            for hook in ("setup", "start"):
                self._call_hook(hook)
        except BaseException:
            self._call_hook("cleanup")
            raise

    def _refuse_inline_batches(self, executor: ServiceExecutor) -> None:
        if self.options.inline and executor.batched is not None:
            raise ConfigError(
                f"the service {self.name!r} has batched methods and cannot be inline: a call on the "
                "caller's own thread has no others to gather with"
            )

    def unmake_service(self) -> None:
        """Call the hooks of the end, all of them, and forget the object.

        Raises:
            Exception: the first one that a hook raised.
        """
        failures: list[Exception] = []
        for hook in ("stop", "cleanup"):
            try:
                self._call_hook(hook)
            except Exception as error:  # noqa: BLE001 - raised below, after the other hook has run
                failures.append(error)
        if self._executor is not None:
            self._executor.close()
            self._calls, self._failures = self._executor.calls, self._executor.failures
            self._executor = None
        self._execute = self._refuse
        self.service = None
        if failures:
            raise failures[0]

    def _call_hook(self, name: str) -> None:
        hook = getattr(self.service, name, None)
        if callable(hook):
            hook()

    def _running_executor(self) -> ServiceExecutor:
        if self._executor is None:
            raise ServiceUnavailableError(f"the service {self.name!r} is not running")
        return self._executor

    def _work(self) -> None:
        slots = self._slots
        while True:
            slots.acquire()
            future = self._requests.get()
            if future is None:
                slots.release()
                return
            if future.settled():  # cancelled while it waited here
                slots.release()
            else:
                self.run_request(future.request, partial(self._respond, future))
                if future.given_up():  # perhaps just before an `async def` began
                    self.cancel_request("", future.request.request_id)

    def _respond(self, future: ServiceFuture, response: ServiceResponse) -> None:
        self._slots.release()
        future.complete(response)
