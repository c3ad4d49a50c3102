"""`ProcessId`: a process that can be told from a later one with the same number."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec

_ENDED = frozenset("ZXx")  # a process that was killed and not yet waited for still has a number


class ProcessId(msgspec.Struct, frozen=True):
    """Which process, for good: numbers are used again, and start again with the machine.

    Attributes:
        pid: Its number.
        started: When it started, in clock ticks since the machine did.
        boot: Which start of the machine that was.
        namespace: In which namespace the number counts: containers have their own.

    Examples:
        >>> import os
        >>> me = ProcessId.of(os.getpid())
        >>> me.is_alive()
        True
    """

    pid: int
    started: int
    boot: str
    namespace: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of a running process, or `None` if there is none of this number."""
        started = _started(pid)
        return None if started is None else cls(pid, started, _boot(), _namespace())

    def is_alive(self) -> bool:
        """Say whether it runs.

        A process of another namespace cannot be seen from here: it is taken to run.
        """
        if self.boot != _boot():
            return False
        return self.namespace != _namespace() or _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    """Read when a process started; see proc_pid_stat(5) for the places of the fields."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in _ENDED else int(fields[19])


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")
