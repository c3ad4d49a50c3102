"""`GroupAdmin`: what a source asks the brokers beside its reading, with a client of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sage.connector.kafka_client import TRANSIENT, client_made
from sage.connector.kafka_partitions import parse_split, split_name
from sage.connector.kafka_settings import KafkaSettings, import_client

_WITHOUT_LEADER: Final = TRANSIENT - {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE"}


class GroupAdmin:
    """Asks the brokers about partitions, and commits offsets for a consumer group.

    It has connections of its own, so that whoever uses it does not hold up a consumer that reads.

    Args:
        settings: Where the brokers are.
        group_id: The consumer group.
        timeout: For how many seconds to wait for each answer.

    Attributes:
        failure: What its methods raise when the brokers do not answer, or refuse.
    """

    def __init__(self, settings: KafkaSettings, group_id: str, timeout: float) -> None:
        kafka = import_client()
        self._settings = settings
        self._client: Any = None
        self.failure: type[Exception] = kafka.KafkaException
        self._place, self._offsets = kafka.TopicPartition, kafka.ConsumerGroupTopicPartitions
        self._group = group_id
        self._timeout = timeout
        uncommitted = settings.properties.get("isolation.level") == "read_uncommitted"
        levels = kafka.IsolationLevel
        self._level = levels.READ_UNCOMMITTED if uncommitted else levels.READ_COMMITTED

    @property
    def client(self) -> Any:
        """The client, which connects by itself.

        Raises:
            ConfigError: a property is unknown, or two of them contradict each other.
        """
        if self._client is None:
            from confluent_kafka.admin import AdminClient  # an extra  # noqa: PLC0415

            # What it has to say about brokers that are away, the client that reads says as well.
            properties = {**self._settings.client_properties(), "log_level": 0}
            self._client = client_made(self._settings, lambda: AdminClient(properties))
        return self._client

    def renew(self) -> None:
        """Use another client from now on.

        One that has asked a broker that is gone keeps on asking it when others have taken over.
        """
        self._client = None

    def bounds(self, splits: Iterable[str], *, earliest: bool = False) -> dict[str, int]:
        """Return the end of each partition, for readers as the settings have it, or its start.

        Those that have no leader at the moment are left out.

        Raises:
            KafkaException: the brokers do not answer, or refuse.
        """
        from confluent_kafka.admin import OffsetSpec  # an extra  # noqa: PLC0415

        which = OffsetSpec.earliest() if earliest else OffsetSpec.latest()
        asked = {self._place(*parse_split(split)): which for split in splits}
        if not asked:
            return {}
        answers = self.client.list_offsets(
            asked, isolation_level=self._level, request_timeout=self._timeout
        )
        found = {}
        for place, answer in answers.items():
            error = self._error_of(answer)
            if error is None:
                # negative: there was no answer in time, and no error either
                if (offset := answer.result().offset) >= 0:
                    found[split_name(place.topic, place.partition)] = offset
            elif error.name() not in _WITHOUT_LEADER:
                raise self.failure(error)
        if len(found) < len(asked):
            self.renew()
        return found

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit offsets by topic and number of the partition.

        Raises:
            KafkaException: the brokers do not answer, or refuse.
        """
        places = [self._place(*place, at) for place, at in offsets.items()]
        asked = [self._offsets(self._group, places)]
        answers = self.client.alter_consumer_group_offsets(asked, request_timeout=self._timeout)
        for answer in answers.values():
            error = self._error_of(answer)
            places = [] if error is not None else answer.result().topic_partitions
            for wrong in [error, *(place.error for place in places)]:
                if wrong is not None:
                    raise self.failure(wrong)

    def _error_of(self, answer: Any) -> Any:
        # Raised, its exception would refer to its future and that to the client, which then lives on.
        error = answer.exception()
        if error is None or isinstance(error, self.failure):
            return error and error.args[0]
        raise error
