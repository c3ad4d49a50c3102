"""The same two pipelines on each engine. Every function here runs one of them to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource, run_main
from streamz import Stream

from benchmarks import workloads as w
from sage import LocalEnvironment
from sage.common.config import ErrorPolicy
from sage.dataflow.operator.loop_writer import LoopWriter

BATCH = 4096


def sage_chain(data: Iterable[int], sink: w.Sink, on_error: ErrorPolicy = "fail") -> None:
    """Map, filter, map, sink on SAGE."""
    env = LocalEnvironment("chain", {"on_error": on_error})
    stream = env.from_batch(data).map(w.increment).filter(w.is_even).map(w.double)
    stream.sink(sink)
    env.execute(progress=False)


def sage_chain_collect(data: Iterable[int]) -> None:
    """Map, filter, map, collect on SAGE."""
    env = LocalEnvironment("chain")
    env.from_batch(data).map(w.increment).filter(w.is_even).map(w.double).collect()
    env.execute(progress=False)


def sage_word_count(lines: Iterable[str], sink: w.Sink) -> None:
    """Word count on SAGE, every update to the sink."""
    env = LocalEnvironment("words")
    pairs = env.from_batch(lines).flat_map(w.split).map(w.pair)
    pairs.key_by(w.first).reduce(w.add).sink(sink)
    env.execute(progress=False)


def bytewax_chain(data: Iterable[int], sink: w.Sink) -> None:
    """Map, filter, map, sink on Bytewax."""

    def build(op: Any, stream: Any) -> Any:
        stream = op.map("increment", stream, w.increment)
        stream = op.filter("even", stream, w.is_even)
        return op.map("double", stream, w.double)

    run_bytewax(data, sink, build)


def bytewax_word_count(lines: Iterable[str], sink: w.Sink) -> None:
    """Word count on Bytewax, every update to the sink.

    As a Bytewax program would have it: the pair of word and 1 *is* a keyed record, so it is spared
    the calls of `first` and `add`, which cost it a third of its speed.
    """

    def count(state: int | None, one: int) -> tuple[int, int]:
        total = one if state is None else state + one
        return total, total

    def build(op: Any, stream: Any) -> Any:
        words = op.flat_map("split", stream, w.split)
        return op.stateful_map("count", op.map("pair", words, w.pair), count)

    run_bytewax(lines, sink, build)


class CallPart(StatelessSinkPartition[Any]):
    """Calls a function with each record."""

    def __init__(self, sink: w.Sink) -> None:
        self._sink = sink

    def write_batch(self, items: Sequence[Any]) -> None:
        """Call the sink."""
        sink = self._sink
        for item in items:
            sink(item)


class CallSink(DynamicSink[Any]):
    """Makes a `CallPart` per worker."""

    def __init__(self, sink: w.Sink) -> None:
        self._sink = sink

    def build(self, step_id: str, worker_index: int, worker_count: int) -> CallPart:
        """Make the part of a worker."""
        return CallPart(self._sink)


def run_bytewax(
    data: Iterable[Any], sink: w.Sink, build: Callable[[Any, Any], Any], batch_size: int = BATCH
) -> None:
    """Run a Bytewax flow in this process, on batches of the same size."""
    flow = Dataflow("benchmark")
    stream = op.input("input", flow, TestingSource(data, batch_size=batch_size))
    op.output("output", build(op, stream), CallSink(sink))
    run_main(flow)


def streamz_chain(data: Iterable[int], sink: w.Sink) -> None:
    """Map, filter, map, sink on streamz."""
    source = Stream()
    source.map(w.increment).filter(w.is_even).map(w.double).sink(sink)
    for x in data:
        source.emit(x)


def streamz_word_count(lines: Iterable[str], sink: w.Sink) -> None:
    """Word count on streamz, every update to the sink; its state is a dict in `accumulate`."""

    def count(
        state: dict[str, tuple[str, int]], record: tuple[str, int]
    ) -> tuple[dict[str, tuple[str, int]], tuple[str, int]]:
        key = w.first(record)
        state[key] = w.add(state[key], record) if key in state else record
        return state, state[key]

    source = Stream()
    pairs = source.map(w.split).flatten().map(w.pair)
    pairs.accumulate(count, start={}, returns_state=True).sink(sink)
    for line in lines:
        source.emit(line)


def sage_chain_uncounted(data: Iterable[int], sink: w.Sink) -> None:
    """The chain on SAGE with the counting cut out of the generated loop, to see what it costs."""
    write = LoopWriter.line

    def write_uncounted(self: LoopWriter, text: str, origin: Any = None) -> None:
        write(self, "pass" if text.endswith(" += 1") else text, origin)

    LoopWriter.line = write_uncounted  # type: ignore[method-assign]
    try:
        sage_chain(data, sink)
    finally:
        LoopWriter.line = write  # type: ignore[method-assign]
