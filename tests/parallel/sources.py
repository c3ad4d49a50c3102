"""Sources with several splits, and one that waits until something has happened."""

import os
import random

from sage import Source, SourceReader


def events(seed, count, keys=20, span=60_000, disorder=500):
    """Return records `(key, number, ms)`; none comes more than `disorder` ms after a later one."""
    rng = random.Random(seed)
    times = sorted(rng.sample(range(span), count))
    times.sort(key=lambda ms: ms + rng.uniform(0, disorder))
    return [(f"k{rng.randrange(keys)}", number, ms) for number, ms in enumerate(times)]


class SplitSource(Source):
    """Gives the records of several splits, each in its order."""

    def __init__(self, **splits):
        self.splits = splits

    def list_splits(self):
        return sorted(self.splits)

    def create_reader(self, splits, context):
        return _SplitReader([self.splits[name] for name in splits])


class _SplitReader(SourceReader):
    def __init__(self, splits):
        self._iterators = [iter(split) for split in splits]

    def read_batch(self, max_records):
        batch = []
        while self._iterators and len(batch) < max_records:
            iterator = self._iterators.pop(0)
            try:
                batch.append(next(iterator))
            except StopIteration:
                continue
            self._iterators.append(iterator)
        return batch or None

    def snapshot(self):
        return {}


class PausingSource(Source):
    """Gives the records of several splits in turn, and knows how far each has been read.

    Args:
        splits: The records of each split.
        until: Which part of each split is given; the reader stands still behind it, unless it is all.
        whole: Splits that are given to their ends nevertheless.
    """

    def __init__(self, splits, until=1.0, whole=()):
        self.splits = splits
        self.until = until
        self.whole = whole

    def list_splits(self):
        return sorted(self.splits)

    def count(self):
        """Return how many records are given."""
        return sum(map(self.limit, self.splits))

    def limit(self, split):
        return int(len(self.splits[split]) * (1.0 if split in self.whole else self.until))

    def has_end(self, splits):
        return all(self.limit(split) == len(self.splits[split]) for split in splits)

    def create_reader(self, splits, context):
        return _PausingReader(self, {name: position or 0 for name, position in splits.items()})


class _PausingReader(SourceReader):
    def __init__(self, source, positions):
        self._source = source
        self._positions = positions

    def read_batch(self, max_records):
        batch = []
        while len(batch) < max_records and (one := self._read_round()):
            batch += one
        return None if not batch and self._source.has_end(self._positions) else batch

    def _read_round(self):
        """Return the next record of each split."""
        found = []
        for name, position in self._positions.items():
            if position < self._source.limit(name):
                found.append(self._source.splits[name][position])
                self._positions[name] += 1
        return found

    def snapshot(self):
        return dict(self._positions)


class GatedSource(Source):
    """Gives some records, and others only once the file `gate` has as many bytes as were asked for.

    With `gate=None` it never gives those, and never ends until it is told to stop.
    """

    def __init__(self, records, gate=None, size=1, then=()):
        self.records, self.gate, self.size, self.then = list(records), gate, size, list(then)

    def create_reader(self, splits, context):
        return _GatedReader(self)


class _GatedReader(SourceReader):
    def __init__(self, source):
        self._source = source
        self._left = list(source.records)
        self._open = False

    def read_batch(self, max_records):
        batch, self._left = self._left[:max_records], self._left[max_records:]
        if batch or self._open:
            return batch or None
        if size_of(self._source.gate) >= self._source.size:
            self._open, self._left = True, list(self._source.then)
        return []

    def snapshot(self):
        return {}


def size_of(path):
    """Return how many marks have been made in a file."""
    try:
        return 0 if path is None else os.path.getsize(path)
    except FileNotFoundError:
        return 0


def mark(path):
    """Return a function that makes a mark in a file, from whatever process, and returns its record."""

    def leave(record):
        with open(path, "ab") as file:
            file.write(b".")
        return record

    return leave
