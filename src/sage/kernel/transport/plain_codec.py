"""Plain values as bytes: a third of the time of a pickle to write, two thirds to read.

Plain are None, bool, int of 64 bits, float, str, bytes, and tuples, lists and dicts of these; of
exactly these types, so that a value comes back as what it was. What is packed is for a process of the
same machine, now; it is no format to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.kernel.transport._sagequeue import pack, unpack
else:
    try:
        from sage.kernel.transport._sagequeue import pack, unpack
    except ImportError:  # there are no queues either: `sage_queue` says why

        def pack(value: object, own: int) -> bytes | None:
            """Find nothing plain, so that all is pickled."""
            return None

        def unpack(frame: bytes) -> object:
            """Refuse what was packed elsewhere."""
            raise ValueError("no packed value: the compiled part that reads it is missing")


def pack_plain(value: object, own: int = 1) -> bytes | None:
    """Turn a value into bytes, if it is plain.

    Args:
        value: The value.
        own: From which depth on, the value itself being at 0, lists and dicts must belong to what
            they are in alone. One that somebody else holds as well may occur twice, and would come
            back as two: it is not plain.

    Returns:
        The bytes, of which the first is 1 (a pickle's is 128); None if there is anything in the value
        that is not plain, if it is deeper than 32, or comes to more than 16 MiB.

    Examples:
        >>> len(pack_plain(("user-7", 1.5)))
        20
        >>> pack_plain({1, 2}) is None
        True
    """
    return pack(value, own)


def unpack_plain(frame: bytes) -> object:
    """Turn what `pack_plain` returned back into the value.

    Raises:
        ValueError: It is none.

    Examples:
        >>> unpack_plain(pack_plain([("user-7", None)]))
        [('user-7', None)]
    """
    return unpack(frame)


def is_packed(frame: bytes) -> bool:
    """Say whether this was packed here, and not pickled."""
    return frame[:1] == b"\x01"
