"""`KafkaProducer`: a client that writes rows and remembers what could not be delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sage.common.suggest import shorten
from sage.connector.kafka_client import ClientLog
from sage.connector.kafka_rows import Row
from sage.connector.kafka_settings import KafkaSettings, import_client
from sage.connector.sink_error import SinkError
from sage.dataflow.function.context import RuntimeContext
from sage.kernel.runtime.task.expansion import TaskCancelled

TURN_SECONDS: Final = 0.5
"""How long a call into the client lasts at most, so that a job that is cancelled does not wait."""

# Newer clients cut a flush into pieces of 0.2 s, and stumble from one to the next over a fatal error.
_FLUSH_SECONDS: Final = 0.15

STUCK_SECONDS: Final = 10.0
"""After how long a call counts as one that never returns; a broker starts in less."""

_DEFAULTS: Final = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # as Java clients do it, so that topics can be joined
    "retry.backoff.ms": 20,  # a transaction right behind another is told to try again
    "reconnect.backoff.ms": 50,  # the first connection waits for it too
}


class StuckClientError(Exception):
    """A call into the client does not return, and never will while a broker is away."""


class _Failures:
    """What could not be delivered; apart from the producer, as the client keeps it alive.

    Attributes:
        first: The text about the first record.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.first: str | None = None

    def note(self, error: Any, message: Any) -> None:
        """Take the report about a record; called while the client is being polled."""
        codes = import_client().KafkaError
        if error is None or error.code() in {codes._PURGE_QUEUE, codes._PURGE_INFLIGHT}:
            return  # thrown away with its transaction, which tells why
        if self.first is None:
            key, value = shorten(message.key()), shorten(message.value())
            self.first = (
                f"a record could not be written to the topic {message.topic()!r}: "
                f"{self._settings.hide(error.str())}; its key is {key} and its value {value}"
            )


