"""What an operator is, and what it is given to write its part of a fused loop with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import SinkWriter
from sage.dataflow.function.spec import FunctionSpec
from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.async_calls import CallRunner
from sage.dataflow.operator.loop_writer import Flow, LoopWriter
from sage.dataflow.time import MIN_WATERMARK


@dataclass(frozen=True, eq=False)
class Operator(ABC):
    """A node of the graph: what is done to records, without the records.

    Attributes:
        functions: The users' functions that it calls.
    """

    kind: ClassVar[str]
    functions: tuple[FunctionSpec, ...] = ()

    @property
    def label(self) -> str:
        """The name of the operator unless the user gives another: `map(parse)`."""
        names = [spec.name for spec in self.functions if spec.name != "<lambda>"]
        return f"{self.kind}({', '.join(names)})" if names else self.kind

    def create_live(self, context: LiveContext) -> LivePart | None:
        """Make the live part of the operator; None if it needs none."""
        return None

    @property
    def gives_time(self) -> bool:
        """Whether the results have an event time even if the input has none."""
        return False

    @property
    def tells_late(self) -> bool:
        """Whether records that come too late go to the side output of late records."""
        return False

    @property
    def needs_time(self) -> bool:
        """Whether the input must have an event time."""
        return False

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own: some of what came before may go out later."""
        return False

    @property
    def at_client(self) -> bool:
        """Whether it runs in the program that submits the job, wherever the others run."""
        return False

    @property
    def final(self) -> bool:
        """Whether the operator puts out something only once its input has ended."""
        return False

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out, from how many came in and what was counted."""
        return received - count("errors")


class Results(Protocol):
    """Where an operator puts what does not come of the record at hand: what time brings about."""

    def emit(self, value: Any, timestamp: int | None) -> None:
        """Put a record out, with its event time if there is one."""
        ...

    def side(self, tag: str, value: Any, timestamp: int | None) -> None:
        """Put a record out to the side output `tag`; counted as unrouted if nobody reads it."""
        ...


class LiveContext(Protocol):
    """What the live part of an operator is made with."""

    @property
    def runtime(self) -> RuntimeContext:
        """The runtime as functions see it."""
        ...

    @property
    def results(self) -> Results:
        """Where results go."""
        ...

    @property
    def entries(self) -> list[Callable[..., Any]]:
        """The entry points of the functions."""
        ...

    @property
    def functions(self) -> list[Any]:
        """The live functions."""
        ...

    def set_key(self, key: Any) -> None:
        """Let the state that the functions declare be that of `key`."""
        ...

    @property
    def timed(self) -> bool:
        """Whether the records that come in have event times."""
        ...

    def set_watermark(self, watermark: int) -> None:
        """Let event time behind this operator come as far as `watermark`, at once."""
        ...

    def fail(self, error: BaseException, record: Any) -> None:
        """Give the error policy what the function failed with; raises under the policy `"fail"`."""
        ...

    def pass_on(self) -> None:
        """Deliver what has been put out so far, also in the midst of a loop."""
        ...

    def run_calls(self, *, capacity: int, blocking: bool, collects: bool) -> CallRunner:
        """Make what runs calls of the function while the task goes on.

        Args:
            capacity: How many run at a time at most; the others wait for their turn.
            blocking: Whether the function blocks its thread.
            collects: Whether results are iterables to make lists of.
        """
        ...


class LivePart:
    """The part of an operator that lives as long as the task; called from its one thread.

    Attributes:
        next_due_ms: At which processing time `on_processing_time` wants to be called; None: never.
        polls: Whether `poll` is to be called between batches, and when the task has been woken.
        holds_time: Whether event time goes on behind it only as far as `released`: some of what
            came before is still to go out.
        puts_out_at_end: Whether `end` puts records out; then it holds the end of event time.
        released: How far event time has come behind it, if it holds time.
    """

    next_due_ms: int | None = None
    polls: ClassVar[bool] = False
    holds_time: ClassVar[bool] = False
    puts_out_at_end: bool = False
    released: int = MIN_WATERMARK

    def advance(self, watermark: int) -> None:
        """React to event time having come as far as `watermark`."""

    def resume(self, watermark: int) -> None:
        """Let event time be where it was when the state was taken; called after `load`."""

    def poll(self) -> None:
        """Put out what has come from elsewhere since the last time; never waits."""

    def has_arrivals(self) -> bool:
        """Say whether something has come from elsewhere that `poll` would put out."""
        return False

    def is_waiting(self) -> bool:
        """Say whether something is still to come from elsewhere that came of records of before."""
        return False

    def on_processing_time(self, now_ms: int) -> None:
        """React to processing time having come as far as `next_due_ms`."""

    def end(self) -> None:
        """Put out what goes out when the input has ended; event time has come to its end before.

        May wait for what is still to come from elsewhere.
        """

    def close(self) -> None:
        """Let go of threads and the like; called once, whatever happened."""

    def take_changes(self) -> Any:
        """Return what changed since the last call, as plain data that is pickled at once."""
        return None

    def full_state(self) -> Any:
        """Return the whole state, as plain data that is pickled at once."""
        return None

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Take over what belongs here of the states of those who had the work before.

        Args:
            parts: For each of them, at least one, a full state followed by what changed since. The
                one whose event time is furthest behind comes first.
            share: What belongs here; all of it, unless there are other subtasks than before.
        """


