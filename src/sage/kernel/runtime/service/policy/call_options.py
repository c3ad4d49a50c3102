"""The options of one call, and how they are laid over those of the method, service and environment."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.checks import DAY, check_number
from sage.kernel.runtime.service.policy.hedge import HedgePolicy
from sage.kernel.runtime.service.policy.retry import RetryPolicy


class CallOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants to be different about a call. What is not said stays as it was.

    Attributes:
        timeout: How many seconds to wait for the result; `None` for ever.
        retry: When to try again; `None` for never.
        idempotent: Whether executing the call twice is the same as executing it once.
        cache_ttl: For how many seconds the result may be used again; `None` for not at all.
        hedge: When to send a second request; `None` for never.
        fallback: Called with the error when the call has failed for good; what it returns is the
            result of the call. `None` lets the error through.

    Raises:
        ConfigError: a value is out of range.

    Examples:
        >>> plan = CallPlan().override(CallOptions(timeout=5)).override(CallOptions(idempotent=True))
        >>> plan.timeout, plan.idempotent, plan.retry
        (5, True, None)
    """

    timeout: float | UnsetType | None = UNSET
    retry: RetryPolicy | UnsetType | None = UNSET
    idempotent: bool | UnsetType = UNSET
    cache_ttl: float | UnsetType | None = UNSET
    hedge: HedgePolicy | UnsetType | None = UNSET
    fallback: Any | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.timeout is not None and self.timeout is not UNSET:
            check_number("timeout", self.timeout, 0, 365 * DAY)
        if self.cache_ttl is not None and self.cache_ttl is not UNSET:
            check_number("cache_ttl", self.cache_ttl, 0, 365 * DAY)
        if self.fallback is not UNSET and self.fallback is not None and not callable(self.fallback):
            raise ConfigError(
                "fallback must be a function that takes the error and returns a result; "
                f"for a fixed result write fallback=lambda error: {self.fallback!r}"
            )


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All options of a call, decided. Its defaults are those of a call about which nothing is said.

    Attributes:
        timeout: How many seconds to wait for the result; `None` for ever.
        retry: When to try again; `None` for never.
        idempotent: Whether executing the call twice is the same as executing it once.
        cache_ttl: For how many seconds the result may be used again; `None` for not at all.
        hedge: When to send a second request; `None` for never. A call that is not idempotent is
            not hedged, whatever this says.
        fallback: Called with the error when the call has failed for good; `None` for no fallback.
    """

    timeout: float | None = 30.0
    retry: RetryPolicy | None = None
    idempotent: bool = False
    cache_ttl: float | None = None
    hedge: HedgePolicy | None = None
    fallback: Any = None

    def override(self, options: CallOptions | None) -> CallPlan:
        """Return this plan with all that `options` says; the nearest to the call comes last."""
        if options is None:
            return self
        told = {name: value for name in FIELDS if (value := getattr(options, name)) is not UNSET}
        return msgspec.structs.replace(self, **told) if told else self


FIELDS = CallOptions.__struct_fields__
"""The names of the options of a call."""
