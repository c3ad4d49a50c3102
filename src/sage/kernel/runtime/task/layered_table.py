"""The tables of keyed operators: in layers, so that a checkpoint costs what has changed.

When most keys change from one checkpoint to the next, layers cost more than they save: each key is
then looked up twice, and moved. Such a table is kept in one layer and written whole, which is quick;
a sample of its keys tells when layers would pay again.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

_MANY: Final = 0.3
"""Layers do not pay when more than this part of the keys changes between two checkpoints."""

_SMALL: Final = 1000
"""Tables of fewer keys than this stay in layers: it does not matter."""

_SAMPLE: Final = 100
"""The keys that are watched."""

_SAMPLED_FOR: Final = 16
"""After so many checkpoints other keys are watched: picking them goes through all."""

_NONE: Final = object()


class LayeredTable:
    """One entry per key.

    Every write goes to `fresh`, which holds what changed since the last checkpoint; `base` holds the
    rest, and a key of both is that of `fresh`. Loops bind the two dicts, which stay the same ones for
    good, and look into `fresh` first. Without checkpoints, or in one layer, `base` stays empty.

    Attributes:
        fresh: What changed since the last checkpoint; in one layer, everything.
        base: What the last checkpoint holds.
    """

    __slots__ = ("_seen", "_until_others", "_whole", "base", "fresh")

    def __init__(self) -> None:
        self.fresh: dict[Any, Any] = {}
        self.base: dict[Any, Any] = {}
        self._whole = False  # whether it is kept in one layer
        self._seen: dict[Any, object] = {}  # keys that are watched, and what stood for their values
        self._until_others = 0

    def merged(self) -> dict[Any, Any]:
        """Return all entries, in the order in which the keys came first."""
        return {**self.base, **self.fresh} if self.base else self.fresh

    def take_changes(self) -> Mapping[Any, Any]:
        """Return what changed since the last call, or more; to be pickled before anything else happens.

        In one layer, that is everything.
        """
        if self._whole:
            return self._take_whole()
        changed = self.fresh.copy()
        many = len(changed) > _MANY * len(self.base) and len(self.base) >= _SMALL
        self._move()
        if many:
            self.fresh.update(self.base)
            self.base.clear()
            self._whole = True
            self._watch_others()
        return changed

    def _take_whole(self) -> Mapping[Any, Any]:
        if self._changed_part() > _MANY / 2:
            return self.fresh
        self._whole = False
        self._seen.clear()
        self._move()
        return self.base

    def _changed_part(self) -> float:
        """Return which part of the watched keys has changed since the last call."""
        before = self._seen
        self._seen = {key: _fingerprint(self.fresh.get(key, _NONE)) for key in before}
        changed = sum(self._seen[key] != said for key, said in before.items())
        self._until_others -= 1
        if self._until_others <= 0:
            self._watch_others()
        return changed / max(1, len(before))

    def _watch_others(self) -> None:
        keys = islice(self.fresh, 0, None, max(1, len(self.fresh) // _SAMPLE))
        self._seen = {key: _fingerprint(self.fresh[key]) for key in keys}
        self._until_others = _SAMPLED_FOR

    def take_all(self) -> Mapping[Any, Any]:
        """Return all entries, which are to be pickled at once; they count as taken."""
        if self._whole:
            return self._take_whole()
        self._move()
        return self.base

    def _move(self) -> None:
        self.base.update(self.fresh)
        self.fresh.clear()

    def load(self, entries: Mapping[Any, Any]) -> None:
        """Take over entries of a checkpoint."""
        self.base.update(entries)

    def clear(self) -> None:
        """Let everything go."""
        self.fresh.clear()
        self.base.clear()
        self._seen.clear()


def _fingerprint(value: Any) -> object:
    """Return what stays equal as long as a value does, also one that is changed in place."""
    try:
        return pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - cloudpickle may be able to; counts as changed
        return object()
