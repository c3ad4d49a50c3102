"""What each subtask finds when there are others than before: every piece goes to exactly one of them.

The model is a cluster of subtasks that each keep what belongs to their key groups. It is moved from one
layout to the next, as often as it likes.
"""

import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage import (
    BaseFunction,
    BroadcastState,
    ConfigError,
    OperatorListState,
    StateError,
    ValueState,
)
from sage.dataflow.function.sink import Sink, SinkWriter
from sage.dataflow.function.spec import FunctionSpec
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.key_group import Share, key_group, subtask_of
from sage.dataflow.operator.batch_wise import WriteSink
from sage.dataflow.operator.keyed import Distinct
from sage.dataflow.operator.process_live import load_timers, timers_state
from sage.dataflow.operator.record_wise import LoopHead, Map
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.state.declarations import bind_state
from sage.dataflow.state.heap_store import HeapKeyedStore
from sage.dataflow.state.timers import HeapTimers
from sage.kernel.jobmanager.redistribution import SavedState, Target, redistribute
from sage.kernel.state.backend import StateBackend, restore_parts

GROUPS = 128
KEYS = st.sets(st.one_of(st.text(max_size=3), st.integers(), st.none(), st.tuples(st.integers())))
LAYOUTS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
NAMES = ("a", "b", "c", "d", "e", "f", "g")


def node(operator):
    return StreamNode(1, operator, (), "operator", "operator", 1, "fail")


def owner(key, parallelism):
    return subtask_of(key_group(key, GROUPS), GROUPS, parallelism)


def move(saved, operator, parallelism, *, moved=True, keyed=True, splits=None):
    target = Target(node(operator), parallelism, GROUPS, keyed, splits)
    return redistribute([SavedState(chain) for chain in saved], target, moved=moved)


# ---- what belongs to keys


@given(KEYS, LAYOUTS)
def test_each_key_is_with_its_owner_and_with_nobody_else(keys, layouts):
    subtasks = [[{"tables": {"seen": dict.fromkeys(keys, True)}}]]
    for parallelism in layouts:
        found = move(subtasks, Distinct(), parallelism)
        subtasks = [[{"tables": {"seen": tables_of(state)}}] for state in found]
        for index, [content] in enumerate(subtasks):
            mine = content["tables"]["seen"]
            assert mine.keys() == {key for key in keys if owner(key, parallelism) == index}


def tables_of(restored):
    """Return what an operator takes of its tables; no key comes from two parts."""
    found = {}
    for chain in restored.chains("tables"):
        for tables in chain:
            mine = {k: v for k, v in tables["seen"].items() if restored.share.owns(k)}
            assert not found.keys() & mine.keys()
            found |= mine
    return found


@given(st.integers(1, 9), st.integers(1, 9))
def test_only_those_parts_are_read_that_may_have_something(before, now):
    saved = [[{"tables": {"seen": {index: 1}}}] for index in range(before)]
    found = move(saved, Distinct(), now)
    reads = sum(len(state.parts) for state in found)
    assert reads <= before + now  # ranges overlap in as many places as they have borders
    if before == now:
        assert [len(state.parts) for state in found] == [1] * now
        assert all(state.share.parallelism == 1 for state in found), "nothing is looked at"


@given(st.sets(st.tuples(st.integers(0, 50), st.text(max_size=2)), max_size=20), LAYOUTS)
@settings(max_examples=50)
def test_timers_go_with_their_keys_and_keep_their_order(registered, layouts):
    first = HeapTimers()
    for at, key in sorted(registered):
        first.register_event(at, key, None)
        first.register_processing(at, key, "window")
    subtasks = [timers_state(first)]
    for parallelism in layouts:
        found = []
        for index in range(parallelism):
            timers = HeapTimers()
            share = Share(index, parallelism, GROUPS)
            load_timers(timers, [[pickle.loads(pickle.dumps(s))] for s in subtasks], share)
            found.append(timers)
        subtasks = [timers_state(timers) for timers in found]
        for index, timers in enumerate(found):
            wanted = sorted(at for at, key in registered if owner(key, parallelism) == index)
            assert len(timers.processing) == len(wanted)
            assert [at for at, _, _ in found[index].due_events(99)] == wanted


# ---- state that functions declare


