"""Containers that do not show what must not be shown: values that came out of the environment.

A password travels in a dict of arguments from a file to a constructor. On the way the dict is bound
to be printed by somebody: a log line, a traceback, an assertion. These hold real values, and their
`repr` leaves out the hidden ones.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "'***'"
"""What stands in a `repr` where a value is hidden."""


class QuietDict(dict[str, Any]):
    """A dict that shows all its keys, and the values of those that are not hidden.

    Args:
        values: The keys and values.
        hidden: The keys whose values are not shown.

    Examples:
        >>> QuietDict({"user": "ada", "password": "pw"}, hidden={"password"})
        {'user': 'ada', 'password': '***'}
    """

    def __init__(self, values: Mapping[str, Any], hidden: Container[str] = ()) -> None:
        super().__init__(values)
        self.hidden = hidden

    def __repr__(self) -> str:
        shown = (f"{k!r}: {HIDDEN if k in self.hidden else repr(v)}" for k, v in self.items())
        return "{" + ", ".join(shown) + "}"


class QuietList(list[Any]):
    """A list that does not show the items at the hidden indices.

    Args:
        values: The items.
        hidden: The indices of the items that are not shown.

    Examples:
        >>> QuietList(["ada", "pw"], hidden={1})
        ['ada', '***']
    """

    def __init__(self, values: Iterable[Any], hidden: Container[int] = ()) -> None:
        super().__init__(values)
        self.hidden = hidden

    def __repr__(self) -> str:
        shown = (HIDDEN if i in self.hidden else repr(v) for i, v in enumerate(self))
        return "[" + ", ".join(shown) + "]"
