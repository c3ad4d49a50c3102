"""Latencies in buckets whose width grows with the value, so that any quantile is known to 3.2 %.

The buckets are log-linear, like those of Gil Tene's HdrHistogram: each power of two is divided into
`PARTS` equal ones. A bucket is at most 1/16 as wide as its values are large; its middle, which is
what is reported, is therefore off by at most 1/32 = 3.125 %. From 60 ns to over 4 hours these are
608 buckets, of which a method fills a few dozen: counts are kept in a dict by bucket number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import ceil, frexp, ldexp
from typing import Final

PARTS: Final = 16
"""Into how many buckets a power of two is divided."""

MAX_RELATIVE_ERROR: Final = 1 / (2 * PARTS)
"""By how much a reported quantile is off at most, in proportion to the true one."""

SHORTEST: Final = 2.0**-24
"""Shorter latencies are counted as this one, in seconds."""

LONGEST: Final = 2.0**14
"""Longer latencies are counted as this one, in seconds."""


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket in which a latency is counted; longer ones have higher numbers.

    Examples:
        >>> bucket_of(0.0100) == bucket_of(0.0101), bucket_of(0.0100) < bucket_of(0.0110)
        (True, True)
    """
    if SHORTEST <= seconds <= LONGEST:
        # From 0.5 up to 1, times a power of two: so 16 to 31, and 16 more for each power.
        mantissa, exponent = frexp(seconds)
    else:
        mantissa, exponent = frexp(LONGEST if seconds > LONGEST else SHORTEST)
    return exponent * PARTS + int(mantissa * (2 * PARTS))


def count_buckets(latencies: Sequence[float]) -> dict[int, int]:
    """Return how many of the latencies, sorted, are in each bucket; quicker than one by one.

    Examples:
        >>> list(count_buckets([0.001, 0.001, 0.5]).values())
        [2, 1]
    """
    counts: dict[int, int] = {}
    begin, total = 0, len(latencies)
    while begin < total:
        bucket = bucket_of(latencies[begin])
        exponent, part = divmod(bucket - PARTS, PARTS)
        upper = ldexp((PARTS + part + 1) / (2 * PARTS), exponent)
        # What is too short or too long is counted with its neighbours, wherever their bucket ends.
        end = max(begin + 1, bisect_left(latencies, upper, begin))
        counts[bucket] = counts.get(bucket, 0) + end - begin
        begin = end
    return counts


def bucket_middle(bucket: int) -> float:
    """Return the latency that a bucket stands for, in seconds."""
    exponent, part = divmod(bucket - PARTS, PARTS)
    return ldexp((PARTS + part + 0.5) / (2 * PARTS), exponent)


def quantiles(counts: Mapping[int, int], wanted: tuple[float, ...]) -> tuple[float, ...]:
    """Return the latencies below or at which the wanted parts of all calls are, nearest rank.

    Args:
        counts: How many calls there were per bucket, at least one in all.
        wanted: Numbers from 0 to 1, in ascending order.

    Raises:
        ValueError: there are no calls.

    Examples:
        >>> counts = {bucket_of(0.001): 98, bucket_of(1.0): 2}
        >>> [round(latency, 3) for latency in quantiles(counts, (0.5, 0.99))]
        [0.001, 1.031]
    """
    total = sum(counts.values())
    if not total:
        raise ValueError("there are no calls to take a quantile of")
    buckets = iter(sorted(counts.items()))
    found = []
    bucket, seen = next(buckets)
    for part in wanted:
        rank = ceil(part * total)
        while seen < rank:
            bucket, count = next(buckets)
            seen += count
        found.append(bucket_middle(bucket))
    return tuple(found)
