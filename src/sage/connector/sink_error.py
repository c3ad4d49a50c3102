"""`SinkError`: what the sinks of this package raise on purpose."""

from __future__ import annotations

from pathlib import Path

from sage.common.errors import SageError


class SinkError(SageError):
    """A sink cannot be opened, written, committed or restored."""


def cannot(what: str, path: Path, error: OSError) -> SinkError:
    """Return an error that says what could not be done to which file, and why."""
    return SinkError(f"cannot {what} {path}: {error.strerror or error}")
