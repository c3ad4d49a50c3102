"""How answers come back to a process: one queue for all its calls, and no thread of its own.

A thread that waits for an answer reads the queue itself while nobody else does: it *leads*, and hands
the answers of others to them on the way. A thread that comes while another leads *follows*: it sleeps
until its answer is there or until it is its turn to lead. So a call that waits alone pays for no
switch between threads. Only when somebody wants to be called back without waiting (`await`, a
callback) does a listener thread take its place in the line.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from sage.common.clock import Doorbell
from sage.common.errors import QueueError, ServiceUnavailableError
from sage.kernel.runtime.service.call.callbacks import READING, Postponed, run_postponed
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.channel.service_message import (
    Header,
    Kind,
    failure,
    read_answer_head,
    read_header,
    read_response,
)
from sage.kernel.transport.queue_contract import MessageQueue

Place = tuple[int, int]
"""A replica of a service: the numbers of both."""

_MOST: Final = 64
_LONGEST_WAIT: Final = 3600.0
_DOWN: Final = int(Kind.DOWN)
_STALE: Final = int(Kind.STALE)
_monotonic: Final = time.monotonic


class ResponseLane:
    """The answers of one process. Implements `Waiter`.

    Args:
        messages: The queue by which they come; nobody else reads it.
        on_change: Called with a replica and whether it is up, when that changes.
        cancel: Tells a service that a caller has given up on a request.
    """

    def __init__(
        self,
        messages: MessageQueue,
        on_change: Callable[[Place, bool], None],
        cancel: Callable[[ServiceFuture, Place], None],
    ) -> None:
        self._queue = messages
        self._get_many, self._is_empty = messages.get_many, messages.empty
        self._on_change = on_change
        self._cancel = cancel
        self._pending: dict[int, tuple[ServiceFuture, Place]] = {}
        self._leader = threading.Lock()
        self._followers: dict[int, Doorbell] = {}
        self._listener: threading.Thread | None = None
        self._listening = Doorbell()
        self._starting = threading.Lock()
        self._closed = False

    def expect(self, future: ServiceFuture, place: Place) -> None:
        """Take note of a call before its request is sent."""
        self._pending[future.request.request_id] = (future, place)
        if future.request.attempt > 1:  # nobody waits for an attempt made later, but for its call
            self._listening.ring()

    def catch_up(self) -> None:
        """Learn what has happened to replicas while this process made no calls.

        Otherwise the first call afterwards would take an earlier death for one during the call.
        """
        if not self._pending and not self._is_empty():
            self.poll()

    def in_flight(self, place: Place) -> int:
        """Return how many calls wait for a replica."""
        return sum(1 for _, where in list(self._pending.values()) if where == place)

    # ---- Waiter

    def wait(self, future: ServiceFuture, until: float) -> None:
        """Lead or follow until `future` is done or `until` has come."""
        lead = self._leader.acquire
        while future.response is None and lead(False):
            if self._read_as_leader(future, until):
                return
        if future.response is None:
            self._follow(future, until)

    def _read_as_leader(self, future: ServiceFuture, until: float) -> bool:
        """Read until `future` is done or `until` has come; this is what a call spends its time in.

        False if somebody is to be called back first: that is done without the lead.
        """
        postponed: Postponed = []
        READING.postponed = postponed
        try:
            while future.response is None:
                left = until - _monotonic()
                if left <= 0:
                    return True
                try:
                    frames = self._get_many(_MOST, True, min(_LONGEST_WAIT, left))
                except queue.Empty:
                    continue
                except QueueError as error:
                    self._fail_all(error)
                    return True
                for frame in frames:
                    self._dispatch(frame)
                if postponed:
                    return future.response is not None
            return True
        finally:
            self._stop_reading(postponed)

    def _stop_reading(self, postponed: Postponed) -> None:
        """Give up the lead, and only then call back."""
        READING.postponed = None
        self._leader.release()
        if self._followers or self._listener is not None:
            self._promote()
        if postponed:
            run_postponed(postponed)

    def _follow(self, future: ServiceFuture, until: float) -> None:
        """Sleep until the answer is there, or until it is this thread's turn to lead."""
        bell, thread = future.bell(), threading.get_ident()
        try:
            while not future.settled() and (left := until - time.monotonic()) > 0:
                # Hung up before the lead is tried: whoever gives it up rings, or this finds it free.
                self._followers[thread] = bell
                if self._leader.acquire(blocking=False):
                    self._followers.pop(thread, None)
                    self._read_as_leader(future, until)
                else:
                    bell.wait(min(left, _LONGEST_WAIT))
        finally:
            self._followers.pop(thread, None)
            if future.settled():
                bell.ring()  # other threads may wait for the same call
            self._promote()

    def poll(self) -> None:
        """Take in what has come, unless somebody does that already."""
        if self._leader.acquire(blocking=False):
            postponed: Postponed = []
            READING.postponed = postponed
            try:
                self._take(block=False, timeout=None)
            finally:
                self._stop_reading(postponed)

    def listen(self, future: ServiceFuture) -> None:
        """Start the listener, if it does not run."""
        if self._listener is None:
            self._start_listener()
        self._listening.ring()

    def _start_listener(self) -> None:
        with self._starting:
            if self._listener is None and not self._closed:
                listener = threading.Thread(
                    target=self._listen, name="sage-service-answers", daemon=True
                )
                listener.start()
                self._listener = listener

    def forget(self, future: ServiceFuture, *, cancel: bool) -> None:
        """Drop a call: its answer, should it come, is ignored."""
        entry = self._pending.pop(future.request.request_id, None)
        if entry is not None and cancel:
            self._cancel(future, entry[1])

    # ---- reading

    def _take(self, *, block: bool, timeout: float | None) -> None:
        """Read what is there and hand it out."""
        try:
            frames = self._get_many(_MOST, block, timeout)
        except queue.Empty:
            return
        except QueueError as error:
            self._fail_all(error)
            return
        for frame in frames:
            self._dispatch(frame)

    def _dispatch(self, frame: bytes) -> None:
        kind, form, number = read_answer_head(frame)
        if kind >= _DOWN:
            self._replica_changed(read_header(frame))
            return
        entry = self._pending.pop(number, None)
        if entry is None:
            return  # the caller has given up
        future = entry[0]
        if kind == _STALE:
            died = _died(future, "was restarted before it took the call")
            future.complete(failure(number, died, executed=False))
            return
        try:
            response = read_response(kind, form, number, frame)
        except Exception as error:  # noqa: BLE001 - told to the caller
            told = f"the result cannot be read back: {type(error).__name__}: {error}"
            response = failure(number, TypeError(told))
        future.complete(response)

    def _replica_changed(self, header: Header) -> None:
        place = (header.service, header.replica)
        self._on_change(place, header.kind == Kind.UP)
        if header.kind == Kind.UP:
            return
        for number, (future, where) in list(self._pending.items()):
            if where == place and self._pending.pop(number, None) is not None:
                future.complete(failure(number, _died(future, "died while it had the call")))

    def _promote(self) -> None:
        """Let one of those who wait read the queue, if nobody does."""
        if not self._leader.locked() and not self._ring_follower():
            self._listening.ring()

    def _ring_follower(self) -> bool:
        for bell in list(self._followers.values()):
            bell.ring()
            return True
        return False

    def _listen(self) -> None:
        """Read the queue whenever nobody else does and there are calls in flight."""
        while not self._closed:
            if not self._pending:
                self._listening.wait()
            elif self._leader.acquire(blocking=False):
                postponed: Postponed = []
                READING.postponed = postponed
                try:
                    # Short, so that a thread that waits for its own answer soon reads it itself.
                    self._take(block=True, timeout=0.1)
                finally:
                    READING.postponed = None
                    self._leader.release()
                    self._ring_follower()
                    run_postponed(postponed)
                self._expire()
            else:
                self._listening.wait(0.1)

    def _expire(self) -> None:
        """End the calls whose deadline has passed, for those who want to be called back."""
        now = time.monotonic()
        for future, _ in list(self._pending.values()):
            if future.request.deadline <= now:
                future.done()

    def _fail_all(self, error: Exception) -> None:
        for number, (future, _) in list(self._pending.items()):
            if self._pending.pop(number, None) is not None:
                gone = ServiceUnavailableError(f"the way back from the services is gone: {error}")
                future.complete(failure(number, gone))

    def close(self) -> None:
        """Fail the calls that are in flight and stop listening."""
        self._closed = True
        self._queue.shutdown()
        self._listening.ring()
        if self._listener is not None:
            self._listener.join()
        self._fail_all(RuntimeError("closed"))


def _died(future: ServiceFuture, what: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"the service {future.request.service_name!r} {what}")
