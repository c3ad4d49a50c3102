"""From a checkpoint to the states that the operators of a job find when they are opened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten
from sage.dataflow.graph.execution_graph import ExecutionGraph
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.metadata import CheckpointMetadata, Chunk, SubtaskState
from sage.kernel.runtime.task.restored_state import RestoredState


@dataclass(frozen=True)
class EndedTasks:
    """What a checkpoint tells of the tasks that had ended, for the checkpoints to come.

    Attributes:
        uids: The uids of all their operators.
        chains: Where the state of these is, by uid.
        read: Reads it, if it is not in the store of the job: it belongs to a savepoint.
    """

    uids: frozenset[str] = frozenset()
    chains: Mapping[str, tuple[Chunk, ...]] = field(default_factory=dict)
    read: Callable[[Chunk], bytes] | None = None


@dataclass(frozen=True)
class RestoredJob:
    """What a job goes on from. The states are handed out once.

    Attributes:
        checkpoint_id: The number of the checkpoint; 0: the job starts afresh.
        states: The states by the uid of their operator, of a job in one process.
        slots: The same for each slot, of a job over several processes.
        final_states: What is known of the tasks that had ended.
        from_savepoint: Whether it was a savepoint.
        read_again: Reads the same once more.
    """

    checkpoint_id: int = 0
    states: dict[str, RestoredState] = field(default_factory=dict)
    slots: tuple[dict[str, RestoredState], ...] = ()
    final_states: EndedTasks = field(default_factory=EndedTasks)
    from_savepoint: bool = False
    read_again: Callable[[], RestoredJob] = field(default=lambda: RestoredJob())  # noqa: PLW0108


def restore_job(
    metadata: CheckpointMetadata,
    read: Callable[[Chunk], bytes],
    uids: Collection[str],
    *,
    allow_non_restored_state: bool = False,
    layout: Mapping[str, Any] | None = None,
) -> RestoredJob:
    """Read the states of a checkpoint or savepoint.

    Args:
        metadata: What is in it.
        read: Returns the bytes of a chunk, verified.
        uids: Those of the operators of the program.
        allow_non_restored_state: Leave out the state of operators that the program does not have.
        layout: How the subtasks of the program are laid out over processes, see `layout_details`;
            None: it runs in one.

    Raises:
        ConfigError: there is state for an operator that the program does not have, or it was taken
            with another parallelism.
        CheckpointDamagedError: a chunk is missing or damaged.
        CheckpointError: what is in a chunk cannot be unpickled.
    """
    _check_layout(metadata, layout or {})
    slots: list[dict[str, RestoredState]] = [{} for _ in range((layout or {}).get("slots", 0))]
    states: dict[str, RestoredState] = {}
    ended: dict[str, tuple[Chunk, ...]] = {}
    ended_uids: set[str] = set()
    for subtask in metadata.subtasks:
        chains = _chains(subtask)
        found = slots[subtask.number] if slots else states
        for uid, chain in chains.items():
            if uid in uids:
                found[uid] = _state(metadata, uid, map(read, chain))
            elif not allow_non_restored_state:
                raise ConfigError(_unknown(metadata, uid, uids))
        if subtask.ended and not slots:  # a slot is started all the same: others may depend on it
            ended |= chains
            ended_uids.update(subtask.details.get("uids", ()))
    savepoint = metadata.kind == "savepoint"
    again = partial(
        restore_job,
        metadata,
        read,
        uids,
        allow_non_restored_state=allow_non_restored_state,
        layout=layout,
    )
    return RestoredJob(
        metadata.checkpoint_id,
        states,
        tuple(slots),
        EndedTasks(frozenset(ended_uids), ended, read if savepoint else None),
        savepoint,
        again,
    )


def layout_details(graph: ExecutionGraph) -> dict[str, Any]:
    """Return what a checkpoint tells of how subtasks were laid out over processes; plain data."""
    nodes = graph.stream_graph.nodes
    return {
        "slots": graph.workers + graph.has_client_slot,
        "max_parallelism": graph.max_parallelism,
        "parallelism": {nodes[node].uid: len(slots) for node, slots in graph.slots.items()},
    }


def _check_layout(metadata: CheckpointMetadata, layout: Mapping[str, Any]) -> None:
    """Check that state goes back to where it was.

    Raises:
        ConfigError: the program has another parallelism than when the checkpoint was taken.
    """
    before, now = metadata.details, layout
    changed = [
        f"{uid} had {count} subtasks and has {now['parallelism'][uid]}"
        for uid, count in before.get("parallelism", {}).items()
        if uid in now.get("parallelism", {}) and now["parallelism"][uid] != count
    ]
    if changed or any(before.get(key) != now.get(key) for key in ("slots", "max_parallelism")):
        had, has = before.get("slots", "one process"), now.get("slots", "one process")
        told = "; ".join(changed) or f"slots: {had}, now {has}"
        raise ConfigError(
            f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r} was taken with another "
            f"parallelism, which this version cannot change: {told}. Run the program with the "
            "parallelism that it had, or without this state"
        )


def _chains(subtask: SubtaskState) -> dict[str, tuple[Chunk, ...]]:
    chunks = iter(subtask.chunks)
    counts: dict[str, int] = subtask.details.get("operators", {})
    return {uid: tuple(islice(chunks, count)) for uid, count in counts.items()}


def _state(metadata: CheckpointMetadata, uid: str, parts: Iterable[bytes]) -> RestoredState:
    try:
        return RestoredState.of(parts)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r}: the state of the operator "
            f"{uid!r} cannot be read: {shorten(error)}. Has a class been moved or renamed?"
        ) from error


def _unknown(metadata: CheckpointMetadata, uid: str, uids: Collection[str]) -> str:
    near = did_you_mean(uid, uids)
    leave_out = "start from the savepoint with allow_non_restored_state=True"
    if metadata.kind != "savepoint":
        leave_out = f"take a savepoint with the program that has it, and {leave_out}"
    return (
        f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r} holds the state of the "
        f"operator {uid!r}, which this program does not have.{near} Give operators that keep state "
        "a uid= of their own, so that they are found again when the program changes; or, to leave "
        f"that state out, {leave_out}. The program has: {', '.join(sorted(uids))}."
    )
