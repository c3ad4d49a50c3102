"""The store of an operator on the disk: the laws of all stores, in lockstep with the heap's."""

from __future__ import annotations

import itertools
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.common.errors import StateError
from sage.dataflow.state.heap_store import HeapKeyedStore
from sage.dataflow.state.live import Expiring
from sage.kernel.state.backend import restore_chain
from sage.kernel.state.disk_operator_store import DiskOperatorStore
from sage.kernel.state.disk_table import CacheLimits
from sage.kernel.state.encoding import decode_value, encode_value
from sage.testing.state_conformance import check_state_backend

pytest.importorskip("rocksdict")

SMALL = CacheLimits(entries=6, size=4096)
NAMES = st.sampled_from("ab")
KEYS = st.one_of(st.sampled_from([0, 1, 1.0, True, None, "", "1", (1, "a")]), st.integers(-3, 9))
VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers()))


@pytest.mark.parametrize("most_touched", [0, 2, 50_000])
@pytest.mark.parametrize("limits", [None, SMALL])
def test_the_laws_of_state_hold(
    tmp_path: Path, most_touched: int, limits: CacheLimits | None
) -> None:
    stores: list[DiskOperatorStore] = []

    def make(now_ms: Any) -> DiskOperatorStore:
        directory = tmp_path / str(len(stores))
        store = DiskOperatorStore(directory, now_ms, limits=limits, most_touched=most_touched)
        stores.append(store)
        return store

    check_state_backend(make)
    for store in stores:
        store.close()


