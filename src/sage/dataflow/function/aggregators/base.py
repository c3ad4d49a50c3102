"""What all ready-made aggregators share: fields, the rule about `None`, pickling and messages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeAlias, TypeVar

from sage.common.errors import FunctionError
from sage.common.suggest import shorten
from sage.dataflow.function.keyed import AggregateFunction, field_getter

A = TypeVar("A")
R = TypeVar("R")

Field: TypeAlias = str | int | Callable[[Any], Any] | None
"""What to take from a record: a name, dotted path, index or callable; `None` for all of it."""


class Aggregator(AggregateFunction[Any, A, R]):
    """An aggregate that shows its settings, can be pickled, and can be tried on a list of records.

    Pickling keeps all attributes but the run-time context and what `_bind` derives from the others.
    A callable among the settings must be one that can be pickled when the aggregator is: a function
    of a module, not a lambda.
    """

    factory: ClassVar[str]
    """The name of the function that makes it, as messages show it."""
    _derived: ClassVar[tuple[str, ...]] = ()

    def over(self, records: Iterable[Any]) -> R:
        """Return the result over `records`: for trying an aggregator out, and for tests.

        Args:
            records: What a stream would bring, in order.

        Returns:
            What a key with these records would get.

        Examples:
            >>> from sage.dataflow.function.aggregators import mean
            >>> mean("delay").over([{"delay": 10}, {"delay": None}, {"delay": 20}])
            15.0
        """
        accumulator = self.create_accumulator()
        for record in records:
            accumulator = self.add(accumulator, record)
        return self.get_result(accumulator)

    def _bind(self) -> None:
        """Derive what cannot be pickled from the settings; called again after unpickling."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the factory; messages leave out those that are `None`."""
        raise NotImplementedError

    def _misfit(self, problem: str, needed: str) -> TypeError:
        return TypeError(f"{self!r} cannot {problem}: {needed}")

    def __repr__(self) -> str:
        shown = [f"{k}={_describe(v)}" for k, v in self._settings().items() if v is not None]
        return f"{self.factory}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("ctx", *self._derived)
        return {name: value for name, value in vars(self).items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()


class FieldAggregator(Aggregator[A, R]):
    """An aggregator of one field of the records."""

    _derived: ClassVar[tuple[str, ...]] = ("_value",)

    def __init__(self, field: Field = None) -> None:
        super().__init__()
        self.field = field
        self._bind()

    def _bind(self) -> None:
        self._value = value_getter(self.factory, self.field)

    def _settings(self) -> dict[str, Any]:
        return {"field": self.field}


class ValueAggregator(FieldAggregator[A, R]):
    """An aggregator that skips records whose field is `None`."""

    def add(self, accumulator: A, data: Any) -> A:
        """Return the accumulator with the field of `data` in it, when that is not `None`."""
        value = self._value(data)
        return accumulator if value is None else self.fold(accumulator, value)

    @abstractmethod
    def fold(self, accumulator: A, value: Any) -> A:
        """Return the accumulator with a value in it that is not `None`.

        Either succeeds or leaves the accumulator as it was, so that a record that fails can be
        skipped without a trace.
        """
        raise NotImplementedError


def value_getter(factory: str, field: Field) -> Callable[[Any], Any]:
    """Return the function that takes a field from a record.

    Args:
        factory: Who asks, for the message.
        field: What to take.

    Raises:
        FunctionError: `field` is none of the things that a field can be.

    Examples:
        >>> value_getter("mean", "pos.x")({"pos": {"x": 3}})
        3
    """
    if field is None:
        return _whole_record
    if isinstance(field, str | int) and not isinstance(field, bool):
        return field_getter(field)
    if callable(field):
        return field
    raise FunctionError(
        f"{factory}() takes as a field a name, a dotted path, an index or a callable, or None for "
        f"the record itself, not {with_type(field)}"
    )


def with_type(value: object) -> str:
    """Return a value with its type, for messages.

    Examples:
        >>> with_type("late")
        "'late' (str)"
    """
    return f"{shorten(value, 80)} ({type(value).__name__})"


def checked_size(factory: str, name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` when it is a whole number from `low` to `high`.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is too small or too large.

    Examples:
        >>> checked_size("top_k", "k", 0, low=1)
        Traceback (most recent call last):
        ValueError: top_k(k=0): k must be at least 1
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{factory}({name}={value!r}): {name} must be an int")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{factory}({name}={value!r}): {name} must be {bounds}")
    return value


def _whole_record(record: Any) -> Any:
    return record


def _describe(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or shorten(value, 80))
