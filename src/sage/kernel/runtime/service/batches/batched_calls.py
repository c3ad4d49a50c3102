"""`BatchedCalls`: calls the batched methods of a service and gives each caller its own result."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Set
from functools import partial
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from sage.common.clock import SystemClock
from sage.common.suggest import shorten
from sage.kernel.runtime.service.batches.batch_window import WaitingCall
from sage.kernel.runtime.service.batches.batcher import Batcher
from sage.kernel.runtime.service.batching import BatchLimits
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    failure,
)
from sage.kernel.runtime.service.channel.slots import Turns
from sage.kernel.runtime.service.hosting.service_executor import CURRENT_REQUEST, Respond

if TYPE_CHECKING:
    from sage.kernel.runtime.service.hosting.coroutine_runner import CoroutineRunner, Key

_NOT_LISTS = (str, bytes, bytearray, Mapping, Set)


class BatchedCalls:
    """The batched methods of one service object. Methods may be called from any thread.

    Batches and the calls of the other methods share `max_concurrency`: a service that works on one
    call at a time need not be thread-safe, with batches or without.

    Args:
        name: The name of the service.
        service: The live object.
        limits: The limits of each batched method.
        max_concurrency: How many batches and other calls are worked on at a time.
        coroutines: Gives what runs `async def` methods.
        outgoing: Makes of a result what is sent to the caller.
    """

    def __init__(
        self,
        name: str,
        service: Any,
        limits: Mapping[str, BatchLimits],
        *,
        max_concurrency: int,
        coroutines: Callable[[], CoroutineRunner],
        outgoing: Callable[[Any], Any],
    ) -> None:
        self._service = service
        self._limits = limits
        self._coroutines = coroutines
        self._outgoing = outgoing
        self._turns = Turns(max_concurrency)
        self._batcher = Batcher(
            f"sage-service-{name}",
            limits,
            self._turns,
            max_concurrency=max_concurrency,
            run=self._run,
            clock=SystemClock(),
        )
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waited_for: dict[Key, set[Key]] = {}  # the callers of each `async def` that runs

    def __contains__(self, method: str) -> bool:
        """Whether a method is batched."""
        return method in self._limits

    @property
    def room(self) -> int:
        """How many requests must be let in at a time, so that batches can become full."""
        return self._batcher.room

    def in_turn(self, respond: Respond) -> Respond:
        """Wait until another call may be worked on; return the `respond` that ends its turn."""
        self._turns.acquire()

        def end_turn(response: ServiceResponse) -> None:
            self._turns.release()
            respond(response)

        return end_turn

    def add(self, request: ServiceRequest, respond: Respond) -> None:
        """Let a request wait for its batch.

        Raises:
            TypeError: it has not exactly one argument, by position.
            Exception: what `cost` raised.
        """
        limits = self._limits[request.method_name]
        if len(request.args) != 1 or request.kwargs:
            given = ", ".join((f"{len(request.args)} by position", *map(repr, request.kwargs)))
            raise TypeError(
                f"{self._told(request)} is batched: it takes one item, by position; given: {given}"
            )
        item = request.args[0]
        size, cost = limits.bytes_of(item), limits.cost_of(item)
        self._batcher.add(WaitingCall(request, respond, time.monotonic(), size, cost))

    def cancel(self, lane: str, number: int) -> None:
        """Leave a call out of its batch; cancel an `async def` that nobody waits for any more."""
        if self._batcher.cancel(lane, number):
            return
        with self._lock:
            for callers in self._waited_for.values():
                callers.discard((lane, number))
            forsaken = [key for key, callers in self._waited_for.items() if not callers]
        for key in forsaken:
            self._coroutines().cancel(key)

    def drain(self) -> None:
        """Let no batch wait any longer for further calls; for good."""
        self._batcher.drain()

    def close(self) -> None:
        """Run what waits, and end the threads."""
        self._batcher.close()

    # ---- running a batch

    def _run(self, batch: list[WaitingCall]) -> None:
        """Run a batch; its calls have been answered when this returns, or will be by the event loop."""
        request = _request_of(batch)
        token = CURRENT_REQUEST.set(request)
        try:
            results = getattr(self._service, request.method_name)(*request.args)
            if iscoroutine(results):
                self._run_coroutine(batch, request, results)
                return
            responses = self._responses(batch, results)
        except BaseException as error:  # noqa: BLE001 - it is the callers' to handle
            responses = _failures(batch, error)
        finally:
            CURRENT_REQUEST.reset(token)
        self._answer(batch, responses)

    def _run_coroutine(
        self, batch: list[WaitingCall], request: ServiceRequest, coroutine: Any
    ) -> None:
        # No lane has such a name: nobody who gives up one call can mean the whole batch.
        key = (f"batch of {request.method_name}", next(self._numbers))
        with self._lock:
            self._waited_for[key] = {
                (call.request.response_queue_name, call.request.request_id) for call in batch
            }
        self._coroutines().run(key, coroutine, request.deadline, partial(self._ended, key, batch))

    def _ended(
        self, key: Key, batch: list[WaitingCall], results: Any, error: BaseException | None
    ) -> None:
        with self._lock:
            del self._waited_for[key]
        if error is None:
            try:
                responses = self._responses(batch, results)
            except Exception as wrong:  # noqa: BLE001 - it is the callers' to handle
                error = wrong
        if error is not None:
            responses = _failures(batch, error)
        self._answer(batch, responses)

    def _responses(self, batch: list[WaitingCall], results: Any) -> list[ServiceResponse]:
        """Return the answer to each call of a batch.

        Raises:
            TypeError: the method has not returned a list.
            ValueError: it has returned too few or too many results.
        """
        told, expected = self._told(batch[0].request), f"a list of {len(batch)} results"
        if isinstance(results, _NOT_LISTS) or not hasattr(results, "__len__"):
            raise TypeError(f"{told} is to return {expected}, not {shorten(results)}")
        if len(results) != len(batch):
            raise ValueError(f"{told} is to return {expected}, and has returned {len(results)}")
        return [self._response(c.request, r) for c, r in zip(batch, results, strict=True)]

    def _response(self, request: ServiceRequest, result: Any) -> ServiceResponse:
        if isinstance(result, Exception):
            trace = "".join(traceback.format_exception(result))
            return failure(request.request_id, result, trace)
        return ServiceResponse(True, self._outgoing(result), None, request.request_id)

    def _answer(self, batch: list[WaitingCall], responses: list[ServiceResponse]) -> None:
        self._turns.release()
        for call, response in zip(batch, responses, strict=True):
            call.respond(response)

    def _told(self, request: ServiceRequest) -> str:
        return f"{type(self._service).__name__}.{request.method_name}"


def _request_of(batch: list[WaitingCall]) -> ServiceRequest:
    """Return the request that stands for a batch while it is run.

    What the method calls in turn is of use as long as one caller still waits, so the latest deadline
    counts: with the earliest, one impatient caller would fail all the others. The chain has the
    services that wait for any of the calls, since calling one of them would wait for itself.
    """
    first = batch[0].request
    return ServiceRequest(
        first.request_id,
        first.service_name,
        first.method_name,
        ([call.request.args[0] for call in batch],),
        deadline=max(call.request.deadline for call in batch),
        caller_chain=tuple(dict.fromkeys(s for call in batch for s in call.request.caller_chain)),
    )


def _failures(batch: list[WaitingCall], error: BaseException) -> list[ServiceResponse]:
    # The first frame is this module's; the user's own come after it.
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(error), error, trace))
    return [failure(call.request.request_id, error, text) for call in batch]
