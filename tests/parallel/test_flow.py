"""Slow and fast slots: nothing piles up, nobody waits for ever."""

import pytest

from parallel.processes import memory, wait_until, workers
from parallel.sources import GatedSource, SplitSource, mark, size_of
from sage import LocalEnvironment, MapFunction, Source, SourceReader

KILOBYTES = 10
MEGABYTE = 1 << 20


class Endless(Source):
    """Gives large records as long as it is asked, and makes a mark for each."""

    def __init__(self, path):
        self.path = path

    def create_reader(self, splits, context):
        return _EndlessReader(mark(self.path))


class _EndlessReader(SourceReader):
    def __init__(self, note):
        self._note = note
        self._count = 0

    def read_batch(self, max_records):
        batch = [(self._count + n, b"x" * KILOBYTES * 1024) for n in range(min(max_records, 10))]
        self._count += len(batch)
        for record in batch:
            self._note(record)
        return batch

    def snapshot(self):
        return {}


class Waits(MapFunction):
    """Takes no record before a file is there."""

    def __init__(self, path, begun):
        super().__init__()
        self.path, self.begun = path, begun

    def execute(self, data):
        mark(self.begun)(data)
        wait_until(lambda: size_of(self.path) or self.ctx.is_cancelled, 60)
        return data


def test_a_sink_that_stands_still_stops_the_source(tmp_path):
    """The source is read no further than the channels reach: in records, and in memory."""
    read, begun, go = (str(tmp_path / name) for name in ("read", "begun", "go"))
    with LocalEnvironment("throttled", {"parallelism": 2}) as env:
        stream = env.from_source(Endless(read))
        stream.partition_custom(lambda r, count: 1).map(Waits(go, begun)).sink(len)
        env.submit()
        wait_until(lambda: size_of(begun))
        wait_until(standing_still(read))
        assert size_of(read) * KILOBYTES * 1024 < 64 * MEGABYTE
        assert all(memory(pid) < 250 * MEGABYTE for pid in workers())
        before = size_of(read)
        mark(go)(None)
        wait_until(lambda: size_of(read) > before + 100)
        assert env.cancel(20)["status"] == "success"


def standing_still(path):
    """Return a function that says whether a file has not grown during many looks."""
    sizes = []

    def look():
        sizes.append(size_of(path))
        return len(sizes) > 100 and len(set(sizes[-100:])) == 1

    return look


@pytest.mark.parametrize("width", [1, 3])
def test_two_slots_that_flood_each_other_go_on(width):
    """Each record becomes a thousand, half of which go to the other slot, in both directions."""
    env = LocalEnvironment("flood", {"parallelism": 2})
    splits = SplitSource(left=range(60), right=range(60))
    flood = env.from_source(splits).flat_map(lambda n: [(n, i, "x" * 500) for i in range(1000)])
    for _ in range(width):
        flood = flood.key_by(lambda r: r[1]).map(lambda r: (r[0], r[1] + 1, r[2]))
    found = flood.key_by(lambda r: r[1] % 10).count(emit="final").collect()
    env.execute(progress=False)
    assert sorted(found) == [(n, 12_000) for n in range(10)]


def test_a_record_of_a_quiet_source_does_not_wait_for_others(tmp_path):
    """What comes of it reaches the end though the source gives nothing more, nor ends."""
    path = str(tmp_path / "arrived")
    env = LocalEnvironment("quiet", {"parallelism": 2, "buffer_timeout": 3600})
    quiet = env.from_source(GatedSource([1], path, 1, [2]))
    quiet.rebalance().key_by(str).map(mark(path)).key_by(abs).count().collect()
    env.execute(progress=False)
    assert size_of(path) == 2
