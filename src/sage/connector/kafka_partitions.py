"""Which partitions a `KafkaSource` reads, and from which offset to which: asked of the brokers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from sage.common.errors import ConfigError, SourceError
from sage.common.suggest import did_you_mean, shorten
from sage.connector.kafka_client import Inquiry
from sage.dataflow.time import timestamp_ms

Topics: TypeAlias = tuple[str, ...] | re.Pattern[str]
Reset: TypeAlias = Literal["earliest", "latest", "none"]
Start: TypeAlias = Literal["committed", "earliest", "latest"] | datetime | int | Mapping[str, int]
Stop: TypeAlias = Literal["latest"] | datetime | int | Mapping[str, int] | None
Position: TypeAlias = tuple[int, int | None]
"""The offset of the next record, and that at which to end; `None`: there is no end."""

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "start": ("committed", "earliest", "latest"),
    "stop": ("latest",),
}


def topics_of(topic: str | Iterable[str] | re.Pattern[str]) -> Topics:
    """Return the names of topics, or the pattern of them.

    A text that begins with `^` is a pattern, as Kafka's own clients have it.

    Raises:
        ConfigError: it is neither.

    Examples:
        >>> topics_of("events"), topics_of(["a", "b"]), topics_of("^log-.*").pattern
        (('events',), ('a', 'b'), '^log-.*')
    """
    if isinstance(topic, re.Pattern):
        return topic
    if isinstance(topic, str):
        return re.compile(topic) if topic.startswith("^") else topics_of([topic])
    names = tuple(dict.fromkeys(topic)) if hasattr(topic, "__iter__") else ()
    if not names or not all(name and type(name) is str for name in names):
        raise ConfigError(
            f"topic is the name of a topic, a list of them or a pattern, not {shorten(topic)}"
        )
    return names


def check_bound(option: Literal["start", "stop"], bound: Any) -> Any:
    """Return where to start or stop, checked; a `datetime` as milliseconds.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(bound, Mapping) or (option == "stop" and bound is None):
        return bound
    known = _NAMES[option]
    if isinstance(bound, str):
        if bound in known:
            return bound
        near = did_you_mean(bound, known)
        raise ConfigError(f"{option} is one of {', '.join(map(repr, known))}, not {bound!r}.{near}")
    try:
        return timestamp_ms(bound)
    except TypeError:
        raise ConfigError(
            f"{option} is one of {', '.join(map(repr, known))}, a datetime or its milliseconds, or "
            f"a dict of offsets such as {{'events:0': 7}}, not {shorten(bound)}"
        ) from None


def split_name(topic: str, partition: int) -> str:
    """Return the name of a partition as a split: `"events:3"`; no topic has a colon in its name."""
    return f"{topic}:{partition}"


def parse_split(split: str) -> tuple[str, int]:
    """Return the topic and the number of a partition."""
    topic, _, partition = split.rpartition(":")
    return topic, int(partition)


def owner_of(split: str, parallelism: int) -> int:
    """Return which subtask reads a partition: those of a topic in turn, from a place of its own.

    Examples:
        >>> [owner_of(f"events:{partition}", 2) for partition in range(4)]
        [0, 1, 0, 1]
    """
    topic, partition = parse_split(split)
    return (zlib.crc32(topic.encode()) + partition) % parallelism


def list_partitions(brokers: Inquiry, topics: Topics) -> list[str]:
    """Return the partitions that there are, in order.

    Args:
        brokers: Are asked.
        topics: Of which topics; if they are named, all must be there.

    Raises:
        SourceError: a topic is not there.
        KafkaException: the brokers do not answer, or refuse.
    """
    found = brokers.ask(lambda seconds: brokers.client.list_topics(timeout=seconds)).topics
    if isinstance(topics, re.Pattern):
        wanted = [n for n in sorted(found) if topics.match(n) and not n.startswith("__")]
    else:
        wanted = list(topics)
        for name in wanted:
            if name not in found:
                raise SourceError(f"there is no topic {name!r}.{did_you_mean(name, found)}")
    return [
        split_name(name, number) for name in wanted for number in sorted(found[name].partitions)
    ]


class OffsetFinder:
    """Asks the brokers for offsets to start and to stop at.

    Args:
        brokers: Are asked, through a consumer.
    """

    def __init__(self, brokers: Inquiry) -> None:
        from confluent_kafka import TopicPartition  # an extra  # noqa: PLC0415

        self._brokers = brokers
        self._client = brokers.client
        self._make = TopicPartition
        self._bounds: dict[str, tuple[int, int]] = {}
        self.notes: list[str] = []

    def starts(self, splits: Sequence[str], start: Any, reset: Reset) -> dict[str, int]:
        """Return the offset at which each partition begins.

        Raises:
            SourceError: none is known, and `reset` is `"none"`.
            KafkaException: the brokers do not answer, or refuse.
        """
        if not splits:
            return {}
        if start == "committed":
            known = self._committed(splits)
        elif isinstance(start, Mapping):
            known = {split: start[split] for split in splits if split in start}
        elif isinstance(start, int):
            known = self._at(splits, start)
        else:
            return {split: self._end(split, start) for split in splits}
        return {split: self._checked(split, known.get(split), reset) for split in splits}

    def stops(self, splits: Sequence[str], stop: Any) -> dict[str, int]:
        """Return the offset at which each partition ends: that of the first record not to be read.

        Raises:
            SourceError: no offset is given for a partition.
            KafkaException: the brokers do not answer, or refuse.
        """
        if isinstance(stop, int) and splits:
            return self._at(splits, stop)
        if stop == "latest":
            return {split: self._end(split, stop) for split in splits}
        for split in splits:
            if split not in stop:
                raise SourceError(f"stop= names no offset for {split}, and does for {list(stop)}")
        return {split: stop[split] for split in splits}

    def _checked(self, split: str, offset: int | None, reset: Reset) -> int:
        """Return an offset that there is; what is out of range begins where `reset` says."""
        if offset is not None:
            low, high = self._range(split)
            if low <= offset <= high:
                return offset
            self.notes.append(
                f"{split} has no offset {offset} any more, only {low} to {high}: it is read from "
                f"the {reset} one, as auto_offset_reset says"
            )
        if reset == "none":
            raise SourceError(
                f"nothing says where to begin with {split}, and auto_offset_reset is 'none'"
            )
        return self._end(split, reset)

    def _committed(self, splits: Sequence[str]) -> dict[str, int]:
        asked = [self._make(*parse_split(split)) for split in splits]
        answers = self._brokers.ask(lambda s: self._client.committed(asked, timeout=s))
        return {split_name(a.topic, a.partition): a.offset for a in answers if a.offset >= 0}

    def _at(self, splits: Sequence[str], ms: int) -> dict[str, int]:
        """Return the offset of the first record of a time or later; the end where there is none."""
        asked = [self._make(*parse_split(split), ms) for split in splits]
        found = self._brokers.ask(lambda s: self._client.offsets_for_times(asked, timeout=s))
        answers = {split_name(a.topic, a.partition): a.offset for a in found}
        return {s: o if o >= 0 else self._end(s, "latest") for s, o in answers.items()}

    def _end(self, split: str, which: str) -> int:
        low, high = self._range(split)
        return low if which == "earliest" else high

    def _range(self, split: str) -> tuple[int, int]:
        if split not in self._bounds:
            asked = self._make(*parse_split(split))
            found = self._brokers.ask(
                lambda s: self._client.get_watermark_offsets(asked, timeout=s)
            )
            if found is None:
                raise SourceError(f"the brokers have not told the offsets of {split} in time")
            self._bounds[split] = found
        return self._bounds[split]
