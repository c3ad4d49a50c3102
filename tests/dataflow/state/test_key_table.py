"""`KeyTable`: a dict whose changes can be asked for, against a plain dict."""

import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.common.errors import StateError
from sage.dataflow.state.key_table import KeyTable

KEYS = st.sampled_from([0, 1, 1.0, True, "", "a", None, (1, "b"), False])


class TableAgainstDict(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.table, self.model = KeyTable(), {}
        self.saved, self.chain, self.at_save = {}, [], {}

    @rule(key=KEYS, value=st.integers())
    def write(self, key, value):
        self.table[key] = self.model[key] = value

    @rule(start=st.integers(10, 12_000), count=st.integers(0, 3000), value=st.integers())
    def write_many(self, start, count, value):
        for key in range(start, start + count):
            self.table[key] = self.model[key] = value

    @rule(start=st.integers(10, 12_000), count=st.integers(0, 3000))
    def delete_many(self, start, count):
        for key in range(start, start + count):
            assert self.table.pop(key, None) == self.model.pop(key, None)

    @rule(key=KEYS)
    def delete(self, key):
        assert self.table.pop(key, "none") == self.model.pop(key, "none")

    @rule()
    def clear(self):
        self.table.clear()
        self.model.clear()

    @rule()
    def save_changes(self):
        self.chain.append(pickle.dumps(self.table.take_changes()))
        self.at_save = dict(self.model)

    @rule()
    def save_all(self):
        self.saved, self.chain = dict(self.table.take_full()), []
        self.at_save = dict(self.model)

    @rule(layered=st.booleans())
    def restore(self, layered):
        self.table = KeyTable(layered=layered)
        self.table.load(self.saved)
        for changes in self.chain:
            self.table.apply(pickle.loads(changes))
        assert dict(self.table) == self.at_save
        if not layered:
            self.table.layered = True
            self.table.load(self.table.full())
        self.model = dict(self.at_save)

    @invariant()
    def agrees(self):
        assert dict(self.table.items()) == self.model == self.table.full()
        assert len(self.table) == len(self.model)
        for key in (0, "a", None, "other"):
            assert (key in self.table) == (key in self.model)
            assert self.table.get(key, 7) == self.model.get(key, 7)


TestTableAgainstDict = TableAgainstDict.TestCase
TestTableAgainstDict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

KEY_COUNT = 3000


def write(table, keys, value):
    for key in keys:
        table[key] = value


def churned():
    """Return a table of which most changes from one checkpoint to the next."""
    table = KeyTable()
    for value in range(40):
        write(table, range(KEY_COUNT), [value])
        assert len(table.take_changes().changed) == KEY_COUNT
    return table


def test_what_is_given_follows_what_was_touched():
    table = KeyTable()
    write(table, range(KEY_COUNT), 0)
    assert len(table.take_full()) == KEY_COUNT
    few = range(0, KEY_COUNT, 100)
    for value in range(1, 20):
        write(table, few, value)
        assert table.take_changes() == (dict.fromkeys(few, value), [], False)


def test_a_table_of_which_most_changes_is_given_whole():
    table = churned()
    del table[0]
    changes = table.take_changes()
    assert changes.whole
    assert changes.changed.keys() == set(range(1, KEY_COUNT))


def test_a_table_that_changes_little_again_comes_back_to_giving_little():
    table, few = churned(), range(KEY_COUNT // 100)
    taken = []
    for value in range(3):
        write(table, few, value)
        taken.append(len(table.take_changes().changed))
    assert taken[-1] == len(few)


def test_values_that_change_in_place_count_as_changed_in_a_table_of_which_most_changes():
    table = churned()
    for value in range(40):
        for items in table.values():
            items[0] = -value - 1
        assert table.take_changes().whole


def test_values_that_cannot_be_pickled_are_given_whole_for_good():
    table = KeyTable()
    write(table, range(KEY_COUNT), 0)
    table.take_full()
    for _ in range(4):
        write(table, range(KEY_COUNT), lambda: None)
        table.take_full()
    assert table.take_changes().whole


def test_keys_that_come_and_go_between_checkpoints_are_not_all_remembered():
    table = KeyTable()
    table["stays"] = 1
    table.take_full()
    for key in range(100 * KEY_COUNT):
        table[key] = 0
        del table[key]
    assert table.take_changes() == ({"stays": 1}, [], True)


def test_a_table_without_layers_knows_no_changes():
    table = KeyTable(layered=False)
    table.load({"a": 1})
    table["b"] = 2
    assert table.full() == {"a": 1, "b": 2}
    with pytest.raises(StateError, match="layered=True"):
        table.take_changes()
    with pytest.raises(StateError, match="layered=True"):
        table.take_full()


def test_a_missing_key_is_a_key_error():
    table = KeyTable()
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(KeyError):
        del table["a"]
    with pytest.raises(KeyError):
        table.pop("a")
