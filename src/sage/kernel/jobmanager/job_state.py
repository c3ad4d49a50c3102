"""The states of a job and of its regions, and every legal transition, in one table each. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sage.common.errors import JobStateError


class JobStatus(StrEnum):
    """Where a job is in its life; the values are Flink's names."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    FAILING = "FAILING"
    RESTARTING = "RESTARTING"
    CANCELLING = "CANCELLING"
    CANCELED = "CANCELED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    SUSPENDED = "SUSPENDED"

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this state never leaves it."""
        return not TRANSITIONS[self]


TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.CREATED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.FINISHED, JobStatus.FAILING, JobStatus.CANCELLING, JobStatus.SUSPENDED}
    ),
    JobStatus.FAILING: frozenset({JobStatus.RESTARTING, JobStatus.FAILED, JobStatus.CANCELLING}),
    JobStatus.RESTARTING: frozenset(
        {JobStatus.RUNNING, JobStatus.FAILING, JobStatus.CANCELLING, JobStatus.SUSPENDED}
    ),
    JobStatus.CANCELLING: frozenset({JobStatus.CANCELED, JobStatus.FAILED}),
    JobStatus.SUSPENDED: frozenset({JobStatus.RESTARTING, JobStatus.CANCELED}),
    JobStatus.CANCELED: frozenset(),
    JobStatus.FINISHED: frozenset(),
    JobStatus.FAILED: frozenset(),
}


class RegionStatus(StrEnum):
    """Where a region is: those tasks of a job that fail and are started again together."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    FAILING = "FAILING"
    RESTARTING = "RESTARTING"
    ENDING = "ENDING"
    ENDED = "ENDED"


REGION_TRANSITIONS: Final[dict[RegionStatus, frozenset[RegionStatus]]] = {
    RegionStatus.CREATED: frozenset({RegionStatus.RUNNING, RegionStatus.ENDED}),
    RegionStatus.RUNNING: frozenset(
        {RegionStatus.FAILING, RegionStatus.ENDING, RegionStatus.ENDED}
    ),
    RegionStatus.FAILING: frozenset({RegionStatus.RESTARTING, RegionStatus.ENDING}),
    RegionStatus.RESTARTING: frozenset({RegionStatus.RUNNING, RegionStatus.ENDED}),
    RegionStatus.ENDING: frozenset({RegionStatus.ENDED}),
    RegionStatus.ENDED: frozenset(),
}
"""A region is `FAILING` until its tasks have ended, to be started again; `ENDING`: not to be."""


def check_transition(current: JobStatus, following: JobStatus) -> JobStatus:
    """Return `following` if a job may go there from `current`.

    Raises:
        JobStateError: it may not.
    """
    if following not in TRANSITIONS[current]:
        raise JobStateError(f"a job that is {current} cannot become {following}")
    return following


def check_region_transition(current: RegionStatus, following: RegionStatus) -> RegionStatus:
    """Return `following` if a region may go there from `current`.

    Raises:
        JobStateError: it may not.
    """
    if following not in REGION_TRANSITIONS[current]:
        raise JobStateError(f"a region that is {current} cannot become {following}")
    return following
