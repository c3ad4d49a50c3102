"""What travels through the channels between slots.

A frame is a tuple of what it is, a number (of an exchange, or a loop) and a body. Plain ones are
packed, which takes half of the time; what users have classes for is pickled.
"""

from __future__ import annotations

import pickle
from enum import IntEnum
from typing import Any, Final

from sage.kernel.transport.plain_codec import is_packed, pack_plain, unpack_plain

_OWN: Final = 3
"""The depth of what is in a record: a frame is at 0, a batch at 1, a record at 2."""


class FrameKind(IntEnum):
    """What a frame is."""

    BATCH = 0
    TIME = 1
    END = 2
    BARRIER = 3
    LOOP = 4
    FULL = 5


def write_frame(kind: int, number: int, body: object, *, wrapped: bool = False) -> bytes:
    """Return a frame as bytes.

    Args:
        kind: What it is.
        number: Of which exchange, or loop.
        body: What it says: plain, or picklable.
        wrapped: Whether each record of a batch is in a tuple, its key or its time behind it.

    Raises:
        Exception: The body cannot be pickled; of whatever type its classes raise.

    Examples:
        >>> read_frame(write_frame(FrameKind.BATCH, 7, ["to", "be"]))
        (0, 7, ['to', 'be'])
    """
    frame = (int(kind), number, body)
    packed = pack_plain(frame, _OWN + wrapped)
    if packed is not None:
        return packed
    try:
        return pickle.dumps(frame, 5)
    except (AttributeError, pickle.PicklingError, TypeError):
        import cloudpickle  # for what the main program or a function has defined  # noqa: PLC0415

        return cloudpickle.dumps(frame, 5)  # type: ignore[no-any-return]


def read_frame(frame: bytes) -> Any:
    """Return what was written: kind, number and body."""
    if is_packed(frame):
        return unpack_plain(frame)
    return pickle.loads(frame)  # noqa: S301 - of this very job, by this user


def can_be_sent(value: object) -> bool:
    """Say whether a value can go to another process."""
    try:
        write_frame(FrameKind.BATCH, 0, value)
    except Exception:  # noqa: BLE001 - that is the question
        return False
    return True
