"""`check_state_backend`: the conformance suite of stores of keyed state."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from sage.common.errors import StateError
from sage.dataflow.function.aggregators import mean
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.state.declarations import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    StateTtl,
    ValueState,
    bind_state,
)
from sage.dataflow.state.live import NO_KEY, KeyedStore
from sage.dataflow.state.timers import HeapTimers
from sage.testing.manual_clock import ManualClock


class StateStore(KeyedStore, Protocol):
    """What `check_state_backend` drives: `HeapKeyedStore` shows it."""

    timers: HeapTimers

    def snapshot_full(self) -> dict[str, Any]:
        """Return all there is, plain."""
        ...

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call or `load`, plain."""
        ...

    def load(self, full: Mapping[str, Any]) -> None:
        """Replace everything by what `snapshot_full` gave."""
        ...

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Do what `take_changes` told."""
        ...

    def restrict(self, owns: Callable[[Any], bool]) -> None:
        """Forget all keys but those that `owns` says yes to."""
        ...

    def query(self, name: str, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        ...


MakeStore: TypeAlias = Callable[[Callable[[], int]], StateStore]


class _Function(BaseFunction):
    seen = ValueState(bool, default=False)
    recent = ListState(int)
    per_item = MapState(str, int)
    total: ReducingState[int] = ReducingState(operator.add)
    stats = AggregatingState(mean())
    short = ValueState(int, ttl=timedelta(seconds=1))
    used = ValueState(int, ttl=StateTtl(timedelta(seconds=1), update_on="read_and_write"))
    marks = MapState(str, int, ttl=timedelta(seconds=1))


def check_state_backend(make_store: MakeStore) -> None:
    """Demand that stores keep the laws of keyed state.

    Args:
        make_store: Makes an empty store, given what says the processing time in ms.

    Raises:
        AssertionError: a law is broken; the text says which.

    Examples:
        >>> from sage.dataflow.state.heap_store import HeapKeyedStore
        >>> check_state_backend(HeapKeyedStore)
    """
    for check in _CHECKS:
        clock = ManualClock(start_ms=1_000)
        check(lambda clock=clock: make_store(clock.now_ms), clock)  # type: ignore[misc]


_Make: TypeAlias = Callable[[], StateStore]


def _bound(store: KeyedStore, key: Any = "a") -> _Function:
    function = _Function()
    bind_state(function, store)
    store.current_key = key
    return function


def _check_kinds(make: _Make, clock: ManualClock) -> None:
    store = make()
    function = _bound(store)
    _fill(function)
    for key in ("b", None, "", 0):
        store.current_key = key
        _demand_empty(function, key)
    store.current_key = "a"
    _demand_filled(function, "written and read again")
    for name in ("seen", "recent", "per_item", "total", "stats"):
        getattr(function, name).clear()
    _demand_empty(function, "a, cleared")


def _check_equal_keys(make: _Make, clock: ManualClock) -> None:
    store = make()
    function = _bound(store, 1)
    function.total.add(1)
    for key in (1.0, True):
        store.current_key = key
        function.total.add(1)
    _demand(function.total.value == 3, "1, 1.0 and True are not one key")
    _demand(len(store.table("total")) == 1, "1, 1.0 and True are several entries")


def _check_no_key(make: _Make, clock: ManualClock) -> None:
    function = _bound(make(), NO_KEY)
    with _raises("state read without a key"):
        _ = function.seen.value
    with _raises("state written without a key"):
        function.seen.value = True
    with _raises("state cleared without a key"):
        function.recent.clear()


def _check_ttl(make: _Make, clock: ManualClock) -> None:
    store = make()
    function = _bound(store)
    function.short.value = function.used.value = function.marks["old"] = 1
    clock.advance(ms=999)
    function.marks["new"] = 2
    _demand(function.short.value == 1 and function.used.value == 1, "expired before its time")
    clock.advance(ms=1)
    _demand(function.short.value is None, "an expired value was seen")
    _demand(store.query("short", "a") is None, "an expired value was seen by a query")
    _demand(function.used.value == 1, "reading did not lengthen the life")
    _demand(dict(function.marks) == {"new": 2}, "entries of a map do not live each for itself")


def _check_sweep(make: _Make, clock: ManualClock) -> None:
    store = make()
    function = _bound(store)
    for key in range(100):
        store.current_key = key
        function.short.value = key
    clock.advance(ms=1_000)
    for _ in range(300):
        store.current_key = "other"
        function.short.value = 0
    _demand(len(store.table("short")) == 1, "expired entries of other keys stay for ever")


def _check_chain(make: _Make, clock: ManualClock) -> None:
    store = make()
    function = _bound(store)
    _fill(function)
    store.timers.register_event(5, "a", None)
    store.take_changes()
    saved = [pickle.dumps(store.snapshot_full())]
    store.current_key = "b"
    function.total.add(7)
    store.timers.register_event(6, "b", None)
    saved.append(pickle.dumps(store.take_changes()))
    function.total.clear()
    store.timers.delete_event(5, "a", None)
    saved.append(pickle.dumps(store.take_changes()))
    function.total.add(99)  # after the last checkpoint: lost
    restored = make()
    restored.load(pickle.loads(saved[0]))  # noqa: S301 - made right above
    for changes in saved[1:]:
        restored.apply(pickle.loads(changes))  # noqa: S301 - made right above
    _demand_filled(_bound(restored), "restored")
    _demand(_bound(restored, "b").total.value is None, "a deletion was not restored")
    _demand(list(restored.timers.due_events(9)) == [(6, "b", None)], "timers were not restored")


def _check_restrict(make: _Make, clock: ManualClock) -> None:
    store = make()
    for key in range(10):
        _bound(store, key).total.add(key)
        store.timers.register_processing(key, key, None)
    store.restrict(lambda key: key < 3)
    _demand(sorted(store.table("total").scan()) == [0, 1, 2], "keys of others were kept")
    due = [key for _, key, _ in store.timers.due_processing(99)]
    _demand(due == [0, 1, 2], "timers of others were kept")


def _check_query(make: _Make, clock: ManualClock) -> None:
    store = make()
    _fill(_bound(store))
    _demand(store.query("recent", "a") == [1, 2], "a query does not see the list")
    _demand(store.query("per_item", "a") == {"x": 1}, "a query does not see the map")
    _demand(store.query("total", "b", -1) == -1, "a query saw what is not there")
    _demand(store.query("unknown", "a") is None, "a query saw a state that is not there")


_CHECKS = (
    *(_check_kinds, _check_equal_keys, _check_no_key, _check_ttl, _check_sweep),
    *(_check_chain, _check_restrict, _check_query),
)


def _fill(function: _Function) -> None:
    function.seen.value = True
    function.recent.append(1)
    function.recent.extend([2])
    function.per_item["x"] = 1
    function.total.add(2)
    function.total.add(3)
    function.stats.add(1)
    function.stats.add(2)


def _contents(function: _Function) -> tuple[Any, ...]:
    listed, mapped = list(function.recent), dict(function.per_item)
    return function.seen.value, listed, mapped, function.total.value, function.stats.value


def _demand_filled(function: _Function, when: str) -> None:
    found = _contents(function)
    _demand(found == (True, [1, 2], {"x": 1}, 5, 1.5), f"{when}: {found}")


def _demand_empty(function: _Function, key: Any) -> None:
    found = _contents(function)
    _demand(found == (False, [], {}, None, None), f"key {key!r} has {found}")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


@contextmanager
def _raises(what: str) -> Iterator[None]:
    try:
        yield
    except StateError:
        return
    raise AssertionError(f"no StateError: {what}")
