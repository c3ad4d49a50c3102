"""Calls the methods of a live service, one request at a time.

Everything that depends on *what* a method is (plain, `async def`, a generator) is here; *where* it
runs is the business of the service tasks.
"""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from sage.common.errors import ServiceMethodError, ServiceTimeoutError, ServiceUnavailableError
from sage.common.suggest import did_you_mean
from sage.kernel.runtime.service.batching import batched_methods
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    StreamToken,
    failure,
)

if TYPE_CHECKING:
    from sage.kernel.runtime.service.batches.batched_calls import BatchedCalls
    from sage.kernel.runtime.service.hosting.coroutine_runner import CoroutineRunner

Respond = Callable[[ServiceResponse], object]

CURRENT_REQUEST: ContextVar[ServiceRequest | None] = ContextVar("sage_request", default=None)
"""The request whose method this thread is running: nested calls inherit its deadline."""

STREAM_NEXT = "__stream_next__"
STREAM_CLOSE = "__stream_close__"
_STREAM_CHUNK = 64
_STREAM_SECONDS = 0.001


_monotonic = time.monotonic


def _come_too_late(request: ServiceRequest) -> ServiceResponse:
    told = ServiceTimeoutError("past its deadline on arrival")
    return failure(request.request_id, told, executed=False)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class ServiceExecutor:
    """Runs requests on a service object. All methods may be called from any thread.

    Args:
        name: The name of the service.
        service: The live object.
        custom: Called with each request instead of the method that it names.
        replica: Which replica of the service this is.
        max_concurrency: How many calls are worked on at a time, where methods are batched.
    """

    def __init__(
        self,
        name: str,
        service: Any,
        custom: Callable[[ServiceRequest], Any] | None = None,
        replica: int = 0,
        max_concurrency: int = 1,
    ) -> None:
        self._replica = replica
        self.name = name
        self.service = service
        self.calls = self.failures = 0
        self._custom = custom
        self._runner: CoroutineRunner | None = None
        self._lock = threading.Lock()
        self._streams: dict[int, Iterator[Any]] = {}
        self._faults: dict[int, BaseException] = {}
        # Never those of an earlier life of the service, whose streams somebody may still read.
        self._numbers = itertools.count(time.monotonic_ns())
        self.batched = self._batched_calls(max_concurrency)

    def execute(self, request: ServiceRequest, respond: Respond) -> None:
        """Run a request and hand the response to `respond`.

        A plain method has responded when this returns; an `async def` responds later, from the
        event loop's thread, and a batched one when its batch has been run.
        """
        batched = self.batched
        if batched is not None:
            if request.method_name in batched:
                self._gather(batched, request, partial(self._respond, respond))
                return
            respond = batched.in_turn(respond)
        if _monotonic() >= request.deadline:
            self._respond(respond, _come_too_late(request))
            return
        token = CURRENT_REQUEST.set(request)
        try:
            # What nearly all calls come to is written out here; `_call` knows the rest.
            name = request.method_name
            plain = self._custom is None and name[:1] != "_"
            method = getattr(self.service, name, None) if plain else None
            if callable(method):
                args, kwargs = request.args, request.kwargs
                result = method(*args, **kwargs) if kwargs else method(*args)
            else:
                result = self._call(request, *request.args, **request.kwargs)
            kind = result.__class__
            if kind is CoroutineType:
                self._run_coroutine(request, result, partial(self._respond, respond))
                return
            if kind is GeneratorType:
                result = self._outgoing(result)
            response = ServiceResponse(True, result, None, request.request_id)
        except BaseException as error:
            response = self._failure(request, error)
            if isinstance(error, KeyboardInterrupt) and _in_main_thread():  # a real Ctrl-C
                respond(response)
                raise
        finally:
            CURRENT_REQUEST.reset(token)
        self.calls += 1
        if not response.success:
            self.failures += 1
        respond(response)

    def _respond(self, respond: Respond, response: ServiceResponse) -> None:
        self.calls += 1
        self.failures += not response.success
        respond(response)

    def cancel(self, lane: str, number: int) -> None:
        """Cancel an `async def` that is running for a request, or leave it out of its batch."""
        if self.batched is not None:
            self.batched.cancel(lane, number)
        if self._runner is not None:
            self._runner.cancel((lane, number))

    def close(self) -> None:
        """Run the batches that wait, stop the event loop and close what generators are left."""
        if self.batched is not None:
            self.batched.close()
        for number in list(self._streams):
            self._close_stream(number)
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _call(self, request: ServiceRequest, *args: Any, **kwargs: Any) -> Any:
        if self._custom is not None and not request.method_name.startswith("__stream_"):
            return self._custom(request)
        return self._method(request.method_name)(*args, **kwargs)

    def _method(self, name: str) -> Callable[..., Any]:
        if name == STREAM_NEXT:
            return self._next_items
        if name == STREAM_CLOSE:
            return self._close_stream
        method = None if name.startswith("_") else getattr(self.service, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
        if name == "health_check":
            return lambda: True  # it answers, which is all that can be said
        public = [n for n in dir(self.service) if not n.startswith("_")]
        kind = type(self.service).__name__
        raise ServiceMethodError(
            f"the service {self.name!r} ({kind}) has no method {name!r}.{did_you_mean(name, public)}"
        )

    def _failure(self, request: ServiceRequest, error: BaseException) -> ServiceResponse:
        # The first frame is `execute`; the user's own come after it.
        trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
        text = "".join(traceback.format_exception(type(error), error, trace))
        return failure(request.request_id, error, text)

    # ---- batches

    def _batched_calls(self, max_concurrency: int) -> BatchedCalls | None:
        limits = batched_methods(self.service) if self._custom is None else {}
        if not limits:
            return None
        # Threads and clocks for batches: most services have no use for them.
        from sage.kernel.runtime.service.batches.batched_calls import BatchedCalls  # noqa: PLC0415

        return BatchedCalls(
            self.name,
            self.service,
            limits,
            max_concurrency=max_concurrency,
            coroutines=self._coroutines,
            outgoing=self._outgoing,
        )

    def _gather(self, batched: BatchedCalls, request: ServiceRequest, respond: Respond) -> None:
        if _monotonic() >= request.deadline:
            respond(_come_too_late(request))
            return
        try:
            batched.add(request, respond)
        except BaseException as error:  # noqa: BLE001 - it is the caller's to handle
            respond(self._failure(request, error))

    # ---- async def

    def _run_coroutine(self, request: ServiceRequest, coroutine: Any, respond: Respond) -> None:
        """Let the coroutine run in the event loop's thread and respond when it ends."""

        def answer(result: Any, error: BaseException | None) -> None:
            if error is not None:
                respond(self._failure(request, error))
            else:
                outgoing = self._outgoing(result)
                respond(ServiceResponse(True, outgoing, None, request.request_id))

        key = (request.response_queue_name, request.request_id)
        self._coroutines().run(key, coroutine, request.deadline, answer)

    def _coroutines(self) -> CoroutineRunner:
        # asyncio takes long to import; most services have no use for it.
        from sage.kernel.runtime.service.hosting.coroutine_runner import CoroutineRunner  # noqa: PLC0415

        with self._lock:
            if self._runner is None:
                self._runner = CoroutineRunner(f"sage-service-{self.name}-loop")
            return self._runner

    # ---- generators

    def _outgoing(self, result: Any) -> Any:
        if result.__class__ is not GeneratorType:
            return result
        number = next(self._numbers)
        self._streams[number] = result
        return StreamToken(number, self._replica)

    def _next_items(self, number: int) -> tuple[list[Any], bool]:
        """Return the next items of a stream and whether it has ended.

        What a quick generator has is fetched in chunks; a slow one gives its items one by one.
        """
        stream = self._streams.get(number)
        if stream is None:
            raise ServiceUnavailableError(
                f"the service {self.name!r} has no such stream any more: it has been read to its end, "
                "or the service has been started anew"
            )
        if number in self._faults:
            del self._streams[number]
            raise self._faults.pop(number)
        items: list[Any] = []
        until = time.monotonic() + _STREAM_SECONDS
        try:
            for item in stream:
                items.append(item)
                if len(items) >= _STREAM_CHUNK or time.monotonic() >= until:
                    return items, False
        except BaseException as error:  # noqa: BLE001 - raised by the next fetch, after the items
            self._faults[number] = error
            return items, False
        self._streams.pop(number, None)  # it may have been given up meanwhile
        return items, True

    def _close_stream(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        # One that another thread is fetching items from goes when that has its items.
        if stream is not None and not stream.gi_running:  # type: ignore[attr-defined]
            stream.close()  # type: ignore[attr-defined]
