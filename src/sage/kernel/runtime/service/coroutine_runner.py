"""Runs the `async def` methods of a service, in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sage.common.errors import ServiceTimeoutError, ServiceUnavailableError

Key = tuple[str, int]
"""Which request a coroutine works on: the lane of its answer, and its number there."""

_FOR_EVER = 1e9


class CoroutineRunner:
    """An event loop and its thread. All methods may be called from any other thread.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._running: dict[Key, asyncio.Task[Any]] = {}
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
        self._loop.call_soon_threadsafe(self._begin, key, coroutine, deadline, answer)

    def _begin(
        self,
        key: Key,
        coroutine: Coroutine[Any, Any, Any],
        deadline: float,
        answer: Callable[[Any, BaseException | None], None],
    ) -> None:
        work = self._running[key] = self._loop.create_task(_outcome(coroutine))
        left = deadline - time.monotonic()
        timer = None if left > _FOR_EVER else self._loop.call_later(left, work.cancel)

        def end(ended: asyncio.Task[Any]) -> None:
            del self._running[key]
            if timer is not None:
                timer.cancel()
            coroutine.close()  # it may have been cancelled unbegun
            answer(*self._result(ended, deadline))

        work.add_done_callback(end)

    def cancel(self, key: Key) -> None:
        """Cancel the coroutine that works on a request, if there is one."""
        # In the loop's thread, and so after a coroutine that has been handed over but not begun.
        self._loop.call_soon_threadsafe(self._cancel, key)

    def _cancel(self, key: Key) -> None:
        running = self._running.get(key)
        if running is not None:
            running.cancel()

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
        for running in list(self._running.values()):
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    try:
        return await coroutine, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - an exit would end the whole loop
        return None, error
