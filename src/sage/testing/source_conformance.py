"""`check_source`: the conformance suite of sources. A connector's own tests call it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage.common.suggest import shorten
from sage.dataflow.function.source import Source, SourceReader
from sage.testing.context import StandaloneContext, wait_batch

_BATCH_SIZES: Final = (1, 2, 1000)


@dataclass
class _Run:
    """What one run of a source gave.

    Attributes:
        records: All its records.
        batches: Each batch as it was returned, and a copy made then.
        stops: Each position, with the number of records before it.
    """

    records: list[Any]
    batches: list[tuple[Sequence[Any], list[Any]]]
    stops: list[tuple[int, Mapping[str, Any]]]


def check_source(
    make_source: Callable[[], Source[Any]],
    expected: Sequence[Any] | None = None,
    *,
    patience: float = 10.0,
) -> list[Any]:
    """Demand that a source keeps the contract of `Source` and `SourceReader`.

    It is run to its end in batches of 1, 2 and 1000 records; at every position on the way a new
    reader is restored and must give exactly the rest. Besides: the splits are stable, positions
    name every split and survive pickling, a batch stays as it is and is not too long, the end is
    `None`, and a reader can be closed twice. The time grows with the square of the number of
    records: some tens of them show what there is to show.

    Args:
        make_source: Makes the source, one that ends; called for each run.
        expected: The records it must give; without it, all runs must agree.
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
    records = None if expected is None else list(expected)
    for batch_size in _BATCH_SIZES:
        run = _run(make_source(), None, batch_size, patience)
        records = run.records if records is None else records
        _demand_same(run.records, records, f"read in batches of {batch_size}")
        for count, position in run.stops:
            rest = _run(make_source(), position, batch_size, patience)
            where = f"restored after record {count} at {position!r}, batches of {batch_size}"
            _demand_same(rest.records, records[count:], where)
    return records or []


def _check_splits(source: Source[Any]) -> None:
    first, second = list(source.list_splits()), list(source.list_splits())
    _demand(first == second, f"list_splits() gave {first}, then {second}: it must be stable")
    _demand(len(set(first)) == len(first), f"list_splits() names a split twice: {first}")


def _run(
    source: Source[Any], position: Mapping[str, Any] | None, max_records: int, patience: float
) -> _Run:
    context = StandaloneContext()
    splits = dict.fromkeys(source.list_splits()) if position is None else dict(position)
    reader = source.create_reader(splits, context)
    try:
        run = _Run([], [], [(0, _take_position(reader, splits))])
        while (batch := wait_batch(reader, context, max_records, patience)) is not None:
            _check_batch(batch, max_records)
            run.batches.append((batch, list(batch)))
            run.records += batch
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
        position.keys() == splits.keys(),
        f"snapshot() names the splits {list(position)}; the reader was given {list(splits)}",
    )
    copy: Mapping[str, Any] = pickle.loads(pickle.dumps(position))  # noqa: S301 - our own bytes
    _demand(copy == position, f"the position {position!r} is another one after pickling: {copy!r}")
    return copy


def _check_batch(batch: Any, max_records: int) -> None:
    is_sequence = isinstance(batch, Sequence)
    _demand(is_sequence, f"read_batch() returned {shorten(batch)}; it must be a sequence")
    length = len(batch)
    _demand(length <= max_records, f"read_batch({max_records}) returned {length} records")


def _demand_same(found: list[Any], expected: list[Any], where: str) -> None:
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
