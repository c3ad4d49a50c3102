"""`CallPath`: the one path by which all calls from this process to a service go.

        proxy → `CallPath` → middleware → cache → breaker, limits → channel → service
                     │                      └──── a guarded call, perhaps several times
                     └── straight to the channel when no policy has a say

A call about which nothing is said but its timeout takes the short way: one request, one future, and
its figures. All others are guarded, whatever the transport, so a policy never silently does not apply.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NoReturn, Protocol

from sage.common.clock import Clock, SystemClock
from sage.common.errors import ServiceCycleError, ServiceError, ServiceTimeoutError
from sage.kernel.runtime.service.base_service_task import RequestQueue
from sage.kernel.runtime.service.call.call_timer import CallTimer
from sage.kernel.runtime.service.call.guarded_call import GuardedCall, Guards
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    StreamToken,
    error_name,
    failure,
)
from sage.kernel.runtime.service.hosting.service_executor import (
    CURRENT_REQUEST,
    STREAM_CLOSE,
    STREAM_NEXT,
)
from sage.kernel.runtime.service.middleware import MiddlewareChain, ServiceMiddleware
from sage.kernel.runtime.service.policy.breaker import CircuitBreaker
from sage.kernel.runtime.service.policy.cache import ResultCache
from sage.kernel.runtime.service.policy.call_options import CallOptions, CallPlan
from sage.kernel.runtime.service.policy.call_statistics import CallStatistics, MethodRecorder
from sage.kernel.runtime.service.policy.hedge import Hedging
from sage.kernel.runtime.service.policy.limits import CallLimit, CallRateLimit
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig
from sage.kernel.runtime.service.policy.retry import RetryBudget
from sage.kernel.runtime.service.trace import context_below
from sage.kernel.runtime.service.tracing import with_tracing

_monotonic = time.monotonic


class Channel(Protocol):
    """The way to one service: what a transport implements."""

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        ...

    def send(self, future: ServiceFuture) -> None:
        """Send the request; the future is completed with the answer.

        Asks `future.admit(size)`, if there is one, before anything is sent.

        Raises:
            ServiceError: it has not been sent.
            TypeError: an argument cannot be sent at all.
        """
        ...

    def request_queue(self) -> RequestQueue | None:
        """Return where requests wait; None if they do not wait in this machine."""
        ...


class Surroundings:
    """What all paths of a process share.

    Args:
        middleware: Those around every call.
        clock: Where the policies take the time from.

    Attributes:
        numbers: Gives every request its number.
        timer: Does what is to be done later.
        random: Returns floats from 0 up to 1.
    """

    def __init__(
        self, middleware: tuple[ServiceMiddleware, ...] = (), clock: Clock | None = None
    ) -> None:
        self.middleware = middleware
        self.clock = clock or SystemClock()
        self.numbers = itertools.count(1)
        self.timer = CallTimer()
        self.random: Callable[[], float] = random.random

    def close(self) -> None:
        """Let retries and hedged calls be."""
        self.timer.close()


class CallPath:
    """The path to one service. Thread-safe.

    Args:
        name: The name of the service.
        config: What is said about its calls.
        channel: The way there.
        surroundings: What all paths share.

    Attributes:
        statistics: What became of the calls.
        cache: The results that are kept; `None` if none of its methods says so.
        breaker: `None` if there is none.
    """

    def __init__(
        self, name: str, config: PolicyConfig, channel: Channel, surroundings: Surroundings
    ) -> None:
        self.name = name
        self.config = config
        self.channel = channel
        self.statistics = CallStatistics(name, surroundings.clock)
        self.guards = _make_guards(name, config, surroundings, self.statistics)
        self._send_to_service = channel.send
        self._waiter = channel.waiter
        self._numbers = surroundings.numbers
        self._guarded = self.guards.always or bool(config.methods) or not _is_plain(config.call)
        self._methods: dict[str, _PlainCalls] = {}

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The circuit breaker."""
        return self.guards.breaker

    @property
    def cache(self) -> ResultCache:
        """The results that are kept."""
        return self.guards.cache

    @property
    def retries(self) -> int:
        """How many times a call was tried again."""
        return self.guards.retries

    def begin(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions | None = None,
    ) -> ServiceFuture:
        """Make a call.

        Raises:
            ServiceCycleError: the service waits for this very call.
            ServiceTimeoutError: nothing is left of the time of the call on whose behalf this is.
            TypeError: an argument cannot be sent to another process.
        """
        now = _monotonic()
        calls = self._methods.get(method) or self._calls(method)
        plan = calls.plan if options is None else calls.plan_with(options)
        timeout = plan.timeout
        deadline = inf if timeout is None else now + timeout
        above = CURRENT_REQUEST.get()
        request = ServiceRequest(next(self._numbers), self.name, method, args, kwargs, "", deadline)
        if above is not None:
            request.deadline, request.caller_chain = self._below(above, deadline, now)
            request.trace_context = context_below(above)
        if self._guarded or (plan is not calls.plan and not _is_plain(plan)):
            guarded = GuardedCall(self.guards, self.channel, calls, plan, request)
            return guarded.start(now)
        return self._send(ServiceFuture(request, self._waiter, now, calls), calls)

    def _send(self, future: ServiceFuture, calls: _PlainCalls) -> ServiceFuture:
        calls.begin(None)
        try:
            self._send_to_service(future)
        except ServiceError as error:
            future.complete(failure(future.request.request_id, error, executed=False))
        except BaseException as error:
            now = _monotonic()
            calls.recorder.record(now - future.started, now, type(error).__name__)
            raise
        return future

    def _calls(self, method: str) -> _PlainCalls:
        plan = self.config.plan(method)
        recorder = self.statistics.recorder(method)
        made = _PlainCalls(self, plan, recorder)
        if len(self._methods) < _MAX_METHODS:  # names come from callers
            self._methods[method] = made
        return made

    def _below(
        self, above: ServiceRequest, deadline: float, now: float
    ) -> tuple[float, tuple[str, ...]]:
        """Return the deadline and the chain of a call made while working on `above`."""
        chain = (*above.caller_chain, above.service_name)
        if self.name in chain:
            way = " → ".join((*chain, self.name))
            raise ServiceCycleError(f"{self.name!r} waits for this very call: {way}")
        deadline = min(deadline, above.deadline)
        if deadline <= now:
            raise ServiceTimeoutError(
                f"no time is left to call {self.name!r} on behalf of {above.service_name!r}"
            )
        return deadline, chain

    def items(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Yield the items of a generator that lives in a service; close it there when done here."""
        ended = False
        try:
            while not ended:
                items, ended = self._ask_replica(STREAM_NEXT, future, token).result()
                yield from items
        except GeneratorExit:
            self._ask_replica(STREAM_CLOSE, future, token).result()
            raise
        except ServiceError:  # it is what the caller is to learn, whatever becomes of the closing
            self._ask_replica(STREAM_CLOSE, future, token)
            raise

    def _ask_replica(self, method: str, of: ServiceFuture, token: StreamToken) -> ServiceFuture:
        """Ask the replica in which a generator lives, past all policies: they had their say."""
        now, first = _monotonic(), of.request
        deadline = inf if first.deadline == inf else now + (first.deadline - of.started)
        chain, trace = first.caller_chain, first.trace_context
        request = ServiceRequest(
            next(self._numbers),
            self.name,
            method,
            (token.number,),
            {},
            "",
            deadline,
            1,
            trace,
            chain,
        )
        calls = self._methods.get(method) or self._calls(method)
        return self._send(ServiceFuture(request, self._waiter, now, calls, token.replica), calls)


_MAX_METHODS = 500


class _PlainCalls:
    """Implements `Calls` for those calls of a method that are sent once. Also knows its plan."""

    __slots__ = ("_path", "_planned", "_record", "begin", "plan", "recorder")

    def __init__(self, path: CallPath, plan: CallPlan, recorder: MethodRecorder) -> None:
        self._path = path
        self.begin = recorder.begin
        self._record = recorder.record
        self.plan = plan
        self.recorder = recorder
        self._planned: tuple[CallOptions | None, CallPlan] = (None, plan)

    def plan_with(self, options: CallOptions) -> CallPlan:
        """Return what is said about a call with `options`, which most often are those of the last."""
        given, plan = self._planned
        if given is not options:
            plan = self.plan.override(options)
            self._planned = (options, plan)
        return plan

    def ended(self, future: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
        """Count the call."""
        now = _monotonic()
        if response.success:
            self._record(now - future.started, now)
        else:
            self._record(now - future.started, now, error_name(response))
        return response

    def open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Return an iterator over the items of a generator."""
        return self._path.items(future, token)

    def fall_back(self, error: BaseException) -> NoReturn:
        """Let the error through."""
        raise error


def _is_plain(plan: CallPlan) -> bool:
    """Say whether a call is sent once and its answer is what comes."""
    return (plan.retry, plan.hedge, plan.fallback, plan.cache_ttl) == (None, None, None, None)


def _make_guards(
    name: str, config: PolicyConfig, around: Surroundings, statistics: CallStatistics
) -> Guards:
    subject, clock = f"the service {name!r}", around.clock
    breaker, rate, budget = config.circuit_breaker, config.rate_limiting, config.retry_budget
    limited = config.max_calls is not None or config.max_bytes is not None
    middleware = with_tracing((*around.middleware, *config.middleware))
    return Guards(
        breaker=None if breaker is None else CircuitBreaker(breaker, clock, subject),
        rate=None
        if rate is None
        else CallRateLimit(rate.per_second, rate.burst_calls, clock, subject),
        limit=CallLimit(config.max_calls, config.max_bytes, subject) if limited else None,
        cache=ResultCache(config.cache_entries, 0, clock),
        budget=RetryBudget(clock, budget.ratio, budget.min_per_second, budget.max_tokens),
        middleware=MiddlewareChain(middleware) if middleware else None,
        hedging=lambda policy: Hedging(policy, clock, statistics.quantile),
        around=around,
    )
