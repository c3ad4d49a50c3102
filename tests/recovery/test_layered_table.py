"""Tables in layers: what they tell gives them back, and they are in layers only while that pays."""

from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.runtime.task.layered_table import LayeredTable

KEYS = 3000


def write(table, keys, value):
    for key in keys:
        table.fresh[key] = value


writes = st.tuples(st.integers(0, KEYS), st.integers(0, KEYS), st.integers())
steps = st.lists(st.one_of(writes, st.sampled_from(["changes", "all"])), max_size=30)


@given(steps)
def test_parts_give_the_table_back(steps):
    table, model, saved = LayeredTable(), {}, {}
    for step in [*steps, "changes"]:
        if step == "changes":
            saved |= table.take_changes()
        elif step == "all":
            saved = dict(table.take_all())
        else:
            start, length, value = step
            keys = range(start, min(KEYS, start + length))
            write(table, keys, value)
            model |= dict.fromkeys(keys, value)
        assert table.merged() == model
    assert saved == model


def churned():
    """Return a table of which most changes from one checkpoint to the next."""
    table = LayeredTable()
    for value in range(40):
        write(table, range(KEYS), [value])
        assert len(table.take_changes()) == KEYS
    return table


def test_a_table_that_changes_much_is_in_one_layer():
    assert churned().base == {}


def test_a_table_that_changes_little_again_comes_back_to_layers():
    table = churned()
    few = range(0, KEYS, 100)
    taken = []
    for value in range(3):
        write(table, few, value)
        taken.append(len(table.take_changes()))
    assert taken[-1] == len(few)


def test_values_that_change_in_place_count_as_changed():
    table = churned()
    for value in range(40):
        for items in table.fresh.values():
            items[0] = -value - 1
        table.take_changes()
    assert table.base == {}


def test_values_that_cannot_be_pickled_are_written_whole_for_good():
    table = LayeredTable()
    for _ in range(3):
        write(table, range(KEYS), lambda: None)
        table.take_changes()
    assert len(table.take_changes()) == KEYS
