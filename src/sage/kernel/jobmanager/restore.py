"""From a checkpoint to the states that the operators of a job find when they are opened."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean, shorten
from sage.dataflow.key_group import MIN_MAX_PARALLELISM
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.checkpoint.metadata import CheckpointMetadata, Chunk, SubtaskState
from sage.kernel.jobmanager.layout import Layout
from sage.kernel.jobmanager.redistribution import SavedState, Target, redistribute
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
        max_parallelism: How many key groups there are; None: nobody has said.
        from_savepoint: Whether it was a savepoint.
        read_again: Reads the same once more.
    """

    checkpoint_id: int = 0
    states: dict[str, RestoredState] = field(default_factory=dict)
    slots: tuple[dict[str, RestoredState], ...] = ()
    final_states: EndedTasks = field(default_factory=EndedTasks)
    max_parallelism: int | None = None
    from_savepoint: bool = False
    read_again: Callable[[], RestoredJob] = field(default=lambda: RestoredJob())  # noqa: PLW0108


def restore_job(
    metadata: CheckpointMetadata,
    read: Callable[[Chunk], bytes],
    layout: Layout,
    *,
    allow_non_restored_state: bool = False,
) -> RestoredJob:
    """Read the states of a checkpoint or savepoint, and give them to those who are there now.

    Args:
        metadata: What is in it.
        read: Returns the bytes of a chunk, verified.
        layout: The operators of the program, and where their subtasks are.
        allow_non_restored_state: Leave out the state of operators that the program does not have.

    Raises:
        ConfigError: there is state for an operator that the program does not have, or the number of
            key groups is another one.
        StateError: a sink cannot begin with what the writers of other subtasks have said.
        CheckpointDamagedError: a chunk is missing or damaged.
        CheckpointError: what is in a chunk cannot be unpickled.
    """
    groups = _key_groups(metadata, layout)
    saved, ended = _read(metadata, read, layout, allow_non_restored_state)
    moved = _has_moved(metadata, layout, saved)
    slots: list[dict[str, RestoredState]] = [{} for _ in range(max(1, layout.slots))]
    for uid, parts in saved.items():
        found = redistribute(parts, _target(layout, uid, groups), moved=moved)
        for slot, state in zip(layout.places[uid], found, strict=True):
            slots[slot][uid] = state
    again = partial(
        restore_job, metadata, read, layout, allow_non_restored_state=allow_non_restored_state
    )
    savepoint = metadata.kind == "savepoint"
    return RestoredJob(
        metadata.checkpoint_id,
        {} if layout.slots else slots[0],
        tuple(slots) if layout.slots else (),
        EndedTasks() if moved else replace(ended, read=read if savepoint else None),
        groups,
        savepoint,
        again,
    )


def _key_groups(metadata: CheckpointMetadata, layout: Layout) -> int | None:
    """Return how many key groups there are: as many as when the state was taken.

    Raises:
        ConfigError: the program wants another number, or has more subtasks.
    """
    said: int | None = metadata.details.get("max_parallelism")
    if said is None:  # it was in one process, and its keys in no groups
        return layout.max_parallelism
    which = f"{metadata.kind} {metadata.checkpoint_id} of {metadata.job!r}"
    told = f"{which} was taken with {said} key groups"
    if layout.is_chosen and layout.max_parallelism != said:
        raise ConfigError(
            f"{told} (max_parallelism), and the program has {layout.max_parallelism}: that number "
            "cannot change with the state kept. Leave set_max_parallelism() out, or set "
            f"max_parallelism to {said}"
        )
    if layout.largest > said:
        raise ConfigError(
            f"{told}, so no operator can have more than {said} subtasks, and the program has one with "
            f"{layout.largest}: that number cannot change with the state kept"
        )
    return said


def _read(
    metadata: CheckpointMetadata,
    read: Callable[[Chunk], bytes],
    layout: Layout,
    allow_non_restored_state: bool,
) -> tuple[dict[str, list[SavedState]], EndedTasks]:
    """Return what each operator has said, subtask by subtask; and what tasks had ended."""
    saved: dict[str, list[SavedState]] = {}
    ended: dict[str, tuple[Chunk, ...]] = {}
    ended_uids: set[str] = set()
    counts: dict[str, int] = metadata.details.get("parallelism", {})
    for subtask in metadata.subtasks:
        chains = _chains(subtask)
        for uid, chain in chains.items():
            if uid in layout.nodes:
                count = counts.get(uid, 1)
                parts = saved.setdefault(uid, [SavedState()] * count)
                parts[subtask.number if count > 1 else 0] = _state(metadata, uid, map(read, chain))
            elif not allow_non_restored_state:
                raise ConfigError(_unknown(metadata, uid, layout.nodes))
        if subtask.ended and not layout.slots:  # a slot is started: others may depend on it
            ended |= chains
            ended_uids.update(subtask.details.get("uids", ()))
    return saved, EndedTasks(frozenset(ended_uids), ended)


def _has_moved(
    metadata: CheckpointMetadata, layout: Layout, saved: Mapping[str, Sequence[SavedState]]
) -> bool:
    """Say whether anything goes to another subtask than it came from."""
    if metadata.details.get("slots", 0) != layout.slots:
        return True
    before: dict[str, int] = metadata.details.get("parallelism", {})
    now = {uid: len(places) for uid, places in layout.places.items()}
    if any(now.get(uid, count) != count for uid, count in before.items()):
        return True
    splits = {
        name: (uid, index)
        for uid, dealt in layout.splits.items()
        for index, names in enumerate(dealt)
        for name in names
    }
    return any(
        splits.get(name, (uid, index)) != (uid, index)
        for uid in layout.splits.keys() & saved.keys()
        for index, part in enumerate(saved[uid])
        for name in part.last("reader") or ()
    )


def _target(layout: Layout, uid: str, groups: int | None) -> Target:
    return Target(
        layout.nodes[uid],
        len(layout.places[uid]),
        groups or MIN_MAX_PARALLELISM,
        uid in layout.keyed,
        layout.splits.get(uid),
    )


def _chains(subtask: SubtaskState) -> dict[str, tuple[Chunk, ...]]:
    chunks = iter(subtask.chunks)
    counts: dict[str, int] = subtask.details.get("operators", {})
    return {uid: tuple(islice(chunks, count)) for uid, count in counts.items()}


def _state(metadata: CheckpointMetadata, uid: str, parts: Iterable[bytes]) -> SavedState:
    try:
        return SavedState([pickle.loads(part) for part in parts])  # noqa: S301 - our own, verified
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
