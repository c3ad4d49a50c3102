"""Identifiers that are unique across processes and machines."""

from __future__ import annotations

import uuid


def new_uuid() -> str:
    """Return a fresh random identifier of 32 hexadecimal digits."""
    return uuid.uuid4().hex
