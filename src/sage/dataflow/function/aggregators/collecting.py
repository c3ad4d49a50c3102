"""Aggregates that count and collect: how many, which ones, how many different ones.

Apart from `count`, they hold what they saw: give `collect` a limit where a key may see much.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeVar

from sage.dataflow.function.aggregators.base import (
    Field,
    FieldAggregator,
    ValueAggregator,
    checked_size,
    with_type,
)

R = TypeVar("R")


class Count(FieldAggregator[int, int]):
    """See `count`."""

    factory: ClassVar[str] = "count"

    def create_accumulator(self) -> int:
        """Return 0."""
        return 0

    def add(self, accumulator: int, data: Any) -> int:
        """Count the record, unless its field is `None`."""
        if self.field is None or self._value(data) is not None:
            return accumulator + 1
        return accumulator

    def get_result(self, accumulator: int) -> int:
        """Return the count."""
        return accumulator

    def merge(self, first: int, second: int) -> int:
        """Return the sum of both counts."""
        return first + second


class Collect(FieldAggregator[list[Any], list[Any]]):
    """See `collect`."""

    factory: ClassVar[str] = "collect"

    def __init__(self, field: Field = None, *, limit: int | None = None) -> None:
        super().__init__(field)
        if limit is not None:
            checked_size(self.factory, "limit", limit, low=1)
        self.limit = limit

    def create_accumulator(self) -> list[Any]:
        """Return an empty list."""
        return []

    def add(self, accumulator: list[Any], data: Any) -> list[Any]:
        """Append the field of `data`, while there is room."""
        if self.limit is None or len(accumulator) < self.limit:
            accumulator.append(self._value(data))
        return accumulator

    def get_result(self, accumulator: list[Any]) -> list[Any]:
        """Return a copy of the list."""
        return accumulator[:]

    def merge(self, first: list[Any], second: list[Any]) -> list[Any]:
        """Append `second`, the later one, to `first`, while there is room."""
        room = None if self.limit is None else self.limit - len(first)
        first.extend(second[:room])
        return first

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "limit": self.limit}


class _Seen(ValueAggregator[list[Any], R]):
    """The values seen, `[{value: True}, nan]`, NaN apart because no NaN equals another."""

    def create_accumulator(self) -> list[Any]:
        """Return the accumulator of nothing seen."""
        return [{}, False]

    def fold(self, accumulator: list[Any], value: Any) -> list[Any]:
        """Note that the value was seen.

        Raises:
            TypeError: the value cannot be hashed.
        """
        if value != value:  # noqa: PLR0124 - only NaN differs from itself
            accumulator[1] = True
            return accumulator
        try:
            accumulator[0][value] = True
        except TypeError as error:
            needed = "values must be hashable; give a callable that makes them so, such as a tuple"
            raise self._misfit(f"tell {with_type(value)} from others", needed) from error
        return accumulator

    def merge(self, first: list[Any], second: list[Any]) -> list[Any]:
        """Return what was seen by either."""
        first[0].update(second[0])
        first[1] = first[1] or second[1]
        return first


class Distinct(_Seen[set[Any]]):
    """See `distinct`."""

    factory: ClassVar[str] = "distinct"

    def get_result(self, accumulator: list[Any]) -> set[Any]:
        """Return a new set of the values."""
        seen, nan = accumulator
        return {*seen, math.nan} if nan else set(seen)


class CountDistinct(_Seen[int]):
    """See `count_distinct`."""

    factory: ClassVar[str] = "count_distinct"

    def get_result(self, accumulator: list[Any]) -> int:
        """Return how many values there are."""
        seen, nan = accumulator
        return len(seen) + 1 if nan else len(seen)


def count(field: Field = None) -> Count:
    """Count records, or those whose field is not `None`.

    Args:
        field: What must not be `None`; when left out every record counts, `None` among them.

    Returns:
        An aggregator whose result is the count.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> flights = [{"gate": "A1"}, {"gate": None}]
        >>> count().over(flights), count("gate").over(flights)
        (2, 1)
    """
    return Count(field)


def collect(field: Field = None, *, limit: int | None = None) -> Collect:
    """Collect the values of a field in a list, in the order of arrival, `None` among them.

    Args:
        field: What to collect; the record itself when left out.
        limit: How many to keep, the first ones; all of them when left out.

    Returns:
        An aggregator whose result is a new list at each time; the values in it are not copied.

    Raises:
        FunctionError: `field` cannot be a field.
        ValueError: `limit` is less than 1.

    Examples:
        >>> collect("gate").over([{"gate": "A1"}, {"gate": None}])
        ['A1', None]
        >>> collect(limit=2).over("abc")
        ['a', 'b']
    """
    return Collect(field, limit=limit)


def distinct(field: Field = None) -> Distinct:
    """Find the different values of a field. Equal values are one, as in a set; so are all NaNs.

    Args:
        field: Whose values, all hashable; the record itself when left out. `None` is skipped.

    Returns:
        An aggregator whose result is a new set of values at each time.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> sorted(distinct("gate").over([{"gate": "B"}, {"gate": "A"}, {"gate": "B"}]))
        ['A', 'B']
    """
    return Distinct(field)


def count_distinct(field: Field = None) -> CountDistinct:
    """Count the different values of a field, exactly; it holds each of them, as `distinct` does.

    Args:
        field: Whose values, all hashable; the record itself when left out. `None` is skipped.

    Returns:
        An aggregator whose result is the number of different values.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> count_distinct("gate").over([{"gate": "B"}, {"gate": "A"}, {"gate": "B"}])
        2
    """
    return CountDistinct(field)
