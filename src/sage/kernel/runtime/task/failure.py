"""What becomes of an exception that a user's function raises.

Under `"fail"` it ends the task as an `OperatorError`: the operator and the record are found from the
line of the fused loop and the variables of its frame, so the loop pays nothing for it. Under `"skip"`
and `"dead_letter"` the loop has a `try` around the call (free of cost in Python 3.11 and later unless
something is raised) and calls a `RecordFailure`.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CodeType, FrameType, TracebackType
from typing import Literal

from sage import common
from sage.common.errors import OperatorError, SageError
from sage.common.log import RateLimit
from sage.common.suggest import shorten
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.operator.loop_writer import LineOrigin
from sage.dataflow.record import DeadLetter
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.operator_context import OperatorContext

USER_ERRORS = (Exception, SystemExit)
"""What users' code may raise and be told of; a function that calls `sys.exit` has failed too."""

_ENGINE = os.path.dirname(os.path.dirname(os.path.abspath(common.__file__))) + os.sep
_LIBRARIES = ("<frozen ", *{sysconfig.get_path(p) for p in ("stdlib", "purelib", "platlib")})


class RecordFailure:
    """Takes the exceptions of one operator whose policy is not `"fail"`."""

    def __init__(
        self,
        node: StreamNode,
        context: OperatorContext,
        counters: Counters,
        put: Callable[[DeadLetter], None] | None,
    ) -> None:
        self._node = node
        self._logger = context.logger
        self._limit = RateLimit(context.clock)
        self._counters = counters
        self._put = put

    def __call__(self, error: Exception, record: object) -> None:
        """Count the failure; send it to the dead letters, or log it at a bounded rate."""
        self.take_batch(error, (record,))

    def take_batch(self, error: Exception, records: Sequence[object]) -> None:
        """Do the same for all records of a batch that failed as a whole."""
        self._counters.add(self._node.id, "errors", len(records))
        if self._put is None:
            for record in records:
                self._log(error, record)
            return
        text = _user_traceback(error)
        # Without its frames, or every dead letter would keep the variables of a whole batch alive.
        bare = error.with_traceback(None)
        for record in records:
            self._put(DeadLetter(record, self._node.name, bare, text))

    def _log(self, error: Exception, record: object) -> None:
        held = self._limit.admit()
        if held is not None:
            more = f" ({held} more since the last such line)" if held else ""
            name, told = self._node.name, _describe(error)
            self._logger.warning("%s skipped %s%s: %s", name, shorten(record), more, told)


def _user_traceback(error: Exception) -> str:
    frames = _user_frames(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, frames))


Phase = Literal["record", "batch", "open", "read", "timer", "checkpoint", "commit", "end", "close"]
_DOING: dict[Phase, str] = {
    "record": "on a record",
    "batch": "on a batch",
    "open": "while opening",
    "read": "while reading",
    "checkpoint": "while its state was taken",
    "commit": "while committing",
    "timer": "as time went on",
    "end": "at the end of its input",
    "close": "while closing",
}


def operator_error(
    error: BaseException,
    node: StreamNode,
    phase: Phase,
    record: object = None,
    *,
    size: int | None = None,
) -> OperatorError:
    """Tell `error` in the user's words: which operator, doing what, where in whose code.

    Args:
        error: What was raised.
        node: The operator.
        phase: What it was doing.
        record: With the phase "record": its input.
        size: With the phase "batch": how many records it had.
    """
    doing = f"on record {shorten(record)}" if phase == "record" else _DOING[phase]
    doing += f" of {size}" if size is not None else ""
    told = OperatorError(
        f"{node.name} failed {doing}: {_describe(error)}{_place(error)}",
        operator=node.name,
        phase=phase,
        record=record,
    )
    told.__cause__ = error.with_traceback(_user_frames(error.__traceback__))
    return told


def locate(
    error: BaseException,
    code: CodeType,
    origins: dict[int, LineOrigin],
    nodes: dict[int, StreamNode],
) -> OperatorError | None:
    """Find the operator of a fused loop in which `error` was raised; None if in none of them."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code is not code:
        step = step.tb_next
    origin = origins.get(step.tb_lineno) if step is not None else None
    if step is None or origin is None:
        return None
    variables = step.tb_frame.f_locals
    told = operator_error(error, nodes[origin.node], "record", variables.get(origin.record))
    if origin.key is not None and not _is_hashable(variables.get(origin.key)):
        key = shorten(variables.get(origin.key))
        advice = "let key_by return a string, a number or a tuple of them"
        told.args = (f"{told.args[0]}\n  the key {key} is not hashable: {advice}",)
    return told


def empty_engine_frames(error: BaseException | None) -> None:
    """Let go of the variables of the engine's own frames that an exception and its causes keep.

    They hold the batch, the readers and the state of a task that has ended. The user's frames stay
    as they are, for whoever wants to look at them.
    """
    while error is not None:
        step = error.__traceback__
        while step is not None:
            _empty_frames(step.tb_frame)
            step = step.tb_next
        error = error.__cause__


def _empty_frames(frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith((_ENGINE, "<sage ")):
            with suppress(RuntimeError):  # it is running still
                frame.clear()
                frame.f_locals.keys()  # until 3.12 a copy, which is brought up to date when read
        frame = frame.f_back


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _describe(error: BaseException) -> str:
    if isinstance(error, SageError):
        return str(error)  # it is a sentence already
    return "".join(traceback.format_exception_only(error)).strip()


def _place(error: BaseException) -> str:
    """Return the innermost line of the user's own code, or of any code, that `error` came by."""
    frames = traceback.extract_tb(_user_frames(error.__traceback__))
    outside = [frame for frame in frames if not frame.filename.startswith(_ENGINE)]
    own = [frame for frame in outside if not frame.filename.startswith(_LIBRARIES)]
    if not outside:
        return ""
    frame = (own or outside)[-1]
    return f"\n  at {frame.filename}:{frame.lineno} in {frame.name}"


def _user_frames(step: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is not the engine's."""
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith((_ENGINE, "<sage ")):
            return step
        step = step.tb_next
    return None


def add_notes(failure: BaseException, others: list[OperatorError]) -> None:
    """Tell of other failures in the notes of the first."""
    for other in others:
        failure.add_note(f"besides, {other}")
