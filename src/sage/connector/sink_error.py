"""`SinkError`: what the sinks of this package raise on purpose."""

from __future__ import annotations

from sage.common.errors import SageError


class SinkError(SageError):
    """A sink cannot be opened, written, committed or restored."""
