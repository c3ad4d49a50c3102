"""Which files a path, a pattern or a list of them stands for, and in which order they are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from typing import TypeAlias

from sage.common.errors import SourceError
from sage.common.suggest import did_you_mean

Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def list_paths(paths: Paths) -> list[str]:
    """Return `paths` as a list of strings.

    Raises:
        SourceError: something in it is no path.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    try:
        return [os.fspath(path) for path in several]
    except TypeError as error:
        raise SourceError(
            f"a file source needs a path, a pattern or a list of them: {error}"
        ) from None


def find_files(paths: Sequence[str]) -> list[str]:
    """Return the files that `paths` name, patterns expanded, each file once.

    Raises:
        SourceError: a file is missing, a directory, or nothing matches a pattern.
    """
    found: dict[str, None] = {}
    for path in paths:
        if has_magic(path) and not os.path.lexists(path):
            found.update(dict.fromkeys(_expand(path)))
        else:
            _check_is_file(path)
            found[path] = None
    if not found:
        raise SourceError("a file source was given an empty list of paths; name at least one file")
    return list(found)


def _expand(pattern: str) -> list[str]:
    matches = [path for path in glob(pattern, recursive=True) if not os.path.isdir(path)]
    if not matches:
        raise SourceError(f"no file matches {pattern!r} {looked_from(pattern)}")
    return sorted(matches, key=natural_key)


def natural_key(path: str) -> list[tuple[int, str]]:
    """Return a sort key that takes runs of digits as numbers: `part-2` before `part-10`.

    Examples:
        >>> sorted(["part-10", "part-2"], key=natural_key)
        ['part-2', 'part-10']
    """
    parts = re.split(r"([0-9]+)", path)
    return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]


def _check_is_file(path: str) -> None:
    if os.path.isdir(path):
        pattern = os.path.join(path, "*")
        raise SourceError(f"{path} is a directory; name the files in it, for example {pattern!r}")
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        near = did_you_mean(name, os.listdir(folder or ".")) if os.path.isdir(folder or ".") else ""
        raise SourceError(f"there is no file {path!r} {looked_from(path)}.{near}")


def looked_from(path: str) -> str:
    """Return from where a relative path was looked for, for errors."""
    return "" if os.path.isabs(path) else f"(looked from {os.getcwd()})"
