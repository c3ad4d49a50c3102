"""A call in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from math import inf
from typing import Any, Protocol

import msgspec

from sage.common.clock import Doorbell
from sage.common.errors import ServiceCancelledError, ServiceTimeoutError
from sage.kernel.runtime.service.call.callbacks import run_callbacks
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    StreamToken,
    error_of,
)


class Waiter(Protocol):
    """Brings answers: what a future turns to when somebody waits for it."""

    def wait(self, future: ServiceFuture, until: float) -> None:
        """Return when `future` is done, or `until` has come on the monotonic clock."""
        ...

    def poll(self) -> None:
        """Take in the answers that have come, without waiting."""
        ...

    def listen(self, future: ServiceFuture) -> None:
        """See to it that `future` ends, with its answer or its deadline, even if nobody waits."""
        ...

    def forget(self, future: ServiceFuture, *, cancel: bool) -> None:
        """Give up on an answer; with `cancel`, tell the service."""
        ...


class Calls(Protocol):
    """Those who make calls, as far as the end of a call concerns them."""

    def ended(self, future: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
        """Take note of the answer before anybody sees it; return it, or another in its place."""
        ...

    def open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Return an iterator over the items of a generator that the method returned."""
        ...

    def fall_back(self, error: BaseException) -> ServiceResponse:
        """Return what a failed call comes to after all; called by whoever asks for the result."""
        ...