class OperatorScope(Protocol):
    """One operator's view of the fused loop that is being written."""

    writer: LoopWriter

    @property
    def outlives_errors(self) -> bool:
        """Whether the job goes on when a function of the operator fails."""
        ...

    def entry(self, index: int) -> str:
        """Return the local that is bound to the `index`-th entry point of the functions."""
        ...

    def table(self, name: str) -> str:
        """Return the local that is bound to the keyed table `name`: a dict to write to."""
        ...

    def base(self, name: str) -> str | None:
        """Return the local bound to those entries of the table that have not been written lately.

        They are looked up where the table itself has none; None: there are none.
        """
        ...

    def counter(self, what: str) -> str:
        """Return the local that counts `what` of this operator."""
        ...

    def attempt(self, lines: Sequence[str], flow: Flow, phase: str = "record") -> None:
        """Write `lines` under the operator's error policy; what follows runs if they succeed."""
        ...

    def check(self, condition: str, flow: Flow, otherwise: str, phase: str = "record") -> None:
        """Write a test under the error policy; what follows runs if it holds, else `otherwise`."""
        ...

    def expand(self, items: str, flow: Flow) -> AbstractContextManager[str]:
        """Write the loop over the iterable that `items` holds; gives the name of the item."""
        ...

    def live(self) -> Any:
        """Return the operator's live part, whose results go out when the loop is done."""
        ...

    def consumers(self) -> Sequence[str]:
        """Return the tags of the side outputs that somebody reads."""
        ...

    def emit(self, flow: Flow, tag: str | None = None) -> None:
        """Write what the consumers of an output do with the record."""
        ...


class RecordOperator(Operator):
    """An operator that handles one record at a time, as a part of a fused loop."""

    @abstractmethod
    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Write the lines that take the record `flow` from input `index` and emit what becomes."""

    def finish(self, table: Callable[[str], dict[Any, Any]], functions: list[Any]) -> Iterable[Any]:
        """Return what goes out when the input has ended; only called when `final`."""
        return ()


class BatchProcessor(ABC):
    """The live part of a batch operator; one per subtask, called from its one thread.

    Attributes:
        writer: The writer of a sink, whose state belongs to a checkpoint; None for the others.
    """

    writer: SinkWriter[Any] | None = None

    @abstractmethod
    def process_batch(self, values: list[Any]) -> list[Any]:
        """Take a batch, which the callee may keep, and return what goes out."""

    def end(self) -> list[Any]:
        """Return what goes out when the input has ended."""
        return []

    def close(self) -> None:  # noqa: B027 - optional on purpose
        """Let go of what the constructor took; called once, whatever happened."""


class BatchOperator(Operator):
    """An operator that takes whole batches."""

    @abstractmethod
    def create(
        self, entries: list[Callable[..., Any]], context: RuntimeContext, state: Any = None
    ) -> BatchProcessor:
        """Make the live part from the entry points of the functions, and the writer's last state."""

    def records_out(self, received: int, count: Callable[[str], int]) -> int:
        """Return how many records went out."""
        return count("produced")
