"""Aggregates that calculate: sum, mean, variance and standard deviation.

Values are whatever Python adds and divides: `int`, `float`, `Fraction`, `Decimal` and their kin,
mixed only where Python mixes them. A NaN makes the result NaN.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeVar

from sage.dataflow.function.aggregators.base import Field, ValueAggregator, checked_size, with_type

R = TypeVar("R")

_NUMBERS = "values must be numbers of types that Python adds to each other"


class _Total(ValueAggregator[list[Any], R]):
    """A running total, `[total, lost, n]`: what rounding lost from the total, and how many values.

    Integers, fractions and decimals are added as they are. Of floats, the rounding error of each
    addition is kept (Knuth's TwoSum: The Art of Computer Programming, volume 2, section 4.2.2) and
    given back at the end, which makes the result about as good as one of twice the precision: the
    error is within `eps * |sum| + (n * eps)**2 * sum(|values|)`.
    """

    def create_accumulator(self) -> list[Any]:
        """Return a total of nothing."""
        return [0, 0, 0]

    def fold(self, accumulator: list[Any], value: Any) -> list[Any]:
        """Add the value and note what rounding lost.

        Raises:
            TypeError: the value cannot be added to those before.
        """
        total = accumulator[0]
        try:
            new = total + value
        except TypeError as error:
            problem = f"add {with_type(value)} to {with_type(total)}"
            raise self._misfit(problem, _NUMBERS) from error
        if type(new) is float:
            part = new - total
            accumulator[1] += (total - (new - part)) + (value - part)
        accumulator[0] = new
        accumulator[2] += 1
        return accumulator

    def merge(self, first: list[Any], second: list[Any]) -> list[Any]:
        """Add the total of `second` to that of `first`."""
        if second[2]:
            self.fold(first, second[0])
            first[1] += second[1]
            first[2] += second[2] - 1
        return first

    @staticmethod
    def _sum(accumulator: list[Any]) -> Any:
        total, lost, _ = accumulator
        # Once the total is infinite or NaN, so is what "got lost", and means nothing.
        return total + lost if lost and math.isfinite(lost) else total


class Sum(_Total[Any]):
    """See `sum_of`."""

    factory: ClassVar[str] = "sum_of"

    def get_result(self, accumulator: list[Any]) -> Any:
        """Return the sum."""
        return self._sum(accumulator)


class Mean(_Total[Any]):
    """See `mean`."""

    factory: ClassVar[str] = "mean"

    def get_result(self, accumulator: list[Any]) -> Any:
        """Return the mean, or `None` when there was no value."""
        n = accumulator[2]
        return self._sum(accumulator) / n if n else None


class _Moments(ValueAggregator[list[Any], R]):
    """Count, mean, and sum of squared distances from the mean: `[n, mean, m2]`.

    `fold` is the update of B. P. Welford (Note on a method for calculating corrected sums of
    squares and products, Technometrics 4, 1962), `merge` that of T. F. Chan, G. H. Golub and
    R. J. LeVeque (Updating formulae and a pairwise algorithm for computing sample variances, 1979).
    Neither takes the difference of large squares, so that a small variance around a large mean
    keeps its digits.
    """

    def __init__(self, field: Field = None, *, ddof: int = 1) -> None:
        super().__init__(field)
        self.ddof = checked_size(self.factory, "ddof", ddof, low=0)

    def create_accumulator(self) -> list[Any]:
        """Return the moments of nothing."""
        return [0, 0, 0]

    def fold(self, accumulator: list[Any], value: Any) -> list[Any]:
        """Move the mean towards the value.

        Raises:
            TypeError: the value cannot be subtracted from those before.
        """
        n, mean_before, m2 = accumulator
        try:
            delta = value - mean_before
            mean_after = mean_before + delta / (n + 1)
            m2 += delta * (value - mean_after)
        except TypeError as error:
            problem = f"take {with_type(value)} together with the mean {with_type(mean_before)}"
            raise self._misfit(problem, _NUMBERS) from error
        accumulator[0] = n + 1
        accumulator[1] = mean_after
        accumulator[2] = m2
        return accumulator

    def merge(self, first: list[Any], second: list[Any]) -> list[Any]:
        """Return the moments of all values of both."""
        if not (first[0] and second[0]):
            return first if first[0] else second
        (n_first, mean_first, m2_first), (n_second, mean_second, m2_second) = first, second
        n = n_first + n_second
        delta = mean_second - mean_first
        first[0] = n
        first[1] = mean_first + delta * n_second / n
        first[2] = m2_first + m2_second + delta * delta * n_first * n_second / n
        return first

    def _variance(self, accumulator: list[Any]) -> Any:
        n, _, m2 = accumulator
        return m2 / (n - self.ddof) if n > self.ddof else None

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "ddof": self.ddof}


class Variance(_Moments[Any]):
    """See `variance`."""

    factory: ClassVar[str] = "variance"

    def get_result(self, accumulator: list[Any]) -> Any:
        """Return the variance, or `None` when there were not more than `ddof` values."""
        return self._variance(accumulator)


class StdDev(_Moments[float | None]):
    """See `stddev`."""

    factory: ClassVar[str] = "stddev"

    def get_result(self, accumulator: list[Any]) -> float | None:
        """Return the standard deviation, or `None` when there were not more than `ddof` values."""
        variance = self._variance(accumulator)
        return None if variance is None else math.sqrt(variance)


def sum_of(field: Field = None) -> Sum:
    """Add up the values of a field.

    Integers stay exact. Of floats, what rounding loses is made good at the end, much as the builtin
    `sum` does from Python 3.12 on.

    Args:
        field: What to add; the record itself when left out. `None` values are skipped.

    Returns:
        An aggregator whose result is the sum; 0 when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> sum_of("delay").over([{"delay": 5}, {"delay": None}, {"delay": 7}])
        12
        >>> sum_of().over([0.1] * 10)
        1.0
    """
    return Sum(field)


def mean(field: Field = None) -> Mean:
    """Average the values of a field: the sum as `sum_of` finds it, divided once at the end.

    Args:
        field: What to average; the record itself when left out. `None` values are skipped.

    Returns:
        An aggregator whose result is the mean; `None` when there is no value.

    Raises:
        FunctionError: `field` cannot be a field.

    Examples:
        >>> mean("delay").over([{"delay": 5}, {"delay": None}, {"delay": 8}])
        6.5
    """
    return Mean(field)


def variance(field: Field = None, *, ddof: int = 1) -> Variance:
    """Find the variance of the values of a field, in one pass and without cancellation.

    Args:
        field: Whose variance; the record itself when left out. `None` values are skipped.
        ddof: What is taken from the number of values to divide by: 1 for the variance of a sample
            (as in SQL, `statistics.variance` and pandas), 0 for that of a whole population (NumPy).

    Returns:
        An aggregator whose result is the variance; `None` when there are not more than `ddof`
        values.

    Raises:
        FunctionError: `field` cannot be a field.
        ValueError: `ddof` is negative.

    Examples:
        >>> variance().over([1e9 + 1, 1e9 + 2, 1e9 + 3])
        1.0
        >>> variance(ddof=0).over([7])
        0.0
    """
    return Variance(field, ddof=ddof)


def stddev(field: Field = None, *, ddof: int = 1) -> StdDev:
    """Find the standard deviation of the values of a field: the root of its `variance`, a float.

    Args:
        field: Whose deviation; the record itself when left out. `None` values are skipped.
        ddof: 1 for that of a sample, 0 for that of a whole population; see `variance`.

    Returns:
        An aggregator whose result is the standard deviation; `None` when there are not more than
        `ddof` values.

    Raises:
        FunctionError: `field` cannot be a field.
        ValueError: `ddof` is negative.

    Examples:
        >>> stddev("delay").over([{"delay": 3}, {"delay": 5}, {"delay": 7}])
        2.0
    """
    return StdDev(field, ddof=ddof)
