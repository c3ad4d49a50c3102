"""From a checkpoint to the states that the operators of a job find when they are opened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.messages import Subtask, SubtaskSnapshot
from sage.kernel.checkpoint.metadata import CheckpointMetadata, Chunk, SubtaskState
from sage.kernel.runtime.task.restored_state import RestoredState


@dataclass(frozen=True)
class RestoredJob:
    """What a job goes on from.

    Attributes:
        checkpoint_id: The number of the checkpoint; 0: the job starts afresh.
        states: The states by the uid of their operator.
        ended: The names of the tasks that had ended.
        final_states: Where the state of those tasks is, for the checkpoints to come.
    """

    checkpoint_id: int = 0
    states: dict[str, RestoredState] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()
    final_states: dict[Subtask, SubtaskSnapshot] = field(default_factory=dict)


def restore_job(
    metadata: CheckpointMetadata,
    read: Callable[[Chunk], bytes],
    uids: Collection[str],
    *,
    allow_non_restored_state: bool = False,
) -> RestoredJob:
    """Read the states of a checkpoint or savepoint.

    Args:
        metadata: What is in it.
        read: Returns the bytes of a chunk, verified.
        uids: Those of the operators of the program.
        allow_non_restored_state: Leave out the state of operators that the program does not have.

    Raises:
        ConfigError: there is state for an operator that the program does not have.
        CheckpointDamagedError: a chunk is missing or damaged.
        CheckpointError: what is in a chunk cannot be unpickled.
    """
    states: dict[str, RestoredState] = {}
    final: dict[Subtask, SubtaskSnapshot] = {}
    for subtask in metadata.subtasks:
        chains = _chains(subtask)
        for uid, chain in chains.items():
            if uid in uids:
                states[uid] = _state(metadata, uid, [read(chunk) for chunk in chain])
            elif not allow_non_restored_state:
                raise ConfigError(_unknown(metadata, uid, uids))
        if subtask.ended:
            size = sum(chunk.size for chunk in subtask.chunks)
            final[Subtask(subtask.task, subtask.number)] = SubtaskSnapshot(chains, size, 0)
    ended = frozenset(subtask.task for subtask in final)
    return RestoredJob(metadata.checkpoint_id, states, ended, final)


def _chains(subtask: SubtaskState) -> dict[str, tuple[Chunk, ...]]:
    chunks = iter(subtask.chunks)
    counts: dict[str, int] = subtask.details.get("operators", {})
    return {uid: tuple(islice(chunks, count)) for uid, count in counts.items()}


def _state(metadata: CheckpointMetadata, uid: str, parts: list[bytes]) -> RestoredState:
    try:
        return RestoredState.of(parts)
    except Exception as error:
        raise CheckpointError(
            f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r}: the state of the operator "
            f"{uid!r} cannot be read: {shorten(error)}. Has a class been moved or renamed?"
        ) from error


def _unknown(metadata: CheckpointMetadata, uid: str, uids: Collection[str]) -> str:
    near = did_you_mean(uid, uids)
    return (
        f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r} holds the state of the "
        f"operator {uid!r}, which this program does not have.{near} Give operators that keep state "
        "a uid= of their own, so that they are found again when the program changes; or leave that "
        f"state out with allow_non_restored_state=True. The program has: {', '.join(sorted(uids))}."
    )
