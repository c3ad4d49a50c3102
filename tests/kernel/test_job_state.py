"""The table of a job's life: every transition that is not in it raises."""

import itertools

import pytest

from sage import JobStateError, JobStatus
from sage.kernel.jobmanager.job_state import TRANSITIONS, check_transition

LEGAL = {
    ("CREATED", "RUNNING"),
    ("CREATED", "FAILED"),
    ("CREATED", "CANCELED"),
    ("RUNNING", "FINISHED"),
    ("RUNNING", "FAILING"),
    ("RUNNING", "CANCELLING"),
    ("RUNNING", "SUSPENDED"),
    ("FAILING", "RESTARTING"),
    ("FAILING", "FAILED"),
    ("FAILING", "CANCELLING"),
    ("RESTARTING", "RUNNING"),
    ("RESTARTING", "FAILING"),
    ("RESTARTING", "CANCELLING"),
    ("RESTARTING", "SUSPENDED"),
    ("CANCELLING", "CANCELED"),
    ("CANCELLING", "FAILED"),
    ("SUSPENDED", "RESTARTING"),
    ("SUSPENDED", "CANCELED"),
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(JobStatus, JobStatus)), ids=str
)
def test_a_transition_is_legal_or_raises(before, after):
    if (before.value, after.value) in LEGAL:
        assert check_transition(before, after) is after
    else:
        with pytest.raises(JobStateError, match=f"{before} cannot become {after}"):
            check_transition(before, after)


def test_the_table_names_every_state():
    assert set(TRANSITIONS) == set(JobStatus)


def test_the_end_states_are_those_without_a_way_out():
    ends = {status for status in JobStatus if status.is_terminal}
    assert ends == {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED}


def test_every_state_can_be_reached_and_leads_to_an_end():
    def reachable(start):
        found, frontier = set(), [start]
        while frontier:
            for status in TRANSITIONS[frontier.pop()] - found:
                found.add(status)
                frontier.append(status)
        return found

    assert reachable(JobStatus.CREATED) == set(JobStatus) - {JobStatus.CREATED}
    for status in JobStatus:
        assert status.is_terminal or any(end.is_terminal for end in reachable(status))


def test_a_status_is_its_name():
    assert JobStatus.RUNNING == "RUNNING"
    assert f"{JobStatus.CANCELED}" == "CANCELED"
