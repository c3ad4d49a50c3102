"""`@batch`: lets a method of a service work on many calls at once.

Here is what a service's author writes, and its limits. `batch_window` decides which calls make a
batch, `batcher` has the threads that wait for them, `batched_calls` calls the method.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from sage.common.errors import ConfigError
from sage.kernel.runtime.service.policy.checks import DAY, check_count, check_number

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "__sage_batch__"


@dataclass(frozen=True)
class BatchLimits:
    """When a batch is full, and how long it gathers. See `batch`.

    Attributes:
        max_size: How many items a batch has at most.
        max_wait: Seconds after which a batch is run though it is not full.
        max_bytes: How many bytes the items of a batch have together at most.
        max_cost: What the items of a batch cost together at most.
        cost: What an item costs.
    """

    max_size: int = 32
    max_wait: float = 0.005
    max_bytes: int | None = None
    max_cost: float | None = None
    cost: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        check_count("max_size", self.max_size)
        check_number("max_wait", self.max_wait, 0, DAY)
        if self.max_bytes is not None:
            check_count("max_bytes", self.max_bytes)
        if self.max_cost is not None:
            check_number("max_cost", self.max_cost, 0, inf)
        if (self.max_cost is None) != (self.cost is None):
            raise ConfigError("max_cost= and cost= belong together: give both or neither")
        if self.cost is not None and not callable(self.cost):
            raise ConfigError(f"cost must be a function of an item, not {self.cost!r}")

    def bytes_of(self, item: Any) -> int:
        """Return how many bytes an item counts; 0 when they are not limited."""
        return 0 if self.max_bytes is None else byte_size(item)

    def cost_of(self, item: Any) -> float:
        """Return what an item costs; 0 when that is not limited.

        Raises:
            ValueError: `cost` has returned what is no number from 0 on.
        """
        if self.cost is None:
            return 0.0
        cost = self.cost(item)
        if not cost >= 0:  # said this way round, it refuses NaN too
            raise ValueError(f"the cost of an item is a number from 0 on, not {cost!r}")
        return cost


def byte_size(item: Any) -> int:
    """Return about how many bytes an item has.

    That is `item.nbytes` where there is such a number (arrays, tensors, `memoryview`), else the
    length of `bytes`, `bytearray` and `str`, else `sys.getsizeof`, which does not look into
    containers: for those, limit a `cost` of your own.

    Examples:
        >>> byte_size(b"four"), byte_size(memoryview(b"four"))
        (4, 4)
    """
    size = getattr(item, "nbytes", None)
    if isinstance(size, int):
        return size
    return len(item) if isinstance(item, bytes | bytearray | str) else sys.getsizeof(item)


def batch(
    max_size: int = 32,
    max_wait: float = 0.005,
    max_bytes: int | None = None,
    max_cost: float | None = None,
    cost: Callable[[Any], float] | None = None,
) -> Callable[[Method], Method]:
    """Let a method of a service, plain or `async def`, take the items of many calls in one list.

    A caller gives one item, as the only positional argument, and gets its own result. The method
    takes a list of items and returns a list of as many results, in the same order. Called directly
    in Python, without a service, it is what it was: it takes the list.

    A batch is run when it has `max_size` items, when it has reached `max_bytes` or `max_cost` or the
    next item would exceed them, or `max_wait` seconds after its first item has come, whatever is
    first. An item that exceeds a limit alone is run alone. While `max_concurrency` calls and batches
    are being worked on, the next batch waits and goes on gathering. With `max_wait=0`, no item ever
    waits for others: only those that have come in the meantime are run together.

    What each caller is told:

    * If the method raises, or returns anything but a list (a tuple, an array) of the right length,
      every call of the batch fails with that error.
    * If one of the results is an `Exception`, that call alone fails with it.
    * A call that is cancelled, or past its deadline, before its batch is run is left out of it. A
      batch that is being run is not disturbed by a caller who gives up; when all have, an
      `async def` is cancelled. `max_wait` should be well below the callers' timeout.
    * Calls that the method makes to other services may last until the latest deadline of its
      callers.

    Args:
        max_size: How many items a batch has at most.
        max_wait: Seconds after which a batch is run though it is not full.
        max_bytes: How many bytes the items have together at most, measured by `byte_size`.
        max_cost: What the items cost together at most; with `cost`.
        cost: What an item costs, a number from 0 on: of a text, say, the number of its tokens. It is
            called once for each item; if it raises, that call fails.

    Raises:
        ConfigError: a limit is not usable.
        TypeError: the method is a generator.

    Examples:
        >>> from sage import LocalEnvironment
        >>> from sage.kernel.runtime.service.service_caller import ServiceManager
        >>> class Model:
        ...     @batch(max_size=8)
        ...     def double(self, numbers):
        ...         return [2 * number for number in numbers]
        >>> Model().double([1, 2])
        [2, 4]
        >>> env = LocalEnvironment("batched")
        >>> registration = env.register_service("model", Model)
        >>> ServiceManager(env).call_service_sync("model", "double", 4)
        8
        >>> closed = env.close()
    """
    if callable(max_size):
        raise ConfigError("@batch takes its limits in parentheses: write @batch()")
    limits = BatchLimits(max_size, max_wait, max_bytes, max_cost, cost)

    def mark(method: Method) -> Method:
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"{method.__qualname__} is a generator: a batch is returned as a list")
        method.__dict__[_MARK] = limits
        return method

    return mark


def batched_methods(service: Any) -> dict[str, BatchLimits]:
    """Return the public methods of a service that `batch` has marked, with their limits."""
    kind = type(service)
    marks = {
        name: getattr(getattr(kind, name, None), _MARK, None)
        for name in dir(kind)
        if not name.startswith("_")
    }
    return {name: limits for name, limits in marks.items() if isinstance(limits, BatchLimits)}
