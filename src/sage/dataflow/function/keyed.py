"""Functions about keys: which key a record has, and how the records of a key are folded together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sage.common.errors import FunctionError
from sage.common.suggest import shorten
from sage.dataflow.function.base import BaseFunction

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")


class KeyByFunction(BaseFunction, Generic[T, K]):
    """Says which key a record belongs to."""

    @abstractmethod
    def execute(self, data: T) -> K:
        """Return the key of `data`: hashable, and compared as in a dict, where 1, 1.0 and True are one.

        0, "" and None are keys like any other.
        """
        raise NotImplementedError


class FieldKeyByFunction(KeyByFunction[Any, Any]):
    """The key is a field of the record, or a tuple of several.

    A field is the key of a mapping or the attribute of an object; a dotted path goes down through
    both: `"order.customer.id"`.

    Examples:
        >>> FieldKeyByFunction("user.id").execute({"user": {"id": 7}})
        7
        >>> FieldKeyByFunction("a", "b").execute({"a": 1, "b": 2})
        (1, 2)
    """

    def __init__(self, *fields: str | int) -> None:
        super().__init__()
        if not fields:
            raise ValueError("FieldKeyByFunction needs at least one field name")
        self.fields = fields
        getters = [field_getter(field) for field in fields]
        # An attribute shadows the method: one call fewer for every record.
        self.execute = getters[0] if len(getters) == 1 else _tuple_of(getters)  # type: ignore[method-assign, assignment]

    def execute(self, data: Any) -> Any:
        """Return the field of `data`, or the tuple of its fields."""
        return field_getter(self.fields[0])(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.fields)


def _tuple_of(getters: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda data: tuple([get(data) for get in getters])


def field_getter(path: str | int) -> Callable[[Any], Any]:
    """Return a function that fetches a field: `"name"`, `"a.dotted.path"`, or an index.

    A field is a key of a mapping, an attribute of an object, or a position in a sequence. A name
    that contains a dot and is itself a key of the mapping is taken as that key.

    Raises:
        FunctionError: `path` is none of these.
        KeyError: (the returned function) the record has no such field; the message names those it has.

    Examples:
        >>> field_getter("pos.x")({"pos": {"x": 3}})
        3
        >>> field_getter(1)(("a", "b"))
        'b'
    """
    if not isinstance(path, (str, int)):
        raise FunctionError(
            f"a field is a name, a dotted path or an index, not {shorten(path)} of type "
            f"{type(path).__name__}"
        )
    if isinstance(path, int):
        return lambda record: record[path]
    steps = path.split(".")
    attribute = attrgetter(path)

    def get(record: Any) -> Any:
        try:  # the two plain cases first: this runs for every record
            return record[path] if isinstance(record, dict) else attribute(record)
        except (KeyError, AttributeError):
            return _walk(record, steps, path)

    return get


def _walk(record: Any, steps: list[str], path: str) -> Any:
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for step in steps:
        value = _one_step(value, step, path)
    return value


def _one_step(record: Any, step: str, path: str) -> Any:
    if isinstance(record, Mapping):
        if step in record:
            return record[step]
        raise KeyError(f"no field {path!r} in a record with the fields {list(record)!r}")
    try:
        return getattr(record, step)
    except AttributeError:
        raise KeyError(f"no field {path!r} in a record of type {type(record).__name__}") from None


class ReduceFunction(BaseFunction, Generic[T]):
    """Joins two records of one key into one of the same type."""

    @abstractmethod
    def execute(self, accumulated: T, data: T) -> T:
        """Return `data` joined to what was `accumulated` before."""
        raise NotImplementedError


class AggregateFunction(BaseFunction, Generic[T_contra, A, R]):
    """Folds records into an accumulator and reads a result from it.

    `merge` is needed where accumulators meet (session windows, sliding panes); an aggregate that
    never meets one may leave it out.

    Examples:
        >>> class Mean(AggregateFunction[float, tuple[float, int], float]):
        ...     def create_accumulator(self): return (0.0, 0)
        ...     def add(self, accumulator, data): return accumulator[0] + data, accumulator[1] + 1
        ...     def get_result(self, accumulator): return accumulator[0] / accumulator[1]
        ...     def merge(self, a, b): return a[0] + b[0], a[1] + b[1]
    """

    @abstractmethod
    def create_accumulator(self) -> A:
        """Return the accumulator of a key that has seen nothing yet; a new one at each call."""
        raise NotImplementedError

    @abstractmethod
    def add(self, accumulator: A, data: T_contra) -> A:
        """Return the accumulator with `data` in it; changing the given one in place is allowed."""
        raise NotImplementedError

    @abstractmethod
    def get_result(self, accumulator: A) -> R:
        """Return what the accumulator says now, without changing it."""
        raise NotImplementedError

    def merge(self, first: A, second: A) -> A:
        """Return one accumulator that has seen what both saw; either may be changed in place."""
        raise NotImplementedError(f"{type(self).__name__} does not say how accumulators are merged")
