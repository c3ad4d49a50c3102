"""Runs calls of a user's function while the task goes on: in an event loop, or in threads.

Both kinds of runner implement `CallRunner`. What a call comes to is put into a queue, and the task is
woken; nothing of the task is touched from another thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate, isawaitable
from queue import Empty, SimpleQueue
from types import CoroutineType
from typing import Any

from sage.common.errors import FunctionError
from sage.common.event_loop import new_event_loop
from sage.common.suggest import shorten
from sage.dataflow.operator.async_calls import Ended
from sage.kernel.runtime.task.operator_context import OperatorContext

_GRACE_SECONDS = 5.0
"""How long calls that have been given up may take to return before their threads are left alone."""

_HAND_OVER_SECONDS = 0.0005
"""How long a call that has been started may wait for others, to be handed over with them."""

_RING_SECONDS = 0.001
"""How long results may wait for others, to be taken together, while calls wait for their turn."""

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class RunnerSettings:
    """What a runner needs of its task.

    Attributes:
        kind: The kind of the operator, for messages: `async_map`.
        name: The name of the operator, for threads.
        capacity: How many calls run at a time at most.
        collects: Whether results are iterables to make lists of.
        context: The runtime as the operator sees it.
        pause: Waits until the task is woken, for at most so many seconds; raises if it is cancelled.
    """

    kind: str
    name: str
    capacity: int
    collects: bool
    context: OperatorContext
    pause: Callable[[float | None], None]


class QueueingRunner:
    """What both kinds of runner share: the queue of what has ended.

    Args:
        settings: What it needs of its task.
    """

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._ended: deque[Ended] = deque()
        self._has_rung = False
        self._began: dict[int, int] = {}  # the calls that run, and since when
        self._wake = settings.context.wake
        self._now_ms = settings.context.now_ms

    def take(self) -> list[Ended]:
        """Return the calls that have ended since the last time."""
        # The order matters: what is put in after this line rings the bell again.
        self._has_rung = False
        taken = []
        while self._ended:
            taken.append(self._ended.popleft())
        return taken

    def has_ended(self) -> bool:
        """Say whether a call has ended."""
        return self._has_rung or bool(self._ended)

    def wait(self, seconds: float | None) -> None:
        """Wait until a call has ended, for at most `seconds`."""
        self._settings.pause(0.0 if self.has_ended() else seconds)

    def hand_over(self) -> None:
        """Do nothing: every call is handed over when it is started."""

    def began_ms(self, number: int) -> int | None:
        """Return since when a call runs; None: it has not begun, or has ended."""
        return self._began.get(number)

    def _end(self, number: int, result: Any, error: BaseException | None) -> None:
        """Put in what a call has come to, unless it was given up; called from any thread."""
        if self._began.pop(number, None) is None:
            return
        self._ended.append((number, result, error))
        if not self._has_rung:
            self._has_rung = True
            self._ring()

    def _ring(self) -> None:
        self._wake()

    def _end_by(self, number: int, finish: Callable[[], Any]) -> None:
        """Put in what `finish` returns or raises."""
        result = None
        failure: BaseException | None = None
        try:
            result = finish()
        except asyncio.CancelledError as cancelled:
            failure = _as_error(cancelled)
        except BaseException as error:  # noqa: BLE001 - it is the task that deals with it
            failure = error
        self._end(number, result, failure)

    def _finished(self, result: Any) -> Any:
        """Return a result as the operator wants it."""
        if not self._settings.collects or result.__class__ is list:
            return result
        if result is None or isinstance(result, (str, bytes)) or not hasattr(result, "__iter__"):
            raise FunctionError(
                f"the function of {self._settings.name} gave {shorten(result)}; it must give an "
                "iterable of the records that go on, [] for none"
            )
        return list(result)

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for threads that have been told to end."""
        until = time.monotonic() + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        left = sum(thread.is_alive() for thread in threads)
        if left:
            self._settings.context.logger.warning(
                "%s: calls have been given up but do not return; threads left alone: %d",
                self._settings.name,
                left,
            )


