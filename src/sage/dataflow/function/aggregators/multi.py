"""Several aggregates in one pass."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from sage.common.errors import FunctionError
from sage.dataflow.function.aggregators.base import Aggregator, with_type
from sage.dataflow.function.keyed import AggregateFunction

Part = AggregateFunction[Any, Any, Any]
_SHADOWED: tuple[object, ...] = (sum, min, max)


class Multi(Aggregator[list[Any], dict[str, Any]]):
    """See `multi`. The accumulator is the list of those of its parts."""

    factory: ClassVar[str] = "multi"
    _derived: ClassVar[tuple[str, ...]] = ("_adds",)

    def __init__(self, /, **parts: Part) -> None:
        super().__init__()
        if not parts:
            raise ValueError("multi() needs at least one part, such as n=count()")
        for name, part in parts.items():
            _check_part(name, part)
        self.parts = parts
        self._bind()

    def open(self) -> None:
        """Open the parts, with the context of this function."""
        for part in self.parts.values():
            part.ctx = self.ctx
            part.open()

    def close(self) -> None:
        """Close every part, also when closing one of them fails; that failure is then raised."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.callback(part.close)

    def create_accumulator(self) -> list[Any]:
        """Return the accumulators of the parts."""
        return [part.create_accumulator() for part in self.parts.values()]

    def add(self, accumulator: list[Any], data: Any) -> list[Any]:
        """Add the record to each part, in their order."""
        for index, add in self._adds:
            accumulator[index] = add(accumulator[index], data)
        return accumulator

    def get_result(self, accumulator: list[Any]) -> dict[str, Any]:
        """Return the result of each part by its name."""
        pairs = zip(self.parts.items(), accumulator, strict=True)
        return {name: part.get_result(folded) for (name, part), folded in pairs}

    def merge(self, first: list[Any], second: list[Any]) -> list[Any]:
        """Merge part by part."""
        for index, part in enumerate(self.parts.values()):
            first[index] = part.merge(first[index], second[index])
        return first

    def _bind(self) -> None:
        self._adds = tuple(enumerate(part.add for part in self.parts.values()))

    def _settings(self) -> dict[str, Any]:
        return self.parts


def multi(**parts: Part) -> Multi:
    """Compute several aggregates in one pass.

    Args:
        **parts: Aggregates by the name that their result gets: those of this package, your own, and
            again `multi`.

    Returns:
        An aggregator whose result is a new dict of the results, in the order of the parts. A record
        that one part fails on has been added to the parts before it; this matters only where
        failing records are skipped.

    Raises:
        FunctionError: a part is not an aggregate.
        ValueError: there is no part.

    Examples:
        >>> from sage.dataflow.function.aggregators import count, max_of
        >>> flights = [{"delay": 5}, {"delay": None}, {"delay": 7}]
        >>> multi(n=count(), known=count("delay"), worst=max_of("delay")).over(flights)
        {'n': 3, 'known': 2, 'worst': 7}
    """
    return Multi(**parts)


def _check_part(name: str, part: object) -> None:
    if isinstance(part, AggregateFunction):
        return
    hint = ""
    if callable(part) and hasattr(part, "__name__"):  # count for count(), Mean for Mean(), sum
        meant = f"{part.__name__}_of" if part in _SHADOWED else part.__name__
        hint = f"; did you mean {name}={meant}()?"
    raise FunctionError(f"multi({name}=...) needs an aggregate, not {with_type(part)}{hint}")
