"""A consumer of librdkafka that says in the log of a job what it has to say, and no secrets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sage.common.clock import SystemClock
from sage.common.errors import ConfigError
from sage.common.log import RateLimit, get_logger
from sage.connector.kafka_settings import KafkaSettings, import_client

T = TypeVar("T")

_ASK_AGAIN_SECONDS: Final = 0.1
_FIRST_TURN_SECONDS: Final = 1.0
TRANSIENT: Final = frozenset({
    "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_WAIT_COORD", "_MAX_POLL_EXCEEDED",
    "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE", "REQUEST_TIMED_OUT",
    "BROKER_NOT_AVAILABLE", "NETWORK_EXCEPTION", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH",
    "OFFSET_NOT_AVAILABLE", "KAFKA_STORAGE_ERROR", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR",
    "COORDINATOR_LOAD_IN_PROGRESS",
})  # fmt: skip
"""What the client gets over by trying again."""

_REFUSALS: Final = {
    "_AUTHENTICATION": "check sasl.mechanism, sasl.username and sasl.password",
    "_SSL": "check ssl.ca.location, and whether the certificate is for the name in bootstrap_servers",
}
"""By what the client says that a broker does not let it in, and what to do then."""


class ClientLog:
    """Takes what a client says, which may be a line a second while a broker is away.

    Args:
        settings: Knows what must not be shown.
        logger: Where to tell it.

    Attributes:
        errors: How many errors it has told of.
        is_down: Whether no broker could be reached when it last said something about that.
        fault: What it cannot recover from.
        refusal: Why a broker did not let it in, and what to do.
    """

    def __init__(self, settings: KafkaSettings, logger: logging.Logger) -> None:
        self._settings = settings
        self._logger = logger
        self._limits: dict[object, RateLimit] = {}
        self.errors = 0
        self.is_down = False
        self.fault: str | None = None
        self.refusal: str | None = None

    def log(self, level: int, text: str, *args: object) -> None:
        """Log a line of the client, at a bounded rate for each level of its own."""
        # Whatever ends here: the client keeps on trying, and what it cannot get over it reports.
        self._tell(level, min(level, logging.WARNING), text, *args)

    def _tell(self, kind: object, level: int, text: str, *args: object) -> None:
        if not self._logger.isEnabledFor(level):
            return
        limit = self._limits.setdefault(kind, RateLimit(SystemClock()))
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
        if error.name() in _REFUSALS:
            self.refusal = f"{self._settings.hide(error.str())}; {_REFUSALS[error.name()]}"
        self._tell(error.name(), logging.WARNING, "Kafka: %s", error.str())

    def unreachable(self, error: Exception | None = None) -> str:
        """Return what to say when the brokers do not answer, or refuse."""
        told = self.refusal or self._settings.hide(told_by_client(error) if error else "")
        return f"Kafka at {self._settings.bootstrap_servers} does not serve: {told}"

    def on_message(self) -> None:
        """Take note that a broker has sent something."""
        if self.is_down:
            self.is_down = False
            self._logger.info("Kafka is there again")

    def on_commit(self, error: Any) -> None:
        """Take note that offsets could not be committed: they are for those who watch the job."""
        self.errors += 1
        self._tell("commit", logging.WARNING, "offsets are not committed: %s", error.str())


def told_by_client(error: Exception) -> str:
    """Return what an exception of the client says, in words."""
    cause = error.args[0] if error.args else error
    return cause.str() if hasattr(cause, "str") else str(cause)


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
    log = log or ClientLog(settings, get_logger("kafka"))
    properties = settings.client_properties(
        group_id=group_id,
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        auto_offset_reset="error",  # an offset that is gone is told, never passed over
        allow_auto_create_topics=False,
        **ours,
    )
    properties["error_cb"] = log.on_error
    consumer = import_client().Consumer
    return client_made(settings, lambda: consumer(properties, logger=log))


def client_made(settings: KafkaSettings, make: Callable[[], T]) -> T:
    """Return a client.

    Args:
        settings: Knows what must not be shown.
        make: Makes it.

    Raises:
        ConfigError: a property is unknown, or two of them contradict each other.
    """
    try:
        return make()
    except (import_client().KafkaException, TypeError, ValueError) as error:
        text = settings.hide(str(error))
        raise ConfigError(f"the client of Kafka cannot be made: {text}") from None


class Inquiry:
    """Asks the brokers, and asks again while they cannot answer yet.

    A broker that has just started, or has just become responsible, says so for a moment.

    Args:
        client: Through which to ask.
        log: Knows whether the brokers have refused it.
        timeout: For how many seconds to ask.
    """

    def __init__(self, client: Any, log: ClientLog, timeout: float) -> None:
        self.client = client
        self._log = log
        self._timeout = timeout
        self._failure = import_client().KafkaException

    def ask(self, question: Callable[[float], T]) -> T:
        """Return an answer of the brokers.

        Args:
            question: Asks; given for how many seconds to wait for the answer.

        Raises:
            KafkaException: the brokers do not answer, or refuse.
        """
        until, turn = time.monotonic() + self._timeout, _FIRST_TURN_SECONDS
        self._log.refusal = None
        while True:
            left = until - time.monotonic()
            try:
                return question(max(min(left, turn), 0.1))
            except self._failure as error:
                self.client.poll(0)  # takes what it has to say, were it that a login is refused
                transient = error.args[0].name() in TRANSIENT and self._log.refusal is None
                if not transient or left <= _ASK_AGAIN_SECONDS:
                    raise
            turn *= 2
            time.sleep(_ASK_AGAIN_SECONDS)
