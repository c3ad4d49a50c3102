"""`IdleWorkers`: processes that have ended one slot and wait for what they are to run next."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from typing import Final

_PATIENCE: Final = 5.0


class IdleWorkers:
    """The living processes of a job between two attempts. For all threads.

    To start Python and import what a slot needs takes most of the time of a restart.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def keep(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        """Keep the process that has run a slot."""
        with self._lock:
            self._processes[slot] = process

    def take(self, slot: int) -> subprocess.Popen[bytes] | None:
        """Return the process that has run a slot before, if there is one and it lives."""
        with self._lock:
            process = self._processes.pop(slot, None)
        if process is not None and process.poll() is not None:
            close_pipes(process)
            return None
        return process

    def close(self) -> None:
        """End all that are kept: they leave when nobody can tell them anything any more."""
        with self._lock:
            processes, self._processes = list(self._processes.values()), {}
        for process in processes:
            close_pipes(process)
        for process in processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close the ends of the pipes that are here."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
