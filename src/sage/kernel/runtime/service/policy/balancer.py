"""Which replica of a service takes the next call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from sage.common.errors import ServiceUnavailableError

UNHEALTHY = inf
"""The load of a replica that must not be called."""


def choose_replica(loads: Sequence[float], random: Callable[[], float]) -> int:
    """Return the index of the replica to call: the less loaded of two drawn by chance.

    Two choices are nearly as good as looking at all (the longest queue grows like `log log n`
    instead of `log n / log log n`: Michael Mitzenmacher, "The Power of Two Choices in Randomized
    Load Balancing", IEEE TPDS 12(10), 2001), and better when loads are known late: callers that all
    send to the one least loaded replica overload it together.

    Args:
        loads: The load of each replica, for instance its calls under way; `UNHEALTHY` to skip it.
        random: Returns a float from 0 up to 1.

    Raises:
        ServiceUnavailableError: there is no healthy replica.

    Examples:
        >>> choose_replica([3, UNHEALTHY, 1], lambda: 0.0)
        2
    """
    count = len(loads)
    if count == 1 and loads[0] != UNHEALTHY:
        return 0
    if count > 1:
        first, second = _draw_two(count, random)
        chosen = first if loads[first] <= loads[second] else second
        # A pair with an unhealthy one is no choice of two: those are drawn among the healthy.
        if loads[first] != UNHEALTHY and loads[second] != UNHEALTHY:
            return chosen
    return _choose_healthy(loads, random)


def _draw_two(count: int, random: Callable[[], float]) -> tuple[int, int]:
    """Return two different indices below `count`, each ordered pair being as likely as any other."""
    first = int(random() * count)
    second = int(random() * (count - 1))
    return first, second + 1 if second >= first else second


def _choose_healthy(loads: Sequence[float], random: Callable[[], float]) -> int:
    healthy = [index for index, load in enumerate(loads) if load != UNHEALTHY]
    if not healthy:
        raise ServiceUnavailableError(f"none of the {len(loads)} replicas can be called")
    if len(healthy) == 1:
        return healthy[0]
    first, second = (healthy[drawn] for drawn in _draw_two(len(healthy), random))
    return first if loads[first] <= loads[second] else second
