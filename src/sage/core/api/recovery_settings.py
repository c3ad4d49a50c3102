"""From the configuration of an environment to checkpoints and restarts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sage.common.clock import Clock
from sage.common.log import get_logger
from sage.kernel.checkpoint.checkpoint_config import CHECKPOINT_KEYS, CheckpointConfig
from sage.kernel.checkpoint.restart_strategy import (
    RESTART_KEYS,
    parse_failover,
    parse_restart_strategy,
)
from sage.kernel.checkpoint.store import FileCheckpointStore, Savepoint
from sage.kernel.jobmanager.checkpointing import Checkpointing
from sage.kernel.jobmanager.layout import Layout
from sage.kernel.jobmanager.recovery import Recovery
from sage.kernel.jobmanager.restore import RestoredJob, restore_job

RECOVERY_KEYS = CHECKPOINT_KEYS | RESTART_KEYS
"""The keys of a configuration that are about checkpoints and restarts."""


def make_recovery(
    job: str,
    config: Mapping[str, Any],
    layout: Layout,
    clock: Clock,
    fail_job: Callable[[str], None],
    *,
    from_savepoint: str | None = None,
    allow_non_restored_state: bool = False,
) -> Recovery:
    """Return how a job keeps its state and goes on after a failure.

    A store that holds checkpoints of the job is gone on from, unless there is a savepoint to start
    from.

    Args:
        job: The name of the job.
        config: The configuration; other keys are left alone.
        layout: What runs, and where its subtasks are.
        clock: The job's clock.
        fail_job: Called when too many checkpoints have failed.
        from_savepoint: The directory of a savepoint.
        allow_non_restored_state: Leave out state that the program has no operator for.

    Raises:
        ConfigError: a setting is not usable, or a state has no operator.
        CheckpointError: the store or the savepoint cannot be read.
    """
    checkpoints = CheckpointConfig.parse(_only(config, CHECKPOINT_KEYS))
    takes = checkpoints.path is not None or checkpoints.interval is not None
    default = "exponential-delay" if takes else "none"
    restarts = _only(config, RESTART_KEYS)
    recovery = Recovery(parse_restart_strategy(restarts, default), parse_failover(restarts))
    restored = RestoredJob()
    if from_savepoint is not None:
        restored = _read_savepoint(from_savepoint, layout, allow_non_restored_state)
    if takes:
        restored = _add_checkpoints(recovery, job, checkpoints, layout, clock, fail_job, restored)
    recovery.restored = restored
    if recovery.checkpoints is not None:
        recovery.checkpoints.ended = restored.final_states
        groups = restored.max_parallelism or layout.max_parallelism
        recovery.checkpoints.layout = replace(layout, max_parallelism=groups).details()
    return recovery


def _add_checkpoints(  # noqa: PLR0917 - what a store of checkpoints is made of
    recovery: Recovery,
    job: str,
    config: CheckpointConfig,
    layout: Layout,
    clock: Clock,
    fail_job: Callable[[str], None],
    savepoint: RestoredJob,
) -> RestoredJob:
    path = default_directory() if config.path is None else Path(config.path)
    job = directory_name(job)
    store = FileCheckpointStore(path, job, config.retained)
    get_logger("checkpoint").info("checkpoints of job %r go to %s", job, store.directory)
    try:
        latest = partial(_read_latest, store, layout)
        found = None if savepoint.checkpoint_id else latest()
    except BaseException:
        store.close()
        raise
    recovery.checkpoints = Checkpointing(job, config, store, clock, fail_job)
    recovery.read_latest = latest
    recovery.delete_on_cancel = config.on_cancel == "delete"
    if found is not None:
        get_logger("checkpoint").info("job %r goes on from checkpoint %d", job, found.checkpoint_id)
    return found or savepoint


def default_directory() -> Path:
    """Return where checkpoints go if nothing is said: below the state directory of the user."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "sage" / "checkpoints"


def directory_name(job: str) -> str:
    """Return the name of a directory for a job: its own name, if that can be one.

    Examples:
        >>> directory_name("flights"), directory_name("my job")[:7]
        ('flights', 'my_job-')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", job)[:80]
    if plain == job and not plain.startswith((".", "-")):
        return job
    return f"{plain.lstrip('.-')}-{hashlib.blake2b(job.encode(), digest_size=4).hexdigest()}"


def _read_latest(store: FileCheckpointStore, layout: Layout) -> RestoredJob | None:
    metadata = store.latest()
    return None if metadata is None else restore_job(metadata, store.read, layout)


def _read_savepoint(directory: str, layout: Layout, allow: bool) -> RestoredJob:
    savepoint = Savepoint(Path(directory))
    savepoint.verify()
    return restore_job(savepoint.metadata, savepoint.read, layout, allow_non_restored_state=allow)


def _only(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in keys}
