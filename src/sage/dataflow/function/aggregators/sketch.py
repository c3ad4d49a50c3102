"""Quantiles of any number of values in a few kilobytes, by the KLL sketch of Apache DataSketches.

The package `datasketches` comes with the extra `sketches` and is imported when first needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from sage.dataflow.function.aggregators.base import Field, ValueAggregator, checked_size, with_type


class QuantileSketch:
    """The accumulator of `quantiles`: a KLL sketch that can be pickled and copied.

    Attributes:
        kll: The sketch, a `datasketches.kll_doubles_sketch`.
        nan: Whether a NaN was seen, which the sketch itself leaves out.
    """

    __slots__ = ("kll", "nan")

    def __init__(self, kll: Any, nan: bool = False) -> None:
        self.kll = kll
        self.nan = nan

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self.kll.serialize(), self.nan))


class Quantiles(ValueAggregator[QuantileSketch, dict[float, float | None]]):
    """See `quantiles`."""

    factory: ClassVar[str] = "quantiles"

    def __init__(
        self, field: Field = None, qs: Iterable[float] = (0.5, 0.95, 0.99), *, k: int = 200
    ) -> None:
        super().__init__(field)
        self.qs = _checked_ranks(qs)
        self.k = checked_size(self.factory, "k", k, low=8, high=65535)

    def create_accumulator(self) -> QuantileSketch:
        """Return an empty sketch."""
        return QuantileSketch(_kll_class()(self.k))

    def fold(self, accumulator: QuantileSketch, value: Any) -> QuantileSketch:
        """Add the value to the sketch.

        Raises:
            TypeError: the value is not a number that fits a float.
        """
        if value != value:  # noqa: PLR0124 - only NaN differs from itself
            accumulator.nan = True
            return accumulator
        try:
            accumulator.kll.update(value)
        except TypeError as error:
            raise self._misfit(f"add {with_type(value)}", "values must fit a float") from error
        return accumulator

    def get_result(self, accumulator: QuantileSketch) -> dict[float, float | None]:
        """Return the value at each of the ranks."""
        if accumulator.nan:
            return dict.fromkeys(self.qs, math.nan)
        kll = accumulator.kll
        if kll.is_empty():
            return dict.fromkeys(self.qs)
        # The sketch knows its ends exactly, but does not answer with them.
        ends: dict[float, float] = {0: kll.get_min_value(), 1: kll.get_max_value()}
        found = zip(self.qs, kll.get_quantiles(self.qs, inclusive=True), strict=True)
        return {q: ends.get(q, value) for q, value in found}

    def merge(self, first: QuantileSketch, second: QuantileSketch) -> QuantileSketch:
        """Return a sketch of the values of both, as good as one that saw them all."""
        first.kll.merge(second.kll)
        first.nan = first.nan or second.nan
        return first

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "qs": self.qs, "k": self.k}


def quantiles(
    field: Field = None, qs: Iterable[float] = (0.5, 0.95, 0.99), *, k: int = 200
) -> Quantiles:
    """Estimate quantiles of a field: its median, its 95th percentile, and so on.

    Uses a KLL sketch (Z. Karnin, K. Lang, E. Liberty: Optimal quantile approximation in streams,
    2016). It is exact up to `k` values. Beyond that, with `k` at 200, the rank of a result is
    within 1.33 % of the one asked for (with 99 % confidence), and about half of that for each
    doubling of `k`. The smallest and the largest value stay exact. Sketches use random bits: two
    runs over the same records may differ within that error.

    Args:
        field: Whose quantiles; the record itself when left out. `None` values are skipped. Values
            become floats.
        qs: Which quantiles: ranks from 0 (the smallest value) to 1 (the largest).
        k: How fine the sketch is, from 8 to 65535.

    Returns:
        An aggregator whose result maps each of `qs` to the smallest value that at least this part
        of the values does not exceed; to `None` when there is no value, to NaN when there is a NaN.

    Raises:
        FunctionError: `field` cannot be a field.
        ImportError: the package `datasketches` is not installed.
        TypeError: `qs` is not made of numbers.
        ValueError: `qs` is empty, or a number is out of its range.

    Examples:
        >>> quantiles("delay", qs=(0.5, 1)).over({"delay": n} for n in range(1, 100))
        {0.5: 50.0, 1: 99.0}
    """
    _kll_class()  # a missing package is reported while the program is written, not when it runs
    return Quantiles(field, qs, k=k)


def _kll_class() -> Any:
    try:
        from datasketches import kll_doubles_sketch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            "quantiles() needs the package datasketches, which cannot be imported here: "
            "pip install 'sage-dataflow[sketches]'",
            name="datasketches",
        ) from error
    return kll_doubles_sketch


def _restore(serialized: bytes, nan: bool) -> QuantileSketch:
    return QuantileSketch(_kll_class().deserialize(serialized), nan)


def _checked_ranks(qs: Any) -> tuple[float, ...]:
    if not isinstance(qs, Iterable):
        raise TypeError(f"quantiles(qs={qs!r}): give several ranks, or one in a tuple: ({qs!r},)")
    ranks = tuple(qs)
    if not ranks:
        raise ValueError("quantiles(qs=()): give at least one rank, such as 0.5 for the median")
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, int | float):
            raise TypeError(f"quantiles(qs={qs!r}): {with_type(rank)} is not a number")
        if not 0 <= rank <= 1:
            raise ValueError(f"quantiles(qs={qs!r}): {rank!r} is not from 0 to 1")
    return ranks
