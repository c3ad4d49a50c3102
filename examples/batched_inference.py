"""A model that many records share, and that works on many of them at once.

The model is a service with a method marked `@batch`: each caller gives one item and gets its own
result, while the service puts the items of calls that are under way together into one matrix. It
shows `@batch`, futures held by a function, `on_end`, and how much they are worth together.

    python examples/batched_inference.py
    python examples/batched_inference.py --records 2000
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from sage import FlatMapFunction, LocalEnvironment, MapFunction, batch

FEATURES, HIDDEN, CLASSES = 64, 1536, 10
BATCH = 64

Row = np.ndarray[Any, np.dtype[np.float32]]


class Model:
    """A network with random weights: what it says means nothing, what it costs does.

    Args:
        sizes: Where the batches are counted by their size. The service runs in this process, so it
            is the caller's own counter, no copy.
    """

    def __init__(self, sizes: Counter[int]) -> None:
        random = np.random.default_rng(seed=1)
        self.sizes = sizes
        shapes = (FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)
        self.layers = [random.standard_normal(shape, dtype=np.float32) for shape in shapes]

    @batch(max_size=BATCH, max_wait=0.002)
    def classify(self, items: list[Row]) -> list[int]:
        """Classify the items of many calls in one pass."""
        self.sizes[len(items)] += 1
        return self._classes_of(np.stack(items))

    def classify_alone(self, item: Row) -> int:
        """Classify the item of one call, without waiting for others."""
        return self._classes_of(item[np.newaxis])[0]

    def _classes_of(self, rows: Row) -> list[int]:
        for layer in self.layers:
            rows = np.maximum(rows, 0) @ layer
        return [int(found) for found in rows.argmax(axis=1)]


class ClassifyAlone(MapFunction[Row, int]):
    """Asks for each record and waits for the answer."""

    def execute(self, data: Row) -> int:
        """Return the class of a record."""
        found: int = self.call_service["model"].classify_alone(data)
        return found


class Classify(FlatMapFunction[Row, int]):
    """Asks for each record and goes on; answers come out in order, `in_flight` records later.

    Args:
        in_flight: How many calls may be under way when the next record is read.
    """

    def __init__(self, in_flight: int) -> None:
        super().__init__()
        self.in_flight = in_flight
        self.asked: deque[Any] = deque()

    def execute(self, data: Row) -> Iterator[int]:
        """Ask for a record; put out the answers for which it is time."""
        self.asked.append(self.call_service_async["model"].classify(data))
        return self.answers(self.in_flight)

    def on_end(self) -> Iterator[int]:
        """Wait for the other answers."""
        return self.answers(0)

    def answers(self, left: int) -> Iterator[int]:
        """Wait for the oldest answers until so many calls are left."""
        while len(self.asked) > left:
            yield self.asked.popleft().result(timeout=10.0)


def run(rows: list[Row], *, batched: bool) -> tuple[list[int], float, Counter[int]]:
    """Run the pipeline; return the classes, the seconds it took, and the sizes of the batches."""
    sizes: Counter[int] = Counter()
    with LocalEnvironment("inference") as env:
        env.register_service("model", Model, sizes)
        env.service_manager.call_service_sync("model", "classify_alone", rows[0])  # loads it
        if batched:
            classes = env.from_batch(rows).flat_map(Classify, 2 * BATCH).collect()
        else:
            classes = env.from_batch(rows).map(ClassifyAlone).collect()
        began = time.perf_counter()
        env.execute(progress=False)
        return list(classes), time.perf_counter() - began, sizes


def main() -> None:
    """Read the arguments, run both ways, print the figures."""
    parser = argparse.ArgumentParser(description="A model as a service, with and without batches.")
    parser.add_argument("--records", type=positive, default=512, metavar="N", help="(default: 512)")
    number = parser.parse_args().records
    random = np.random.default_rng(seed=2)
    rows = list(random.standard_normal((number, FEATURES), dtype=np.float32))

    alone, alone_seconds, _ = run(rows, batched=False)
    together, seconds, sizes = run(rows, batched=True)
    # Floats are summed in another order there, and a near tie may then go the other way.
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    print(f"one by one  {number / alone_seconds:9,.0f} records/s")
    print(f"in batches  {number / seconds:9,.0f} records/s, {alone_seconds / seconds:.1f} times")
    print(f"The same class for {same:,} of {number:,} records.")
    for size, often in sorted(sizes.items(), reverse=True):
        print(f"batches of {size:3}: {often}")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
