"""Collections: every kind of data comes out whole, in order, and can be continued anywhere."""

import pickle
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import SourceError
from sage.connector.collection import CollectionSource
from sage.testing import StandaloneContext, check_source, read_all


def reader_of(source, position=None):
    return source.create_reader({"": position}, StandaloneContext())


@pytest.mark.parametrize(
    "data",
    [
        [],
        [3, None, 1],
        (1, 2, 3),
        range(5),
        "naïve",
        b"ab",
        {"a": 1, "b": 2},
        {1, 2, 3},
        frozenset("abc"),
        {"a": 1}.items(),
        deque([1, 2, 3]),
    ],
    ids=lambda data: type(data).__name__,
)
def test_any_collection_conforms(data):
    assert check_source(lambda: CollectionSource(data)) == list(data)


@given(st.lists(st.integers() | st.none(), max_size=20))
def test_a_callable_is_run_again_for_each_reader(values):
    check_source(lambda: CollectionSource(lambda: iter(values)), values)


def test_a_one_shot_iterator_runs_once():
    source = CollectionSource(x for x in range(3))
    assert read_all(source) == [0, 1, 2]
    with pytest.raises(SourceError, match="a callable that returns a fresh iterator"):
        read_all(source)


def test_a_set_keeps_the_order_it_had_at_construction():
    data = {"x", "y", "z"}
    source = CollectionSource(data)
    order = list(data)
    data.add("w")
    assert read_all(pickle.loads(pickle.dumps(source))) == order


def test_what_cannot_be_iterated_is_refused():
    with pytest.raises(SourceError, match="not 7 of type int"):
        CollectionSource(7)


def test_the_first_record_does_not_wait_for_the_second():
    asked = []

    def numbers():
        for n in range(3):
            asked.append(n)
            yield n

    reader = reader_of(CollectionSource(numbers))
    assert asked == []
    assert list(reader.read_batch(1)) == [0]
    assert asked == [0]


def test_a_slow_iterator_hands_over_record_by_record(monkeypatch):
    now = [0.0]

    def slow():
        for n in range(1000):
            if n >= 500:
                now[0] += 1.0
            yield n

    monkeypatch.setattr("sage.connector.collection.perf_counter", lambda: now[0])
    reader = reader_of(CollectionSource(slow))
    sizes = []
    while (batch := reader.read_batch(400)) is not None:
        sizes.append(len(batch))
    assert sizes[0] == 400
    assert max(sizes[2:]) == 1


def test_records_before_a_fault_come_first_and_the_fault_stays():
    def faulty():
        yield from (1, 2)
        raise OSError("the disk is gone")

    reader = reader_of(CollectionSource(faulty))
    assert list(reader.read_batch(10)) == [1, 2]
    assert reader.snapshot() == {"": 2}
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            reader.read_batch(10)


@pytest.mark.parametrize("data", [[1, 2], lambda: iter([1, 2])], ids=["list", "iterator"])
def test_a_position_behind_the_data_is_refused(data):
    with pytest.raises(SourceError, match="cannot continue after record 3"):
        reader_of(CollectionSource(data), 3)
    assert reader_of(CollectionSource(data), 2).read_batch(1) is None


def test_total_count_is_known_where_the_length_is():
    def total(data):
        return CollectionSource(data).create_reader({"": None}, StandaloneContext()).total_count()

    assert total(range(7)) == 7
    assert total({1, 2}) == 2
    assert total(iter([1])) is None


def test_it_runs_on_the_calling_thread():
    names = read_all(CollectionSource(lambda: iter([1]))) and threading.enumerate()
    assert all(not thread.name.startswith("sage-source") for thread in names)
