"""What becomes of the workers when their program is ended."""

import os
import signal
import subprocess
import sys

import pytest

from parallel.processes import is_alive, queues, wait_until, workers
from parallel.sources import size_of
from sage.kernel.transport.sage_queue import remove_queue


@pytest.fixture
def program(tmp_path):
    """A program whose workers work; it is killed at the end."""
    marks = str(tmp_path / "marks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "parallel.program", marks],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    with process:
        try:
            wait_until(lambda: size_of(marks) == 100)
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_all_processes_in_order(program):
    started = workers(program.pid)
    assert len(started) == 2
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = program.communicate(timeout=20)
    assert program.returncode == 130 or "KeyboardInterrupt" in err
    assert not any(map(is_alive, started))
    words = [line.split() for line in out.splitlines()]
    assert {word for word, _ in words} == {"worker", "closed"}
    assert sorted(int(pid) for word, pid in words if word == "closed") == started
    assert not queues()


def test_workers_end_with_a_program_that_is_killed(program):
    started = workers(program.pid)
    program.kill()
    wait_until(lambda: not any(map(is_alive, started)))
    for name in queues():  # what `sage queue` finds: nobody could remove them
        remove_queue(name.removesuffix(".queue"))
