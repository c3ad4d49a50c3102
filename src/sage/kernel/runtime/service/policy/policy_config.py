"""The settings of all policies of a service, as keywords or a configuration file give them.

Settings come in layers, those of the environment first, those of the service over them. Within a
layer they are flat keys, or a mapping per policy; both spellings below mean the same:

    max_retries: 3                          retry:
    retry_interval: 1                         max_attempts: 4
    default_timeout: 30                       initial_delay: 1
    rate_limiting: 1000                     timeout: 30
                                            rate_limiting: {requests_per_minute: 1000}

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, Final, TypeVar

import msgspec

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten
from sage.kernel.runtime.service.policy.breaker import BreakerPolicy
from sage.kernel.runtime.service.policy.call_options import FIELDS, CallOptions, CallPlan
from sage.kernel.runtime.service.policy.checks import check_count, check_number
from sage.kernel.runtime.service.policy.hedge import HedgePolicy
from sage.kernel.runtime.service.policy.retry import RetryPolicy

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class RatePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many calls may begin.

    Attributes:
        requests_per_minute: How many in the long run.
        burst: How many at once after a quiet time; `None` for those of one second.

    Raises:
        ConfigError: a value is out of range.
    """

    requests_per_minute: float
    burst: int | None = None

    def __post_init__(self) -> None:
        check_number("requests_per_minute", self.requests_per_minute, 0.001, 1e9)
        if self.burst is not None:
            check_count("burst", self.burst)

    @property
    def per_second(self) -> float:
        """The rate as `CallRateLimit` takes it."""
        return self.requests_per_minute / 60

    @property
    def burst_calls(self) -> int:
        """The burst as `CallRateLimit` takes it."""
        return ceil(self.per_second) if self.burst is None else self.burst


class RetryBudgetPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many retries all calls to a service may have together; see `RetryBudget`.

    Attributes:
        ratio: How many retries each call allows, on average.
        min_per_second: How many retries are allowed however few calls there are.
        max_tokens: How many retries can come at once.

    Raises:
        ConfigError: a value is out of range.
    """

    ratio: float = 0.2
    min_per_second: float = 10.0
    max_tokens: float = 100.0

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, 0, 1000)
        check_number("min_per_second", self.min_per_second, 0, 1e9)
        check_number("max_tokens", self.max_tokens, 1, 1e9)


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of all policies of a service.

    Attributes:
        call: What holds for its calls unless the method or the call says otherwise.
        methods: What is different about some of its methods, by name.
        circuit_breaker: When it is not called for a while; `None` for never.
        rate_limiting: How many calls may begin; `None` for any number.
        retry_budget: How many retries all calls may have together.
        max_calls: How many calls may be under way; `None` for any number.
        max_bytes: How many bytes their requests may have; `None` for any number.
        cache_entries: How many results are kept at most, where a `cache_ttl` is given.
        middleware: What is around every call: instances of `ServiceMiddleware`.

    Raises:
        ConfigError: a value is out of range.
    """

    call: CallPlan = CallPlan()
    methods: dict[str, CallOptions] = {}
    circuit_breaker: BreakerPolicy | None = None
    rate_limiting: RatePolicy | None = None
    retry_budget: RetryBudgetPolicy = RetryBudgetPolicy()
    max_calls: int | None = None
    max_bytes: int | None = None
    cache_entries: int = 10_000
    middleware: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        for key in ("max_calls", "max_bytes", "cache_entries"):
            value = getattr(self, key)
            if value is not None:
                check_count(key, value)

    def plan(self, method: str) -> CallPlan:
        """Return the options of the calls of a method about which the call itself says nothing."""
        return self.call.override(self.methods.get(method))

    @staticmethod
    def setting_names() -> frozenset[str]:
        """Return the keys that `parse` knows."""
        return frozenset({*_SERVICE_KEYS, *_OTHER_NAMES, *_RETRY_NAMES})

    @classmethod
    def parse(cls, *layers: Mapping[str, Any], where: str = "service_call") -> PolicyConfig:
        """Check the settings, fill in the defaults, and accept the short spellings.

        `max_retries` counts the attempts after the first, `rate_limiting` and `circuit_breaker` take
        a number and a truth value, `retry_policy` is `retry`, and `default_timeout` is `timeout`. A
        mapping lies over one of an earlier layer key by key; all else replaces what was there.

        Args:
            layers: The settings of the environment, then those of the service.
            where: What to call the place in error messages.

        Raises:
            ConfigError: a key is unknown or given twice, or a value is of the wrong type or range.

        Examples:
            >>> config = PolicyConfig.parse({"max_retries": 3}, {"retry": {"jitter": 0}})
            >>> config.call.retry.max_attempts, config.call.retry.jitter
            (4, 0.0)
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            _lay_over(merged, _spelt_out(layer, _SERVICE_KEYS, where))
        methods = merged.pop("methods", {})
        options = {key: merged.pop(key) for key in FIELDS if key in merged}
        return _convert(
            {
                **merged,
                "call": CallPlan().override(_convert(options, CallOptions, where)),
                "methods": {
                    name: _convert(said, CallOptions, f"{where}: methods: {name}")
                    for name, said in methods.items()
                },
            },
            cls,
            where,
        )


def parse_call_options(said: Mapping[str, Any], where: str = "options") -> CallOptions:
    """Check what is said about a single call, in the spellings that `PolicyConfig.parse` accepts.

    Raises:
        ConfigError: a key is unknown or given twice, or a value is of the wrong type or range.

    Examples:
        >>> parse_call_options({"timeout": 5, "max_retries": 1}).retry.max_attempts
        2
    """
    return _convert(_spelt_out(said, FIELDS, where), CallOptions, where)


_NESTED: Final[dict[str, type[msgspec.Struct]]] = {
    "retry": RetryPolicy,
    "hedge": HedgePolicy,
    "circuit_breaker": BreakerPolicy,
    "rate_limiting": RatePolicy,
    "retry_budget": RetryBudgetPolicy,
}
"""The keys under which there is a mapping, and what it describes."""

_SWITCHED_ON: Final[dict[str, dict[str, Any]]] = {
    "retry": {},
    "hedge": {"quantile": 0.95},
    "circuit_breaker": {},
}
"""What `true` means where a truth value is accepted; `false` means `None`."""

_OTHER_NAMES: Final = {"default_timeout": "timeout", "retry_policy": "retry"}

_RETRY_NAMES: Final = {
    "max_retries": "max_attempts",
    "retry_interval": "initial_delay",
    "backoff_multiplier": "multiplier",
}
"""Other names of settings of `retry`, accepted within it and beside it."""

_SERVICE_KEYS: Final = (*FIELDS, *(key for key in PolicyConfig.__struct_fields__ if key != "call"))


def _spelt_out(layer: Mapping[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
    """Return the settings of a layer with every key checked and in its full spelling."""
    _check_keys(layer, {*known, *_OTHER_NAMES, *_RETRY_NAMES}, where)
    spelt: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for key, value in layer.items():
        name = _OTHER_NAMES.get(key, key)
        if name in _RETRY_NAMES:
            beside[name] = value
        else:
            _put(spelt, name, _spelt_value(name, value, f"{where}: {key}"), where)
    if beside:
        _put_retry(spelt, beside, where)
    return spelt


def _spelt_value(name: str, value: Any, where: str) -> Any:
    if name == "methods":
        return _spelt_methods(value, where)
    if isinstance(value, bool) and name in _NESTED:
        value = _switched(name, value, where)
    elif name == "retry" and isinstance(value, int):
        value = {"max_retries": value}
    elif name == "rate_limiting" and isinstance(value, int | float):
        value = {"requests_per_minute": value}
    if not isinstance(value, Mapping) or name not in _NESTED:
        return value
    if name == "retry":
        value = _retry_settings(value, where)
    _check_keys(value, _NESTED[name].__struct_fields__, where)
    return dict(value)


def _spelt_methods(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} maps names of methods to options, not {shorten(value, 60)}")
    return {
        str(name): _spelt_out(_as_mapping(said, f"{where}: {name}"), FIELDS, f"{where}: {name}")
        for name, said in value.items()
    }


def _switched(name: str, on: bool, where: str) -> dict[str, Any] | None:
    if not on:
        return None
    if name not in _SWITCHED_ON:
        raise ConfigError(f"{where} needs a value; `true` does not say how much")
    return _SWITCHED_ON[name]


def _put_retry(spelt: dict[str, Any], beside: dict[str, Any], where: str) -> None:
    """Add the settings of `retry` that were given beside it."""
    inside = _as_mapping(spelt.get("retry", {}), f"{where}: retry, beside {sorted(beside)},")
    retry = dict(inside)
    for name, value in _retry_settings(beside, where).items():
        _put(retry, name, value, f"{where}: retry")
    spelt["retry"] = retry


def _retry_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key == "max_retries":
            check_count(f"{where}: max_retries", value, 0)
            value = value + 1  # noqa: PLW2901 - attempts include the first
        _put(settings, _RETRY_NAMES.get(key, key), value, where)
    return settings


def _put(settings: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key in settings:
        raise ConfigError(f"{where}: {key} is given twice, under different names")
    settings[key] = value


def _check_keys(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    names = sorted(known)
    for key in values:
        if key not in names:
            near = did_you_mean(str(key), names)
            raise ConfigError(
                f"{where}: unknown key {key!r}.{near} Known keys: {', '.join(names)}."
            )


def _as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return the settings in a mapping or in a struct; those that a struct leaves unset are not."""
    if isinstance(value, msgspec.Struct):
        settings = msgspec.structs.asdict(value)
        return {key: said for key, said in settings.items() if said is not msgspec.UNSET}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping, not {shorten(value, 60)}")
    return value


def _lay_over(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        below = under.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping | msgspec.Struct):
            merged = dict(_as_mapping(below, key))
            _lay_over(merged, value)
            under[key] = merged
        else:
            under[key] = value


def _convert(values: Mapping[str, Any], cls: type[_Struct], where: str) -> _Struct:
    try:
        return msgspec.convert(values, cls)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