class Declares(BaseFunction):
    number = ValueState(int, default=0)
    rules = BroadcastState(str, int)
    shared = OperatorListState(int)
    known = OperatorListState(int, rescaled="union")

    def execute(self, data):
        return data


DECLARES = Map((FunctionSpec(Declares),))


@pytest.mark.parametrize(("backend", "layouts"), [("heap", (3, 2, 5, 5, 1, 2)), ("disk", (3, 2))])
def test_declared_state_goes_from_layout_to_layout(backend, layouts, tmp_path):
    made = StateBackend(backend, str(tmp_path), 1 << 20)
    before = [[stored(made, [f"key {n}" for n in range(100)], [1, 2, 3, 4, 5])]]
    for parallelism in layouts:
        found = move(before, DECLARES, parallelism)
        shares = [taken_over(made, restored, index) for index, restored in enumerate(found)]
        keys = Counter(key for share in shares for key in share["keys"])
        assert keys == Counter({f"key {n}": 1 for n in range(100)})
        for index, share in enumerate(shares):
            assert {owner(key, parallelism) for key in share["keys"]} <= {index}
            assert sorted(share["timers"]) == sorted(share["keys"])
            assert share["rules"] == {"all": 1}
        assert Counter(n for share in shares for n in share["shared"]) == Counter(range(1, 6))
        assert all(set(share["known"]) == set(range(1, 6)) for share in shares)
        before = [[{"store": share["saved"]}] for share in shares]


def open_store(backend):
    return backend.open_store("job", "operator", lambda: 0, layered=True)


def stored(backend, keys, items):
    store, close = open_store(backend)
    function = Declares()
    bind_state(function, store)
    for number, key in enumerate(keys):
        store.current_key = key
        function.number.value = number
        store.timers.register_event(number, key)
    function.rules["all"] = 1
    function.shared.extend(items)
    function.known.extend(items)
    saved = store.snapshot_full()
    close()
    return {"store": saved}


def taken_over(backend, restored, index):
    """Return what a subtask has taken over."""
    store, close = open_store(backend)
    parts = restored.chains("store")
    restore_parts(store, parts, restored.share, lambda: open_store(backend))
    if settled := restored.last("operator_state"):
        store.load_operator_state(settled)
    function = Declares()
    bind_state(function, store)
    saved = store.snapshot_full()
    keys = list(store.table("number").scan())
    found = {
        "keys": keys,
        "timers": [key for _, key, _ in store.timers.due_events(1000)],
        "rules": dict(function.rules),
        "shared": list(function.shared),
        "known": list(function.known),
        "saved": saved,
    }
    close()
    return found


# ---- what is settled at once


@given(st.dictionaries(st.sampled_from(NAMES), st.integers()), st.integers(1, 4), st.integers(1, 4))
def test_positions_go_where_their_splits_are_read(positions, before, now):
    names = list(positions)
    saved = [[{"reader": {n: positions[n] for n in names[i::before]}}] for i in range(before)]
    splits = [NAMES[:5][i::now] for i in range(now)]  # some are there no more
    found = [state.last("reader") or {} for state in move(saved, ReadSource(), now, splits=splits)]
    together = [item for one in found for item in one.items()]
    assert sorted(together) == sorted(positions.items())
    for mine, read in zip(splits, found, strict=True):
        assert set(mine) & positions.keys() <= read.keys()


def test_one_process_reads_on_wherever_anybody_was():
    [found] = move([[{"reader": {"a": 1}}], [{"reader": {"b": 2}}]], ReadSource(), 1)
    assert found.last("reader") == {"a": 1, "b": 2}


def test_event_time_is_that_of_the_slowest():
    saved = [[{"watermark": 70, "live": "young"}], [{"watermark": 50, "live": "old"}]]
    found = move(saved, Distinct(), 3, keyed=False)
    assert [state.last("watermark") for state in found] == [50] * 3
    assert all(state.chains("live") == [["old"], ["young"]] for state in found)
    assert [s.last("watermark") for s in move([*saved, []], Distinct(), 2)] == [None] * 2
    kept = move(saved, Distinct(), 2, moved=False)
    assert [state.last("watermark") for state in kept] == [70, 50]


