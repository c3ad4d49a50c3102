"""`Batcher`: the threads that wait until calls make a batch, and then run it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from math import inf

from sage.common.clock import Clock, Doorbell
from sage.common.errors import (
    ServiceCancelledError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.batches.batch_window import BatchWindow, WaitingCall
from sage.kernel.runtime.service.batching import BatchLimits
from sage.kernel.runtime.service.channel.service_message import failure
from sage.kernel.runtime.service.channel.slots import Turns

RunBatch = Callable[[list[WaitingCall]], None]


class Batcher:
    """Gathers the calls of the batched methods of a service. Methods may be called from any thread.

    There are as many threads as batches may run at a time, started when they are first needed. One
    of them waits until a batch is due, the others wait for its place; who has taken a batch gives
    the place up and runs it. So a batch goes through no hand-over, and gathers until somebody is
    free to run it.

    Args:
        name: What the threads are called.
        limits: The limits of each batched method.
        turns: One is taken for each batch; `run` sees to it that it is given back.
        max_concurrency: How many batches run at a time.
        run: Runs a batch and answers its calls; it does not raise.
        clock: Says when batches are due.

    Attributes:
        room: How many calls are to be let in at a time. When so many wait here, no other one can
            join them, and they wait no longer.
    """

    def __init__(
        self,
        name: str,
        limits: Mapping[str, BatchLimits],
        turns: Turns,
        *,
        max_concurrency: int,
        run: RunBatch,
        clock: Clock,
    ) -> None:
        self._name = name
        self._windows = {method: BatchWindow(limit) for method, limit in limits.items()}
        self._max_threads = max_concurrency
        self._turns = turns
        self._run = run
        self._clock = clock
        self.room = max_concurrency * max(limit.max_size for limit in limits.values())
        self._lock = threading.Lock()  # guards the windows and what follows
        self._threads: list[threading.Thread] = []
        self._gathering = 0  # how many threads are not running a batch
        self._hurry = self._closed = False
        self._place = threading.Lock()  # of the thread that waits at the bell
        self._bell = Doorbell()

    def add(self, call: WaitingCall) -> None:
        """Let a call wait for its batch.

        Raises:
            ServiceUnavailableError: the batcher is closed.
        """
        window = self._windows[call.request.method_name]
        with self._lock:
            if self._closed:
                raise ServiceUnavailableError("the service is being stopped")
            before = self._due(window)
            window.add(call)
            sooner = self._due(window) < before
            self._provide_thread()
        if sooner:  # else the thread that waits will wake early enough
            self._bell.ring()

    def cancel(self, lane: str, number: int) -> bool:
        """Answer a call that its caller has given up; False if it does not wait here."""
        with self._lock:
            found = [window.remove(lane, number) for window in self._windows.values()]
        calls = [call for call in found if call is not None]
        for call in calls:
            error = ServiceCancelledError("cancelled while it waited for its batch")
            call.respond(failure(call.request.request_id, error, executed=False))
        return bool(calls)

    def drain(self) -> None:
        """Let nothing wait any longer for others to come; for good."""
        with self._lock:
            self._hurry = True
        self._bell.ring()

    def close(self) -> None:
        """Run what waits, and end the threads."""
        with self._lock:
            self._hurry = self._closed = True
        self._bell.ring()
        for thread in self._threads:
            thread.join()

    # ---- the threads

    def _provide_thread(self) -> None:
        if self._gathering == 0 and len(self._threads) < self._max_threads:
            name = f"{self._name}-batch-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            self._gathering += 1
            thread.start()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._run(batch)
            with self._lock:
                self._gathering += 1

    def _next_batch(self) -> list[WaitingCall]:
        """Wait for a batch, and for a turn to run it; empty when there will be none any more."""
        with self._place:
            while self._wait_due():
                self._turns.acquire()
                # Taken after the turn has come: while it waited, more calls may have joined.
                if batch := self._take():
                    return batch
                self._turns.release()
        return []

    def _wait_due(self) -> bool:
        while True:
            with self._lock:
                due = min(map(self._due, self._windows.values()))
                if self._closed and due == inf:
                    return False
            if due <= self._clock.monotonic():
                return True
            self._clock.wait_until(self._bell, due)

    def _take(self) -> list[WaitingCall]:
        """Take the batch that is due, of several the one with the oldest call."""
        now = self._clock.monotonic()
        with self._lock:
            late = [call for window in self._windows.values() for call in window.remove_late(now)]
            due = [window for window in self._windows.values() if self._due(window) <= now]
            batch = min(due, key=lambda window: window.oldest).take() if due else []
            if batch:
                self._gathering -= 1
                if any(self._windows.values()):
                    self._provide_thread()
        for call in late:
            error = ServiceTimeoutError("past its deadline before its batch was run")
            call.respond(failure(call.request.request_id, error, executed=False))
        return batch

    def _due(self, window: BatchWindow) -> float:
        return window.oldest if self._hurry or self._crowded() else window.due()

    def _crowded(self) -> bool:
        """Whether all the calls that are let in wait here."""
        return sum(map(len, self._windows.values())) >= self.room