class LoopRunner(QueueingRunner):
    """Calls the function in the thread of an event loop.

    It may be an `async def` or return a future of any kind, a coroutine, or with `collects` an
    async generator.

    Args:
        function: What is called.
        settings: What it needs of its task.
    """

    def __init__(self, function: Function, settings: RunnerSettings) -> None:
        super().__init__(settings)
        self._function = function
        self._loop = new_event_loop()
        self._calls: deque[tuple[int, Any]] = deque()
        self._is_called = self._is_beginning = False
        self._since = 0.0
        self._context = copy_context()
        self._cancels: dict[int, Callable[[], Any]] = {}
        name = f"sage-async-{settings.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, number: int, value: Any) -> None:
        """Let the loop begin a call."""
        # Waking the loop costs more than all the rest, so many calls are handed over at once.
        if not self._calls:
            self._since = time.monotonic()
        self._calls.append((number, value))
        if time.monotonic() - self._since > _HAND_OVER_SECONDS:
            self.hand_over()

    def hand_over(self) -> None:
        """Wake the loop if calls may begin; a call that ends is followed by the next anyway."""
        room = len(self._began) < self._settings.capacity
        if room and self._calls and not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._begin_called)

    def wait(self, seconds: float | None) -> None:
        """Wait until a call has ended, for at most `seconds`."""
        self.hand_over()
        super().wait(seconds)

    def cancel(self, number: int) -> None:
        """Cancel what a call waits for."""
        self._loop.call_soon_threadsafe(self._cancel, number)

    def close(self) -> None:
        """Cancel all calls, and end the loop and its thread."""
        self._calls.clear()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._join([self._thread])

    def _ring(self) -> None:
        """Wake the task, a little later if there is enough to do: busy threads disturb each other."""
        if self._calls and threading.get_ident() == self._thread.ident:
            self._loop.call_later(_RING_SECONDS, self._wake)
        else:
            self._wake()

    # ---- in the thread of the loop

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_up())
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        here = asyncio.current_task()
        for cancel in list(self._cancels.values()):
            cancel()
        tasks = [task for task in asyncio.all_tasks() if task is not here]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _begin_called(self) -> None:
        self._is_called = False
        self._begin_all()

    def _begin_all(self) -> None:
        """Begin as many calls as may run."""
        if self._is_beginning:
            return  # one of those that are being begun has ended at once
        self._is_beginning = True
        calls, running, most = self._calls, self._began, self._settings.capacity
        while calls and len(running) < most:
            # Whose turn at the thread this is, be it a call that has ended or a service that has
            # answered, is nothing to the call that begins.
            self._context.copy().run(self._begin, *calls.popleft())
        self._is_beginning = False

    def _begin(self, number: int, value: Any) -> None:
        self._began[number] = self._now_ms()
        try:
            given = self._function(value)
            if given.__class__ is CoroutineType:
                self._begin_task(number, given)
            elif hasattr(given, "add_done_callback"):
                self._wait_for(number, given)
            elif isawaitable(given):
                self._begin_task(number, given)
            elif self._settings.collects and hasattr(given, "__aiter__"):
                self._begin_task(number, _collected(given))
            else:
                raise self._not_async(given)  # noqa: TRY301 - as if the function had raised it
        except BaseException as error:  # noqa: BLE001 - an exit would end the whole loop
            self._end(number, None, error)

    def _begin_task(self, number: int, awaitable: Any) -> None:
        task = self._loop.create_task(self._await(number, awaitable))
        self._cancels[number] = partial(_cancel_task, task, awaitable)

    async def _await(self, number: int, awaitable: Awaitable[Any]) -> None:
        result = None
        failure: BaseException | None = None
        try:
            result = self._finished(await awaitable)
        except asyncio.CancelledError as cancelled:
            failure = _as_error(cancelled)
        except BaseException as error:  # noqa: BLE001 - it is the task that deals with it
            failure = error
        self._cancels.pop(number, None)
        self._end(number, result, failure)
        self._begin_all()

    def _wait_for(self, number: int, future: Any) -> None:
        """Let a future of any kind end the call; its callback may come from any thread."""
        self._cancels[number] = future.cancel

        def ended(done: Any) -> None:
            self._cancels.pop(number, None)
            self._end_by(number, lambda: self._finished(done.result()))
            self.hand_over()

        if asyncio.isfuture(future) and future.get_loop() is not self._loop:
            home = future.get_loop()
            self._cancels[number] = partial(home.call_soon_threadsafe, future.cancel)
            home.call_soon_threadsafe(future.add_done_callback, ended)
        else:
            future.add_done_callback(ended)

    def _cancel(self, number: int) -> None:
        self._began.pop(number, None)
        cancel = self._cancels.pop(number, None)
        if cancel is not None:
            cancel()
        self._begin_all()

    def _not_async(self, given: Any) -> FunctionError:
        kind = self._settings.kind
        return FunctionError(
            f"the function of {self._settings.name} returned {shorten(given)} of type "
            f"{type(given).__name__}, but {kind} needs an async function, or one that returns a "
            f"future; for a function that takes its time itself, say blocking=True"
        )


def _as_error(cancelled: asyncio.CancelledError) -> Exception:
    """Return what a call failed with that somebody else than the engine cancelled."""
    return CancelledError(str(cancelled) or "the call was cancelled")


def _cancel_task(task: asyncio.Task[None], awaitable: Any) -> None:
    task.cancel()
    if isinstance(awaitable, CoroutineType) and getcoroutinestate(awaitable) == CORO_CREATED:
        awaitable.close()  # or Python would warn that it was never awaited


async def _collected(items: Any) -> list[Any]:
    return [item async for item in items]


class ThreadRunner(QueueingRunner):
    """Calls a function that blocks, in threads of its own.

    A thread cannot be interrupted: that of a call that is given up is lost until the call returns,
    and another one takes its place.

    Args:
        function: What is called.
        settings: What it needs of its task.
    """

    def __init__(self, function: Function, settings: RunnerSettings) -> None:
        super().__init__(settings)
        self._function = function
        self._calls: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        self._lost: set[int] = set()
        self._threads: list[threading.Thread] = []

    def start(self, number: int, value: Any) -> None:
        """Hand a call to a thread, a new one if all have something to do and there may be more."""
        self._calls.put((number, value))
        self._add_thread()

    def cancel(self, number: int) -> None:
        """Wait no longer for a call."""
        self._lost.add(number)
        if self._began.pop(number, None) is None:
            self._lost.discard(number)
        self._add_thread()

    def _add_thread(self) -> None:
        busy = len(self._began) + len(self._lost)
        most = self._settings.capacity + len(self._lost)
        if self._calls.qsize() + busy > len(self._threads) < most:
            name = f"sage-async-{self._settings.name}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Let the threads end, once the calls that run have returned."""
        with suppress(Empty):
            while True:
                self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)
        self._join(self._threads)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            number, value = call
            self._began[number] = self._now_ms()
            self._end_by(number, partial(self._call, value))
            self._lost.discard(number)

    def _call(self, value: Any) -> Any:
        return self._finished(self._function(value))
