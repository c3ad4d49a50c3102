"""`async_map` and `async_flat_map`: functions that take their time, for many records at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from sage.common.errors import ConfigError, FunctionError, GraphError
from sage.common.suggest import shorten
from sage.core.api.stream_base import Options, part_options
from sage.dataflow.function.spec import function_spec
from sage.dataflow.operator.async_map import AsyncFlatMap, AsyncMap, AsyncSettings
from sage.dataflow.operator.at_end import has_end
from sage.dataflow.time import to_ms
from sage.kernel.runtime.service.policy.retry import RetryPolicy

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.dataflow.operator.base import Operator

T = TypeVar("T")

RetryOption: TypeAlias = int | RetryPolicy | Mapping[str, Any]
"""How often to try again; or all settings of a `RetryPolicy`."""

_CAPACITY = 100
_BLOCKING_CAPACITY = 32


class AsyncOperators(Generic[T]):
    """The asynchronous operators of a `DataStream`."""

    if TYPE_CHECKING:

        def _then(self, operator: Operator, options: Options) -> DataStream[Any]: ...

    def async_map(
        self,
        function: Any,
        *args: Any,
        capacity: int | None = None,
        timeout: timedelta | float | None = None,
        ordered: bool = True,
        retry: RetryOption | None = None,
        blocking: bool = False,
        **kw: Any,
    ) -> DataStream[Any]:
        """Turn each record into what `function(record)` gives some time later.

        The function is called for many records at once while the pipeline goes on. Event time behind
        it does not overtake a record that is under way, and a checkpoint holds the records under
        way: after a restore the function is called with them again.

        Args:
            function: An `async def`, or a function that returns a future: one of `asyncio` or
                `concurrent.futures`, or what `self.call_service_async` gives. It is called in the
                thread of an event loop, for one record after the other, and must not block it. A
                class has it as `execute`; `open` and `close` are called in the task's thread.
            args: Arguments of a function class.
            capacity: How many calls run at a time at most; 100, or 32 with `blocking`. As many more
                records wait for their turn, or for those before them; then nothing more is read.
            timeout: After how long a call is given up with a `TimeoutError`: a `timedelta`, or
                seconds. Each attempt has as long.
            ordered: Put results out in the order of the records. If not, a result goes out as soon
                as it is there, but overtakes no watermark.
            retry: How often a call that failed is made again, for whatever exception; or the
                settings of a `RetryPolicy`, such as `{"max_attempts": 5, "initial_delay": 0.2}`. The
                policy of `on_error` is for what fails for good.
            blocking: The function is a plain one that blocks its thread: call it in `capacity`
                threads at a time.
            kw: The options of all operators; or keyword arguments of a function class.

        Raises:
            FunctionError: the function cannot serve.
            GraphError: an option has an impossible value.

        Examples:
            >>> import asyncio
            >>> from sage import LocalEnvironment
            >>> async def square(number):
            ...     await asyncio.sleep(0.01)
            ...     return number * number
            >>> env = LocalEnvironment("example")
            >>> squares = env.from_batch(range(5)).async_map(square).collect()
            >>> result = env.execute()
            >>> list(squares)
            [0, 1, 4, 9, 16]
        """
        settings = async_settings(capacity, timeout, ordered, retry, blocking)
        return self._async(AsyncMap, settings, function, args, kw)

    def async_flat_map(
        self,
        function: Any,
        *args: Any,
        capacity: int | None = None,
        timeout: timedelta | float | None = None,
        ordered: bool = True,
        retry: RetryOption | None = None,
        blocking: bool = False,
        **kw: Any,
    ) -> DataStream[Any]:
        """Turn each record into the items of the iterable that `function(record)` gives later.

        Args:
            function: As for `async_map`; it may be an async generator too, whose items go out
                together when it has ended.
            args: Arguments of a function class.
            capacity: How many calls run at a time at most.
            timeout: After how long a call is given up.
            ordered: Put results out in the order of the records.
            retry: How often a call that failed is made again.
            blocking: The function is a plain one that blocks its thread.
            kw: The options of all operators; or keyword arguments of a function class.

        Raises:
            FunctionError: the function cannot serve.
            GraphError: an option has an impossible value.
        """
        settings = async_settings(capacity, timeout, ordered, retry, blocking)
        return self._async(AsyncFlatMap, settings, function, args, kw)

    def _async(
        self,
        operator: type[AsyncMap],
        settings: AsyncSettings,
        function: Any,
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> DataStream[Any]:
        options, rest = part_options(kw)
        awaits = not settings.blocking
        role = operator.kind if awaits else f"{operator.kind}(blocking=True)"
        spec = function_spec(role, function, args, rest, awaits=awaits)
        if has_end(function if isinstance(function, type) else type(function)):
            raise FunctionError(
                f"{operator.kind}() calls execute() alone; on_end() of {shorten(function)} would never "
                "be called: put flat_map() behind it with what on_end() does"
            )
        return self._then(operator((spec,), settings), options)


def async_settings(
    capacity: int | None,
    timeout: timedelta | float | None,
    ordered: bool,
    retry: RetryOption | None,
    blocking: bool,
) -> AsyncSettings:
    """Check the options of an asynchronous operator.

    Raises:
        GraphError: one has an impossible value.
    """
    if capacity is None:
        capacity = _BLOCKING_CAPACITY if blocking else _CAPACITY
    if type(capacity) is not int or capacity < 1:
        raise GraphError(f"capacity is a whole number of at least 1, not {shorten(capacity)}")
    timeout_ms = None if timeout is None else to_ms(timeout, name="timeout")
    if timeout_ms is not None and timeout_ms < 1:
        raise GraphError(f"timeout is at least a millisecond, or None, not {timeout!r}")
    return AsyncSettings(capacity, timeout_ms, bool(ordered), _retry_policy(retry), bool(blocking))


def _retry_policy(retry: Any) -> RetryPolicy | None:
    if retry is None or isinstance(retry, RetryPolicy):
        return retry
    if type(retry) is int and retry >= 0:
        return RetryPolicy(max_attempts=retry + 1, retry_on=(Exception,))
    if not isinstance(retry, Mapping):
        raise GraphError(
            "retry is a number of retries, a RetryPolicy, or its settings such as "
            f'{{"max_attempts": 5, "initial_delay": 0.2}}, not {shorten(retry)}'
        )
    known = msgspec.structs.fields(RetryPolicy)
    unknown = sorted(set(retry) - {field.name for field in known})
    if unknown:
        raise GraphError(
            f"retry has no setting {unknown[0]!r}; it has {', '.join(f.name for f in known)}"
        )
    try:
        return RetryPolicy(**{"retry_on": (Exception,), **retry})
    except ConfigError as error:
        raise GraphError(f"retry: {error}") from None
