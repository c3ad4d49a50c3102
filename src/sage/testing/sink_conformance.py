"""`check_sink`: the conformance suite of sinks. A connector's own tests call it.

It does what the runtime does with a writer, and what a crash does to it: a writer is closed where
it is, and another one opened with what a checkpoint says.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cloudpickle

from sage.common.suggest import shorten
from sage.dataflow.function.sink import Sink, SinkWriter, TwoPhaseWriter
from sage.testing.context import StandaloneContext

_RECORDS: Final = tuple(f"record {number}" for number in range(8))


@dataclass(frozen=True)
class _Laws:
    make_sink: Callable[[], Sink[Any]]
    read_back: Callable[[Sink[Any]], Sequence[Any]]
    records: Sequence[Any]

    def fresh(self) -> _Outside:
        sink = self.make_sink()
        return _Outside(cloudpickle.loads(cloudpickle.dumps(sink)), self)


@dataclass(frozen=True)
class _Outside:
    """A sink whose place is empty at first."""

    sink: Sink[Any]
    laws: _Laws

    def open(self, state: Any = None, subtask: int = 0) -> Any:
        context = StandaloneContext(subtask_index=subtask, parallelism=2)
        return self.sink.create_writer(context, state)

    def demand(self, count: int, where: str) -> None:
        """Demand that the first `count` records are outside, each once, in order."""
        self.demand_records(self.laws.records[:count], where)

    def demand_records(self, expected: Sequence[Any], where: str) -> None:
        found = list(self.laws.read_back(self.sink))
        if found != list(expected):
            raise AssertionError(
                f"{where}: outside are {shorten(found)}, expected is {shorten(list(expected))}"
            )


def check_sink(
    make_sink: Callable[[], Sink[Any]],
    read_back: Callable[[Sink[Any]], Sequence[Any]],
    records: Sequence[Any] = _RECORDS,
) -> None:
    """Demand that a sink keeps the contract of `Sink`, `SinkWriter` and `TwoPhaseWriter`.

    Any sink: after `flush` all is outside, in order; `snapshot` survives pickling, and a writer
    made from it goes on. A two-phase one: nothing is outside before `commit`, and exactly what
    was prepared is outside after it; a second `commit` changes nothing, also from a new writer
    after a crash; what was written or prepared by an attempt that no checkpoint covers never
    appears; several checkpoints are committed in order; subtasks, and runs without checkpoints,
    do not touch what belongs to another.

    Args:
        make_sink: Makes the sink, for a place outside that is empty; called for each law.
        read_back: Returns what is visible in the place of the sink: the records in order.
        records: Eight different records that the sink takes.

    Raises:
        AssertionError: the sink breaks the contract; the text says where.
        Exception: what the sink raises.

    Examples:
        >>> import tempfile, pathlib
        >>> from sage.connector.file_sink import FileSink
        >>> def read_back(sink):
        ...     files = sorted(pathlib.Path(sink.directory).glob("part-*"))
        ...     return [line for file in files for line in file.read_text().splitlines()]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_sink(lambda: FileSink(tempfile.mkdtemp(dir=folder)), read_back)
    """
    if len(records) != len(_RECORDS):
        raise ValueError(f"check_sink needs {len(_RECORDS)} records, not {len(records)}")
    laws = _Laws(make_sink, read_back, records)
    writer = laws.fresh().open()
    writer.close()
    two_phase = isinstance(writer, TwoPhaseWriter)
    for law in _TWO_PHASE if two_phase else _ONE_PHASE:
        law(laws)


def _survive(value: Any) -> Any:
    """Return what is found in a checkpoint for what was put into it."""
    try:
        return pickle.loads(pickle.dumps(value, 5))  # noqa: S301 - our own bytes
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{shorten(value)} is no plain data: {error}") from error


def _write(writer: SinkWriter[Any], records: Sequence[Any]) -> None:
    """Write in batches of several lengths; they may be changed afterwards."""
    start = 0
    for length in (1, 0, 2, len(records)):
        batch = list(records[start : start + length])
        writer.write_batch(batch)
        batch.clear()
        start += length


def _checkpoint(writer: Any, number: int) -> tuple[Any, Any]:
    """Do what the runtime does at a checkpoint; return the committable and the state."""
    writer.flush()
    prepared = _survive(writer.prepare_commit(number))
    return prepared, _survive(writer.snapshot())


def _commit(writer: Any, *prepared: Any) -> None:
    for committable in prepared:
        if committable is not None:
            writer.commit(committable)


# ---- any sink


def _flushed_is_outside(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records[:5])
    writer.flush()
    outside.demand(5, "after flush()")
    _write(writer, laws.records[5:])
    writer.flush()
    writer.flush()
    writer.close()
    outside.demand(8, "after a second flush() and close()")


def _a_restored_writer_goes_on(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records[:5])
    writer.flush()
    state = _survive(writer.snapshot())
    writer.close()
    writer = outside.open(state)
    outside.demand(5, "after a writer has been restored")
    _write(writer, laws.records[5:])
    writer.flush()
    writer.close()
    outside.demand(8, "after the restored writer has written on")


# ---- two-phase sinks


def _nothing_before_commit(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records[:5])
    outside.demand(0, "before flush()")
    writer.flush()
    prepared = _survive(writer.prepare_commit(1))
    outside.demand(0, "after prepare_commit(), before commit()")
    _write(writer, laws.records[5:])
    _commit(writer, prepared)
    outside.demand(5, "after commit()")
    writer.close()
    outside.demand(5, "after close(): what was not prepared does not appear")


def _commit_twice(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records)
    prepared, state = _checkpoint(writer, 1)
    _commit(writer, prepared, prepared)
    outside.demand(8, "after a second commit()")
    writer.close()
    for attempt in range(2):
        writer = outside.open(state)
        _commit(writer, prepared)
        writer.close()
        outside.demand(8, f"crashed after commit(), restored and committed again ({attempt + 1})")


def _crash_before_commit(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records[:5])
    prepared, state = _checkpoint(writer, 1)
    _write(writer, laws.records[5:])
    writer.close()
    outside.demand(0, "crashed before commit()")
    writer = outside.open(state)
    _commit(writer, prepared)
    outside.demand(5, "restored, and committed what the checkpoint says")
    _write(writer, laws.records[5:])
    second, _ = _checkpoint(writer, 2)
    _commit(writer, second)
    writer.close()
    outside.demand(8, "the restored writer has written on and committed")


def _abandoned(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records[:3])
    first, state = _checkpoint(writer, 1)
    _commit(writer, first)
    _write(writer, laws.records[3:])
    _checkpoint(writer, 2)  # which never completes
    writer.close()
    writer = outside.open(state)
    _commit(writer, first)
    outside.demand(3, "restored from a checkpoint before what was prepared")
    _write(writer, laws.records[3:])
    again, _ = _checkpoint(writer, 2)
    _commit(writer, again)
    writer.close()
    outside.demand(8, "after a checkpoint was abandoned and taken again, under the same number")


def _abandoned_before_any_checkpoint(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    _write(writer, laws.records)
    _checkpoint(writer, 1)
    writer.close()
    writer = outside.open()
    outside.demand(0, "started again before any checkpoint was complete")
    _write(writer, laws.records)
    prepared, _ = _checkpoint(writer, 1)
    _commit(writer, prepared)
    writer.close()
    outside.demand(8, "started again without a checkpoint, and committed")


def _several_in_order(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    prepared = []
    state = None
    for number in range(4):
        _write(writer, laws.records[2 * number : 2 * number + 2])
        committable, state = _checkpoint(writer, number + 9)  # 9, 10: numbers are no text
        prepared.append(committable)
    outside.demand(0, "four checkpoints prepared and none committed")
    _commit(writer, *prepared[:2])
    outside.demand(4, "two of four checkpoints committed")
    writer.close()
    writer = outside.open(state)
    _commit(writer, *prepared)
    writer.close()
    outside.demand(8, "two of four checkpoints committed, restored, and all committed")


def _nothing_to_commit(laws: _Laws) -> None:
    outside = laws.fresh()
    writer = outside.open()
    empty, _ = _checkpoint(writer, 1)
    _commit(writer, empty, empty)
    outside.demand(0, "nothing written")
    _write(writer, laws.records)
    full, _ = _checkpoint(writer, 2)
    empty, _ = _checkpoint(writer, 3)
    _commit(writer, full, empty)
    writer.close()
    outside.demand(8, "a checkpoint without records behind one with records")


def _subtasks(laws: _Laws) -> None:
    outside = laws.fresh()
    first, second = outside.open(subtask=0), outside.open(subtask=1)
    _write(first, laws.records[:4])
    _write(second, laws.records[4:])
    one, two = _checkpoint(first, 1)[0], _checkpoint(second, 1)
    second.close()
    second = outside.open(two[1], subtask=1)
    _commit(second, two[0])
    outside.demand_records(laws.records[4:], "one subtask restored and committed")
    second.close()
    _commit(first, one)
    first.close()
    found = list(laws.read_back(outside.sink))
    for record in laws.records:  # subtasks have no order among them
        count = found.count(record)
        if count != 1:
            raise AssertionError(f"both subtasks committed: {record!r} is outside {count} times")


def _run_again(laws: _Laws) -> None:
    outside = laws.fresh()
    for run in range(2):
        writer = outside.open()
        _write(writer, laws.records[4 * run : 4 * run + 4])
        prepared, _ = _checkpoint(writer, 0)
        _commit(writer, prepared)
        writer.close()
    outside.demand(8, "the job run twice without checkpoints: both runs count")


_ONE_PHASE: Final = (_flushed_is_outside, _a_restored_writer_goes_on)
_TWO_PHASE: Final = (
    _nothing_before_commit,
    _commit_twice,
    _crash_before_commit,
    _abandoned,
    _abandoned_before_any_checkpoint,
    _several_in_order,
    _nothing_to_commit,
    _subtasks,
    _run_again,
)
