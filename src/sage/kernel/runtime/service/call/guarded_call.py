"""`GuardedCall`: one call under its policies, in however many attempts.

What the caller holds is the future of the whole call. Each attempt is a future of its own, sent on
the same way; its end decides what comes next. Nothing here waits, and no thread belongs to a call:
an attempt ends in the thread that brings its answer, and what is to be done later a timer does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from sage.common.errors import ServiceCancelledError, ServiceError
from sage.kernel.runtime.service.call.service_future import Calls, ServiceFuture
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    StreamToken,
    error_name,
    error_of,
    failure,
)
from sage.kernel.runtime.service.middleware import MiddlewareChain
from sage.kernel.runtime.service.policy.breaker import CircuitBreaker
from sage.kernel.runtime.service.policy.cache import MISS, ResultCache
from sage.kernel.runtime.service.policy.cache_key import CacheKey, cache_key
from sage.kernel.runtime.service.policy.call_options import CallPlan
from sage.kernel.runtime.service.policy.call_statistics import MethodRecorder
from sage.kernel.runtime.service.policy.hedge import HedgePolicy, Hedging
from sage.kernel.runtime.service.policy.limits import CallLimit, CallRateLimit
from sage.kernel.runtime.service.policy.retry import RetryBudget

if TYPE_CHECKING:
    from sage.kernel.runtime.service.call.call_path import Channel, Surroundings

_monotonic = time.monotonic


@dataclass
class Guards:
    """The policies of one service, with their state. `None` stands for one that is not in use.

    Attributes:
        breaker: Refuses calls to a service that keeps failing.
        rate: Bounds how many attempts begin.
        limit: Bounds what is under way.
        cache: Results of earlier calls.
        budget: Bounds the retries of all calls together.
        middleware: What is around every call.
        hedging: Makes what decides about second requests.
        around: What all paths share.
        retries: How many times a call was tried again.
    """

    breaker: CircuitBreaker | None
    rate: CallRateLimit | None
    limit: CallLimit | None
    cache: ResultCache
    budget: RetryBudget
    middleware: MiddlewareChain | None
    hedging: Callable[[HedgePolicy], Hedging]
    around: Surroundings
    retries: int = 0
    _hedgings: dict[HedgePolicy, Hedging] = field(default_factory=dict)

    @property
    def always(self) -> bool:
        """Whether one of them has a say in every call, whatever its plan."""
        guards = (self.breaker, self.rate, self.limit, self.middleware)
        return any(guard is not None for guard in guards)

    def hedging_of(self, policy: HedgePolicy) -> Hedging:
        """Return what decides about the second requests of calls with this policy."""
        if policy not in self._hedgings:
            self._hedgings.setdefault(policy, self.hedging(policy))
        return self._hedgings[policy]

    def enter(self) -> int:
        """Let an attempt begin, and return the breaker's permit.

        Raises:
            ServiceError: the breaker or the rate limit refuses it.
        """
        permit = 0 if self.breaker is None else self.breaker.try_acquire()
        if self.rate is not None:
            try:
                self.rate.acquire()
            except BaseException:
                self.leave(permit)
                raise
        return permit

    def leave(self, permit: int) -> None:
        """End an attempt that says nothing about the service."""
        if self.breaker is not None:
            self.breaker.release(permit)


class MethodCalls(Calls, Protocol):
    """The calls of a method."""

    @property
    def recorder(self) -> MethodRecorder:
        """Counts them."""
        ...


class GuardedCall:
    """A call and its attempts. Implements `Calls` for the future of the whole.

    Args:
        guards: The policies.
        channel: The way to the service.
        calls: The calls of the method.
        plan: What is said about this one.
        request: The first attempt.
    """

    def __init__(
        self,
        guards: Guards,
        channel: Channel,
        calls: MethodCalls,
        plan: CallPlan,
        request: ServiceRequest,
    ) -> None:
        self._guards = guards
        self._channel = channel
        self._calls = calls
        self._plan = plan
        self._request = request
        self._lock = threading.Lock()
        self._live: list[ServiceFuture] = []
        self._attempts = 0
        self._seen = 0  # how many middlewares have seen the call begin
        self._key: CacheKey | None = None
        self._generation: int | None = None
        self._over = False
        self._fallen: ServiceResponse | Exception | None = None

    def start(self, now: float) -> ServiceFuture:
        """Make the call, and return its future.

        Raises:
            TypeError: an argument cannot be sent.
        """
        recorder = self._calls.recorder
        recorder.begin(None)
        self.future = ServiceFuture(self._request, self._channel.waiter, now, self)
        try:
            early = self._ask_middleware() or self._look_up()
            if early is not None:
                self.future.complete(early)
            else:
                self._guards.budget.deposit()
                self._attempt()
                self._plan_hedge()
        except BaseException as error:
            self._over = True
            if self._guards.middleware is not None and self._seen:
                never_made = failure(self._request.request_id, error, executed=False)
                self._guards.middleware.after(self._request, never_made, self._seen)
            recorder.record(_monotonic() - now, _monotonic(), type(error).__name__)
            raise
        return self.future

    def _ask_middleware(self) -> ServiceResponse | None:
        if self._guards.middleware is None:
            return None
        request, early, self._seen = self._guards.middleware.before(self._request)
        self._request = self.future.request = request
        return early

    def _look_up(self) -> ServiceResponse | None:
        if self._plan.cache_ttl is None:
            return None
        request, cache = self._request, self._guards.cache
        self._key = cache_key(request.method_name, request.args, request.kwargs)
        kept = cache.lookup(self._key)
        if kept is not MISS:
            return ServiceResponse(True, kept, None, request.request_id)
        self._generation = cache.generation
        return None

    # ---- attempts

    def _attempt(self, avoid: int | None = None) -> None:
        with self._lock:
            if self._over:
                return
            self._attempts += 1
            number = self._attempts
        request = self._request if number == 1 else self._again(number)
        attempt = _Attempt(self, self._guards)
        future = ServiceFuture(request, self._channel.waiter, _monotonic(), attempt)
        future.avoid = avoid
        future.admit = attempt.admit if self._guards.limit is not None else None
        with self._lock:
            self._live.append(future)
        try:
            attempt.permit = self._guards.enter()
            self._channel.send(future)
        except ServiceError as error:
            future.complete(failure(request.request_id, error, executed=False))
        except BaseException:
            attempt.give_up()
            raise

    def _again(self, number: int) -> ServiceRequest:
        first = self._request
        return ServiceRequest(
            next(self._guards.around.numbers),
            first.service_name,
            first.method_name,
            first.args,
            first.kwargs,
            "",
            first.deadline,
            number,
            first.trace_context,
            first.caller_chain,
        )

    def attempt_ended(self, attempt: ServiceFuture, response: ServiceResponse) -> None:
        """Decide what comes next."""
        with self._lock:
            self._live = [other for other in self._live if other is not attempt]
            others = bool(self._live)
        if self._over:
            return
        if response.success or (not others and not self._retry(response)):
            self.future.complete(response)

    def _retry(self, response: ServiceResponse) -> bool:
        """Let there be another attempt, if that is wanted, safe, in time and within the budget."""
        policy, plan, guards = self._plan.retry, self._plan, self._guards
        if policy is None:
            return False
        error = error_of(response, self._request.service_name, self._request.method_name)
        safe = policy.is_retryable(
            error, idempotent=plan.idempotent, may_have_run=response.executed
        )
        if not safe:
            return False
        now, around = _monotonic(), guards.around
        delay = policy.next_delay(self._attempts, self._request.deadline - now, around.random)
        if delay is None or not guards.budget.try_withdraw():
            return False
        planned = around.timer.call_at(now + delay, self._attempt_later)
        guards.retries += planned
        return planned

    def _attempt_later(self, avoid: int | None = None) -> None:
        try:
            self._attempt(avoid)
        except Exception as error:  # noqa: BLE001 - it is the error of the call
            self.future.complete(failure(self._request.request_id, error, executed=False))

    # ---- hedging

    def _plan_hedge(self) -> None:
        policy, plan = self._plan.hedge, self._plan
        if policy is None or not plan.idempotent:
            return
        hedging = self._guards.hedging_of(policy)
        hedging.count_call()
        now, deadline = _monotonic(), self._request.deadline
        delay = hedging.delay(self._request.method_name, inf if deadline == inf else deadline - now)
        if delay is not None and not self.future.settled():
            self._guards.around.timer.call_at(now + delay, self._hedge)

    def _hedge(self) -> None:
        """Send a second request, if the first is still under way."""
        with self._lock:
            live = list(self._live)
        if self._over or len(live) != 1 or self._plan.hedge is None:
            return
        if self._guards.hedging_of(self._plan.hedge).try_send():
            self._attempt_later(live[0].replica)

    # ---- Calls: the end of the whole call

    def ended(self, future: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
        """End what is still under way, ask the middlewares, keep the result, count the call."""
        with self._lock:
            self._over = True
            live, self._live = self._live, []
        for attempt in live:
            if attempt.complete(_loser(attempt, response)):
                attempt.forget()
        if self._guards.middleware is not None:
            response = self._guards.middleware.after(self._request, response, self._seen)
        streamed = response.result.__class__ is StreamToken
        if self._generation is not None and response.success and not streamed:
            ttl, generation = self._plan.cache_ttl, self._generation
            self._guards.cache.store(self._key, response.result, ttl, generation)
        now = _monotonic()
        error = None if response.success else error_name(response)
        self._calls.recorder.record(now - future.started, now, error)
        return response

    def open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Return an iterator over the items of a generator."""
        return self._calls.open_stream(future, token)

    def fall_back(self, error: BaseException) -> ServiceResponse:
        """Return what the fallback says, which is asked once; without one, raise the error."""
        fallback = self._plan.fallback
        if fallback is None:
            raise error
        with self._lock:
            if self._fallen is None:
                self._fallen = _fall(fallback, error)
        if isinstance(self._fallen, Exception):
            raise self._fallen
        return self._fallen


