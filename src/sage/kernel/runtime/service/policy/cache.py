"""`ResultCache`: results of earlier calls, for methods whose answers may be a little old.

Values are kept and given out as they are, not copied: who changes a result changes it for every later
caller. Failures are not kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from sage.common.clock import Clock
from sage.kernel.runtime.service.policy.cache_key import CacheKey
from sage.kernel.runtime.service.policy.checks import DAY, check_count, check_number


class _Miss(Enum):
    MISS = "miss"


MISS: Final = _Miss.MISS
"""What `ResultCache.lookup` returns when it has no result: `None` may well be one."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache has done since it was made.

    Attributes:
        entries: How many results it holds, those not yet found to be too old included.
        hits: Lookups that found a result.
        misses: Lookups that found none, or one that was too old.
        expired: Those of the misses that found one that was too old.
        evicted: Results dropped to make room.
        uncacheable: Calls whose arguments cannot be a key.
    """

    entries: int
    hits: int
    misses: int
    expired: int
    evicted: int
    uncacheable: int


class ResultCache:
    """Keeps the results of calls for a while, the latest used ones; for use by many threads.

    An invalidation also concerns the calls under way: note `generation` before a call and hand it to
    `store`, and a result that was read before the invalidation is not kept after it.

    Args:
        max_entries: How many results to keep; then the least recently used makes room.
        ttl: For how many seconds a result is good, unless `store` says otherwise.
        clock: Where the time comes from.

    Raises:
        ConfigError: a value is out of range.

    Examples:
        >>> from sage.testing import ManualClock
        >>> from sage.kernel.runtime.service.policy.cache_key import cache_key
        >>> clock = ManualClock()
        >>> cache = ResultCache(max_entries=100, ttl=60, clock=clock)
        >>> key = cache_key("get", ("a",), {})
        >>> cache.lookup(key) is MISS
        True
        >>> cache.store(key, 42)
        True
        >>> cache.lookup(key)
        42
    """

    def __init__(self, max_entries: int, ttl: float, clock: Clock) -> None:
        check_count("max_entries", max_entries)
        check_number("ttl", ttl, 0, 365 * DAY)
        self._max_entries = max_entries
        self._ttl = ttl
        self._monotonic = clock.monotonic
        # An OrderedDict: finding the first entry of a dict gets slower as its front is emptied.
        self._entries: OrderedDict[CacheKey, tuple[float, Any]] = OrderedDict()
        self._generation = 0
        self._hits = self._misses = self._expired = self._evicted = self._uncacheable = 0
        self._lock = threading.Lock()

    def lookup(self, key: CacheKey | None) -> Any | Literal[_Miss.MISS]:
        """Return the result kept under `key`, or `MISS`.

        Args:
            key: What `cache_key` returned for the call; `None` for one that cannot be cached.
        """
        if key is None:
            return self._lookup_nothing()
        now = self._monotonic()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and now < entry[0]:
                self._hits += 1
                self._entries.move_to_end(key)
                return entry[1]
            self._misses += 1
            if entry is not None:
                self._expired += 1
                del self._entries[key]
        return MISS

    def _lookup_nothing(self) -> Literal[_Miss.MISS]:
        with self._lock:
            self._uncacheable += 1
        return MISS

    def store(
        self,
        key: CacheKey | None,
        value: Any,
        ttl: float | None = None,
        generation: int | None = None,
    ) -> bool:
        """Keep a result, and say whether it was kept.

        Args:
            key: What `cache_key` returned for the call; `None` for one that cannot be cached.
            value: The result.
            ttl: For how many seconds it is good; `None` for as long as the cache's others.
            generation: What `generation` was before the call; a result of an older one is not kept.
        """
        seconds = self._ttl if ttl is None else ttl
        if key is None or seconds <= 0:
            return False
        good_until = self._monotonic() + seconds
        with self._lock:
            if generation is not None and generation != self._generation:
                return False
            self._entries[key] = (good_until, value)
            self._entries.move_to_end(key)
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
                self._evicted += 1
        return True

    @property
    def generation(self) -> int:
        """How often something has been invalidated."""
        return self._generation

    def invalidate(self, method: str | None = None) -> int:
        """Drop the results of one method, or of all, and return how many there were.

        Takes a time proportional to the number of entries.
        """
        with self._lock:
            self._generation += 1
            dropped = [key for key in self._entries if method is None or key[0] == method]
            for key in dropped:
                del self._entries[key]
        return len(dropped)

    def statistics(self) -> CacheStatistics:
        """Return what the cache has done so far."""
        with self._lock:
            return CacheStatistics(
                entries=len(self._entries),
                hits=self._hits,
                misses=self._misses,
                expired=self._expired,
                evicted=self._evicted,
                uncacheable=self._uncacheable,
            )
