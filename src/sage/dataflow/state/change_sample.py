"""`ChangeSample`: an estimate of how much of a table changes, from a few of its keys."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

_KEYS: Final = 100
"""How many keys are watched."""

_LOOKS: Final = 16
"""After so many looks other keys are watched: picking them goes through all."""

_LARGE: Final = 1000.0

_NONE: Final = object()


class ChangeSample:
    """Watches some keys of a table, spread over it.

    Args:
        table: The table as it is now.

    Examples:
        >>> table = dict.fromkeys(range(1000), 0)
        >>> sample = ChangeSample(table)
        >>> table.update(dict.fromkeys(range(500), 1))
        >>> sample.changed_part(table), sample.changed_part(table)
        (0.5, 0.0)
    """

    __slots__ = ("_looks", "_seen")

    def __init__(self, table: Mapping[Any, Any]) -> None:
        self._watch(table)

    def _watch(self, table: Mapping[Any, Any]) -> None:
        keys = islice(table, 0, None, max(1, len(table) // _KEYS))
        self._seen = {key: _fingerprint(table[key]) for key in keys}
        self._looks = 0

    def changed_part(self, table: Mapping[Any, Any]) -> float:
        """Return which part of the watched keys is not as at the last look, 0 to 1."""
        before = self._seen
        self._seen = {key: _fingerprint(table.get(key, _NONE)) for key in before}
        changed = sum(self._seen[key] != said for key, said in before.items())
        self._looks += 1
        if self._looks >= _LOOKS:
            self._watch(table)
        return changed / max(1, len(before))


def entry_size(table: Mapping[Any, Any]) -> float:
    """Return about how many bytes an entry of a table takes when it is pickled.

    Examples:
        >>> entry_size({1: 2, 3: 4}) < entry_size({1: "some text", 3: "more text"})
        True
    """
    some = list(islice(table.items(), _KEYS))
    try:
        return len(pickle.dumps(some, 5)) / max(1, len(some))
    except Exception:  # noqa: BLE001 - code, say, which takes long
        return _LARGE


def _fingerprint(value: Any) -> object:
    """Return what stays equal as long as a value does, also one that is changed in place."""
    try:
        return pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - cloudpickle may be able to; counts as changed
        return object()
