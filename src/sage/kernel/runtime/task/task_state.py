"""`TaskState`: the state of all operators of a task, taken, committed and gone on from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage.dataflow.operator.record_wise import LoopHead
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.inlet import ReadPositions
from sage.kernel.runtime.task.live_operator import LiveOperator
from sage.kernel.runtime.task.operator_state import StatePart, commit_at_once, take_part


class TaskState:
    """Takes the state of the operators of a task, and tells them what has become of it.

    Args:
        live: The operators.
        backlog: What is on its way back to the heads of loops, with where it goes.

    Attributes:
        ended_nodes: The operators that have put out what goes out at the end of their input; those
            of an earlier attempt too.
    """

    def __init__(
        self,
        live: Mapping[int, LiveOperator],
        backlog: deque[tuple[tuple[int, int], Sequence[Any]]],
    ) -> None:
        self.ended_nodes: set[int] = set()
        self._live = live
        self._backlog = backlog
        self._read_positions: dict[int, ReadPositions] = {}

    def go_on(self) -> None:
        """Take over what is the task's own of what the operators find of an earlier attempt."""
        for live in self._live.values():
            if live.restored is None:
                continue
            for (_, index), values in live.restored.last("in_loop") or ():
                self._backlog.append(((live.node.id, index), values))
            if live.restored.last("ended"):
                self.ended_nodes.add(live.node.id)

    def take(self, checkpoint_id: int, full: Callable[[str], bool]) -> dict[str, StatePart]:
        """Take the state of all operators.

        Args:
            checkpoint_id: The number of the checkpoint.
            full: Says of an operator, by its uid, whether all of its state is wanted.

        Returns:
            The parts by the uids of their operators; those without state have none.

        Raises:
            OperatorError: an operator cannot say its state.
        """
        parts = {}
        for live in self._live.values():
            uid, ended = live.node.uid, live.node.id in self.ended_nodes
            try:
                part = take_part(
                    live, checkpoint_id, self._in_loop(live), full=full(uid), ended=ended
                )
                if live.reader is not None and live.positions is not None:
                    noted = self._read_positions.setdefault(live.node.id, ReadPositions())
                    noted.note(checkpoint_id, live.positions)
            except USER_ERRORS as error:
                raise operator_error(error, live.node, "checkpoint") from error
            if part is not None:
                parts[uid] = part
        return parts

    def _in_loop(self, live: LiveOperator) -> list[object] | None:
        """Return what is on its way back to the head of a loop; None for other operators."""
        if not isinstance(live.node.operator, LoopHead):
            return None
        return [(place, list(v)) for place, v in self._backlog if place[0] == live.node.id]

    def commit(self, checkpoint_id: int) -> None:
        """Let readers and sinks know that checkpoints up to this one are complete.

        Raises:
            OperatorError: one of them fails.
        """
        for node, noted in self._read_positions.items():
            live, positions = self._live[node], noted.complete(checkpoint_id)
            if live.reader is not None and positions is not None:
                try:
                    live.reader.checkpoint_complete(positions)
                except USER_ERRORS as error:
                    raise operator_error(error, live.node, "commit") from error
        for live in self._live.values():
            if live.writer is not None:
                try:
                    live.uncommitted.commit(live.writer, checkpoint_id)
                except USER_ERRORS as error:
                    raise operator_error(error, live.node, "commit") from error

    def commit_at_once(self) -> None:
        """Let sinks commit at the end of input, where no checkpoints are taken.

        Raises:
            OperatorError: one of them fails.
        """
        for live in self._live.values():
            commit_at_once(live)

    def query(self, uid: str, name: str, key: Any) -> Any:
        """Return the present value of a key in a state that an operator declares; from any thread.

        Raises:
            KeyError: no operator has that uid.
        """
        for live in tuple(self._live.values()):
            if live.node.uid == uid:
                return None if live.store is None else live.store.query(name, key)
        raise KeyError(uid)
