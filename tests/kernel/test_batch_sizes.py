"""How many records sources are asked for at a time."""

from sage import LocalEnvironment, Source, SourceReader, tumbling_time_window


class Noting(Source):
    """Gives numbers, and notes how many it was asked for."""

    def __init__(self, count):
        self.count = count
        self.sizes = []
        self.is_done = False

    def create_reader(self, splits, context):
        return _Reader(self)


class _Reader(SourceReader):
    def __init__(self, source):
        self._source = source
        self._next = 0

    def read_batch(self, max_records):
        source = self._source
        source.sizes.append(max_records)
        start, self._next = self._next, min(self._next + max_records, source.count)
        source.is_done = start == self._next
        return None if source.is_done else range(start, self._next)

    def snapshot(self):
        return {"": self._next}


class Silent(Source):
    """Has nothing as long as another source has something."""

    def __init__(self, other):
        self.other = other

    def create_reader(self, splits, context):
        return _SilentReader(self.other)


class _SilentReader(SourceReader):
    def __init__(self, other):
        self._other = other

    def read_batch(self, max_records):
        return None if self._other.is_done else []

    def snapshot(self):
        return {}


def test_a_silent_source_does_not_keep_batches_small():
    busy = Noting(5000)
    env = LocalEnvironment("silent")
    streams = [env.from_source(s).assign_timestamps(abs) for s in (busy, Silent(busy))]
    both = streams[0].union(streams[1]).key_by(lambda n: n % 3)
    both.window(tumbling_time_window(1)).count().sink(repr)
    env.execute(progress=False)
    assert max(busy.sizes) > 16
