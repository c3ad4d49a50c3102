"""Broadcast state and the state of keys beside it, with faults and without: the same results."""

import os
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recovery.running import with_faults, without_faults
from recovery.scripted_source import Checkpoint, Fail
from sage import BroadcastState, KeyedBroadcastProcessFunction, ListState, ValueState

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for


class Known(KeyedBroadcastProcessFunction):
    """Puts out all it knows at each record; each fifth record is a rule, each tenth forgets one."""

    rules = BroadcastState(int, int)
    latest = BroadcastState(str, int)
    seen = ListState(int)
    touched = ValueState(int, default=0)

    def process_element(self, value, ctx):
        self.seen.append(value)
        yield ctx.key, list(self.seen), self.touched.value, dict(self.rules), dict(self.latest)

    def process_broadcast_element(self, value, ctx):
        self.rules[value] = self.rules.get(value, 0) + 1
        self.latest["rule"] = value
        if value % 10 == 0:
            self.rules.pop(value - 5, None)
        ctx.apply_to_keyed_state(self.seen, self.touch)

    def touch(self, key, seen):
        self.touched.value += 1
        seen.replace(list(seen)[-3:])


def by_rules(env, numbers):
    parts = numbers.split(lambda n: "rule" if n % 5 == 0 else "record")
    keyed = parts["record"].key_by(lambda n: n % 3)
    return [keyed.connect(parts["rule"].broadcast()).process(Known, uid="known")]


SCRIPTS = st.lists(
    st.one_of(st.integers(0, 40), st.just(Checkpoint()), st.builds(Fail, times=st.integers(1, 2))),
    max_size=30,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SCRIPTS)
@example([1, 5, 2, Checkpoint(), 10, 3, Fail(), 4, Checkpoint(), Fail(2), 5, 7])
@example([5, Checkpoint(), 10, Checkpoint(), Fail(), 1])
def test_the_same_as_without_faults(script):
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        assert with_faults(by_rules, script, root) == without_faults(by_rules, script)


def test_a_restored_rule_is_there_and_guarded():
    script = [5, 10, 1, Checkpoint(), Fail(), 2, 3]
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        ((*_, last),) = with_faults(by_rules, script, root)
    assert last == (0, [3], 0, {10: 1}, {"rule": 10})


def test_with_state_on_disk(tmp_path):
    pytest.importorskip("rocksdict")
    script = [1, 2, 5, 3, Checkpoint(), 4, 10, Fail(), 6, 7, Checkpoint(), 15, 8, Fail(), 9]

    def on_disk(env, numbers):
        env.set_state_backend("disk", tmp_path / "state", cache_bytes=1 << 20)
        return by_rules(env, numbers)

    assert with_faults(on_disk, script, tmp_path / "kept") == without_faults(by_rules, script)
