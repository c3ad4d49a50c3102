"""The runtime as an operator sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.common.clock import Clock
from sage.common.log import get_logger
from sage.dataflow.function.context import ServiceCaller
from sage.dataflow.key_group import WHOLE, Share
from sage.kernel.runtime.task.layered_table import LayeredTable
from sage.kernel.state.backend import StateBackend


@dataclass(frozen=True)
class JobContext:
    """What all tasks of a job share.

    Attributes:
        job_name: The name of the environment.
        clock: Where the time comes from.
        batch_size: How many records at most travel together.
        buffer_size: How many records a live source may be read ahead.
        service_manager: Calls the services of the environment.
        checkpoints: Whether checkpoints are taken.
        state: What keeps the state that functions declare.
    """

    job_name: str
    clock: Clock
    batch_size: int
    buffer_size: int
    service_manager: ServiceCaller
    checkpoints: bool = False
    state: StateBackend = field(default_factory=StateBackend)


@dataclass(frozen=True)
class OperatorContext:
    """Implements `RuntimeContext` and `SourceContext` for one operator of one subtask."""

    job: JobContext
    operator_name: str
    wake: Callable[[], None]
    asks_cancelled: Callable[[], bool]
    parallelism: int = 1
    subtask_index: int = 0
    is_restored: bool = False
    fail: Callable[[BaseException, Any], None] | None = field(default=None, repr=False)
    _tables: dict[str, LayeredTable] = field(default_factory=dict, repr=False)

    @property
    def job_name(self) -> str:
        """The name of the environment that was submitted."""
        return self.job.job_name

    @property
    def clock(self) -> Clock:
        """The job's clock."""
        return self.job.clock

    @property
    def buffer_size(self) -> int:
        """How many records may be read ahead of the pipeline."""
        return self.job.buffer_size

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the job and the operator."""
        return get_logger(self.job.job_name, self.operator_name)

    @property
    def is_cancelled(self) -> bool:
        """Whether the job is being cancelled."""
        return self.asks_cancelled()

    @property
    def service_manager(self) -> ServiceCaller:
        """Calls the services of the environment."""
        return self.job.service_manager

    def now_ms(self) -> int:
        """The processing time in milliseconds since the Unix epoch."""
        return self.job.clock.now_ms()

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints are taken."""
        return self.job.checkpoints

    def fail_record(self, record: Any, error: Exception) -> None:
        """Give a record that a source cannot decode to its error policy."""
        if self.fail is None:
            raise error
        self.fail(error, record)

    def layered_table(self, name: str) -> LayeredTable:
        """The operator's table `name`, as loops see it."""
        return self._tables.setdefault(name, LayeredTable())

    def keyed_table(self, name: str) -> dict[Any, Any]:
        """All entries of the operator's table `name`."""
        return self.layered_table(name).merged()

    def take_tables(self, *, full: bool) -> dict[str, Any]:
        """Return the tables, or what changed in them, for a checkpoint."""
        taken = {n: t.take_all() if full else t.take_changes() for n, t in self._tables.items()}
        entries = {name: table for name, table in taken.items() if table}
        return {"tables": entries} if entries else {}

    def load_tables(
        self, chain: Sequence[Mapping[str, Mapping[Any, Any]]], share: Share = WHOLE
    ) -> None:
        """Take over what belongs here of tables of a checkpoint, and of what changed in them since."""
        for tables in chain:
            for name, entries in tables.items():
                mine = entries
                if share.parallelism > 1:
                    mine = {key: entry for key, entry in entries.items() if share.owns(key)}
                self._load_table(self.layered_table(name), mine)

    def _load_table(self, table: LayeredTable, entries: Mapping[Any, Any]) -> None:
        if self.job.checkpoints:
            table.load(entries)
        else:  # loops look nowhere else
            table.fresh.update(entries)

    def forget(self) -> None:
        """Let go of the tables: a function that the user holds on to has this context still."""
        for table in self._tables.values():
            table.clear()
        self._tables.clear()
