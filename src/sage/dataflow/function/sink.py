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
    the sources down.
    """

    @abstractmethod
    def write_batch(self, values: Sequence[T_contra]) -> None:
        """Take `values`, in order. They need not be outside before `flush`."""

    def flush(self) -> None:
        """Return only when everything written so far is outside: called at the end of input."""

    def snapshot(self) -> Any:
        """Return what a new writer must know to go on from here; plain data. Called after `flush`."""
        return None

    def close(self) -> None:
        """Let go of connections and files; called once, whatever happened."""


class TwoPhaseWriter(SinkWriter[T_contra]):
    """A writer whose records become visible with the checkpoint that covers them: exactly once.

    At a checkpoint the runtime calls `prepare_commit`; what that returns is stored with it. Once the
    checkpoint cannot be lost any more, `commit` is called, and again after a restore if it is not
    known to have succeeded. Without checkpoints both are called at the end of input.
    """

    @abstractmethod
    def prepare_commit(self, checkpoint_id: int) -> Any:
        """Bring everything written so far to where it only has to be made visible.

        Args:
            checkpoint_id: The number of the checkpoint; it only grows.

        Returns:
            What `commit` needs to know, as plain data; `None` if there is nothing to commit.
        """

    @abstractmethod
    def commit(self, committable: Any) -> None:
        """Make visible what was prepared. Doing it again for the same must change nothing."""


class Sink(ABC, Generic[T_contra]):
    """Where records go: the contract that connectors implement.

    A `Sink` is a description that travels to the workers (it is pickled): its constructor keeps
    settings and opens nothing.

    Attributes:
        at_client: Whether it runs in the program that submits the job, wherever the others run: it
            gives the records back to that program.
    """

    at_client: ClassVar[bool] = False

    @abstractmethod
    def create_writer(self, context: RuntimeContext, state: Any) -> SinkWriter[T_contra]:
        """Open a writer.

        Args:
            context: The runtime: which subtask this is, where to log.
            state: What `SinkWriter.snapshot` of the previous attempt returned; `None` at the first.
                If there are other subtasks than then: what `redistribute` says.

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
