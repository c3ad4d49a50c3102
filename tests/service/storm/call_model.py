"""What a call may come to, given what it asks for and what happened while it was under way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sage.common.errors import (
    ServiceCallError,
    ServiceCancelledError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from service.storm.storm_services import answer_of

LONG = 20.0
"""A time-out that no call reaches, however busy the machine is: to reach it is to be lost."""
ATTEMPTS = 3
RETRY = {
    "max_attempts": ATTEMPTS,
    "initial_delay": 0.01,
    "retry_on": ["ConnectionError", "ServiceUnavailableError"],
}
ERRORS = {
    ServiceCallError: "raised",
    ServiceTimeoutError: "timeout",
    ServiceCancelledError: "cancelled",
    ServiceUnavailableError: "unavailable",
}


@dataclass(frozen=True)
class Wish:
    """What a call asks for: method, how long it works, and its options."""

    method: str
    seconds: float
    timeout: float
    retry: bool
    idempotent: bool
    hedge: bool
    fallback: bool

    def options(self):
        """Return the options of the call."""
        said = {"timeout": self.timeout, "idempotent": self.idempotent}
        if self.retry:
            said["retry"] = RETRY
        if self.hedge:
            said["hedge"] = {"delay": 0.002, "min_delay": 0}
        if self.fallback:
            said["fallback"] = lambda error: ("fallen", error)
        if self.method == "kept":
            said["cache_ttl"] = 3600
        return said

    @property
    def is_short(self):
        """Whether its time may be over before its answer comes."""
        return self.timeout < LONG

    @property
    def most_runs(self):
        """How often its method may be executed."""
        if not self.idempotent:
            return 1
        return (ATTEMPTS if self.retry else 1) + self.hedge


@dataclass(eq=False)
class Call:
    """A call that has been made.

    Attributes:
        disturbed: Whether the service was down, stopped or killed at some time meanwhile.
        cancelled: Whether `cancel` said that it was.
        told: How many callbacks there are, and how often each was called.
        outcome: What it has come to, once that is known.
    """

    wish: Wish
    token: int
    future: ServiceFuture
    disturbed: bool
    cancelled: bool = False
    told: list[list[int]] = field(default_factory=list)
    outcome: str = ""

    def __str__(self) -> str:
        return f"{self.wish} of token {self.token}: {self.outcome}; disturbed: {self.disturbed}"

    def is_over(self):
        """Whether it must have ended by now."""
        return self.future.request.deadline < time.monotonic()

    def permitted(self):
        """Return what it may come to."""
        if self.cancelled:
            return {"fallen" if self.wish.fallback else "cancelled"}
        ends = {"answer"}
        if self.wish.method in ("fail", "fail_later"):
            ends = {"raised"}
        elif self.wish.method == "flaky":
            ends = self._permitted_flaky()
        if self.wish.is_short:
            ends |= {"timeout"}
        if self.disturbed:
            ends |= {"unavailable"}
        if self.wish.fallback and ends != {"answer"}:
            # A stream that was opened and has broken off is no failed call.
            broken = ends if self.wish.method == "stream" else ends & {"answer"}
            ends = {"fallen"} | broken
        return ends

    def _permitted_flaky(self):
        """The first execution fails, a second one does not."""
        if not self.wish.idempotent:
            return {"raised"}
        if self.wish.retry and not (self.wish.is_short or self.disturbed or self.wish.hedge):
            return {"answer"}
        if self.wish.retry or self.wish.hedge or self.disturbed:
            return {"answer", "raised"}
        return {"raised"}

    def judge(self, bring):
        """Take the result by `bring(future)`; each time it is taken, it must be the same."""
        try:
            outcome = self._judge_result(bring(self.future))
        except tuple(ERRORS) as error:
            outcome = self._judge_error(error)
        assert outcome in self.permitted(), f"{outcome}, not {self.permitted()}: {self}"
        assert self.outcome in ("", outcome), f"now it is {outcome}: {self}"
        self.outcome = outcome

    def _judge_error(self, error):
        outcome = next(name for kind, name in ERRORS.items() if isinstance(error, kind))
        own = outcome != "raised" or f"token {self.token}" in str(error)
        assert own, f"{self} has brought {error!r}"
        return outcome

    def _judge_result(self, result):
        if isinstance(result, tuple) and result[0] == "fallen":
            assert isinstance(result[1], tuple(ERRORS)), f"{self} fell back on {result[1]!r}"
            return "fallen"
        assert result == self._answer(), f"{self} has brought {result!r}"
        return "answer"

    def _answer(self):
        if self.wish.method == "stream":
            return [answer_of(self.token + part) for part in range(3)]
        return answer_of(self.token)
