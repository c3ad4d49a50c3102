"""The state of one operator of one subtask: taken between two batches, written as bytes, restored.

A *part* is pickled at once, in the task's thread, so that it cannot change while it is written. It is
either full, or holds what changed since the part before; a chain of one full part and what changed
after it gives the state back. An operator without state has no part.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage.dataflow.function.sink import SinkWriter, TwoPhaseWriter
from sage.dataflow.time import MIN_WATERMARK
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.live_operator import LiveOperator
from sage.kernel.state.backend import OperatorStore


@dataclass(frozen=True)
class StatePart:
    """A piece of an operator's state.

    Attributes:
        full: Whether it stands for itself; else it follows the parts before it.
        data: Pickled.
    """

    full: bool
    data: bytes


def take_part(
    live: LiveOperator,
    checkpoint_id: int,
    in_loop: list[Any] | None,
    *,
    full: bool,
    ended: bool = False,
) -> StatePart | None:
    """Take the state of an operator.

    Args:
        live: The operator.
        checkpoint_id: The number of the checkpoint.
        in_loop: What is on its way back to the head of a loop.
        full: Whether to take all of it.
        ended: Whether it has put out what goes out at the end of its input.

    Returns:
        The part; None if there is nothing to say: no state, or no change.

    Raises:
        Exception: what the user's code raised; or something cannot be pickled.
    """
    content: dict[str, Any] = {"ended": True} if ended else {}
    if live.reader is not None:
        content["reader"] = live.positions = dict(live.reader.snapshot())
    if in_loop is not None:
        content["in_loop"] = in_loop
    if live.writer is not None:
        content |= _writer_state(live, live.writer, checkpoint_id)
    if live.part is not None:
        content |= _live_state(live, full=full)
        if live.watermark != MIN_WATERMARK:
            content["watermark"] = live.watermark
    content |= live.context.take_tables(full=full)
    if live.store is not None:
        content |= _store_state(live.store, full=full)
    if content or (full and _may_have_state(live)):  # whoever had state may have none any more
        return StatePart(full, _dumps(content))
    return None


def _may_have_state(live: LiveOperator) -> bool:
    return live.part is not None or live.store is not None or live.writer is not None


def commit_at_once(live: LiveOperator) -> None:
    """Let a two-phase writer commit at the end of input of a job that takes no checkpoints.

    Raises:
        OperatorError: it cannot.
    """
    writer = live.writer
    if not isinstance(writer, TwoPhaseWriter):
        return
    try:
        prepared = writer.prepare_commit(0)
        if prepared is not None:
            writer.commit(prepared)
    except USER_ERRORS as error:
        raise operator_error(error, live.node, "commit") from error


def _writer_state(
    live: LiveOperator, writer: SinkWriter[Any], checkpoint_id: int
) -> dict[str, Any]:
    writer.flush()
    if isinstance(writer, TwoPhaseWriter):
        prepared = writer.prepare_commit(checkpoint_id)
        if prepared is not None:
            live.uncommitted.prepared[checkpoint_id] = prepared
    if not isinstance(writer, TwoPhaseWriter) and type(writer).snapshot is SinkWriter.snapshot:
        return {}
    # Also if it is nothing: what an earlier part says to be uncommitted is committed by now.
    return {"writer": writer.snapshot(), "uncommitted": dict(live.uncommitted.prepared)}


def _store_state(store: OperatorStore, *, full: bool) -> dict[str, Any]:
    if full:
        return {"store": store.take_full()}
    changes = store.take_changes()
    of_tables = (changes["tables"], changes.get("entries", {}))
    tables = [table for kind in of_tables for table in kind.values()]
    small = changes["broadcast"] or changes["lists"] or "files" in changes
    changed = small or any(map(any, (*tables, changes["event"], changes["processing"])))
    return {"store": changes} if changed else {}


def _live_state(live: LiveOperator, *, full: bool) -> dict[str, Any]:
    assert live.part is not None
    if full:
        state = live.part.full_state()
        live.part.take_changes()  # what changed so far is in the full state
    else:
        state = live.part.take_changes()
    return {} if state is None else {"live": state}


def _dumps(content: Mapping[str, Any]) -> bytes:
    try:
        return pickle.dumps(content, 5)
    except Exception:  # noqa: BLE001 - a lambda, say; what cannot be pickled at all raises below
        import cloudpickle  # few need it, and all would wait for its import  # noqa: PLC0415

        return cloudpickle.dumps(content, 5)  # type: ignore[no-any-return]
