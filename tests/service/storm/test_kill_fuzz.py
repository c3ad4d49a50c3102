"""A slice of the kill fuzz: some deaths of services, and that of the program that started them."""

from __future__ import annotations

from service.storm.kill_fuzz import fuzz


def test_no_call_is_lost_when_processes_are_killed():
    tally = fuzz(2, rounds=2, kills=5, pause=0.2)
    assert (tally.kills, tally.host_kills) == (5, 1)
    assert tally.acknowledged > 0
    assert sorted(tally.told)[len(tally.told) // 2] < 2 if tally.told else True
