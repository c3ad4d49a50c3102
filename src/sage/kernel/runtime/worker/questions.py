"""`Questions`: what is asked of a worker about its state, until it answers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from typing import Any

import cloudpickle

from sage.common.errors import JobTimeoutError
from sage.kernel.runtime.worker.order import AskState, StateTold


class Questions:
    """Questions to one worker that wait for their answers. For all threads.

    Args:
        worker: What the worker is called in errors.
        say: Sends a question to the worker.
    """

    def __init__(self, worker: str, say: Callable[[AskState], object]) -> None:
        self._worker = worker
        self._say = say
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[StateTold]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, uid: str, name: str, key: Any, timeout: float) -> Any:
        """Return the value of a key in a state of an operator, None if it has none.

        Raises:
            KeyError: the worker has ended.
            JobTimeoutError: it has not answered within `timeout` seconds.
            Exception: what it failed with.
        """
        question = AskState(next(self._numbers), uid, name, cloudpickle.dumps(key))
        future: Future[StateTold] = Future()
        with self._lock:
            if self._closed:
                raise KeyError(uid)
            self._waiting[question.number] = future
        self._say(question)
        try:
            return future.result(timeout).unwrap(self._worker)
        except NoAnswerError:
            raise JobTimeoutError(
                f"{self._worker} has not told the state of {uid!r} within {timeout:g} s: it answers "
                "between two batches"
            ) from None
        finally:
            with self._lock:
                self._waiting.pop(question.number, None)

    def answered(self, answer: StateTold) -> None:
        """Give an answer to who waits for it."""
        with self._lock:
            future = self._waiting.pop(answer.number, None)
        if future is not None:
            future.set_result(answer)

    def close(self) -> None:
        """There will be no more answers."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(KeyError("the worker has ended"))
