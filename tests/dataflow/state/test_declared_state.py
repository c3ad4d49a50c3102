"""Declared state on a function, and the heap store that keeps it."""

from datetime import timedelta
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import StateError
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.state.declarations import (
    ListState,
    StateTtl,
    ValueState,
    bind_state,
    check_compatible,
    declared_states,
    schema_of,
)
from sage.dataflow.state.heap_store import HeapKeyedStore
from sage.dataflow.state.operator_state import (
    BroadcastState,
    OperatorListState,
    split_lists,
    union_lists,
)
from sage.testing.state_conformance import check_state_backend


class Dedup(BaseFunction):
    seen = ValueState(bool, default=False)
    other = ListState(int, name="numbers")
    rules = BroadcastState(str, int)
    offsets = OperatorListState(int)


class Child(Dedup):
    seen = ValueState(bool, default=True)


def test_the_heap_store_passes_the_conformance_suite():
    check_state_backend(HeapKeyedStore)


def test_names_are_those_of_attributes_unless_given_and_a_subclass_may_replace_one():
    assert list(declared_states(Dedup())) == ["seen", "numbers", "rules", "offsets"]
    assert declared_states(Child)["seen"] is Child.seen


def test_two_states_of_one_name_are_refused():
    class Twice(BaseFunction):
        one = ValueState(int, name="x")
        two = ValueState(int, name="x")

    with pytest.raises(StateError, match="two states named 'x'"):
        declared_states(Twice)


def test_state_before_binding_and_assignment_to_it_say_what_to_do():
    function = Dedup()
    with pytest.raises(StateError, match="from open"):
        _ = function.seen
    with pytest.raises(StateError, match=r"self\.seen\.value"):
        function.seen = True


def test_two_instances_have_state_of_their_own():
    first, second = Dedup(), Dedup()
    for function in (first, second):
        store = HeapKeyedStore(lambda: 0)
        bind_state(function, store)
        store.current_key = "a"
    first.seen.value = True
    assert (first.seen.value, second.seen.value) == (True, False)


def test_a_default_that_could_be_changed_is_refused():
    with pytest.raises(TypeError, match="ListState"):
        ValueState(list, default=[])


@pytest.mark.parametrize("wrong", [timedelta(0), StateTtl])
def test_a_ttl_that_is_none_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="ttl"):
        ValueState(int, ttl=wrong)


def test_broadcast_and_list_state_are_saved_and_loaded():
    store, function = HeapKeyedStore(lambda: 0), Dedup()
    bind_state(function, store)
    view = function.rules.read_only()
    function.rules["a"] = 1
    function.offsets.append(7)
    with pytest.raises(TypeError):
        view["b"] = 2
    saved = store.take_changes()
    function.rules.clear()
    function.offsets.clear()
    store.apply(saved)
    assert dict(view) == {"a": 1}
    assert list(function.offsets) == [7]


@given(st.lists(st.lists(st.integers())), st.integers(1, 5))
def test_splitting_is_even_and_loses_nothing(lists, parallelism):
    parts = split_lists(lists, parallelism)
    items = list(chain.from_iterable(lists))
    assert list(chain.from_iterable(parts)) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert union_lists(lists, parallelism) == [items] * parallelism


def test_a_changed_declaration_is_told():
    old = schema_of(Dedup)
    check_compatible(old, {**old, "new": ValueState(int, name="new").schema()})
    with pytest.raises(StateError, match=r"'seen'.*does not declare"):
        check_compatible(old, {})
    for changed in (ListState(bool), ValueState(int), ValueState(bool, ttl=timedelta(1))):
        with pytest.raises(StateError, match="'seen' was saved"):
            check_compatible(old, {**old, "seen": changed.schema()})