@pytest.mark.parametrize(
    ("now", "dealt"),
    [(1, [[1, 2, 3, 4]]), (2, [[1, 3], [2, 4]]), (5, [[1], [2], [3], [4], None])],
)
def test_what_goes_round_in_a_loop_is_dealt_out(now, dealt):
    saved = [[{"in_loop": [1, 2, 3]}], [{"in_loop": []}], [{"in_loop": [4]}]]
    found = move(saved, LoopHead(), now, keyed=False)
    assert [state.last("in_loop") for state in found] == dealt
    same = move(saved, LoopHead(), 3, keyed=False, moved=False)
    assert [state.last("in_loop") for state in same] == [[1, 2, 3], [], [4]]


@pytest.mark.parametrize("now", [1, 2, 3, 5])
def test_pending_commits_are_each_done_once(now):
    saved = [[{"uncommitted": {1: f"old {i}", 2: f"new {i}"}}] for i in range(3)]
    found = move(saved, WriteSink(sink=Plain()), now, keyed=False)
    done = Counter((n, p) for state in found for one in state.uncommitted for n, p in one.items())
    assert done == Counter((n, f"{p} {i}") for i in range(3) for n, p in ((1, "old"), (2, "new")))
    for index, state in enumerate(found):  # nobody else may use the names of this subtask
        assert all(int(one[1][-1]) % now == index for one in state.uncommitted)


def test_what_has_ended_among_others_is_done_with():
    saved = [
        [{"ended": True, "tables": {"seen": {"a": 1}}, "uncommitted": {3: "files"}}],
        [{"tables": {"seen": {"b": 1}}, "watermark": 5}],
    ]
    [found] = move(saved, Distinct(), 1)
    assert found.chains("tables") == [[{"seen": {"b": 1}}]]
    assert (found.last("ended"), found.last("watermark")) == (None, 5)
    assert found.uncommitted == [{3: "files"}]


def test_what_has_ended_everywhere_has_ended():
    saved = [[{"ended": True, "tables": {"seen": {"a": 1}}}], [{"ended": True}]]
    for now in (1, 3):
        assert all(state.last("ended") for state in move(saved, Distinct(), now))


def test_an_end_is_its_own_where_nothing_moves():
    found = move([[{"ended": True}], []], Distinct(), 2, moved=False)
    assert [state.last("ended") for state in found] == [True, None]
    source = move([[{"ended": True, "reader": {}}], []], ReadSource(), 2, moved=False)
    assert [state.last("ended") for state in source] == [None, None]


# ---- writers


class Plain(Sink):
    def create_writer(self, context, state):
        return Writer()


class Writer(SinkWriter):
    def write_batch(self, values):
        pass


class Joins(Plain):
    def redistribute(self, states, parallelism):
        return [sorted(states)] * parallelism


class Forgets(Plain):
    def redistribute(self, states, parallelism):
        return []


SAVED = [[{"writer": "b"}], [{"writer": "a"}]]


def test_a_writer_begins_with_what_its_sink_says():
    found = move(SAVED, WriteSink(sink=Joins()), 3, keyed=False)
    assert [state.last("writer") for state in found] == [["a", "b"]] * 3
    kept = move(SAVED, WriteSink(sink=Joins()), 2, keyed=False, moved=False)
    assert [state.last("writer") for state in kept] == ["b", "a"]


def test_states_of_writers_are_handed_on_while_there_are_enough_writers():
    found = move(SAVED, WriteSink(sink=Plain()), 3, keyed=False)
    assert [state.last("writer") for state in found] == ["b", "a", None]
    with pytest.raises(StateError, match=r"Plain has the states of 2 writers and 1 to"):
        move(SAVED, WriteSink(sink=Plain()), 1, keyed=False)


def test_a_sink_that_leaves_somebody_out_is_told():
    with pytest.raises(ConfigError, match=r"a state for each of 3 subtasks, not \[\]"):
        move(SAVED, WriteSink(sink=Forgets()), 3, keyed=False)


def test_a_heap_store_joins_those_of_others():
    stores = [HeapKeyedStore(lambda: 0) for _ in range(2)]
    for store, key in zip(stores, "ab", strict=True):
        store.table("n")[key] = key
        store.timers.register_event(ord(key), key)
    stores[0].join(stores[1], lambda key: key != "b")
    assert list(stores[0].table("n").scan()) == ["a"]
    stores[0].join(stores[1], lambda key: True)
    assert sorted(stores[0].table("n").scan()) == ["a", "b"]
    assert [key for _, key, _ in stores[0].timers.due_events(999)] == ["a", "b"]
