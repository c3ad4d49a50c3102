"""`check_source`: the conformance suite of sources. A connector's own tests call it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cloudpickle

from sage.common.suggest import shorten
from sage.dataflow.function.source import Source, SourceReader, SplitBatch, deal_splits
from sage.testing.context import StandaloneContext, wait_batch

_BATCH_SIZES: Final = (1, 2, 1000)
_PARALLELISMS: Final = (1, 2, 3)


@dataclass
class _Run:
    """What one run of a source gave.

    Attributes:
        records: All its records.
        splits: The split that each is of; None: it is not told.
        batches: Each batch as it was returned, and a copy made then.
        stops: Each position, with the number of records before it.
    """

    records: list[Any]
    splits: list[str | None]
    batches: list[tuple[Sequence[Any], list[Any]]]
    stops: list[tuple[int, Mapping[str, Any]]]

    def streams(self, begin: int = 0) -> dict[str | None, list[Any]]:
        """Return the records from an index on, by split: only within a split there is an order."""
        found: dict[str | None, list[Any]] = {}
        for split, record in zip(self.splits[begin:], self.records[begin:], strict=True):
            found.setdefault(split, []).append(record)
        return found


def check_source(
    make_source: Callable[[], Source[Any]],
    expected: Sequence[Any] | None = None,
    *,
    patience: float = 10.0,
) -> list[Any]:
    """Demand that a source keeps the contract of `Source` and `SourceReader`.

    It is run to its end in batches of 1, 2 and 1000 records; at every position on the way a new
    reader is restored and must give exactly the rest. Besides: the splits are stable and dealt out to
    subtasks, positions name every split and survive pickling, as the source does; a batch stays as it
    is, is not too long, and of a split that was open; gauges are numbers; a reader may be told that a
    checkpoint is complete, at every position; the end is `None`, and a reader can be closed twice. The
    time grows with the square of the number of records: some tens of them show what there is to show.

    Args:
        make_source: Makes the source, one that ends; called for each run.
        expected: The records it must give; without it, all runs must agree. A source that tells its
            splits apart may give them in any order, those of each split in theirs.
        patience: For how many seconds the source may give nothing.

    Returns:
        The records.

    Raises:
        AssertionError: the source breaks the contract; the text says where.
        Exception: what the source raises.

    Examples:
        >>> from sage.connector.collection import CollectionSource
        >>> check_source(lambda: CollectionSource([1, 2, 3]), [1, 2, 3])
        [1, 2, 3]
    """
    _check_splits(make_source())
    first: _Run | None = None
    for batch_size in _BATCH_SIZES:
        run = _run(make_source(), None, batch_size, patience)
        where = f"read in batches of {batch_size}"
        if expected is not None:
            _demand_expected(run, list(expected), where)
        first = first or run
        _demand_same(run.streams(), first.streams(), where)
        for count, position in run.stops:
            rest = _run(make_source(), position, batch_size, patience)
            where = f"restored after record {count} at {position!r}, batches of {batch_size}"
            _demand_same(rest.streams(), run.streams(count), where)
    return first.records if first else []


def _check_splits(source: Source[Any]) -> None:
    first, second = list(source.list_splits()), list(source.list_splits())
    _demand(first == second, f"list_splits() gave {first}, then {second}: it must be stable")
    _demand(len(set(first)) == len(first), f"list_splits() names a split twice: {first}")
    copy: Source[Any] = pickle.loads(cloudpickle.dumps(source))  # noqa: S301 - our own bytes
    for parallelism in _PARALLELISMS:
        dealt, again = (deal_splits(s, first, parallelism) for s in (source, copy))
        _demand(
            dealt == again, f"subtask_of() deals {dealt}, and {again} after the source was pickled"
        )


def _run(
    source: Source[Any], position: Mapping[str, Any] | None, max_records: int, patience: float
) -> _Run:
    context = StandaloneContext(is_restored=position is not None, takes_checkpoints=True)
    splits = dict.fromkeys(source.list_splits()) if position is None else dict(position)
    reader = source.create_reader(splits, context)
    try:
        run = _Run([], [], [], [(0, _take_position(reader, splits))])
        while (batch := wait_batch(reader, context, max_records, patience)) is not None:
            _check_batch(batch, max_records)
            run.batches.append((batch, list(batch)))
            run.records += batch
            run.splits += [_split_of(reader, batch)] * len(batch)
            run.stops.append((len(run.records), _take_position(reader, splits)))
        run.stops.append((len(run.records), _take_position(reader, splits)))
    finally:
        reader.close()
        reader.close()
    for batch, copy in run.batches:
        _demand(list(batch) == copy, f"a batch was {shorten(copy)} and became {shorten(batch)}")
    return run


def _take_position(reader: SourceReader[Any], splits: Mapping[str, Any]) -> Mapping[str, Any]:
    position = reader.snapshot()
    _demand(
        position.keys() >= splits.keys(),
        f"snapshot() names the splits {list(position)}; the reader was given {list(splits)}",
    )
    for name, figure in reader.gauges().items():
        _demand(type(figure) is int, f"gauges() gives {name} as {figure!r}, no whole number")
    copy: Mapping[str, Any] = pickle.loads(pickle.dumps(position))  # noqa: S301 - our own bytes
    _demand(copy == position, f"the position {position!r} is another one after pickling: {copy!r}")
    reader.checkpoint_complete(copy)
    return copy


def _check_batch(batch: Any, max_records: int) -> None:
    is_sequence = isinstance(batch, Sequence)
    _demand(is_sequence, f"read_batch() returned {shorten(batch)}; it must be a sequence")
    length = len(batch)
    _demand(length <= max_records, f"read_batch({max_records}) returned {length} records")


def _split_of(reader: SourceReader[Any], batch: Sequence[Any]) -> str | None:
    split = batch.split if isinstance(batch, SplitBatch) else None
    told = reader.open_splits is not None
    _demand(
        told == (split is not None),
        "a reader that has open_splits returns SplitBatches, and no other does; this one has "
        f"{reader.open_splits!r} and returned a {type(batch).__name__}",
    )
    known = reader.snapshot()
    _demand(split is None or split in known, f"a batch is of {split!r}, not in {list(known)}")
    return split


def _demand_expected(run: _Run, expected: list[Any], where: str) -> None:
    """Demand the records that are expected: in their order, unless splits are told apart."""
    found, rest = run.records, list(run.records)
    if all(split is None for split in run.splits):
        _demand_list(found, expected, where)
        return
    for record in expected:
        _demand(record in rest, f"{where}: {shorten(record)} is missing")
        rest.remove(record)
    _demand(not rest, f"{where}: {shorten(rest)} come besides what is expected")


def _demand_same(
    found: dict[str | None, list[Any]], expected: dict[str | None, list[Any]], where: str
) -> None:
    for split in {**expected, **found}:
        of = where if split is None else f"{where}, split {split!r}"
        _demand_list(found.get(split, []), expected.get(split, []), of)


def _demand_list(found: list[Any], expected: list[Any], where: str) -> None:
    if found == expected:
        return
    pairs = zip(found, expected, strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
    raise AssertionError(
        f"{where}: {len(found)} records where {len(expected)} are expected; they differ from index "
        f"{index} on: found {shorten(found[index : index + 3])}, "
        f"expected {shorten(expected[index : index + 3])}"
    )


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
