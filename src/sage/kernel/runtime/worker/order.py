"""What a worker is told, and what it tells; all of it travels pickled between a job's own processes."""

from __future__ import annotations

import itertools
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

import cloudpickle

from sage.common.errors import JobError
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.runtime.exchange.figures import SlotFigures
from sage.kernel.runtime.exchange.links import Mesh
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.call_statistics import Calls
from sage.kernel.runtime.task.checkpoint_orders import SnapshotFigures, TakeState
from sage.kernel.runtime.task.operator_state import StatePart
from sage.kernel.runtime.task.restored_state import RestoredState
from sage.kernel.state.backend import StateBackend

if TYPE_CHECKING:
    from sage.kernel.runtime.service.hosting.ray_actor import RayServices


@dataclass(frozen=True)
class SlotSettings:
    """What all slots of a job are told alike.

    Attributes:
        job_name: The name of the environment.
        batch_size: How many records at most travel together.
        buffer_size: How many records a live source may be read ahead.
        buffer_timeout: How many seconds records wait at most to be sent together.
        heartbeat_timeout: After how many seconds of silence a process counts as dead.
        state: What keeps the state that functions declare.
        services_token: Stands for the environment's services.
        services: Where they are.
        middleware: What is around every call.
        ray: Where those services are that run on Ray.
    """

    job_name: str
    batch_size: int
    buffer_size: int
    buffer_timeout: float
    heartbeat_timeout: float
    state: StateBackend
    services_token: str
    services: tuple[ServiceAddress, ...]
    middleware: tuple[ServiceMiddleware, ...]
    ray: RayServices | None = None


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker runs.

    Attributes:
        graph: The subtasks of the job.
        mesh: The channels between them.
        slot: Which of the slots it is.
        settings: What all are told.
        restored: What its operators find of an earlier attempt, by their uid.
        checkpoints: Whether checkpoints are taken.
    """

    graph: ExecutionGraph
    mesh: Mesh
    slot: int
    settings: SlotSettings
    restored: Mapping[str, RestoredState] = field(default_factory=dict)
    checkpoints: bool = False


@dataclass(frozen=True)
class NextOrder:
    """Run this now: the slot before has ended. What is told afterwards is for the new one.

    Attributes:
        last_checkpoint: The number of the last checkpoint before.
        order: A `WorkerOrder`, pickled.
    """

    last_checkpoint: int
    order: bytes


@dataclass(frozen=True)
class Stop:
    """Let the sources end here."""


@dataclass(frozen=True)
class Cancel:
    """Leave off after the batch at hand."""


@dataclass(frozen=True)
class AbortCheckpoint:
    """Go on: the checkpoint will not be."""

    checkpoint_id: int


@dataclass(frozen=True)
class Commit:
    """Commit what belongs to checkpoints up to this one; with `leave`, end after it."""

    checkpoint_id: int
    leave: bool


@dataclass(frozen=True)
class Leave:
    """Read no more and put nothing more out."""


@dataclass(frozen=True)
class AskState:
    """Tell the value of a key in a state.

    Attributes:
        number: By which the answer is recognised.
        uid: The uid of the operator.
        name: The name of the state.
        key: The key, pickled.
    """

    number: int
    uid: str
    name: str
    key: bytes


@dataclass(frozen=True)
class StateTaken:
    """The state has been taken for a checkpoint."""

    checkpoint_id: int
    parts: Mapping[str, StatePart]
    figures: SnapshotFigures


@dataclass(frozen=True)
class StateRefused:
    """The state could not be taken."""

    checkpoint_id: int
    reason: str


@dataclass(frozen=True)
class InputEnded:
    """The input has ended, with this state; the last checkpoint before had this number."""

    last_checkpoint: int
    parts: Mapping[str, StatePart]


@dataclass(frozen=True)
class Committed:
    """The sinks have committed what belongs to a checkpoint."""

    checkpoint_id: int


@dataclass(frozen=True)
class StateTold:
    """The answer to a question.

    Attributes:
        number: That of the question.
        answer: The value, pickled; or what became of the attempt to tell it.
    """

    number: int
    answer: bytes | Failed

    @classmethod
    def of(cls, question: AskState, find: Callable[[str, str, Any], Any]) -> StateTold:
        """Answer a question by what `find(uid, name, key)` returns or raises."""
        try:
            key = pickle.loads(question.key)  # noqa: S301 - from our parent
            told = cloudpickle.dumps(find(question.uid, question.name, key))
        except Exception as error:  # noqa: BLE001 - raised where the question was asked
            return cls(question.number, Failed.of(error))
        return cls(question.number, told)

    def unwrap(self, worker: str) -> Any:
        """Return the value.

        Raises:
            Exception: what kept the worker from telling it.
        """
        if isinstance(self.answer, Failed):
            raise self.answer.unwrap(worker)
        return pickle.loads(self.answer)  # noqa: S301 - from a process of this very job


@dataclass(frozen=True)
class Counted:
    """The figures of a slot so far.

    Attributes:
        values: What its operators have counted.
        totals: How many records its sources will give.
        figures: What it does with its time.
        watermarks: How far event time has come for its operators.
        calls: What it knows of its calls to services, by service.
        gauges: What its sources say of themselves.
    """

    values: dict[tuple[int, str], int]
    totals: list[int | None]
    figures: SlotFigures
    watermarks: Mapping[int, int]
    calls: Mapping[str, Calls]
    gauges: Mapping[int, Mapping[str, int]]


@dataclass(frozen=True)
class Logged:
    """A line of a log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class Printed:
    """Whole lines that a function has printed."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The slot has done all it had to do."""


