"""The state of a job over several processes, asked for from outside."""

import os
from dataclasses import dataclass

import pytest

from parallel.processes import wait_until
from parallel.sources import GatedSource
from sage import (
    BroadcastProcessFunction,
    BroadcastState,
    JobError,
    KeyedProcessFunction,
    LocalEnvironment,
    MapState,
    ValueState,
)
from sage.common.errors import JobTimeoutError

KEYS = 20


@dataclass(frozen=True)
class Place:
    """A key that the workers know by the program alone."""

    number: int


class Visits(KeyedProcessFunction):
    """Counts what comes, and in which subtask; can be held up."""

    count = ValueState(int, default=0)
    by_parity = MapState(str, int)
    home = ValueState(int)

    def execute(self, data, ctx):
        if isinstance(data, str):
            with open(data):  # until the test opens the other end
                return
        self.count.value += 1
        self.home.value = self.ctx.subtask_index
        parity = "odd" if data % 2 else "even"
        self.by_parity[parity] = self.by_parity.get(parity, 0) + 1
        yield data


class Rules(BroadcastProcessFunction):
    """Has state that belongs to no key."""

    rules = BroadcastState(int, int)

    def process_element(self, value, ctx):
        yield value

    def process_broadcast_element(self, value, ctx):
        self.rules[value] = value


def key_of(record):
    return Place(0 if isinstance(record, str) else record % KEYS)


def test_the_process_that_owns_a_key_tells_its_state(tmp_path):
    env = LocalEnvironment("asked", {"parallelism": 2})
    fifo = str(tmp_path / "hold")
    os.mkfifo(fifo)
    gate = str(tmp_path / "gate")
    records = env.from_source(GatedSource(range(100), gate, 1, [fifo]))
    endless = env.from_source(GatedSource([]))
    visits = records.union(endless).key_by(key_of).process(Visits, uid="visits")
    visits.connect(env.from_batch([1]).broadcast()).process(Rules, uid="rules").print()
    env.submit_async()
    job = env.job
    wait_until(lambda: all(job.query_state("visits", "count", Place(n)) == 5 for n in range(KEYS)))
    assert job.query_state("visits", "by_parity", Place(7)) == {"odd": 5}
    assert {job.query_state("visits", "home", Place(n)) for n in range(KEYS)} == {0, 1}
    assert job.query_state("visits", "count", Place(KEYS)) is None
    assert job.query_state("visits", "no such state", Place(1)) is None
    assert job.query_state("rules", "rules", 1) is None
    with pytest.raises(JobError, match=r"no running operator .*'visit'.*visits"):
        job.query_state("visit", "count", Place(1))
    with pytest.raises(TypeError, match="cannot be a key"):
        job.query_state("visits", "count", object())

    with open(gate, "w") as file:
        file.write(".")
    wait_until(lambda: _does_not_answer(job))
    with open(fifo, "w"):
        pass
    assert job.query_state("visits", "count", Place(0)) == 5
    env.stop()
    assert env.wait(20)
    with pytest.raises(JobError, match="no running operator"):
        job.query_state("visits", "count", Place(1))


def _does_not_answer(job):
    try:
        job.query_state("visits", "count", Place(0), timeout=0.3)
    except JobTimeoutError as error:
        return "has not told the state of 'visits' within 0.3 s" in str(error)
    return False
