"""When to send a second request for a call that takes unusually long.

After Jeffrey Dean and Luiz André Barroso, "The Tail at Scale", CACM 56(2), 2013: sending the same
request to another replica once the first has taken longer than 95 % of calls do, and taking the
answer that comes first, cuts the slowest calls short for a few per cent more load. Only calls marked
idempotent are hedged: both requests may be executed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import msgspec

from sage.common.clock import Clock
from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.checks import DAY, check_number
from sage.kernel.runtime.service.policy.retry import RetryBudget

REFRESH_SECONDS: Final = 5.0
"""How long a quantile is used before it is looked up again."""


class HedgePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """After how long a second request is sent. Either `delay` or `quantile` is given.

    Attributes:
        delay: After so many seconds.
        quantile: After the latency that this part of the method's recent calls kept to.
        min_delay: But never before so many seconds.
        budget_ratio: How many second requests there may be per call, on average.
        budget_per_second: How many there may be per second however few calls there are.

    Raises:
        ConfigError: a value is out of range, or not exactly one of both is given.

    Examples:
        >>> HedgePolicy(quantile=0.95).budget_ratio
        0.05
    """

    delay: float | None = None
    quantile: float | None = None
    min_delay: float = 0.001
    budget_ratio: float = 0.05
    budget_per_second: float = 1.0

    def __post_init__(self) -> None:
        if (self.delay is None) == (self.quantile is None):
            raise ConfigError("a hedge needs either a delay or a quantile, and not both")
        if self.delay is not None:
            check_number("delay", self.delay, 0, DAY)
        if self.quantile is not None:
            check_number("quantile", self.quantile, 0.5, 0.9999)
        check_number("min_delay", self.min_delay, 0, DAY)
        check_number("budget_ratio", self.budget_ratio, 0, 1)
        check_number("budget_per_second", self.budget_per_second, 0, 1e6)


class Hedging:
    """Says for each call when to send a second request; for use by many threads.

    Args:
        policy: After how long, and how often.
        clock: Where the time comes from.
        quantile_of: Returns a quantile of the latency of a method, or `None` if it is not known:
            `CallStatistics.quantile`.

    Examples:
        >>> from sage.testing import ManualClock
        >>> hedging = Hedging(HedgePolicy(quantile=0.95), ManualClock(), lambda method, part: 0.02)
        >>> hedging.delay("get")
        0.02
        >>> hedging.delay("get", remaining=0.01) is None
        True
        >>> hedging.try_send()
        True
    """

    def __init__(
        self, policy: HedgePolicy, clock: Clock, quantile_of: Callable[[str, float], float | None]
    ) -> None:
        self._policy = policy
        self._monotonic = clock.monotonic
        self._quantile_of = quantile_of
        self._budget = RetryBudget(clock, policy.budget_ratio, policy.budget_per_second, 10.0)
        self._known: dict[str, tuple[float, float | None]] = {}

    def delay(self, method: str, remaining: float = inf) -> float | None:
        """Return after how many seconds to send a second request; None for not at all.

        It is not sent at or after the deadline, nor while nothing is known about the method.

        Args:
            method: The name of the method.
            remaining: The seconds left until the call's deadline.
        """
        policy = self._policy
        usual = policy.delay if policy.quantile is None else self._usual(method, policy.quantile)
        if usual is None:
            return None
        delay = max(policy.min_delay, usual)
        return delay if delay < remaining else None

    def count_call(self) -> None:
        """Count one call: it adds to the budget. Second requests are not calls."""
        self._budget.deposit()

    def try_send(self) -> bool:
        """Take a second request from the budget; false if there is none left: go on waiting."""
        return self._budget.try_withdraw()

    def _usual(self, method: str, part: float) -> float | None:
        now = self._monotonic()
        good_until, usual = self._known.get(method, (-inf, None))
        if now >= good_until:
            # Two threads may both look it up; they find the same, so no lock is needed.
            usual = self._quantile_of(method, part)
            self._known[method] = (now + REFRESH_SECONDS, usual)
        return usual