class ServiceFuture(msgspec.Struct, eq=False, weakref=True):
    """The result of a call that may not be there yet.

    All methods may be called from any thread. `await future` works in an event loop.

    Attributes:
        request: The call.
        waiter: Brings the answer.
        started: When it was made, on the machine's monotonic clock.
        calls: Who makes the call.
        replica: Which replica must answer it; None: any.
        avoid: Which replica should rather not, because it is busy with the same call.
        admit: Asked with the size of the request, in bytes, before it is sent; raises
            `ServiceOverloadedError` if too much is under way. None: it may be sent.
        response: What it came to; None until then.
    """

    request: ServiceRequest
    waiter: Waiter
    started: float
    calls: Calls
    replica: int | None = None
    avoid: int | None = None
    admit: Callable[[int], None] | None = None
    response: ServiceResponse | None = None
    _bell: Doorbell | None = None
    _callbacks: list[Callable[[ServiceFuture], object]] | None = None
    # To set the response; whoever pops it first has it.
    _right: list[bool] = msgspec.field(default_factory=[True].copy)

    def settled(self) -> bool:
        """Whether the result is there, without looking whether it has come meanwhile."""
        return self.response is not None

    def done(self) -> bool:
        """Say whether the call has ended, be it with an error; takes in answers that have come."""
        if not self.settled():
            self.waiter.poll()
            if not self.settled() and time.monotonic() >= self.request.deadline:
                self._give_up()
        return self.settled()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, until the call's deadline or for at most `timeout` seconds.

        Raises:
            ServiceCallError: the method raised.
            ServiceTimeoutError: there is no answer yet. After the call's own deadline it is final;
                after `timeout` alone the call goes on, and one may ask again.
            ServiceUnavailableError: the service died, or cannot be reached.
            ServiceCancelledError: the call was cancelled.
        """
        if self.response is None and timeout is None:  # nearly always, so without any detour
            self.waiter.wait(self, self.request.deadline)
        response = self.response or self._wait(timeout)
        if not response.success:
            response = self._fallen_back(response)
        if response.result.__class__ is StreamToken:
            return self.calls.open_stream(self, response.result)
        return response.result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result` does, and return the error instead of raising it; None if there is none.

        Raises:
            ServiceTimeoutError: there is no answer within `timeout` seconds.
        """
        response = self.response or self._wait(timeout)
        if response.success:
            return None
        try:
            self._fallen_back(response)
        except Exception as error:  # noqa: BLE001 - that is what was asked for
            return error
        return None

    def cancel(self) -> bool:
        """Give the call up, and tell the service; False if it has ended already.

        A method that runs already is interrupted only if it is an `async def`.
        """
        if self.response is not None:
            return False
        name = f"{self.request.service_name}.{self.request.method_name}"
        error = ServiceCancelledError(f"the call of {name} was cancelled")
        # First settled, then told: the service's own answer to being cancelled comes too late.
        cancelled = self.complete(ServiceResponse(False, error=str(error), cause=error))
        if cancelled:
            self.waiter.forget(self, cancel=True)
        return cancelled

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self.response is not None and isinstance(self.response.cause, ServiceCancelledError)

    def given_up(self) -> bool:
        """Say whether the caller no longer waits: the call was cancelled, or its time is over."""
        response = self.response
        return response is not None and isinstance(
            response.cause, (ServiceCancelledError, ServiceTimeoutError)
        )

    def add_done_callback(self, callback: Callable[[ServiceFuture], object]) -> None:
        """Let `callback(future)` be called when the call has ended; at once if it has."""
        if self._callbacks is None:
            with _FIRST:  # two threads may come first at the same time
                if self._callbacks is None:
                    self._callbacks = []
        self._callbacks.append(callback)
        if self.response is None:
            self.waiter.listen(self)
        if self.response is not None:
            run_callbacks(self, self._callbacks)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # only for those who await  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def end_waiting() -> None:
            if not waiting.done():
                waiting.set_result(None)

        def wake(_: ServiceFuture) -> None:
            loop.call_soon_threadsafe(end_waiting)

        self.add_done_callback(wake)
        left = self.request.deadline - time.monotonic()
        try:
            yield from asyncio.wait_for(
                waiting, None if left == inf else max(0.0, left)
            ).__await__()
        except TimeoutError:
            self._give_up()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result(0)

    # ---- for those who bring the answer

    def complete(self, response: ServiceResponse) -> bool:
        """Set the result and wake whoever waits; False if there was one already."""
        try:
            self._right.pop()
        except IndexError:
            return False
        self.response = self.calls.ended(self, response)
        # The answer is set before the bell is looked for; who waits hangs the bell before looking
        # for the answer. One of the two sees the other.
        if self._bell is not None:
            self._bell.ring()
        if self._callbacks:
            run_callbacks(self, self._callbacks)
        return True

    def forget(self) -> None:
        """Tell the service that nobody waits for this call any more."""
        self.waiter.forget(self, cancel=True)

    def bell(self) -> Doorbell:
        """Return what rings when the result is there, or when it is this thread's turn to read.

        It wakes one of the threads that wait, who rings again for the next one.
        """
        if self._bell is None:
            with _FIRST:
                if self._bell is None:
                    self._bell = Doorbell()
        return self._bell

    def _wait(self, timeout: float | None) -> ServiceResponse:
        until = deadline = self.request.deadline
        if timeout is not None:
            until = min(deadline, time.monotonic() + timeout)
        self.waiter.wait(self, until)
        if self.response is None and until == deadline:
            self._give_up()
            self._wait_set()
        if self.response is None:
            raise self._too_late(timeout)
        return self.response

    def _wait_set(self) -> None:
        """Wait for the answer that another thread has the right to set, and is about to."""
        bell = self.bell()
        while self.response is None:
            bell.wait()
        bell.ring()

    def _give_up(self) -> None:
        """The deadline has passed: whatever comes later is ignored."""
        error = self._too_late(self.request.deadline - self.started)
        if self.complete(ServiceResponse(False, error=str(error), cause=error)):
            self.waiter.forget(self, cancel=True)

    def _too_late(self, seconds: float | None) -> ServiceTimeoutError:
        name = f"{self.request.service_name}.{self.request.method_name}"
        return ServiceTimeoutError(f"{name} did not answer within {seconds:.3g} s")

    def _fallen_back(self, response: ServiceResponse) -> ServiceResponse:
        request = self.request
        error = error_of(response, request.service_name, request.method_name)
        return self.calls.fall_back(error)


_FIRST = threading.Lock()
