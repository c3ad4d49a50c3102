"""The tables of keyed operators: in layers, so that a checkpoint costs what has changed.

When most keys change from one checkpoint to the next, layers cost more than they save: each key is
then looked up twice, and moved. Such a table is kept in one layer and written whole, which is quick;
a sample of its keys tells when layers would pay again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sage.dataflow.state.change_sample import ChangeSample

_MANY: Final = 0.3
"""Layers do not pay when more than this part of the keys changes between two checkpoints."""

_SMALL: Final = 1000
"""Tables of fewer keys than this stay in layers: it does not matter."""


class LayeredTable:
    """One entry per key.

    Every write goes to `fresh`, which holds what changed since the last checkpoint; `base` holds the
    rest, and a key of both is that of `fresh`. Loops bind the two dicts, which stay the same ones for
    good, and look into `fresh` first. Without checkpoints, or in one layer, `base` stays empty.

    Attributes:
        fresh: What changed since the last checkpoint; in one layer, everything.
        base: What the last checkpoint holds.
    """

    __slots__ = ("_sample", "base", "fresh")

    def __init__(self) -> None:
        self.fresh: dict[Any, Any] = {}
        self.base: dict[Any, Any] = {}
        self._sample: ChangeSample | None = None  # while it is kept in one layer

    def merged(self) -> dict[Any, Any]:
        """Return all entries, in the order in which the keys came first."""
        return {**self.base, **self.fresh} if self.base else self.fresh

    def take_changes(self) -> Mapping[Any, Any]:
        """Return what changed since the last call, or more; to be pickled before anything else happens.

        In one layer, that is everything.
        """
        if self._sample is not None:
            return self._take_whole(self._sample)
        changed = self.fresh.copy()
        many = len(changed) > _MANY * len(self.base) and len(self.base) >= _SMALL
        self._move()
        if many:
            self.fresh.update(self.base)
            self.base.clear()
            self._sample = ChangeSample(self.fresh)
        return changed

    def _take_whole(self, sample: ChangeSample) -> Mapping[Any, Any]:
        if sample.changed_part(self.fresh) > _MANY / 2:
            return self.fresh
        self._sample = None
        self._move()
        return self.base

    def take_all(self) -> Mapping[Any, Any]:
        """Return all entries, which are to be pickled at once; they count as taken."""
        if self._sample is not None:
            return self._take_whole(self._sample)
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
        self._sample = None
