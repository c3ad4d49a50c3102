"""Runs the `async def` methods of a service, in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

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
        self._running: dict[Key, asyncio.Future[Any]] = {}
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

        async def work() -> tuple[Any, BaseException | None]:
            try:
                return await coroutine, None
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - an exit would end the whole loop
                return None, error

        async def run() -> None:
            self._running[key] = task = asyncio.ensure_future(work())
            left = deadline - time.monotonic()
            try:
                result, error = await asyncio.wait_for(task, None if left > _FOR_EVER else left)
            except (asyncio.CancelledError, TimeoutError) as ended:
                result, error = None, ended
            finally:
                del self._running[key]
            answer(result, error)

        asyncio.run_coroutine_threadsafe(run(), self._loop)

    def cancel(self, key: Key) -> None:
        """Cancel the coroutine that works on a request, if there is one."""
        running = self._running.get(key)
        if running is not None:
            self._loop.call_soon_threadsafe(running.cancel)

    def close(self) -> None:
        """Cancel what still runs, let it answer, and end the loop."""
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
