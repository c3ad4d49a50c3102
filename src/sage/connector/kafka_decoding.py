"""From messages of the client to the keys and values of one topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sage.common.errors import SourceError
from sage.common.suggest import shorten, text_of
from sage.connector.kafka_deserializers import Decode, DeserializationError, Field, decoder_of
from sage.connector.kafka_record import KafkaRecord


class TopicDecoder:
    """Decodes the keys and values of a topic, many at a time or one by one.

    Args:
        options: Those of the source.
        topic: The topic.

    Raises:
        ConfigError: what a deserializer needs is not installed.
    """

    def __init__(self, options: Mapping[str, Any], topic: str) -> None:
        self._value = decoder_of(options["value_deserializer"], topic, "value")
        self._key = decoder_of(options["key_deserializer"], topic, "key")
        self._keeps_nulls: bool = options["keep_nulls"]
        self._max_bytes: int | None = options["max_value_bytes"]
        self._is_plain = not self._keeps_nulls and self._max_bytes is None

    def values(self, data: Iterator[bytes | None]) -> Iterable[Any]:
        """Decode values.

        Raises:
            Exception: one of them cannot be.
        """
        if self._is_plain and self._value is not None:
            return map(_refusing_null(self._value), data)
        return map(self._checked, data)

    def keys(self, data: Iterator[bytes | None]) -> Iterable[Any]:
        """Decode keys; a record need not have one.

        Raises:
            Exception: one of them cannot be.
        """
        return data if self._key is None else map(_passing_null(self._key), data)

    def _checked(self, data: bytes | None) -> Any:
        if data is None:
            if self._keeps_nulls:
                return None
            raise ValueError("is null: keep_nulls=True lets it through")
        if self._max_bytes is not None and len(data) > self._max_bytes:
            raise ValueError(f"has {len(data)} bytes, more than max_value_bytes={self._max_bytes}")
        return data if self._value is None else self._value(data)

    def decode(self, message: Any) -> tuple[KafkaRecord, DeserializationError | None]:
        """Decode one message.

        Returns:
            The record; or, undecoded, with what is wrong with it.

        Raises:
            SourceError: it is not the record that is at fault.
        """
        field: Field = "value"
        raw = message.value(), message.key()
        place = message.topic(), message.partition(), message.offset()
        rest = (*place, message.timestamp()[1], message.headers())
        try:
            value = self._checked(raw[0])
            field = "key"
            key = next(iter(self.keys(iter(raw[1:]))))
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001 - a deserializer may be anybody's
            told = DeserializationError(*place, field, _reason(error, raw[field == "key"]))
            told.__cause__ = error.with_traceback(None)
            return KafkaRecord(*raw, *rest), told
        return KafkaRecord(value, key, *rest), None


def _refusing_null(decode: Decode) -> Callable[[bytes | None], Any]:
    # Those of msgspec and of bytes raise for None by themselves; a function may do as it likes.
    if getattr(decode, "__self__", None).__class__.__module__.startswith("msgspec"):
        return decode  # type: ignore[return-value]
    return lambda data: decode(data) if data is not None else _raise_null()


def _raise_null() -> Any:
    raise ValueError("is null")


def _passing_null(decode: Decode) -> Callable[[bytes | None], Any]:
    return lambda data: None if data is None else decode(data)


def _reason(error: Exception, data: bytes | None) -> str:
    text = text_of(error)
    if text.startswith(("is null", "has ")):
        return text
    told = f"{type(error).__name__}: {text}"
    return f"cannot be decoded: {told}; its {len(data or b'')} bytes begin {shorten(data, 80)}"
