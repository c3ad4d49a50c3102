"""What goes wrong with state on the disk."""

from __future__ import annotations

from sage.common.errors import SageError


class DiskStateError(SageError):
    """The disk, or the database on it, did not do what it should; the message says which."""


class DiskStateLockedError(DiskStateError):
    """The directory is in use by another store, here or in another process."""


class DiskStateClosedError(DiskStateError):
    """The store was closed by its own user."""


class StateKeyError(DiskStateError, TypeError):
    """A value of this type cannot be a key of state on the disk."""
