"""What jobs over several processes leave in the system: processes, queues."""

import os
import time
from pathlib import Path

from patience import PATIENCE

PROGRAM = b"sage.kernel.runtime.worker"


def workers(parent=None):
    """Return the workers that a process, by default this one, has started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == (parent or os.getpid()):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if PROGRAM in command:
                found.append(int(entry.name))
    return sorted(found)


def _parent(entry):
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return None


def is_alive(pid):
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory(pid):
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def queues():
    """Return the names of the queues of jobs that there are."""
    files = Path(os.environ["SAGE_QUEUE_DIR"]).rglob("*sage-x*")
    return sorted(file.name for file in files)


def wait_until(condition, patience=PATIENCE):
    """Return what `condition()` returns once that is true."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)
    return found