@dataclass(frozen=True)
class Failed:
    """The slot has failed.

    Attributes:
        error: The exception, pickled; None if it cannot be.
        text: Its traceback, if it or one of its causes cannot be.
    """

    error: bytes | None
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Wrap an exception up, with its causes."""
        chain, step = [error], error.__cause__
        while step is not None and len(chain) < _MOST_CAUSES:
            chain.append(step)
            step = step.__cause__
        text, whole = "".join(traceback.format_exception(error)), len(chain)
        while chain:
            try:
                pickled: bytes = cloudpickle.dumps(chain)
                pickle.loads(pickled)  # noqa: S301 - made just now
            except Exception:  # noqa: BLE001 - many exceptions cannot; then their text must do
                chain.pop()
            else:
                return cls(pickled, text if len(chain) < whole else "")
        return cls(None, text)

    def unwrap(self, worker: str) -> BaseException:
        """Return the exception again."""
        chain = list[BaseException]()
        if self.error is not None:
            try:
                chain = pickle.loads(self.error)  # noqa: S301 - from a process of this very job
            except Exception:  # noqa: BLE001 - its class is not to be had here
                chain = []
        if not chain:
            return JobError(f"{worker} failed:\n{self.text}")
        for error, cause in itertools.pairwise(chain):
            error.__cause__ = cause
        chain[0].add_note(f"In {worker}.{self.text and f' {self.text}'}")
        return chain[0]


_MOST_CAUSES: Final = 8
_LENGTH_BYTES: Final = 4

Command = Stop | Cancel | TakeState | AbortCheckpoint | Commit | Leave | AskState
"""What a worker is told while it runs."""

Report = StateTaken | StateRefused | InputEnded | Committed
Message = Counted | Logged | Printed | Report | StateTold | Ended | Failed
"""What a worker tells."""


def write_message(pipe: IO[bytes], message: Message | Command | NextOrder) -> None:
    """Write a message into a pipe."""
    frame = pickle.dumps(message, 5)
    pipe.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> Any:
    """Read a message from a pipe; None if there will be no more."""
    head = _read(pipe, _LENGTH_BYTES)
    frame = _read(pipe, int.from_bytes(head, "big")) if len(head) == _LENGTH_BYTES else b""
    if not frame or len(head) < _LENGTH_BYTES or len(frame) < int.from_bytes(head, "big"):
        return None  # also where it was killed in the midst of one
    return pickle.loads(frame)  # noqa: S301 - from a process of this very job


def _read(pipe: IO[bytes], length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := pipe.read(length - len(data))):
        data += piece
    return data


def pickle_order(order: WorkerOrder) -> bytes:
    """Pickle an order.

    Raises:
        JobError: something of the program cannot be; the message names the operator.
    """
    try:
        return cloudpickle.dumps(order)  # type: ignore[no-any-return]
    except Exception as error:
        raise JobError(_what_is_wrong(order, error)) from error


def _what_is_wrong(order: WorkerOrder, error: Exception) -> str:
    told = "the program cannot be sent to a worker process"
    for node in order.graph.stream_graph.nodes.values():
        if not _can_be_pickled(node):
            what = _culprit(node.operator)
            return f"{told}: {node.name} cannot be pickled{what}: {error}"
    return f"{told}: {error}"


def _culprit(operator: Any) -> str:
    """Return which attribute of which function cannot be pickled, if that can be said."""
    for spec in operator.functions:
        attributes = vars(spec.target) if hasattr(spec.target, "__dict__") else {}
        parts = {
            **{f"attribute {name!r}": value for name, value in attributes.items()},
            **{f"argument {i}": value for i, value in enumerate(spec.args)},
            **{f"argument {name!r}": value for name, value in spec.kwargs.items()},
            **_captured(spec.target),
        }
        for name, value in parts.items():
            if not _can_be_pickled(value):
                return f", because of the {name} of {spec.name}"
    return ""


def _captured(function: Any) -> dict[str, Any]:
    """Return what a function uses of its surroundings, as far as it goes along with it."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    if code is None:
        return {}
    own = zip(code.co_freevars, cells, strict=False)
    around = function.__globals__ if function.__module__ == "__main__" else {}
    return {f"variable {name!r}": cell.cell_contents for name, cell in own} | {
        f"global variable {name!r}": around[name] for name in code.co_names if name in around
    }


def _can_be_pickled(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - that is the question
        return False
    return True
