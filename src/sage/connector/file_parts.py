"""Parts of big files: the names of splits that are some bytes or row groups of a file, and back.

A part of a text is named by its first byte and by how many it has, not by where the file ends: so a
file that grows keeps the names of its parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Final

from sage.common.errors import SourceError

_PART: Final = re.compile(r"(.+)#(?:bytes|row_groups)=([0-9]+)\+([0-9]+)", re.DOTALL)


def name_parts(path: str, part_bytes: int) -> list[str]:
    """Return the parts of a file; the file itself if it has no more bytes than a part.

    Raises:
        SourceError: the size of the file cannot be found out.
    """
    try:
        size = os.path.getsize(path)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    if size <= part_bytes:
        return [path]
    return [f"{path}#bytes={begin}+{part_bytes}" for begin in range(0, size, part_bytes)]


def name_row_groups(path: str, count: int) -> list[str]:
    """Return the parts of a Parquet file that are a row group each."""
    return [f"{path}#row_groups={number}+1" for number in range(count)] if count > 1 else [path]


def parse_part(split: str) -> tuple[str, tuple[int, int] | None]:
    """Return the file of a split, and its first byte or row group and the one behind its last.

    Examples:
        >>> parse_part("big.log#bytes=100+50"), parse_part("small.log")
        (('big.log', (100, 150)), ('small.log', None))
    """
    match = _PART.fullmatch(split)
    if match is None:
        return split, None
    begin, count = int(match[2]), int(match[3])
    return match[1], (begin, begin + count)


def check_parts(splits: Iterable[str]) -> None:
    """Demand that each file is cut in one way only: its lines would be read twice otherwise.

    Raises:
        SourceError: a file has been cut in another way when a checkpoint was taken.
    """
    cuts: dict[str, int | None] = {}
    for split in splits:
        path, part = parse_part(split)
        length = None if part is None else part[1] - part[0]
        if cuts.setdefault(path, length) != length:
            raise SourceError(
                f"cannot continue {path}: how it is split, or the file itself, was another when the "
                "checkpoint was taken. Set it as it was, or start without the checkpoint"
            )


def check_split_bytes(split_bytes: int | None) -> int | None:
    """Return `split_bytes` if files can be cut so.

    Raises:
        SourceError: they cannot.
    """
    if split_bytes is not None and (type(split_bytes) is not int or split_bytes < 1):
        raise SourceError(
            f"split_bytes is a whole number of at least 1, or None, not {split_bytes!r}"
        )
    return split_bytes


def all_parts(paths: Sequence[str], part_bytes: int, whole: Iterable[str]) -> list[str]:
    """Return the parts of all files, those in `whole` uncut."""
    uncut = set(whole)
    return [
        p for path in paths for p in ([path] if path in uncut else name_parts(path, part_bytes))
    ]
