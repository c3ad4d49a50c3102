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
        self.fresh, self.base = self.table.fresh, self.table.base
        self.saved, self.chain, self.at_save = {}, [], {}

    @rule(key=KEYS, value=st.integers())
    def write(self, key, value):
        self.table[key] = self.model[key] = value

    @rule(key=KEYS)
    def write_as_a_generated_loop_does(self, key):
        if key in self.fresh:
            self.fresh[key] += 1
        elif key in self.base:
            self.fresh[key] = self.base[key] + 1
        else:
            self.fresh[key] = 1
        self.model[key] = self.model.get(key, 0) + 1

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
        self.table.take_changes()
        self.saved, self.chain = self.table.full(), []
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
        self.fresh, self.base = self.table.fresh, self.table.base
        self.model = dict(self.at_save)

    @invariant()
    def agrees(self):
        assert dict(self.table.items()) == self.model == self.table.full()
        assert len(self.table) == len(self.model)
        assert self.table.fresh is self.fresh
        assert self.table.base is self.base
        for key in (0, "a", None, "other"):
            assert (key in self.table) == (key in self.model)
            assert self.table.get(key, 7) == self.model.get(key, 7)


TestTableAgainstDict = TableAgainstDict.TestCase
TestTableAgainstDict.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_table_without_layers_keeps_all_in_fresh_and_knows_no_changes():
    table = KeyTable(layered=False)
    table.load({"a": 1})
    table["b"] = 2
    assert table.fresh == {"a": 1, "b": 2}
    assert table.base == {}
    with pytest.raises(StateError, match="layered=True"):
        table.take_changes()


def test_a_missing_key_is_a_key_error():
    table = KeyTable()
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(KeyError):
        del table["a"]
    with pytest.raises(KeyError):
        table.pop("a")
