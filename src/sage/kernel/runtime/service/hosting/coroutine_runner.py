"""Runs the `async def` methods of a service, in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from sage.common.errors import ServiceTimeoutError, ServiceUnavailableError
from sage.common.event_loop import new_event_loop

Key = tuple[str, int]
"""Which request a coroutine works on: the lane of its answer, and its number there."""

_FOR_EVER = 1e9


class CoroutineRunner:
    """An event loop and its thread. All methods may be called from any other thread.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = new_event_loop()
        self._closing = False
        self._running: dict[Key, tuple[asyncio.Task[Any], float]] = {}  # with their deadlines
        self._next_look = inf  # for deadlines that have passed
        self._handed: deque[Any] = deque()
        self._is_called = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(
        self,
        key: Key,
        coroutine: Coroutine[Any, Any, Any],
        deadline: float,
        answer: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Run a coroutine until `deadline`; `answer(result, error)` is called in the loop's thread."""
        # Waking the loop costs more than all the rest, so those that come meanwhile go along.
        self._handed.append((key, coroutine, deadline, answer))
        if not self._is_called:
            self._is_called = True
            try:
                self._loop.call_soon_threadsafe(self._begin_handed)
            except RuntimeError:  # it has been closed
                self._is_called = False
                raise

    def _begin_handed(self) -> None:
        self._is_called = False  # before they are taken: what is handed over now calls again
        while self._handed:
            self._begin(*self._handed.popleft())

    def _begin(
        self,
        key: Key,
        coroutine: Coroutine[Any, Any, Any],
        deadline: float,
        answer: Callable[[Any, BaseException | None], None],
    ) -> None:
        work = self._loop.create_task(_outcome(coroutine))
        self._running[key] = (work, deadline)
        if deadline < self._next_look:
            self._look_at(deadline)

        def end(ended: asyncio.Task[Any]) -> None:
            del self._running[key]
            coroutine.close()  # it may have been cancelled unbegun
            answer(*self._result(ended, deadline))

        work.add_done_callback(end)

    def _look_at(self, deadline: float) -> None:
        """Look for what has taken too long then: one timer for all, for most deadlines do not pass."""
        left = deadline - time.monotonic()
        if left < _FOR_EVER:
            self._next_look = deadline
            self._loop.call_later(left, self._look, deadline)

    def _look(self, planned: float) -> None:
        if planned != self._next_look:
            return  # another look, which is sooner, does the same
        self._next_look = inf
        now, coming = time.monotonic(), inf
        for work, deadline in self._running.values():
            if deadline <= now:
                work.cancel()
            else:
                coming = min(coming, deadline)
        self._look_at(coming)

    def cancel(self, key: Key) -> None:
        """Cancel the coroutine that works on a request, if there is one."""
        # In the loop's thread, and so after a coroutine that has been handed over but not begun.
        self._loop.call_soon_threadsafe(self._cancel, key)

    def _cancel(self, key: Key) -> None:
        running = self._running.get(key)
        if running is not None:
            running[0].cancel()

    def _result(
        self, ended: asyncio.Task[Any], deadline: float
    ) -> tuple[Any, BaseException | None]:
        if not ended.cancelled():
            result, error = ended.result()
            return result, error
        if time.monotonic() >= deadline:
            return None, ServiceTimeoutError("its deadline passed while it ran")
        if self._closing:
            return None, ServiceUnavailableError("the service was stopped while it had the call")
        return None, asyncio.CancelledError()

    def close(self) -> None:
        """Cancel what still runs, let it answer that, and end the loop."""
        self._closing = True
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        here = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not here]
        for work, _ in list(self._running.values()):
            work.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    try:
        return await coroutine, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - an exit would end the whole loop
        return None, error
