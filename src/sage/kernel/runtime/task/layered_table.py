"""The tables of keyed operators: in layers, so that a checkpoint costs what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LayeredTable:
    """One entry per key.

    Every write goes to `fresh`, which holds what changed since the last checkpoint; `base` holds the
    rest, and a key of both is that of `fresh`. Loops bind the two dicts, which stay the same ones for
    good, and look into `fresh` first: after the first record of a key since the checkpoint, that is
    all. Without checkpoints, `base` stays empty and is not looked at.

    Attributes:
        fresh: What changed since the last checkpoint.
        base: What the last checkpoint holds.
    """

    __slots__ = ("base", "fresh")

    def __init__(self) -> None:
        self.fresh: dict[Any, Any] = {}
        self.base: dict[Any, Any] = {}

    def merged(self) -> dict[Any, Any]:
        """Return all entries, in the order in which the keys came first."""
        return {**self.base, **self.fresh} if self.base else self.fresh

    def take_changes(self) -> dict[Any, Any]:
        """Return what changed since the last call; it is to be pickled before anything else happens."""
        changed = self.fresh.copy()
        self.base.update(changed)
        self.fresh.clear()
        return changed

    def take_all(self) -> dict[Any, Any]:
        """Return all entries, which are to be pickled at once; they count as taken."""
        self.base.update(self.fresh)
        self.fresh.clear()
        return self.base

    def load(self, entries: Mapping[Any, Any]) -> None:
        """Take over entries of a checkpoint."""
        self.base.update(entries)

    def clear(self) -> None:
        """Let everything go."""
        self.fresh.clear()
        self.base.clear()
