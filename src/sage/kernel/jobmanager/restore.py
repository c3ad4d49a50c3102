"""From a checkpoint to the states that the operators of a job find when they are opened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean
from sage.kernel.checkpoint.metadata import CheckpointMetadata, Chunk
from sage.kernel.runtime.task.restored_state import RestoredState


@dataclass(frozen=True)
class RestoredJob:
    """What a job goes on from.

    Attributes:
        checkpoint_id: The number of the checkpoint; 0: the job starts afresh.
        states: The states by the uid of their operator.
        ended: The names of the tasks that had ended.
    """

    checkpoint_id: int = 0
    states: dict[str, RestoredState] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()


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
    """
    states: dict[str, RestoredState] = {}
    for subtask in metadata.subtasks:
        chunks = iter(subtask.chunks)
        for uid, count in subtask.details.get("operators", {}).items():
            chain = [next(chunks) for _ in range(count)]
            if uid in uids:
                states[uid] = RestoredState.of([read(chunk) for chunk in chain])
            elif not allow_non_restored_state:
                raise ConfigError(_unknown(metadata, uid, uids))
    ended = frozenset(subtask.task for subtask in metadata.subtasks if subtask.ended)
    return RestoredJob(metadata.checkpoint_id, states, ended)


def _unknown(metadata: CheckpointMetadata, uid: str, uids: Collection[str]) -> str:
    near = did_you_mean(uid, uids)
    return (
        f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r} holds the state of the "
        f"operator {uid!r}, which this program does not have.{near} Give operators that keep state "
        "a uid= of their own, so that they are found again when the program changes; or leave that "
        f"state out with allow_non_restored_state=True. The program has: {', '.join(sorted(uids))}."
    )
