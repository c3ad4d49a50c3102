"""The store on the disk against a dict; crashes, keys that are equal, and disks that refuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sage.kernel.state.disk_store import DiskKeyedStore
from sage.kernel.state.disk_table import CacheLimits
from sage.kernel.state.errors import (
    DiskStateClosedError,
    DiskStateError,
    DiskStateLockedError,
    StateKeyError,
)

pytest.importorskip("rocksdict")

SMALL = CacheLimits(entries=6, size=4096)
KEYS = st.one_of(
    st.sampled_from([0, 1, 1.0, True, False, None, "", "1", b"1", "ключ", (1, "a"), (1.0, "a")]),
    st.integers(-3, 3),
)
VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers()))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.path = Path(self.root.name)
        self.store = DiskKeyedStore(self.path / "live", limits=SMALL)
        self.model: dict[str, dict[Any, Any]] = {"a": {}, "b": {}}
        self.saved: list[tuple[Path, dict[str, dict[Any, Any]]]] = []

    @rule(name=st.sampled_from("ab"), key=KEYS, value=VALUES)
    def put(self, name: str, key: Any, value: Any) -> None:
        self.store.table(name)[key] = value
        self.model[name][key] = value

    @rule(name=st.sampled_from("ab"), key=KEYS)
    def look(self, name: str, key: Any) -> None:
        table, model = self.store.table(name), self.model[name]
        assert (key in table) == (key in model)
        assert table.get(key, "none") == model.get(key, "none")

    @rule(name=st.sampled_from("ab"), key=KEYS)
    def delete(self, name: str, key: Any) -> None:
        gone = object()
        assert (self.store.table(name).pop(key, gone) is gone) == (
            self.model[name].pop(key, gone) is gone
        )

    @rule(name=st.sampled_from("ab"))
    def clear(self, name: str) -> None:
        self.store.table(name).clear()
        self.model[name].clear()

    @rule(name=st.sampled_from("ab"))
    def flush(self, name: str) -> None:
        self.store.table(name).flush()

    @rule()
    def snapshot(self) -> None:
        into = self.path / f"snapshot-{len(self.saved)}"
        self.store.snapshot(into)
        self.saved.append((into, {name: dict(table) for name, table in self.model.items()}))

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        if self.saved:
            source, model = data.draw(st.sampled_from(self.saved))
            self.store.restore(source)
            self.model = {name: dict(table) for name, table in model.items()}

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = DiskKeyedStore(self.path / "live", limits=SMALL)

    @rule(name=st.sampled_from("ab"))
    def compare(self, name: str) -> None:
        table = self.store.table(name)
        assert len(table) == len(self.model[name])
        assert dict(table.entries()) == dict(table) == self.model[name]

    def teardown(self) -> None:
        for name, model in self.model.items():
            assert dict(self.store.table(name)) == model
        self.store.close()
        self.root.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestStore = StoreMachine.TestCase


def test_equal_keys_are_one_entry(tmp_path: Path) -> None:
    """As in a dict, whatever their types."""
    with DiskKeyedStore(tmp_path / "s") as store:
        table = store.table("t")
        for key in (1, 1.0, True, Decimal(1), 1 + 0j):
            table[key] = type(key).__name__
        assert len(table) == 1
        assert table[1] == "complex"
        assert "1" not in table


@dataclass(frozen=True)
class Place:
    city: str
    zone: int


def test_keys_and_values_of_all_kinds_come_back(tmp_path: Path) -> None:
    """After closing and opening, with a cache that holds next to nothing."""
    utc = datetime(2024, 5, 1, tzinfo=UTC)
    keys = ["", "é\udc80", b"\0", None, 0.1, -(10**40), (1, ("a", None)), frozenset({1, 2}), utc]
    keys += [timedelta(days=-1), UUID(int=7), Place("Bonn", 3), float("inf"), Decimal("0.3")]
    expected = {key: {"key": repr(key), "big": b"x" * 300_000} for key in keys}
    with DiskKeyedStore(tmp_path / "s", limits=SMALL) as store:
        store.table("t").update(expected)
    with DiskKeyedStore(tmp_path / "s", limits=SMALL) as store:
        assert dict(store.table("t").entries()) == expected
        assert store.table("t")[utc.astimezone(timezone(timedelta(hours=2)))] == expected[utc]


def test_a_key_without_an_encoding_is_refused_by_name(tmp_path: Path) -> None:
    with DiskKeyedStore(tmp_path / "s") as store, pytest.raises(StateKeyError, match="a object"):
        store.table("t")[object()] = 1


def test_a_directory_has_one_store_at_a_time(tmp_path: Path) -> None:
    with DiskKeyedStore(tmp_path / "s"), pytest.raises(DiskStateLockedError, match="in use"):
        DiskKeyedStore(tmp_path / "s")
    store = DiskKeyedStore(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(DiskStateClosedError):
        store.table("t")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskStateError, match="cannot keep state in"):
        DiskKeyedStore(tmp_path / "file" / "s")
    with DiskKeyedStore(tmp_path / "s") as store:
        store.table("t")[1] = 1
        with pytest.raises(DiskStateError, match="no snapshot"):
            store.restore(tmp_path / "nowhere")
        assert store.table("t")[1] == 1


WRITER = """
import sys
from pathlib import Path
from sage.kernel.state.disk_store import DiskKeyedStore
root = Path(sys.argv[1])
store = DiskKeyedStore(root / "live", memory=6 << 20)
table = store.table("t")
for i in range(20_000):
    table[i] = i
store.snapshot(root / "snapshot")
print("ready", flush=True)
i = 0
while True:
    table[i % 50_000] = -1
    i += 1
    if i == 150_000: print("writing", flush=True)
"""


def test_a_killed_process_loses_what_came_after_the_snapshot(tmp_path: Path) -> None:
    """The directory opens, and the snapshot gives exactly what was there."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    with DiskKeyedStore(tmp_path / "live") as store:
        table = store.table("t")
        assert len(table) == len(list(table))
        assert all(table[i] in (i, -1) for i in range(20_000))
        store.restore(tmp_path / "snapshot")
        assert dict(table.entries()) == {i: i for i in range(20_000)}


FULL = """
import os, resource, sys
from pathlib import Path
from sage.kernel.state.disk_store import DiskKeyedStore
from sage.kernel.state.errors import DiskStateError
store = DiskKeyedStore(Path(sys.argv[1]) / "live")
store.table("t").update((i, os.urandom(1000)) for i in range(3000))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.snapshot(Path(sys.argv[1]) / "snapshot")
except DiskStateError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_disk_that_takes_no_more_gives_a_clear_error(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the same failing `write`."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert "cannot write the state in" in done.stdout
    assert "File too large" in done.stdout
    assert not (tmp_path / "snapshot").exists()
