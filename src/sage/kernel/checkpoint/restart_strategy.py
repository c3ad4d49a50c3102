"""How a failed job is started again: whether, and after how long. Pure: times come in as arguments.

The strategies, their options and their defaults are Flink's. A strategy remembers the failures of
one job; the job asks it once per failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean
from sage.kernel.checkpoint.duration import parse_duration


class RestartStrategy(ABC):
    """Decides after each failure whether the job starts again."""

    @abstractmethod
    def next(self, now: float, random: Callable[[], float]) -> float | None:
        """Take note of a failure.

        Args:
            now: Seconds on a clock that never goes back.
            random: Returns a number from 0 to below 1, as `random.random` does.

        Returns:
            After how many seconds the job is started again, or `None`: not any more.
        """


class NoRestart(RestartStrategy):
    """The first failure is the last."""

    def next(self, now: float, random: Callable[[], float]) -> float | None:
        """Return `None`."""
        return None


class FixedDelay(RestartStrategy):
    """Starts again a number of times, each time after the same delay.

    Args:
        attempts: How many restarts in the life of the job.
        delay: Seconds before each.

    Examples:
        >>> strategy = FixedDelay(attempts=2, delay=5.0)
        >>> [strategy.next(float(second), lambda: 0.5) for second in range(3)]
        [5.0, 5.0, None]
    """

    def __init__(self, attempts: int = 1, delay: float = 1.0) -> None:
        self.attempts = attempts
        self.delay = delay
        self._failures = 0

    def next(self, now: float, random: Callable[[], float]) -> float | None:
        """Return the delay, as long as attempts are left."""
        self._failures += 1
        return self.delay if self._failures <= self.attempts else None


class FailureRate(RestartStrategy):
    """Starts again unless failures come too often.

    Args:
        max_failures_per_interval: How many failures within an interval are forgiven.
        interval: Seconds; it slides with time.
        delay: Seconds before each restart.

    Examples:
        >>> strategy = FailureRate(max_failures_per_interval=1, interval=60.0, delay=2.0)
        >>> [strategy.next(now, lambda: 0.5) for now in (0.0, 100.0, 110.0)]
        [2.0, 2.0, None]
    """

    def __init__(
        self, max_failures_per_interval: int = 1, interval: float = 60.0, delay: float = 1.0
    ) -> None:
        self.max_failures_per_interval = max_failures_per_interval
        self.interval = interval
        self.delay = delay
        self._failures: deque[float] = deque(maxlen=max_failures_per_interval + 1)

    def next(self, now: float, random: Callable[[], float]) -> float | None:
        """Return the delay, unless one more than the forgiven failures fall into the interval."""
        self._failures.append(now)
        full = len(self._failures) > self.max_failures_per_interval
        return None if full and now - self._failures[0] <= self.interval else self.delay


class ExponentialDelay(RestartStrategy):
    """Starts again after a delay that grows with every failure until the job has run well for long.

    Each failure multiplies the backoff, up to the maximum. A failure that comes `reset_threshold`
    after the job was started again begins anew. The delay is the backoff, plus or minus a random
    part of at most `jitter_factor` of it, so that jobs felled by one cause do not rise as one.

    Args:
        initial_backoff: Seconds.
        max_backoff: Seconds; the delay is never longer.
        backoff_multiplier: More than 1.
        reset_backoff_threshold: Seconds.
        jitter_factor: From 0 to 1.
        attempts_before_reset: How many restarts before the job is given up; `None`: no limit.

    Examples:
        >>> strategy = ExponentialDelay(jitter_factor=0.0)
        >>> [strategy.next(now, lambda: 0.5) for now in (0.0, 10.0, 20.0, 4000.0)]
        [1.0, 1.5, 2.25, 1.0]
    """

    def __init__(
        self,
        *,
        initial_backoff: float = 1.0,
        max_backoff: float = 60.0,
        backoff_multiplier: float = 1.5,
        reset_backoff_threshold: float = 3600.0,
        jitter_factor: float = 0.1,
        attempts_before_reset: int | None = None,
    ) -> None:
        self.initial_backoff = initial_backoff
        self.max_backoff = max_backoff
        self.backoff_multiplier = backoff_multiplier
        self.reset_backoff_threshold = reset_backoff_threshold
        self.jitter_factor = jitter_factor
        self.attempts_before_reset = attempts_before_reset
        self._backoff = initial_backoff
        self._last_failure: float | None = None
        self._attempts = 0

    def next(self, now: float, random: Callable[[], float]) -> float | None:
        """Return the delay, as long as attempts are left."""
        self._grow_or_reset(now)
        self._last_failure = now
        if self.attempts_before_reset is not None and self._attempts > self.attempts_before_reset:
            return None
        jitter = self._backoff * self.jitter_factor * (2.0 * random() - 1.0)
        return min(self._backoff + jitter, self.max_backoff)

    def _grow_or_reset(self, now: float) -> None:
        last = self._last_failure
        if last is None or now - last >= self.reset_backoff_threshold + self._backoff:
            self._backoff = self.initial_backoff
            self._attempts = 1
        else:
            self._backoff = min(self._backoff * self.backoff_multiplier, self.max_backoff)
            self._attempts += 1


_NAMES: Final = {
    "none": "none", "off": "none", "disable": "none",
    "fixed-delay": "fixed-delay", "fixeddelay": "fixed-delay",
    "failure-rate": "failure-rate", "failurerate": "failure-rate",
    "exponential-delay": "exponential-delay", "exponentialdelay": "exponential-delay",
    "exponential-backoff": "exponential-delay",
}  # fmt: skip

_OPTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "none": {},
    "fixed-delay": {
        "attempts": ("max_attempts", "max_failures"),
        "delay": ("restart_delay", "delay"),
    },
    "failure-rate": {
        "max-failures-per-interval": ("max_failures", "max_attempts"),
        "failure-rate-interval": ("failure_rate_interval",),
        "delay": ("restart_delay", "delay"),
    },
    "exponential-delay": {
        "initial-backoff": ("initial_backoff",),
        "max-backoff": ("max_backoff",),
        "backoff-multiplier": ("backoff_multiplier",),
        "reset-backoff-threshold": ("reset_backoff_threshold",),
        "jitter-factor": ("jitter_factor",),
        "attempts-before-reset-backoff": ("max_attempts", "max_failures"),
    },
}
"""For each strategy its options, as Flink names them, and the short keys that stand for them."""

_TYPE_KEYS: Final = ("restart-strategy.type", "restart-strategy", "restart_strategy")
_PREFIX: Final = "restart-strategy"

_FAILOVER_KEYS: Final = ("jobmanager.execution.failover-strategy", "failover_strategy")

RESTART_KEYS: Final = frozenset((*_TYPE_KEYS, *_FAILOVER_KEYS)).union(
    (f"{_PREFIX}.{name}.{option}" for name, options in _OPTIONS.items() for option in options),
    (key for options in _OPTIONS.values() for keys in options.values() for key in keys),
)
"""Every key that `parse_restart_strategy` and `parse_failover` understand."""

Failover = Literal["region", "full"]
"""What of a job is started again: what hangs together with what has failed, or all of it."""


def parse_failover(values: Mapping[str, Any]) -> Failover:
    """Return what of a job is started again, as a configuration says.

    Args:
        values: The keys of `RESTART_KEYS`, or some of them.

    Raises:
        ConfigError: it is neither `"region"`, which is taken if nothing is said, nor `"full"`.

    Examples:
        >>> parse_failover({}), parse_failover({"failover_strategy": "full"})
        ('region', 'full')
    """
    key, value = _pick(values, _FAILOVER_KEYS) or (_FAILOVER_KEYS[-1], "region")
    if value not in ("region", "full"):
        near = did_you_mean(str(value), ("region", "full"))
        raise ConfigError(f"configuration: {key} is {value!r}; choose 'region' or 'full'.{near}")
    return "full" if value == "full" else "region"


def parse_restart_strategy(values: Mapping[str, Any], default: str = "none") -> RestartStrategy:
    """Make the strategy that a configuration asks for.

    The options of a strategy have Flink's names (`restart-strategy.fixed-delay.attempts`) or short
    ones (`max_attempts`, `max_failures`, `restart_delay`, `failure_rate_interval`,
    `initial_backoff`, …). Options of a strategy that is not chosen are checked for their name only.
    What is for `parse_failover` is left alone.

    Args:
        values: The keys of `RESTART_KEYS`, or some of them; durations in seconds or as `"10 s"`.
        default: Which strategy to take if `values` names none; with checkpoints on, Flink takes
            `"exponential-delay"`.

    Raises:
        ConfigError: a key or the strategy's name is unknown, a value is out of range, or an option
            is given under two names with different values.

    Examples:
        >>> parse_restart_strategy({"restart_strategy": "fixed-delay", "max_failures": 3}).attempts
        3
    """
    for key in values:
        if key not in RESTART_KEYS:
            near = did_you_mean(str(key), RESTART_KEYS)
            raise ConfigError(f"configuration: unknown restart key {key!r}.{near}")
    name = _strategy_name(_pick(values, _TYPE_KEYS) or (_TYPE_KEYS[-1], default))
    found = {
        option: _pick(values, (f"{_PREFIX}.{name}.{option}", *short))
        for option, short in _OPTIONS[name].items()
    }
    return _MAKERS[name]({option: given for option, given in found.items() if given is not None})


_Given = tuple[str, Any]


def _pick(values: Mapping[str, Any], keys: tuple[str, ...]) -> _Given | None:
    given = [(key, values[key]) for key in keys if values.get(key) is not None]
    for key, value in given[1:]:
        if value != given[0][1]:
            raise ConfigError(
                f"configuration: {given[0][0]} is {given[0][1]!r} and {key} is {value!r}, but they "
                f"are the same setting; leave one out"
            )
    return given[0] if given else None


def _strategy_name(given: _Given) -> str:
    key, value = given
    name = _NAMES.get(str(value).strip().lower().replace("_", "-"))
    if name is None:
        near = did_you_mean(str(value), _NAMES)
        known = ", ".join(sorted(set(_NAMES.values())))
        raise ConfigError(f"configuration: {key} is {value!r}; choose one of {known}.{near}")
    return name


def _count(given: _Given, least: int = 0) -> int:
    key, value = given
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"configuration: {key} must be a number from {least}, not {value!r}")
    return value


def _limit(given: _Given) -> int | None:
    infinite = str(given[1]).strip().lower() in {"infinite", "inf"}
    return None if infinite else _count(given, least=1)


def _real(given: _Given) -> float:
    key, value = given
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"configuration: {key} must be a number, not {value!r}")
    return float(value)


def _duration(given: _Given) -> float:
    return parse_duration(*given)


def _positive_duration(given: _Given) -> float:
    return parse_duration(*given, positive=True)


_Read = Callable[[_Given], Any]


def _read(found: Mapping[str, _Given], readers: Mapping[str, tuple[str, _Read]]) -> dict[str, Any]:
    """Return the arguments of a strategy: for each option found, its name there and its value."""
    return {readers[option][0]: readers[option][1](given) for option, given in found.items()}


def _make_fixed(found: Mapping[str, _Given]) -> RestartStrategy:
    return FixedDelay(
        **_read(found, {"attempts": ("attempts", _count), "delay": ("delay", _duration)})
    )


def _make_rate(found: Mapping[str, _Given]) -> RestartStrategy:
    readers: dict[str, tuple[str, _Read]] = {
        "max-failures-per-interval": ("max_failures_per_interval", _count),
        "failure-rate-interval": ("interval", _positive_duration),
        "delay": ("delay", _duration),
    }
    return FailureRate(**_read(found, readers))


def _make_exponential(found: Mapping[str, _Given]) -> RestartStrategy:
    readers: dict[str, tuple[str, _Read]] = {
        "initial-backoff": ("initial_backoff", _positive_duration),
        "max-backoff": ("max_backoff", _positive_duration),
        "backoff-multiplier": ("backoff_multiplier", _real),
        "reset-backoff-threshold": ("reset_backoff_threshold", _positive_duration),
        "jitter-factor": ("jitter_factor", _real),
        "attempts-before-reset-backoff": ("attempts_before_reset", _limit),
    }
    strategy = ExponentialDelay(**_read(found, readers))
    _check_exponential(strategy)
    return strategy


def _check_exponential(strategy: ExponentialDelay) -> None:
    where = f"configuration: {_PREFIX}.exponential-delay"
    if strategy.initial_backoff > strategy.max_backoff:
        raise ConfigError(
            f"{where}.initial-backoff ({strategy.initial_backoff} s) must not be more than "
            f"max-backoff ({strategy.max_backoff} s)"
        )
    if not 1 < strategy.backoff_multiplier < float("inf"):
        raise ConfigError(
            f"{where}.backoff-multiplier must be more than 1, not {strategy.backoff_multiplier}"
        )
    if not 0 <= strategy.jitter_factor <= 1:
        raise ConfigError(
            f"{where}.jitter-factor must be from 0 to 1, not {strategy.jitter_factor}"
        )


_MAKERS: Final[dict[str, Callable[[Mapping[str, _Given]], RestartStrategy]]] = {
    "none": lambda _found: NoRestart(),
    "fixed-delay": _make_fixed,
    "failure-rate": _make_rate,
    "exponential-delay": _make_exponential,
}