class Lockstep(RuleBasedStateMachine):
    """Heap store, disk store and dicts do the same, through checkpoints and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.numbers = itertools.count()
        self.model: dict[str, dict[Any, Any]] = {"a": {}, "b": {}}
        self.timers: set[tuple[int, Any]] = set()
        self.heap, self.disk = HeapKeyedStore(lambda: 0), self.make()
        self.checkpoint(full=True)

    def make(self) -> DiskOperatorStore:
        directory = Path(self.root.name) / str(next(self.numbers))
        return DiskOperatorStore(directory, lambda: 0, limits=SMALL, most_touched=4, memory=1 << 20)

    @property
    def stores(self) -> tuple[HeapKeyedStore | DiskOperatorStore, ...]:
        return self.heap, self.disk

    @rule(name=NAMES, key=KEYS, value=VALUES)
    def put(self, name: str, key: Any, value: Any) -> None:
        for store in self.stores:
            store.table(name)[key] = value
        self.model[name][key] = value

    @rule(name=NAMES, key=KEYS)
    def delete(self, name: str, key: Any) -> None:
        expected = self.model[name].pop(key, "none")
        for store in self.stores:
            assert store.table(name).pop(key, "none") == expected

    @rule(name=NAMES)
    def clear(self, name: str) -> None:
        for store in self.stores:
            store.table(name).clear()
        self.model[name].clear()

    @rule(name=NAMES, key=KEYS)
    def look(self, name: str, key: Any) -> None:
        expected = self.model[name].get(key, "none")
        for store in self.stores:
            assert store.table(name).get(key, "none") == expected
            assert store.query(name, key, "none") == expected

    @rule(ts=st.integers(0, 9), key=st.integers(0, 2))
    def timer(self, ts: int, key: Any) -> None:
        for store in self.stores:
            store.timers.register_event(ts, key, None)
        self.timers.add((ts, key))

    @rule(ts=st.integers(0, 9))
    def fire(self, ts: int) -> None:
        expected = {timer for timer in self.timers if timer[0] <= ts}
        self.timers -= expected
        for store in self.stores:
            assert {due[:2] for due in store.timers.due_events(ts)} == expected

    @rule(full=st.booleans())
    def checkpoint(self, *, full: bool) -> None:
        if full:
            self.chains: tuple[list[bytes], list[bytes]] = ([], [])
        for chain, store in zip(self.chains, self.stores, strict=True):
            chain.append(pickle.dumps(store.take_full() if full else store.take_changes()))
        self.saved = ({name: dict(of) for name, of in self.model.items()}, set(self.timers))

    @rule(moves=st.booleans())
    def crash(self, *, moves: bool) -> None:
        """Go on from the last checkpoint; what was on the heap may move to the disk."""
        self.disk.close()
        self.heap, self.disk = HeapKeyedStore(lambda: 0), self.make()
        chains = (self.chains[0], self.chains[0] if moves else self.chains[1])
        for chain, store in zip(chains, self.stores, strict=True):
            store.load(pickle.loads(chain[0]))
            for changes in chain[1:]:
                store.apply(pickle.loads(changes))
        self.model = {name: dict(of) for name, of in self.saved[0].items()}
        self.timers = set(self.saved[1])
        self.chains = (list(self.chains[0]), list(chains[1]))

    @rule(kept=st.sets(KEYS))
    def restrict(self, kept: set[Any]) -> None:
        for store in self.stores:
            store.restrict(kept.__contains__)
        self.model = {n: {k: v for k, v in of.items() if k in kept} for n, of in self.model.items()}
        self.timers = {timer for timer in self.timers if timer[1] in kept}

    @invariant()
    def same(self) -> None:
        for name, model in self.model.items():
            for store in self.stores:
                keys = list(store.table(name).scan())
                assert len(keys) == len(model)
                assert set(keys) == model.keys()

    def teardown(self) -> None:
        self.disk.close()
        self.root.cleanup()


TestLockstep = Lockstep.TestCase
TestLockstep.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("value", [None, 0, -(10**30), "ключ", b"", [1], {"a": Expiring(1, 2)}])
@pytest.mark.parametrize("expires_ms", [-(2**63), 0, 1_700_000_000_000, 2**63 - 1])
def test_a_value_that_expires_keeps_its_time(value: Any, expires_ms: int) -> None:
    found = decode_value(encode_value(Expiring(value, expires_ms)))
    assert type(found) is Expiring
    assert found == (value, expires_ms)


def store_in(directory: Path, **options: Any) -> DiskOperatorStore:
    return DiskOperatorStore(directory, lambda: 0, **options)


def test_few_changes_are_told_one_by_one_and_many_as_files(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a", most_touched=100)
    table = store.table("counts")
    table.update({key: key for key in range(20_000)})
    whole = len(pickle.dumps(store.take_full()))
    table.update(dict.fromkeys(range(100), -1))
    few = store.take_changes()
    assert "files" not in few
    assert len(pickle.dumps(few)) < whole / 20
    table.update(dict.fromkeys(range(101), -2))
    assert "files" in store.take_changes()
    assert store.take_changes()["entries"] == {"counts": ({}, [])}
    store.close()


def test_a_scan_goes_on_while_the_table_changes(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a", limits=SMALL)
    table = store.table("t")
    table.update({key: key for key in range(2_000)})
    met = []
    for place, key in enumerate(table.scan()):
        met.append(key)
        table[key] = -1
        table[10_000 + place] = 0
        if place < 500:
            table.pop(1_999 - place, None)
    assert len(met) == len(set(met))
    assert set(range(1_500)) <= set(met)
    store.close()


def test_a_query_of_another_thread_sees_each_key_go_forward(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a", limits=SMALL)
    table = store.table("t")
    table["k"] = 0
    backward: list[tuple[int, int]] = []
    rounds = 0
    done = threading.Event()

    def look() -> None:
        nonlocal rounds
        last = 0
        while not done.is_set():
            seen = store.query("t", "k", -1)
            if seen < last:
                backward.append((last, seen))
            last = seen
            rounds += 1

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(1, 6_000):
        table["k"] = number
        table[number % 7] = 0
        if number % 2_500 == 0:  # the database is closed and opened under the query
            store.load(store.snapshot_full())
    store.close()
    done.set()
    thread.join()
    assert [pair for pair in backward if pair[1] != -1] == []
    assert rounds > 0
    assert store.query("t", "k", "closed") == "closed"


def test_the_heap_refuses_what_the_disk_has_said(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a")
    for said in (store.take_full(), store.take_changes()):
        with pytest.raises(StateError, match="backend 'disk', which 'heap' cannot read"):
            restore_chain(HeapKeyedStore(lambda: 0), [said])
    restore_chain(store, [HeapKeyedStore(lambda: 0).snapshot_full()])
    store.close()
    store.close()


def test_without_layers_there_are_no_changes(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a", layered=False)
    store.table("t")["k"] = 1
    for take in (store.take_changes, store.take_full):
        with pytest.raises(StateError, match="snapshot_full"):
            take()
    assert store.snapshot_full()["files"]
    store.close()
