"""`BaseJoinFunction`: a join of two keyed streams in the user's own words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from sage.dataflow.function.base import BaseFunction

R = TypeVar("R")


class BaseJoinFunction(BaseFunction, Generic[R]):
    """Takes the records of two keyed streams one by one, and says what they become.

    One instance sees all records of a key, from both streams, in order of arrival; what it keeps in
    between is its own affair. Use it as `first.connect(second).key_by(f, g).join(Function)`.

    Examples:
        >>> class OrdersOfUsers(BaseJoinFunction):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.names = {}
        ...     def execute(self, payload, key, tag):
        ...         if tag == 0:
        ...             self.names[key] = payload["name"]
        ...             return []
        ...         return [(self.names.get(key), payload["item"])]
        >>> join = OrdersOfUsers()
        >>> join.execute({"name": "Ada"}, 7, tag=0), join.execute({"item": "tea"}, 7, tag=1)
        ([], [('Ada', 'tea')])
    """

    @property
    def is_join(self) -> bool:
        """True: this is a join."""
        return True

    @abstractmethod
    def execute(self, payload: Any, key: Any, tag: int) -> Iterable[R]:
        """Return the records that go on, `[]` for none.

        Args:
            payload: A record.
            key: Its key.
            tag: 0 if it is of the first stream, 1 if it is of the second.
        """
        raise NotImplementedError
