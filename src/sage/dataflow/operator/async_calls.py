"""What asynchronous operators need of the runtime: something that runs calls while the task goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

Ended = tuple[int, Any, BaseException | None]
"""A call that has ended: its number, its result, and what it failed with, if it did."""


class CallRunner(Protocol):
    """Runs the calls of one function elsewhere than in the thread of the task.

    All methods are called from the thread of the task. Calls may end in any order, and from any
    thread; the task is woken when one has.
    """

    def start(self, number: int, value: Any) -> None:
        """Begin a call of the function with `value`, or let it begin with those that follow at once."""
        ...

    def hand_over(self) -> None:
        """See to it that what has been started really begins, if more is not to come at once."""
        ...

    def began_ms(self, number: int) -> int | None:
        """Return since when a call runs; None: it has not begun, or has ended."""
        ...

    def cancel(self, number: int) -> None:
        """Give a call up, if that is possible. Whether it still ends or not, nobody waits for it."""
        ...

    def take(self) -> Iterable[Ended]:
        """Return the calls that have ended since the last time; never waits."""
        ...

    def has_ended(self) -> bool:
        """Say whether `take` would return something."""
        ...

    def wait(self, seconds: float | None) -> None:
        """Wait until a call has ended, for at most `seconds`; may return early.

        It does not return if the task is being cancelled: it unwinds the task.
        """
        ...

    def close(self) -> None:
        """Give up all calls and let go of the threads."""
        ...


class Retry(Protocol):
    """Says which failed calls are tried again, and when."""

    def is_retryable(
        self, error: BaseException, *, idempotent: bool, may_have_run: bool = True
    ) -> bool:
        """Say whether another attempt is worth while."""
        ...

    def next_delay(
        self, attempt: int, remaining: float, random: Callable[[], float]
    ) -> float | None:
        """Return after how many seconds the next attempt is made; None: there is none."""
        ...
