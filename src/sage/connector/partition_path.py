"""Directories by record: which directory of a partitioned sink a record goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from sage.common.suggest import shorten
from sage.connector.sink_error import SinkError
from sage.dataflow.function.keyed import field_getter

PartitionBy: TypeAlias = str | Sequence[str] | Callable[[Any], str]

_NULL: Final = "__HIVE_DEFAULT_PARTITION__"  # what Hive, Spark and pyarrow write and read for it


def partition_function(partition_by: PartitionBy) -> Callable[[Any], str]:
    """Return a function from a record to the directory it goes to, below that of the sink.

    Args:
        partition_by: The name of a field, or several: the directories are called `field=value`, as
            Hive, Spark and pyarrow do, each below the one before. Or a function that returns the
            path itself.

    Raises:
        SinkError: it is none of these.

    Examples:
        >>> partition_function(["origin", "day"])({"origin": "JFK", "day": "3/7"})
        'origin=JFK/day=3%2F7'
    """
    if callable(partition_by):
        return partition_by
    names: Any = [partition_by] if isinstance(partition_by, str) else partition_by
    if not isinstance(names, Sequence) or not names or not all(map(_is_field, names)):
        raise SinkError(
            "partition_by is the name of a field, a list of them, or a function from a record to a "
            f"path such as 'day=2026-11-21'; not {partition_by!r}"
        )
    fields = [(f"{quote(name, safe='')}=", field_getter(name)) for name in names]
    return lambda record: "/".join([name + _text(get(record)) for name, get in fields])


def _is_field(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _text(value: Any) -> str:
    text = _NULL if value is None else str(value)
    return quote(text, safe=" ,;@+$!()[]{}~") or "%00"


def check_partition(path: object) -> str:
    """Return `path` if it can be a directory of a sink.

    Raises:
        SinkError: it leads elsewhere, or to a place that readers pass over.
    """
    parts = path.split("/") if isinstance(path, str) else []
    if not parts or any(not part or part.startswith(".") or "\0" in part for part in parts):
        raise SinkError(
            "partition_by returns a path below the directory of the sink, such as "
            f"'day=2026-11-21', no part of which is empty or begins with a dot; not {path!r}"
        )
    return "/".join(parts)


def part_records(
    function: Callable[[Any], str] | None, values: Sequence[Any]
) -> Mapping[str, Sequence[Any]]:
    """Return the records of each directory, in their order.

    Raises:
        SinkError: the function raises, or returns what is no text.
    """
    if function is None:
        return {"": values}
    groups: dict[str, list[Any]] = {}
    for value in values:
        try:
            groups.setdefault(function(value), []).append(value)
        except Exception as error:
            raise SinkError(
                f"partition_by has no directory for {shorten(value)}: {error}"
            ) from error
    return groups
