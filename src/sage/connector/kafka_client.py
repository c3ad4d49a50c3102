"""A consumer of librdkafka that says in the log of a job what it has to say, and no secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sage.common.clock import SystemClock
from sage.common.errors import ConfigError
from sage.common.log import RateLimit, get_logger
from sage.connector.kafka_settings import KafkaSettings, import_client


class ClientLog:
    """Takes what a client says, which may be a line a second while a broker is away.

    Args:
        settings: Knows what must not be shown.
        logger: Where to tell it.

    Attributes:
        errors: How many errors it has told of.
        is_down: Whether no broker could be reached when it last said something about that.
        fault: What it cannot recover from.
    """

    def __init__(self, settings: KafkaSettings, logger: logging.Logger) -> None:
        self._settings = settings
        self._logger = logger
        self._limits: dict[int, RateLimit] = {}
        self.errors = 0
        self.is_down = False
        self.fault: str | None = None

    def log(self, level: int, text: str, *args: object) -> None:
        """Log a line of the client, at a bounded rate for each level."""
        # Whatever ends here: the client keeps on trying, and what it cannot get over it reports.
        level = min(level, logging.WARNING)
        if not self._logger.isEnabledFor(level):
            return
        limit = self._limits.setdefault(level, RateLimit(SystemClock()))
        held = limit.admit()
        if held is not None:
            more = f" ({held} more lines since the last one)" if held else ""
            self._logger.log(level, "%s%s", self._settings.hide(text % args), more)

    def on_error(self, error: Any) -> None:
        """Take note of an error of the client as a whole: brokers away, a login refused."""
        self.errors += 1
        self.is_down = self.is_down or error.name() == "_ALL_BROKERS_DOWN"
        if error.fatal():
            self.fault = self._settings.hide(error.str())
        self.log(logging.WARNING, "Kafka: %s", error.str())

    def on_commit(self, error: Any, offsets: Any) -> None:
        """Take note that offsets could not be committed: they are for those who watch the job."""
        if error is not None:
            self.errors += 1
            self.log(logging.WARNING, "offsets are not committed: %s", error.str())


def create_consumer(
    settings: KafkaSettings, group_id: str, log: ClientLog | None = None, **ours: Any
) -> Any:
    """Return a consumer that is assigned nothing yet; it connects by itself.

    Args:
        settings: Where the brokers are.
        group_id: The consumer group.
        log: Takes what the client says.
        ours: Further properties, with `_` in place of `.`.

    Raises:
        ConfigError: the client is not installed, or does not know a property.
    """
    client = import_client()
    log = log or ClientLog(settings, get_logger("kafka"))
    properties = settings.client_properties(
        group_id=group_id,
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        auto_offset_reset="error",  # an offset that is gone is told, never passed over
        allow_auto_create_topics=False,
        **ours,
    )
    callbacks: dict[str, Callable[..., None]] = {
        "error_cb": log.on_error,
        "on_commit": log.on_commit,
    }
    try:
        return client.Consumer({**properties, **callbacks}, logger=log)
    except (client.KafkaException, TypeError, ValueError) as error:
        text = settings.hide(str(error))
        raise ConfigError(f"the client of Kafka cannot be made: {text}") from None
