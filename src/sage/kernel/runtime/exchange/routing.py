"""Which records go to which subtask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sage.common.errors import GraphError
from sage.dataflow.graph.execution_graph import Exchange
from sage.dataflow.key_group import key_group, subtask_of

Router = Callable[[Sequence[Any]], list[tuple[int, list[Any]]]]
"""Parts a batch: returns pairs of a receiver's index and what it gets, in order; none is empty."""

Take = Callable[[Any], object]
"""Takes one record."""

Refuse = Callable[[Any, Exception], object]
"""Takes a value that has no place, and why."""

_MOST_KEYS: Final = 100_000


def raise_at_once(value: Any, error: Exception) -> None:
    """Refuse a value by raising why."""
    raise error


def make_router(
    exchange: Exchange,
    *,
    packed: bool,
    first: int = 0,
    refuse: Refuse = raise_at_once,
) -> Router:
    """Return what parts the batches of an exchange, unless it goes by key: see `KeyPlaces`.

    Args:
        exchange: The exchange.
        packed: Whether a record travels as a tuple, its key or its time behind it.
        first: The slot that sends; at the receiver of this index turns begin.
        refuse: Takes a value for which the user's function fails. The others go on.

    Examples:
        >>> from sage.dataflow.graph.stream_graph import Edge
        >>> from sage.dataflow.graph.transformation import Upstream
        >>> edge = Edge(0, 1, 0, Upstream(0))
        >>> deal = make_router(
        ...     Exchange(0, edge, "rebalance", None, (0,), (0, 1)), packed=False
        ... )
        >>> deal(["a", "b", "c"])
        [(0, ['a', 'c']), (1, ['b'])]
    """
    count = len(exchange.receivers)
    if exchange.spread == "rebalance":
        return _InTurn(range(count), first)
    if exchange.spread == "rescale":
        return _InTurn(_belonging(exchange.senders.index(first), len(exchange.senders), count), 0)
    if exchange.spread == "broadcast":
        return lambda values: [(index, list(values)) for index in range(count)]
    if exchange.spread == "custom":
        assert exchange.function is not None
        return _ByFunction(exchange.function, count, refuse, packed=packed)
    return lambda values: [(0, list(values))]


class KeyPlaces(dict[Any, Take]):
    """What takes the records of a key: of those keys that were seen lately.

    Args:
        max_parallelism: How many key groups there are.
        takers: What takes the records of a subtask, by its index.

    Examples:
        >>> left, right = [], []
        >>> places = KeyPlaces(128, [left.append, right.append])
        >>> for word in ("to", "be", "or", "not", "to", "be"):
        ...     places[word](word)
        >>> left, right
        (['be', 'be'], ['to', 'or', 'not', 'to'])
    """

    def __init__(self, max_parallelism: int, takers: Sequence[Take]) -> None:
        super().__init__()
        self._groups = max_parallelism
        self._takers = takers

    def __missing__(self, key: Any) -> Take:
        if len(self) >= _MOST_KEYS:
            self.clear()
        group = key_group(key, self._groups)
        taker = self._takers[subtask_of(group, self._groups, len(self._takers))]
        self[key] = taker
        return taker


class _InTurn:
    """Deals records out, each to the next subtask."""

    def __init__(self, receivers: range, first: int) -> None:
        self._receivers = receivers
        self._next = first % len(receivers)

    def __call__(self, values: Sequence[Any]) -> list[tuple[int, list[Any]]]:
        """Part a batch; the next one goes on where this one ended."""
        count, start = len(self._receivers), self._next
        self._next = (start + len(values)) % count
        parts = [((start + turn) % count, list(values[turn::count])) for turn in range(count)]
        return [(self._receivers[index], part) for index, part in parts if part]


def _belonging(sender: int, senders: int, receivers: int) -> range:
    """Return the receivers that belong to a sender: each to one, or each sender to one of them."""
    if receivers < senders:
        place = sender * receivers // senders
        return range(place, place + 1)
    return range(sender * receivers // senders, (sender + 1) * receivers // senders)


class _ByFunction:
    """Sends each record where the user's function says."""

    def __init__(
        self, function: Callable[[Any, int], int], count: int, refuse: Refuse, *, packed: bool
    ) -> None:
        self._function = function
        self._count = count
        self._refuse = refuse
        self._packed = packed

    def __call__(self, values: Sequence[Any]) -> list[tuple[int, list[Any]]]:
        """Part a batch."""
        parts: list[list[Any]] = [[] for _ in range(self._count)]
        for value in values:
            try:
                parts[self._place(value[0] if self._packed else value)].append(value)
            except Exception as error:  # noqa: BLE001 - given to the operator's policy
                self._refuse(value, error)
        return [(index, part) for index, part in enumerate(parts) if part]

    def _place(self, record: Any) -> int:
        index = self._function(record, self._count)
        if type(index) is not int or not 0 <= index < self._count:
            raise GraphError(
                f"the function of partition_custom() returned {index!r}; it must return a whole "
                f"number from 0 to {self._count - 1}"
            )
        return index
