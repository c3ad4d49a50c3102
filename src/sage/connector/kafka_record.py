"""`KafkaRecord`: what a `KafkaSource` gives: the value of a record, and where it stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

Headers: TypeAlias = list[tuple[str, bytes | None]] | None
"""The headers of a record; a name may come several times."""


# Made once per record: this costs a third of a dict. It is not looked at by the garbage collector,
# which is right for what holds plain data.
class KafkaRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic. Its fields are attributes, and entries as in a dict.

    Attributes:
        value: The value, deserialized; `None` for a record without one, if they are kept.
        key: The key, deserialized; `None` for a record without one.
        topic: The name of the topic.
        partition: The number of the partition.
        offset: Its place in the partition.
        timestamp: Milliseconds since the Unix epoch: when it was made, or came to the broker, as the
            topic is configured.
        headers: Names and values, or `None` if there are none.

    Examples:
        >>> record = KafkaRecord({"id": 7}, b"k", "events", 0, 41, 1_700_000_000_000)
        >>> record.value["id"], record["offset"], record.get("headers")
        (7, 41, None)
        >>> dict(record)["topic"]
        'events'
    """

    value: Any
    key: Any
    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: Headers = None

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, _FIELDS[name])
        except KeyError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    def __contains__(self, name: object) -> bool:
        return name in _FIELDS

    def keys(self) -> Any:
        """Return the names of the fields."""
        return _FIELDS.keys()

    def values(self) -> Any:
        """Return the fields."""
        return [getattr(self, name) for name in _FIELDS]

    def items(self) -> Any:
        """Return the names of the fields with the fields."""
        return [(name, getattr(self, name)) for name in _FIELDS]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field by its name; `default` if there is none of it."""
        return getattr(self, name) if name in _FIELDS else default


_FIELDS = {name: name for name in KafkaRecord.__struct_fields__}
Mapping.register(KafkaRecord)
