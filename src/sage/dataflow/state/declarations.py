"""State as it is declared: attributes of the class of a function.

    class Dedup(KeyedProcessFunction):
        seen = ValueState(bool, default=False, ttl=timedelta(hours=1))

On an instance that `bind_state` has bound to a store, `self.seen` is a live object.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

from sage.common.errors import StateError
from sage.dataflow.function.keyed import AggregateFunction
from sage.dataflow.state.live import (
    Entries,
    KeyedStore,
    Lifetime,
    LiveAggregating,
    LiveList,
    LiveMap,
    LiveReducing,
    LiveValue,
    UpdateOn,
)
from sage.dataflow.time import to_ms

T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R")
L = TypeVar("L")


@dataclass(frozen=True)
class StateTtl:
    """How long an entry lives.

    Attributes:
        after: For how long it is seen.
        update_on: What makes its life begin anew: writing it, or reading it too.
    """

    after: timedelta
    update_on: UpdateOn = "write"

    def __post_init__(self) -> None:
        if to_ms(self.after, name="ttl") <= 0:
            raise ValueError(f"ttl must be at least 1 ms, not {self.after!r}")
        if self.update_on not in ("write", "read_and_write"):
            raise ValueError(
                f"update_on must be 'write' or 'read_and_write', not {self.update_on!r}"
            )


def _lifetime(ttl: StateTtl | timedelta | None) -> Lifetime | None:
    if ttl is None:
        return None
    full = ttl if isinstance(ttl, StateTtl) else StateTtl(ttl)
    return Lifetime(to_ms(full.after, name="ttl"), full.update_on == "read_and_write")


def _type_text(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else repr(kind)


class StateDeclaration(Generic[L]):
    """What all declarations have in common; `L` is the type of the live object."""

    kind: ClassVar[str]

    def __init__(
        self, types: tuple[Any, ...], ttl: StateTtl | timedelta | None, name: str | None
    ) -> None:
        self.name = name or ""
        self.lifetime = _lifetime(ttl)
        self._types = tuple(map(_type_text, types))
        self._attribute = ""

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute
        self.name = self.name or attribute

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> L: ...
    def __get__(self, instance: object | None, owner: type) -> Self | L:
        if instance is None:
            return self
        try:
            return instance.__dict__[self._attribute]  # type: ignore[no-any-return]
        except KeyError:
            raise StateError(
                f"state {self.name!r} of {owner.__name__} is not there yet: use it from open() on, "
                "when the function runs in a pipeline, not in the constructor"
            ) from None

    def __set__(self, instance: object, value: object) -> None:
        raise StateError(
            f"self.{self._attribute} is declared state and cannot be replaced: change what it "
            f"holds, as in self.{self._attribute}.value = ..."
        )

    def schema(self) -> dict[str, Any]:
        """Describe the state, plainly, for checkpoints."""
        ttl_ms = None if self.lifetime is None else self.lifetime.after_ms
        return {"kind": self.kind, "types": list(self._types), "ttl_ms": ttl_ms}

    def bind(self, function: object, store: KeyedStore) -> None:
        """Give an instance its live object."""
        function.__dict__[self._attribute] = self._live(store)

    @abstractmethod
    def _live(self, store: KeyedStore) -> L:
        raise NotImplementedError

    def _entries(self, store: KeyedStore) -> Entries:
        return Entries(store, self.name, self.lifetime)


class ValueState(StateDeclaration[LiveValue[T]]):
    """One value per key.

    Args:
        kind: The type of the value.
        default: What a key has that was never written; it must be of a kind that cannot change.
        ttl: How long a value lives; a `timedelta` counts from the last write.
        name: The name in checkpoints; that of the attribute when left out.

    Raises:
        TypeError: the default could be changed in place, by one key for all.
    """

    kind = "value"

    @overload
    def __init__(
        self: ValueState[K | None],
        kind: type[K],
        *,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ValueState[K],
        kind: type[K],
        *,
        default: K,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        kind: type[Any],
        *,
        default: Any = None,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((kind,), ttl, name)
        if type(default).__hash__ is None:
            raise TypeError(
                f"the default {default!r} could be changed by one key for all: use ListState or "
                "MapState, or None"
            )
        self._default = default

    def _live(self, store: KeyedStore) -> LiveValue[T]:
        default = self._default
        return LiveValue(self._entries(store), lambda: default)


class ListState(StateDeclaration[LiveList[T]]):
    """One list per key; a `ttl` counts for the list as a whole."""

    kind = "list"

    def __init__(
        self,
        kind: type[T],
        *,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((kind,), ttl, name)

    def _live(self, store: KeyedStore) -> LiveList[T]:
        return LiveList(self._entries(store))


class MapState(StateDeclaration[LiveMap[K, T]]):
    """One map per key; a `ttl` counts for each entry of a map by itself."""

    kind = "map"

    def __init__(
        self,
        key_kind: type[K],
        kind: type[T],
        *,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((key_kind, kind), ttl, name)

    def _live(self, store: KeyedStore) -> LiveMap[K, T]:
        return LiveMap(self._entries(store), self.lifetime)


class ReducingState(StateDeclaration[LiveReducing[T]]):
    """One value per key: `reduce(before, item)` of all that was added."""

    kind = "reducing"

    def __init__(
        self,
        reduce: Callable[[T, T], T],
        *,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((), ttl, name)
        self._reduce = reduce

    def _live(self, store: KeyedStore) -> LiveReducing[T]:
        return LiveReducing(self._entries(store), self._reduce)


class AggregatingState(StateDeclaration[LiveAggregating[T, R]]):
    """One accumulator per key, of an aggregate such as `mean("delay")`."""

    kind = "aggregating"

    def __init__(
        self,
        aggregate: AggregateFunction[T, Any, R],
        *,
        ttl: StateTtl | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__((type(aggregate),), ttl, name)
        self._aggregate = aggregate

    def _live(self, store: KeyedStore) -> LiveAggregating[T, R]:
        return LiveAggregating(self._entries(store), self._aggregate)


def declared_states(function: object) -> dict[str, StateDeclaration[Any]]:
    """Return the states that a function or its class declares, by their names.

    Raises:
        StateError: two states have one name.
    """
    owner = function if isinstance(function, type) else type(function)
    attributes: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        attributes.update(vars(base))
    found: dict[str, StateDeclaration[Any]] = {}
    for declaration in attributes.values():
        if not isinstance(declaration, StateDeclaration):
            continue
        if declaration.name in found:
            raise StateError(f"{owner.__name__} declares two states named {declaration.name!r}")
        found[declaration.name] = declaration
    return found


def bind_state(function: object, store: KeyedStore) -> None:
    """Give an instance of a function its live state, kept in `store`.

    Raises:
        StateError: two states have one name.
    """
    for declaration in declared_states(function).values():
        declaration.bind(function, store)


def schema_of(function: object) -> dict[str, dict[str, Any]]:
    """Describe the states of a function, for `check_compatible` after a restart."""
    return {name: state.schema() for name, state in declared_states(function).items()}


def check_compatible(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> None:
    """Demand that state saved under one schema can be read under another.

    States may be added, and a time to live be changed; it cannot be introduced or taken away.

    Raises:
        StateError: a state is gone or has changed; the text says which and what to do.
    """
    for name, before in old.items():
        if name not in new:
            raise StateError(
                f"the checkpoint has state {name!r}, which the function does not declare any more: "
                "declare it again, or give the new attribute name="
                f"{name!r} if it was renamed"
            )
        _check_one(name, before, new[name])


def _check_one(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for what in ("kind", "types"):
        if before[what] != after[what]:
            raise StateError(
                f"state {name!r} was saved with {what} {before[what]!r} and is declared with "
                f"{after[what]!r}: give the new state another name"
            )
    if (before["ttl_ms"] is None) != (after["ttl_ms"] is None):
        raise StateError(
            f"state {name!r} was saved {'without' if before['ttl_ms'] is None else 'with'} a ttl: "
            "keep that, or give the new state another name"
        )