class _Attempt:
    """Implements `Calls` for one attempt of a guarded call."""

    __slots__ = ("_call", "_guards", "_size", "permit")

    def __init__(self, call: GuardedCall, guards: Guards) -> None:
        self._call = call
        self._guards = guards
        self._size: int | None = None
        self.permit: int | None = None  # the breaker's; None: it has not let the attempt in

    def admit(self, size: int) -> None:
        """Take up room under the limits."""
        if self._guards.limit is not None:
            self._guards.limit.acquire(size)
            self._size = size

    def give_up(self) -> None:
        """Give back what the attempt has taken; it has not been made."""
        if self._size is not None and self._guards.limit is not None:
            self._guards.limit.release(self._size)
            self._size = None
        if self.permit is not None:
            self._guards.leave(self.permit)
            self.permit = None

    def ended(self, future: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
        """Give back what the attempt has taken, say how the service did, and let the call go on."""
        breaker, permit = self._guards.breaker, self.permit
        if breaker is not None and permit is not None:
            request, error = future.request, None
            if not response.success:
                error = error_of(response, request.service_name, request.method_name)
            self.permit = None
            breaker.record(permit, error)
        self.give_up()
        self._call.attempt_ended(future, response)
        return response

    def open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        """Return an iterator over the items of a generator."""
        return self._call.open_stream(future, token)

    def fall_back(self, error: BaseException) -> ServiceResponse:
        """Let the error through: the fallback is for the whole call."""
        raise error


def _loser(attempt: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
    """Return the end of an attempt that is still under way when the whole call ends."""
    if not response.success:
        return response
    error = ServiceCancelledError("another request of the same call was answered first")
    return failure(attempt.request.request_id, error)


def _fall(
    fallback: Callable[[BaseException], Any], error: BaseException
) -> ServiceResponse | Exception:
    try:
        return ServiceResponse(True, fallback(error))
    except Exception as raised:  # noqa: BLE001 - raised to whoever asks for the result
        raised.__context__ = error if raised is not error else None
        return raised
