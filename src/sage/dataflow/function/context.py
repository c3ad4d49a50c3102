"""What a function may ask of the runtime that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol


class ServiceCaller(Protocol):
    """What calls services on behalf of a function."""

    def get_sync_proxy(self, service_name: str) -> Any:
        """Return an object whose methods are those of the service."""
        ...

    def get_async_proxy(self, service_name: str) -> Any:
        """Return an object whose methods are those of the service and give futures."""
        ...


class RuntimeContext(Protocol):
    """The runtime as one operator of one subtask sees it.

    A function finds it as `self.ctx` from `open` on; it is not there in the constructor, because a
    function may be constructed in another process than the one that runs it.
    """

    @property
    def job_name(self) -> str:
        """The name of the environment that was submitted."""
        ...

    @property
    def operator_name(self) -> str:
        """The name of the operator, unique in its job."""
        ...

    @property
    def subtask_index(self) -> int:
        """Which of the parallel instances this is, counted from 0."""
        ...

    @property
    def parallelism(self) -> int:
        """How many parallel instances the operator has."""
        ...

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the job and the operator."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether the job is being cancelled: what waits for something should leave off.

        For a source it is also so when the job is stopped or has failed: nothing more is read.
        """
        ...

    @property
    def service_manager(self) -> ServiceCaller:
        """Calls the services that are registered with the environment."""
        ...

    def now_ms(self) -> int:
        """The processing time: milliseconds since the Unix epoch, by the job's clock."""
        ...

    def keyed_table(self, name: str) -> dict[Any, Any]:
        """The operator's table `name`: one entry per key that this subtask has seen."""
        ...


class SourceContext(RuntimeContext, Protocol):
    """What a source reader may ask of the runtime besides."""

    @property
    def buffer_size(self) -> int:
        """How many records may be read ahead of the pipeline."""
        ...

    @property
    def wake(self) -> Callable[[], None]:
        """Tell the task that data has come. Cheap, and callable from any thread at any time."""
        ...

    @property
    def is_restored(self) -> bool:
        """Whether the reader goes on from a checkpoint: a split without position then is a new one."""
        ...

    @property
    def takes_checkpoints(self) -> bool:
        """Whether the job takes checkpoints, and so calls `SourceReader.checkpoint_complete`."""
        ...

    def fail_record(self, record: Any, error: Exception) -> None:
        """Give a record that cannot be decoded to the error policy of the source.

        To be called within `read_batch`, by a reader whose source says `reports_bad_records`. The
        record counts as read: positions go on behind it.

        Args:
            record: What a dead letter is to hold: what came, undecoded, and where it came from.
            error: What is wrong with it; its text is told.

        Raises:
            OperatorError: under the policy `"fail"`; it ends the job.
        """
        ...
