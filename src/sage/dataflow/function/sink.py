"""Where records go: the simple function users write, and the contract connectors implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sage.common.errors import StateError
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.context import RuntimeContext

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class SinkFunction(BaseFunction, Generic[T]):
    """The simple way to write a sink: one call per record.

    Examples:
        >>> class Log(SinkFunction[str]):
        ...     def execute(self, data: str) -> None:
        ...         self.logger.info("got %s", data)

    Attributes:
        at_client: Whether it runs in the program that submits the job, wherever the others run: it
            gives the records back to that program.
    """

    at_client: ClassVar[bool] = False

    @abstractmethod
    def execute(self, data: T) -> None:
        """Take `data`; what is returned is ignored."""
        raise NotImplementedError


class SinkWriter(ABC, Generic[T_contra]):
    """Writes the records of one subtask; made by `Sink.create_writer`.

    All methods are called from the one thread that runs the task; they may block, and by that slow
    the sources down. At a checkpoint `flush` is called, then `snapshot`; the records between two
    checkpoints are written again when a job fails and goes on: each is outside *at least* once. For
    *exactly* once there is `TwoPhaseWriter`.
    """

    @abstractmethod
    def write_batch(self, values: Sequence[T_contra]) -> None:
        """Take `values`, in order. They need not be outside before `flush`.

        Args:
            values: The records; the sequence may be changed by others afterwards.

        Raises:
            Exception: a record does not fit, or the outside is gone: the job fails, or goes on from
                its latest checkpoint.
        """

    def flush(self) -> None:
        """Return only when everything written so far is outside.

        Called at checkpoints and at the end of input. A two-phase writer leaves it out: its records
        wait for `commit`.
        """

    def end_input(self) -> None:
        """Take note that there are no more records; by default `flush`.

        Called once, at the end of input, before the last `prepare_commit` of a two-phase writer. Not
        called where the job is to go on later: stopped with a savepoint, failed, cancelled.
        """
        self.flush()

    def snapshot(self) -> Any:
        """Return what a new writer must know to go on from here; plain data.

        Called at a checkpoint, after `flush`, and after `prepare_commit` of a two-phase writer: so it
        may name what has been prepared and not committed yet, for `Sink.create_writer` to keep.
        """
        return None

    def close(self) -> None:
        """Let go of connections and files; called once, whatever happened."""


class TwoPhaseWriter(SinkWriter[T_contra]):
    """A writer whose records become visible with the checkpoint that covers them: exactly once.

    At a checkpoint the runtime calls `prepare_commit`; what that returns is stored with it. Once the
    checkpoint cannot be lost any more, `commit` is called, and again after a restore if it is not
    known to have succeeded. Without checkpoints both are called at the end of input.

    Not guaranteed: that `commit` comes before the next `prepare_commit` (several checkpoints may
    wait, and are committed in order); that it is called on the writer that prepared, or in the same
    process; that it is called at all, for a checkpoint that did not complete. What was prepared for
    that may be committed with a later one, so a writer keeps it; a new writer, made from a `state`
    that does not know of it, throws it away.

    Examples:
        >>> class Outside:
        ...     records: dict = {}
        >>> class Writer(TwoPhaseWriter[str]):
        ...     def __init__(self):
        ...         self.values = []
        ...     def write_batch(self, values):
        ...         self.values += values
        ...     def prepare_commit(self, checkpoint_id):
        ...         values, self.values = self.values, []
        ...         return f"{checkpoint_id}-{id(values)}", values
        ...     def commit(self, committable):
        ...         name, values = committable
        ...         Outside.records[name] = values  # a second time it changes nothing
        >>> writer = Writer()
        >>> writer.write_batch(["a", "b"])
        >>> prepared = writer.prepare_commit(1)
        >>> writer.commit(prepared)
        >>> writer.commit(prepared)
        >>> list(Outside.records.values())
        [['a', 'b']]
    """

    @abstractmethod
    def prepare_commit(self, checkpoint_id: int) -> Any:
        """Bring everything written so far to where it only has to be made visible.

        Args:
            checkpoint_id: The number of the checkpoint; it only grows, but one that was given up is
                taken again under the same number after a restart. 0 without checkpoints.

        Returns:
            What `commit` needs to know, as plain data; `None` if there is nothing to commit. It must
            be found outside again by another process: a path, the identity of a transaction, or the
            records themselves.

        Raises:
            Exception: it cannot be done; nothing of it may become visible later.
        """

    @abstractmethod
    def commit(self, committable: Any) -> None:
        """Make visible what was prepared. Doing it again for the same must change nothing.

        Args:
            committable: What `prepare_commit` returned, of this writer or an earlier one.

        Raises:
            Exception: it cannot be done now; it is tried again after a restart.
        """


class Sink(ABC, Generic[T_contra]):
    """Where records go: the contract that connectors implement.

    A `Sink` is a description that travels to the workers (it is pickled): its constructor keeps
    settings and opens nothing. Each subtask makes one writer of it, and another one each time that
    the job goes on after a failure.

    `sage.testing.check_sink` tells whether a sink keeps this contract and that of its writers.

    Attributes:
        at_client: Whether it runs in the program that submits the job, wherever the others run: it
            gives the records back to that program.
    """

    at_client: ClassVar[bool] = False

    @abstractmethod
    def create_writer(self, context: RuntimeContext, state: Any) -> SinkWriter[T_contra]:
        """Open a writer.

        Args:
            context: The runtime: which subtask this is, where to log, what time it is.
            state: What `SinkWriter.snapshot` had returned for the checkpoint that the job goes on
                from, or what `redistribute` made of it if there are other subtasks than then; `None`
                where there is none: then nothing that was prepared is committed.

        Raises:
            Exception: the outside cannot be reached, or does not fit.
        """

    def redistribute(self, states: Sequence[Any], parallelism: int) -> Sequence[Any]:
        """Say with which states writers begin when there are other subtasks than before.

        What two-phase writers had prepared is committed in any case: first of all, by the writers of
        the first subtasks in turn.

        Args:
            states: What `SinkWriter.snapshot` of each subtask of before returned.
            parallelism: How many subtasks there are now.

        Returns:
            The `state` for each of them. By default those that are not `None` are handed on, one to
            each subtask, as long as there are enough.

        Raises:
            StateError: there are more states than subtasks, and this sink does not say how they are
                joined.

        Examples:
            >>> from sage.testing import CollectingSink
            >>> CollectingSink().redistribute([None, {"file": 7}], 3)
            [{'file': 7}, None, None]
        """
        found = [state for state in states if state is not None]
        if len(found) > parallelism:
            raise StateError(
                f"{type(self).__name__} has the states of {len(found)} writers and {parallelism} to "
                "give them to: define redistribute(states, parallelism), which joins them, or run the "
                "sink with the parallelism that it had"
            )
        return found + [None] * (parallelism - len(found))
