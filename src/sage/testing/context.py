"""`StandaloneContext`: a runtime context without a runtime, to try functions and sources in."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.common.clock import Clock, Doorbell, SystemClock
from sage.common.log import get_logger
from sage.dataflow.function.source import Source, SourceReader
from sage.kernel.runtime.service.hosting.service_host import ServiceHost
from sage.kernel.runtime.service.service_caller import ServiceManager


@dataclass
class StandaloneContext:
    """What a function or a source sees of the runtime, for tests that run it by hand.

    Attributes:
        operator_name: The name of the operator.
        job_name: The name of the job.
        subtask_index: Which of the parallel instances this is.
        parallelism: How many parallel instances there are.
        buffer_size: How many records a live source may be read ahead.
        clock: Where the time comes from; a `ManualClock` lets the test decide.
        cancelled: Whether the job is being cancelled.
        services: The services that the function may call; `services.stop_all()` ends them.
        is_restored: Whether a reader goes on from a checkpoint.
        takes_checkpoints: Whether there are any.
        failed: The records that a reader could not decode, and why.

    Examples:
        >>> from sage.dataflow.function.base import BaseFunction
        >>> function = BaseFunction()
        >>> function.ctx = StandaloneContext(operator_name="parse")
        >>> function.name
        'parse'
    """

    operator_name: str = "test"
    job_name: str = "test"
    subtask_index: int = 0
    parallelism: int = 1
    buffer_size: int = 10_000
    clock: Clock = field(default_factory=SystemClock)
    cancelled: bool = False
    services: ServiceHost = field(default_factory=ServiceHost)
    is_restored: bool = False
    takes_checkpoints: bool = False
    failed: list[tuple[Any, Exception]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tables: dict[str, dict[Any, Any]] = {}
        self._doorbell = Doorbell()

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the job and the operator."""
        return get_logger("job", self.job_name, self.operator_name)

    @property
    def is_cancelled(self) -> bool:
        """Whether the job is being cancelled; set `cancelled` to say so."""
        return self.cancelled

    @property
    def service_manager(self) -> ServiceManager:
        """Calls the services that have been registered with `services`."""
        return ServiceManager(self.services)

    def now_ms(self) -> int:
        """The time of `clock`: milliseconds since the Unix epoch."""
        return self.clock.now_ms()

    def keyed_table(self, name: str) -> dict[Any, Any]:
        """The table `name`: the same dict at each call."""
        return self._tables.setdefault(name, {})

    def fail_record(self, record: Any, error: Exception) -> None:
        """Note a record that a reader cannot decode in `failed`."""
        self.failed.append((record, error))

    def wake(self) -> None:
        """Tell whoever waits in `wait_woken` that data has come."""
        self._doorbell.ring()

    def wait_woken(self, timeout: float | None = None) -> bool:
        """Wait until `wake` is called, for at most `timeout` seconds; say whether it was."""
        return self._doorbell.wait(timeout)


def read_all(source: Source[Any], *, max_records: int = 1000, patience: float = 10.0) -> list[Any]:
    """Run `source` from its start to its end and return its records.

    Args:
        source: A source that ends.
        max_records: How many records to ask for at once.
        patience: For how many seconds the source may give nothing.

    Raises:
        AssertionError: the source gave nothing for `patience` seconds.
        Exception: what the source raised.

    Examples:
        >>> from sage.connector.collection import CollectionSource
        >>> read_all(CollectionSource(range(3)))
        [0, 1, 2]
    """
    context = StandaloneContext()
    reader = source.create_reader(dict.fromkeys(source.list_splits()), context)
    records: list[Any] = []
    try:
        while (batch := wait_batch(reader, context, max_records, patience)) is not None:
            records += batch
    finally:
        reader.close()
    return records


def wait_batch(
    reader: SourceReader[Any],
    context: StandaloneContext,
    max_records: int = 1000,
    patience: float = 10.0,
) -> Sequence[Any] | None:
    """Read from `reader` as a task does: when it has nothing, wait until woken and ask again.

    Returns:
        The first batch that is not empty; `None` at the end.

    Raises:
        AssertionError: the source gave nothing for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while (batch := reader.read_batch(max_records)) is not None and not batch:
        left = deadline - time.monotonic()
        if left <= 0:
            raise AssertionError(
                f"{type(reader).__name__} gave no record for {patience:g} s and did not end; does "
                "it call context.wake() when data comes, and return None at the end?"
            )
        poll = reader.poll_interval
        context.wait_woken(left if poll is None else min(poll, left))
    return batch
