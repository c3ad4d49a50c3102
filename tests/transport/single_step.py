"""Kill a process after exactly n machine instructions of a queue operation, by ptrace.

Runnable: `python -m transport.single_step [--stride N]` (with `tests` on PYTHONPATH)
sweeps every N-th instruction of every operation and prints how many there were. It wants the C
library to copy with many plain instructions (`TUNABLES`), as a repeated string instruction traps
once per byte.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from sage.kernel.transport import _sagequeue, queue_files
from sage.kernel.transport.queue_contract import footprint
from sage.kernel.transport.sage_queue import SageQueue, remove_queue
from transport.processes import PATIENCE, eventually

CAPACITY = 1 << 16
LARGE = bytes(range(250)) * 160  # copied outside the lock; two do not fit
TUNABLES = {"GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=100000000"}
READY = 0xA1  # see _ring.c

_TRACEME, _SINGLESTEP = 0, 9
_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def may_trace() -> bool:
    """Return whether this system lets a parent single-step its child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _ptrace(_TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def kill_after(instructions: int, first_step: str, call: Callable[[], object]) -> bool:
    """Run `call` in a child, and kill it so many instructions after `first_step`.

    Returns:
        Whether the call had returned before that.
    """
    returned = mmap.mmap(-1, 1)
    pid = os.fork()
    if pid == 0:
        _ptrace(_TRACEME, 0, None, None)
        _sagequeue._arm(first_step, signal.SIGSTOP)
        call()
        returned[0] = 1
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(1)
    try:
        os.waitpid(pid, 0)
        for _ in range(instructions):
            if returned[0]:
                break
            if _ptrace(_SINGLESTEP, pid, None, None) != 0:
                raise OSError(ctypes.get_errno(), "PTRACE_SINGLESTEP")
            os.waitpid(pid, 0)
        return bool(returned[0])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        returned.close()


def head_frame_is_ready(queue: SageQueue) -> bool:
    """Look at the frame at head without taking a lock, which would recover it."""
    figures = queue.statistics()
    if figures["head"] == figures["tail"]:
        return False
    path = queue_files.queue_path(queue.name)
    with open(path, "rb") as file:
        offset = os.fstat(file.fileno()).st_size - queue.capacity
        file.seek(offset + figures["head"] % queue.capacity)
        return file.read(1)[0] == READY


@contextmanager
def _sleeping(queue: SageQueue, side: str, call, *arguments) -> Iterator[Future]:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, *arguments, timeout=PATIENCE)
        eventually(lambda: queue.statistics()[side])
        try:
            yield future
        except BaseException:
            queue.shutdown()
            raise


def _kill_put(queue: SageQueue, instructions: int, message: bytes) -> bool:
    """A consumer sleeps; a producer is killed; what it published must be got, unaided."""
    with _sleeping(queue, "consumers_sleep", queue.get) as getting:
        call = lambda: queue.put_parts([message[:1], message[1:]])  # noqa: E731
        done = kill_after(instructions, "put:entered", call)
        # Not empty with a frame that is ready: nobody may be asleep.
        if done or head_frame_is_ready(queue):
            assert getting.result(0.5) == message
        queue.put(b"after", timeout=0.5)
        got = [getting.result(0.5)]
    while got[-1] != b"after":
        got.append(queue.get(timeout=0.5))
    assert got in ([message, b"after"], [b"after"])
    return done


def _kill_get(queue: SageQueue, instructions: int, message: bytes) -> bool:
    """A producer sleeps; a consumer is killed; if it took something, the room must be used."""
    count = queue.capacity // footprint(len(message))
    assert queue.put_many([message] * count) == count
    with _sleeping(queue, "producers_sleep", queue.put, message) as putting:
        head = queue.statistics()["head"]
        done = kill_after(instructions, "get:entered", queue.get)
        # Either head has moved, or the frame is being taken: then nobody is needed to make room. The
        # frame first: the producer may wake up meanwhile, bury it and move head to the next one.
        taken = not head_frame_is_ready(queue) or queue.statistics()["head"] != head
        assert taken or not done
        if taken:
            putting.result(0.5)
        first = queue.get(timeout=0.5)
        putting.result(0.5)
    got = [first]
    while not queue.empty():
        got.append(queue.get(timeout=0.5))
    assert got == [message] * (count if taken else count + 1)
    return done


SCENARIOS: dict[str, tuple[Callable[[SageQueue, int, bytes], bool], bytes]] = {
    "put small": (_kill_put, b"a small message"),
    "put large": (_kill_put, LARGE),
    "get small": (_kill_get, b"m" * 8_000),
    "get large": (_kill_get, LARGE),
}


def sweep(scenario: str, stride: int, start: int = 0) -> int:
    """Kill at every `stride`-th instruction of a scenario.

    Returns:
        How many kills it took until the operation had returned.
    """
    run, message = SCENARIOS[scenario]
    name = f"step-{os.getpid()}"
    kills, done = 0, False
    while not done:
        with SageQueue.create(name, CAPACITY) as queue:
            done = run(queue, start + kills * stride, message)
            assert queue.statistics()["missed_wakes"] == 0
        remove_queue(name)
        kills += 1
    return kills


def main() -> None:
    """Sweep all scenarios and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1)
    stride = parser.parse_args().stride
    if "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | TUNABLES)
    # Both processes on one CPU: else each step waits until the other, halted, has woken up.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.environ[queue_files.DIRECTORY_VARIABLE] = directory
        for scenario in SCENARIOS:
            start = time.monotonic()
            kills = sweep(scenario, stride)
            took = time.monotonic() - start
            print(f"{scenario}: {kills} kills, stride {stride}, {took:.1f} s, ok", flush=True)


if __name__ == "__main__":
    main()
