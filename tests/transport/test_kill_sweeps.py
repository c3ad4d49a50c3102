"""Short runs of the two kill sweeps; run the scripts themselves for long ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from transport.kill_fuzz import Tally, fuzz_round
from transport.single_step import SCENARIOS, TUNABLES, may_trace


@pytest.mark.parametrize("seed", range(8))
def test_random_kills(seed):
    """Nothing acknowledged is lost, nothing is corrupt or doubled, nobody hangs."""
    tally = Tally()
    fuzz_round(seed, kills=25, tally=tally)
    assert tally.delivered > 0


@pytest.mark.skipif(not may_trace(), reason="this system does not allow single-stepping a child")
def test_killed_after_every_nth_instruction():
    """Whatever instruction it was, peers asleep get what was published, unaided."""
    sweep = subprocess.run(
        [sys.executable, "-W", "error", "-m", "transport.single_step", "--stride", "101"],
        env=os.environ | TUNABLES | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert sweep.returncode == 0, sweep.stderr
    assert sweep.stdout.count("ok") == len(SCENARIOS)