class KafkaProducer:
    """A producer of the client library.

    Args:
        settings: Where the brokers are.
        context: Where to log, and whether the job is being cancelled.
        timeout: After how many seconds without an answer to give up.
        properties: Further ones that belong to the sink.

    Raises:
        ConfigError: the client is not installed.
        SinkError: the client does not accept the properties.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        context: RuntimeContext,
        timeout: float,
        properties: dict[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._context = context
        self._timeout = timeout
        self._is_transactional = "transactional.id" in (properties or {})
        self._has_rows = self._has_reached = False
        self._failures = _Failures(settings)
        self._log = ClientLog(settings, context.logger)
        kafka = import_client()
        self._error: type[Exception] = kafka.KafkaException
        ours = {
            **_DEFAULTS,
            **settings.client_properties(),
            **(properties or {}),
            "delivery.report.only.error": True,
            "on_delivery": self._failures.note,
            "error_cb": self._log.on_error,
        }
        try:
            self._client = kafka.Producer(ours, logger=self._log)
        except (self._error, TypeError, ValueError) as error:
            text = settings.hide(str(error))
            raise SinkError(f"Kafka's client does not accept the properties: {text}") from None

    def check(self) -> None:
        """Demand that nothing has failed so far.

        Raises:
            SinkError: a record could not be delivered.
        """
        if self._failures.first is not None:
            raise SinkError(self._failures.first)

    def write(self, rows: Iterable[Row]) -> None:
        """Hand rows to the client, which sends them; wait while its queue is full.

        Raises:
            SinkError: a record was refused, or one before it could not be delivered.
            KafkaException: the transaction must be aborted.
        """
        produce, self._has_rows = self._client.produce, True
        row: Row = ()
        try:
            for row in rows:
                try:
                    produce(*row)
                except BufferError:
                    self._write_when_there_is_room(row)
        except (self._error, TypeError, ValueError) as error:
            if self._is_transactional and isinstance(error, self._error):
                self.check()
                raise
            raise SinkError(
                f"the record {shorten(row[1])} for the topic {row[0]!r} is refused: "
                f"{self._settings.hide(str(error))}"
            ) from error
        finally:
            del produce  # or the traceback of an error would keep the client alive
        self._client.poll(0)
        self.check()

    def _write_when_there_is_room(self, row: Row) -> None:
        while True:
            self._client.poll(TURN_SECONDS)
            self._check_let_in()
            self.check_not_cancelled()
            try:
                self._client.produce(*row)
            except BufferError:
                continue
            return

    def flush(self) -> None:
        """Wait until all rows are with the brokers.

        How long that may last is a property of the client, `delivery.timeout.ms`.

        Raises:
            SinkError: a record could not be delivered.
            TaskCancelled: the job is being cancelled.
        """
        while self._client.flush(_FLUSH_SECONDS):
            self._check_let_in()
            self.check_not_cancelled()
        self.check()
        self._has_reached = self._has_rows

    def _check_let_in(self) -> None:
        """Demand that nothing has failed; who has never been let in is not going to be.

        Raises:
            SinkError: a record could not be delivered, or no broker lets this client in.
        """
        self.check()
        if self._log.refusal is not None and not self._has_reached:
            raise SinkError(self._log.unreachable())

    def check_not_cancelled(self) -> None:
        """Leave off if there is nothing to wait for any more.

        Raises:
            TaskCancelled: the job is being cancelled, or has failed elsewhere.
        """
        if self._context.is_cancelled:
            raise TaskCancelled

    def insist(self, what: str, call: Callable[[float], Any]) -> Any:
        """Call the client until it answers: a call that is repeated goes on waiting.

        Args:
            what: What it is good for, for the message.
            call: Calls the client; it is told how many seconds that may take.

        Raises:
            SinkError: there was no answer in time.
            KafkaException: the answer is an error that trying again does not help.
        """
        until = time.monotonic() + self._timeout
        self._log.refusal = None
        while True:
            try:
                return call(TURN_SECONDS)
            except self._error as error:
                if not is_worth_another_try(error):
                    raise
                self._client.poll(0)  # takes what it has to say, were it that a login is refused
                if self._log.refusal is not None:
                    raise SinkError(f"cannot {what}: {self._log.unreachable()}") from None
                if time.monotonic() > until:
                    raise SinkError(
                        f"cannot {what}: Kafka has not answered for {self._timeout:g} s: "
                        f"{self._settings.hide(str(error))}"
                    ) from None
            self.check_not_cancelled()

    # The client lives as long as anybody holds one of its methods, so these stand for them.

    def init_transactions(self, seconds: float) -> None:
        """Take the transactional id, and end what whoever had it before has left open."""
        self._client.init_transactions(seconds)

    def begin_transaction(self) -> None:
        """Begin; the rows that are written from now on belong to the transaction."""
        self._client.begin_transaction()

    def send_offsets_to_transaction(self, offsets: Any, group: Any, seconds: float) -> None:
        """Let a consumer group commit offsets with the transaction.

        The client goes by no time-out here, and waits for the coordinator of the group even when that
        broker is gone and another one has taken over.

        Raises:
            StuckClientError: it waits for longer than makes sense; this producer is of no use any more.
            TaskCancelled: the job is being cancelled.
        """
        call = _Call(partial(self._client.send_offsets_to_transaction, offsets, group, seconds))
        until = time.monotonic() + STUCK_SECONDS
        while not call.done.wait(TURN_SECONDS):
            self.check_not_cancelled()
            if time.monotonic() > until:
                raise StuckClientError
        call.check()

    def commit_transaction(self, seconds: float) -> None:
        """Wait for the rows, and commit."""
        self._client.commit_transaction(seconds)

    def abort_transaction(self, seconds: float) -> None:
        """Give the transaction up."""
        self._client.abort_transaction(seconds)

    @property
    def client_error(self) -> type[Exception]:
        """What the client library raises."""
        return self._error

    def hide(self, error: object) -> str:
        """Return the text of an error without secrets."""
        return self._settings.hide(str(error))

    def forget_failure(self) -> None:
        """Begin anew, after a transaction has been given up."""
        self._failures.first = None

    def close(self, *, deliver: bool = False) -> None:
        """Let go of the connections.

        Args:
            deliver: Whether to wait for what is on its way.

        Raises:
            SinkError: with `deliver`: a record has not been delivered.
        """
        try:
            if deliver:
                self._deliver()
            self.check()
        finally:
            with suppress(self._error):  # what it has to say has been said before
                self._client.purge()
                self._client.flush(0)
            del self._client  # this is what closes its connections

    def _deliver(self) -> None:
        until = time.monotonic() + self._timeout
        while (left := self._client.flush(_FLUSH_SECONDS)) and not self._context.is_cancelled:
            self._check_let_in()
            if time.monotonic() > until:
                raise SinkError(f"{left} records have not reached Kafka in {self._timeout:g} s")


class _Call:
    """A call on a thread of its own, which can be left alone.

    Args:
        call: What is called.

    Attributes:
        done: Is set when the call has returned.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self.done = threading.Event()
        self._call: Callable[[], Any] | None = call
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sage-kafka-offsets", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._call is not None:
                self._call()
        except Exception as error:  # noqa: BLE001 - raised by `check`
            self._error = error.with_traceback(None)  # which would keep the client alive
        finally:
            self._call = None
            self.done.set()

    def check(self) -> None:
        """Raise what the call has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def is_worth_another_try(error: Exception) -> bool:
    """Say whether a call may be repeated: a broker is away, or another one takes over from it."""
    codes = import_client().KafkaError
    passing = {
        codes._TIMED_OUT,
        codes._TRANSPORT,
        codes._ALL_BROKERS_DOWN,
        codes._WAIT_COORD,
        codes.REQUEST_TIMED_OUT,
        codes.NETWORK_EXCEPTION,
        codes.COORDINATOR_LOAD_IN_PROGRESS,
        codes.COORDINATOR_NOT_AVAILABLE,
        codes.NOT_COORDINATOR,
        codes.UNSTABLE_OFFSET_COMMIT,  # a transaction is being brought to its end
    }
    reason = error.args[0]
    return bool(reason.retriable() or reason.code() in passing)
