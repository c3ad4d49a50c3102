"""Objects as messages: pickle protocol 5, large buffers apart and uncopied.

A message is `<count>`, `<count lengths>`, then the pickle and the buffers, each beginning at a
multiple of 16. `encode` gives it as parts for `MessageQueue.put_parts`, which copies each once,
into the queue; `decode` hands the buffers out as views into the message, without a copy.

As with every pickle: decode only what a trusted process put.
"""

from __future__ import annotations

import pickle
import struct

from sage.kernel.transport.queue_contract import BytesLike

_ALIGNMENT = 16
_COUNT = struct.Struct("<Q")


def encode(value: object) -> list[BytesLike]:
    """Turn an object into the parts of a message.

    Args:
        value: Anything picklable. Buffers it exports out of band (NumPy arrays, `PickleBuffer`)
            must stay as they are until the message is put.

    Returns:
        The parts, in order.

    Raises:
        pickle.PicklingError: It cannot be pickled.

    Examples:
        >>> decode(b"".join(encode({"a": 1})))
        {'a': 1}
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    bodies: list[bytes | memoryview] = [pickled, *(buffer.raw() for buffer in buffers)]
    lengths = [body.nbytes if isinstance(body, memoryview) else len(body) for body in bodies]
    header = struct.pack(f"<Q{len(bodies)}Q", len(bodies), *lengths)
    parts: list[BytesLike] = [header]
    position = len(header)
    for body, length in zip(bodies, lengths, strict=True):
        parts.append(bytes(-position % _ALIGNMENT))
        parts.append(body)
        position += -position % _ALIGNMENT + length
    return parts


def decode(message: bytes | bytearray | memoryview) -> object:
    """Turn a message back into the object.

    Args:
        message: What `encode` gave, joined.

    Returns:
        The object. Its buffers are views into `message`, read-only if that is `bytes`.

    Raises:
        pickle.UnpicklingError: It is no pickle.
    """
    view = memoryview(message)
    (count,) = _COUNT.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    position = _COUNT.size * (count + 1)
    bodies = []
    for length in lengths:
        position += -position % _ALIGNMENT
        bodies.append(view[position : position + length])
        position += length
    return pickle.loads(bodies[0], buffers=bodies[1:])  # noqa: S301 - only trusted processes put
