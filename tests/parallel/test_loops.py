"""Feedback loops over several processes: how much they hold, and how they end."""

import os

from parallel.processes import wait_until
from parallel.sources import GatedSource, mark, size_of
from sage import JobStatus, LocalEnvironment, Source, SourceReader
from sage.kernel.runtime.exchange.links import Mesh

COUNT = 1000


class WatchedSource(Source):
    """Gives numbers of rounds, and notes how many were on their way at most: without a mark."""

    def __init__(self, count, rounds, marks, most):
        self.count, self.rounds, self.marks, self.most = count, rounds, marks, most

    def create_reader(self, splits, context):
        return _WatchedReader(self)


class _WatchedReader(SourceReader):
    def __init__(self, source):
        self._source = source
        self._given = self._most = 0

    def read_batch(self, max_records):
        left = min(max_records, self._source.count - self._given)
        self._given += left
        self._most = max(self._most, self._given - size_of(self._source.marks))
        return [(self._source.rounds, bytes(1000))] * left or None

    def snapshot(self):
        return {}

    def close(self):
        with open(self._source.most, "w") as file:
            file.write(str(self._most))


def test_a_long_source_does_not_pile_up_in_a_loop(tmp_path, monkeypatch):
    """There is what waits in the channels, of 20 records here, and some batches in each slot."""
    of = Mesh.of
    monkeypatch.setattr(
        Mesh, "of", lambda graph, token, size, slots: of(graph, token, 20_000, slots)
    )
    marks, most = str(tmp_path / "marks"), tmp_path / "most"
    env = LocalEnvironment("bounded", {"parallelism": 2, "batch_size": 10})
    back = env.from_future("back")
    records = env.from_source(WatchedSource(COUNT, 60, marks, str(most))).union(back).rebalance()
    steps = records.map(lambda r: (r[0] - 1, r[1]))
    steps.filter(lambda r: r[0] > 0).fill_future(back)
    steps.filter(lambda r: r[0] == 0).map(mark(marks)).sink(lambda r: None)
    env.execute(progress=False)
    assert size_of(marks) == COUNT
    assert int(most.read_text()) < COUNT / 2


def test_a_loop_without_end_can_be_left(tmp_path):
    """By cancelling it: its records would go round for ever."""
    marks = str(tmp_path / "marks")
    env = LocalEnvironment("endless", {"parallelism": 2, "batch_size": 10})
    back = env.from_future("back")
    records = env.from_batch(range(100)).union(back).rebalance().map(mark(marks))
    records.key_by(lambda n: n % 7).map(lambda n: n).fill_future(back)
    env.submit_async()
    wait_until(lambda: size_of(marks) > 1000)
    env.job.cancel(20)
    assert env.job.status is JobStatus.CANCELED


def test_a_stopped_job_lets_go_out_what_is_in_its_loops(tmp_path):
    marks = str(tmp_path / "marks")
    env = LocalEnvironment("stopped", {"parallelism": 2, "batch_size": 10})
    back = env.from_future("back")
    source = env.from_source(GatedSource([50] * 100))
    steps = source.union(back).rebalance().map(mark(marks)).map(lambda n: n - 1)
    steps.filter(lambda n: n > 0).key_by(lambda n: n).fill_future(back)
    left = steps.filter(lambda n: n == 0).collect()
    env.submit_async()
    wait_until(lambda: size_of(marks) > 500)
    env.stop()
    assert env.wait(30)
    assert left
    assert os.path.getsize(marks) == 50 * len(left)  # all that had been read has gone round
