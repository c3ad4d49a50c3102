"""Aggregates that select values: the smallest, the largest, the first, the last, the top k.

Values are compared with `<` alone. Of equal ones the first to arrive wins. A NaN, which has no
place in any order, beats everything in both directions, so that it is seen and not lost: `min_of`
and `max_of` are then NaN, and `top_k(1, field)` always agrees with them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import takewhile
from typing import Any, ClassVar, TypeAlias

from sage.dataflow.function.aggregators.base import (
    Field,
    FieldAggregator,
    ValueAggregator,
    checked_size,
    value_getter,
    with_type,
)

_ORDER = "values must be of types that have an order among them"


class _OneValue(ValueAggregator[Any, Any]):
    """The accumulator is the value selected so far, `None` before there is one."""

    def create_accumulator(self) -> Any:
        """Return `None`: nothing selected."""
        return None

    def get_result(self, accumulator: Any) -> Any:
        """Return the value selected, or `None`."""
        return accumulator

    def merge(self, first: Any, second: Any) -> Any:
        """Return which of two selected values is selected; `first` is the earlier one."""
        return first if second is None else self.fold(first, second)

    def _incomparable(self, value: Any, other: Any) -> TypeError:
        return self._misfit(f"compare {with_type(value)} with {with_type(other)}", _ORDER)


class Min(_OneValue):
    """See `min_of`."""

    factory: ClassVar[str] = "min_of"

    def fold(self, accumulator: Any, value: Any) -> Any:
        """Return the smaller one.

        Raises:
            TypeError: the two have no order.
        """
        try:
            # Only NaN differs from itself.
            if accumulator is None or value < accumulator or value != value:  # noqa: PLR0124
                return value
        except TypeError as error:
            raise self._incomparable(value, accumulator) from error
        return accumulator


class Max(_OneValue):
    """See `max_of`."""

    factory: ClassVar[str] = "max_of"

    def fold(self, accumulator: Any, value: Any) -> Any:
        """Return the larger one.

        Raises:
            TypeError: the two have no order.
        """
        try:
            if accumulator is None or accumulator < value or value != value:  # noqa: PLR0124
                return value
        except TypeError as error:
            raise self._incomparable(value, accumulator) from error
        return accumulator


class First(_OneValue):
    """See `first`."""

    factory: ClassVar[str] = "first"

    def fold(self, accumulator: Any, value: Any) -> Any:
        """Return the earlier one."""
        return value if accumulator is None else accumulator


class Last(_OneValue):
    """See `last`."""

    factory: ClassVar[str] = "last"

    def fold(self, accumulator: Any, value: Any) -> Any:
        """Return the later one."""
        return value


Kept: TypeAlias = tuple[list[Any], list[Any]]
"""The ranks of the records kept, in ascending order, and beside each the value it stands for."""


class TopK(FieldAggregator[Kept, list[Any]]):
    """See `top_k`.

    The accumulator holds at most `k` ranks and values. A record that does not make it costs one
    comparison; one that does costs a binary search and a move within two short lists.
    """

    factory: ClassVar[str] = "top_k"
    _derived: ClassVar[tuple[str, ...]] = ("_value", "_rank", "_offer")

    def __init__(
        self, k: int, field: Field = None, *, key: Field = None, largest: bool = True
    ) -> None:
        self.k = checked_size(self.factory, "k", k, low=1)
        self.key = key
        self.largest = largest
        super().__init__(field)

    def create_accumulator(self) -> Kept:
        """Return two empty lists."""
        return [], []

    def add(self, accumulator: Kept, data: Any) -> Kept:
        """Keep the value of `data` when its rank is among the best `k` so far.

        Raises:
            TypeError: the rank has no order with those before.
        """
        value = self._value(data)
        rank = value if self._rank is None else self._rank(data)
        if rank is not None:
            try:
                self._offer(accumulator, self.k, rank, value)
            except TypeError as error:
                problem = f"rank {with_type(rank)} among {with_type(accumulator[0])}"
                raise self._misfit(problem, _ORDER) from error
        return accumulator

    def get_result(self, accumulator: Kept) -> list[Any]:
        """Return a new list of the values kept, best first."""
        values = accumulator[1]
        return values[::-1] if self.largest else values[:]

    def merge(self, first: Kept, second: Kept) -> Kept:
        """Keep the best of both; `first` is the earlier one."""
        ranked = list(zip(*second, strict=True))
        for rank, value in reversed(ranked) if self.largest else ranked:
            self._offer(first, self.k, rank, value)
        return first

    def _bind(self) -> None:
        super()._bind()
        self._rank = None if self.key is None else value_getter(self.factory, self.key)
        self._offer = _offer_largest if self.largest else _offer_smallest

    def _settings(self) -> dict[str, Any]:
        return {"k": self.k, "field": self.field, "key": self.key, "largest": self.largest}


def _offer_largest(kept: Kept, k: int, rank: Any, value: Any) -> None:
    ranks, values = kept
    full, is_nan = len(ranks) == k, rank != rank  # noqa: PLR0124 - only NaN differs from itself
    if full and not is_nan and not ranks[0] < rank:
        return
    # Before its equals, so that of these the latest is the first to go; NaNs are at the end.
    at = len(ranks) - _count_nan(ranks[::-1]) if is_nan else bisect_left(ranks, rank)
    ranks.insert(at, rank)
    values.insert(at, value)
    if full:
        del ranks[0], values[0]


def _offer_smallest(kept: Kept, k: int, rank: Any, value: Any) -> None:
    ranks, values = kept
    full, is_nan = len(ranks) == k, rank != rank  # noqa: PLR0124 - only NaN differs from itself
    if full and not is_nan and not rank < ranks[-1]:
        return
    # Behind its equals, so that of these the latest is the first to go; NaNs are at the start.
    at = _count_nan(ranks) if is_nan else bisect_right(ranks, rank)
    ranks.insert(at, rank)
    values.insert(at, value)
    if full:
        del ranks[-1], values[-1]


def _count_nan(ranks: list[Any]) -> int:
    """Return how many NaNs lead `ranks`."""
    return sum(1 for _ in takewhile(lambda rank: rank != rank, ranks))  # noqa: PLR0124


def min_of(field: Field = None) -> Min:
    """Find the smallest value of a field; of equal ones the first.

    Args:
        field: What to compare; the record itself when left out. `None` values are skipped.

    Returns:
        An aggregator whose result is the smallest value; `None` when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> min_of("delay").over([{"delay": 5}, {"delay": -2}, {"delay": None}])
        -2
    """
    return Min(field)


def max_of(field: Field = None) -> Max:
    """Find the largest value of a field; of equal ones the first.

    Args:
        field: What to compare; the record itself when left out. `None` values are skipped.

    Returns:
        An aggregator whose result is the largest value; `None` when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> max_of("delay").over([{"delay": 5}, {"delay": -2}, {"delay": None}])
        5
    """
    return Max(field)


def first(field: Field = None) -> First:
    """Keep the first value of a field that is not `None`, in the order of arrival.

    Args:
        field: What to keep; the record itself when left out.

    Returns:
        An aggregator whose result is the first value; `None` when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> first("gate").over([{"gate": None}, {"gate": "A1"}, {"gate": "B2"}])
        'A1'
    """
    return First(field)


def last(field: Field = None) -> Last:
    """Keep the last value of a field that is not `None`, in the order of arrival.

    Args:
        field: What to keep; the record itself when left out.

    Returns:
        An aggregator whose result is the last value; `None` when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> last("gate").over([{"gate": "A1"}, {"gate": "B2"}, {"gate": None}])
        'B2'
    """
    return Last(field)


def top_k(k: int, field: Field = None, *, key: Field = None, largest: bool = True) -> TopK:
    """Keep the `k` largest values of a field, or the values of the `k` records ranked highest.

    Args:
        k: How many to keep, at least 1; meant for tens or hundreds.
        field: What the result holds; the record itself when left out.
        key: What records are ranked by, in the same forms; the value of `field` when left out.
            Records whose rank is `None` are skipped.
        largest: False for the `k` smallest.

    Returns:
        An aggregator whose result is a list of at most `k` values, best first, equal ranks in the
        order of arrival.

    Raises:
        FunctionError: `field` or `key` cannot be a field.
        ValueError: `k` is less than 1.

    Examples:
        >>> flights = [{"id": "a", "delay": 5}, {"id": "b", "delay": 9}, {"id": "c", "delay": 7}]
        >>> top_k(2, "delay").over(flights)
        [9, 7]
        >>> top_k(2, "id", key="delay").over(flights)
        ['b', 'c']
        >>> top_k(1, key="delay", largest=False).over(flights)
        [{'id': 'a', 'delay': 5}]
    """
    return TopK(k, field, key=key, largest=largest)
