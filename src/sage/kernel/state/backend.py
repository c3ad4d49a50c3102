"""`StateBackend`: what keeps the state that functions declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sage.common.errors import StateError
from sage.dataflow.key_group import Share
from sage.dataflow.state.heap_store import HeapKeyedStore

if TYPE_CHECKING:
    from sage.kernel.state.disk_operator_store import DiskOperatorStore

BackendName = Literal["heap", "disk"]
OperatorStore: TypeAlias = "HeapKeyedStore | DiskOperatorStore"


@dataclass(frozen=True)
class StateBackend:
    """What keeps the state that functions declare.

    Attributes:
        name: `"heap"` or `"disk"`.
        directory: Below it are the files of the disk backend; `None`: below the system's directory
            for temporary files.
        cache_bytes: Bytes of memory for each operator on the disk: half for the database, half for
            what is read and written often.
    """

    name: BackendName = "heap"
    directory: str | None = None
    cache_bytes: int = 128 << 20

    def open_store(
        self, job: str, operator: str, now_ms: Callable[[], int], *, layered: bool, states: int = 1
    ) -> tuple[OperatorStore, Callable[[], None]]:
        """Make the empty store of an operator.

        Args:
            job: The name of the job. What killed processes have left of it is removed.
            operator: The name of the operator.
            now_ms: Says the processing time.
            layered: Whether changes will be asked for.
            states: How many states the functions declare.

        Returns:
            The store, and what closes it and removes its files.

        Raises:
            ConfigError: RocksDB is not installed.
            DiskStateError: the directory cannot be used.
        """
        if self.name == "heap":
            return HeapKeyedStore(now_ms, layered=layered), _nothing
        # It is for those who use it: a third of a second of imports, and an extra.
        from sage.kernel.state import disk_directories  # noqa: PLC0415

        memory = disk_directories.Memory.split(self.cache_bytes, states)
        base = disk_directories.base_directory(self.directory)
        return disk_directories.open_below(
            base, (job, operator), now_ms, layered=layered, memory=memory
        )


def restore_chain(store: OperatorStore, chain: Sequence[Mapping[str, Any]]) -> None:
    """Give a store what its predecessor has said: a full part, then changes.

    Raises:
        StateError: the predecessor was of a kind that this store does not understand.
    """
    if isinstance(store, HeapKeyedStore) and any(map(_was_kept_on_disk, chain)):
        raise StateError(
            "the checkpoint was taken with the state backend 'disk', which 'heap' cannot read: call"
            " env.set_state_backend('disk'); the other way round is possible"
        )
    for full in chain[:1]:
        store.load(full)
    for changes in chain[1:]:
        store.apply(changes)


def restore_parts(
    store: OperatorStore,
    parts: Sequence[Sequence[Mapping[str, Any]]],
    share: Share,
    make_other: Callable[[], tuple[OperatorStore, Callable[[], None]]],
) -> None:
    """Give a store what belongs to it of what several predecessors have said.

    Args:
        store: The store, empty.
        parts: For each predecessor its chain: a full part, then changes.
        share: What belongs to this one.
        make_other: Makes another store of the same kind, for the time being, and what closes it.

    Raises:
        StateError: a predecessor was of a kind that this store does not understand.
    """
    for chain in parts[:1]:
        restore_chain(store, chain)
        if share.parallelism > 1:
            store.restrict(share.owns)
    for chain in parts[1:]:
        other, close = make_other()
        try:
            restore_chain(other, chain)
            store.join(other, share.owns)  # type: ignore[arg-type]  # of the same kind
        finally:
            close()


def _was_kept_on_disk(said: Mapping[str, Any]) -> bool:
    return "files" in said or "entries" in said


def _nothing() -> None:
    pass
