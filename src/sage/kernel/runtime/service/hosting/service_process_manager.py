"""Starts the processes of services, watches them, and starts those again that die.

One thread watches all processes of an environment: the end of a process closes its pipe, which the
thread sees at once. All callers, in whatever process, are then told through their lanes, so that a
call fails in milliseconds and not at its deadline.
"""

from __future__ import annotations

import os
import pickle
import select
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import cloudpickle

from sage.common.errors import ServiceUnavailableError
from sage.common.log import get_logger
from sage.kernel.runtime.service.call.caller_news import CallerNews
from sage.kernel.runtime.service.channel.response_lane import Place
from sage.kernel.runtime.service.hosting.service_process import FAILED, READY, ProcessOrder

_LONGEST_BACKOFF = 10.0


@dataclass(eq=False)
class _Life:
    """What tells of a process: its pipe, and a descriptor that is readable once it has ended.

    The pipe alone is not enough: a child that the service forks holds it open.
    """

    watched: list[IO[bytes] | int]
    pidfd: int | None

    @classmethod
    def of(cls, started: subprocess.Popen[bytes]) -> _Life:
        """Watch a process that has just been started."""
        assert started.stdout is not None
        if not hasattr(os, "pidfd_open"):  # only Linux has them
            return cls([started.stdout], None)
        pidfd = os.pidfd_open(started.pid)
        return cls([started.stdout, pidfd], pidfd)

    def close(self) -> None:
        """Let the descriptor go; the pipe is the process's own."""
        if self.pidfd is not None:
            os.close(self.pidfd)


@dataclass(eq=False)
class ServiceProcess:
    """One replica of a service in a process of its own.

    Attributes:
        order: What the process runs.
        order_file: The order as the process reads it: a nameless file in memory.
        process: The process, of its present life.
        started_at: When this life began.
        deaths: How many lives in a row were short.
        lives: How many lives it has had, the present one included.
        restart_at: When the next life begins; None while it lives.
        stopping: Whether its end is wanted.
    """

    order: ProcessOrder
    order_file: IO[bytes]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    lives: int = 0
    restart_at: float | None = None
    stopping: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    life: _Life | None = None

    @property
    def is_up(self) -> bool:
        """Whether the process takes requests."""
        return self.ready.is_set() and not self.failure and self.restart_at is None

    @property
    def place(self) -> Place:
        """Where callers find it."""
        return self.order.address.number, self.order.replica

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return f"{self.order.factory.name}[{self.order.replica}]"


class ServiceProcessManager:
    """The processes of all services of an environment.

    Args:
        token: Stands for the environment.
    """

    def __init__(self, token: str) -> None:
        self._logger = get_logger("service")
        self._news = CallerNews(token)
        self._processes: list[ServiceProcess] = []
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closed = False
        self._thread: threading.Thread | None = None

    # ---- for those who start and stop services

    def start_service_process(self, order: ProcessOrder) -> ServiceProcess:
        """Start a process; `wait_ready` says when it takes requests."""
        started = ServiceProcess(order, _write_order(order))
        with self._lock:
            self._processes.append(started)
            self._launch(started)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="sage-service-watch", daemon=True
                )
                self._thread.start()
        return started

    def wait_ready(self, process: ServiceProcess, timeout: float) -> None:
        """Wait until a process takes requests.

        Raises:
            ServiceUnavailableError: it could not be started, or not in time; the message holds the
                traceback of its constructor or hooks.
        """
        if not process.ready.wait(timeout):
            raise ServiceUnavailableError(f"{process.name} was not ready within {timeout:g} s")
        if process.failure:
            raise ServiceUnavailableError(f"{process.name} could not start:\n{process.failure}")

    def restart_service(self, service_name: str) -> None:
        """End the processes of a service and start them again, without counting it as a death."""
        with self._lock:
            for process in self.processes(service_name):
                process.deaths = -1
                if process.process is not None and not process.stopping:
                    process.process.terminate()

    def monitor_service_health(self) -> dict[str, bool]:
        """Return for every replica whether its process is up."""
        with self._lock:
            return {process.name: process.is_up for process in self._processes}

    def processes(self, service_name: str) -> list[ServiceProcess]:
        """Return the replicas of a service."""
        with self._lock:
            return [p for p in self._processes if p.order.factory.name == service_name]

    def stop_service(self, service_name: str, timeout: float) -> None:
        """End the processes of a service: in order if they do so within `timeout`, else at once."""
        mine = self.processes(service_name)
        with self._lock:  # the watch starts processes again: from here on it does not
            for process in mine:
                process.stopping = True
                if process.process is not None and process.process.stdin is not None:
                    with suppress(BrokenPipeError):
                        process.process.stdin.close()
        until = time.monotonic() + timeout
        for process in mine:
            self._end(process, max(0.0, until - time.monotonic()))
            self._news.tell(process.place, up=False)
            process.order_file.close()
        with self._lock:
            self._processes = [p for p in self._processes if p not in mine]

    def close(self) -> None:
        """Stop watching. The services must have been stopped."""
        self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # ---- a process's life

    def _launch(self, process: ServiceProcess) -> None:
        order_fd = process.order_file.fileno()
        process.lives += 1
        process.started_at, process.restart_at = time.monotonic(), None
        process.failure = ""
        process.ready.clear()
        # The order is in a file and not in the pipe: writing a large one would have to wait for the
        # new process to read it.
        command = [sys.executable, "-m", "sage.kernel.runtime.service"]
        started = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [*command, str(order_fd), str(process.lives)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            bufsize=0,
            pass_fds=(order_fd,),
        )
        process.process = started
        process.life = _Life.of(started)
        for end in process.life.watched:
            self._selector.register(end, selectors.EVENT_READ, process)
        self._wake()

    def _end(self, process: ServiceProcess, timeout: float) -> None:
        started = process.process
        if started is None:
            return
        try:
            started.wait(timeout)
        except subprocess.TimeoutExpired:
            self._logger.warning("%s did not end in time and is killed", process.name)
            started.kill()
            started.wait()
        self._forget_pipes(process)

    def _forget_pipes(self, process: ServiceProcess) -> None:
        with self._lock:
            started, life = process.process, process.life
            if life is not None:
                process.life = None
                for end in life.watched:
                    with suppress(KeyError):
                        self._selector.unregister(end)
                life.close()
            for pipe in () if started is None else (started.stdin, started.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    # ---- watching

    def _watch(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(self._until_next()):
                if key.data is None:
                    os.read(self._wake_read, 4096)
                else:
                    self._heard(key.data, key.fileobj)  # type: ignore[arg-type]
            self._news.look_again()
            self._restart_due()

    def _heard(self, process: ServiceProcess, end: IO[bytes] | int) -> None:
        """Take note of what a process says, or that it has died."""
        with self._lock:
            life = process.life
            if life is None or end not in life.watched:
                return  # it has been stopped meanwhile
            head = b"" if isinstance(end, int) else _read_all(end, 5)
            if not head and (isinstance(end, int) or life.pidfd is None):
                self._died(process)
                return
            if not head:  # it says nothing more; whether it lives, its descriptor tells
                self._selector.unregister(end)
                life.watched.remove(end)
                return
            assert not isinstance(end, int)
            text = _read_all(end, int.from_bytes(head[1:], "big")).decode(errors="replace")
            if head[:1] != READY:
                process.failure = text or "it did not say why"
                if process.lives == 1:
                    process.stopping = True
            else:
                self._news.tell(process.place, up=True)
            process.ready.set()

    def _died(self, process: ServiceProcess) -> None:
        started = process.process
        assert started is not None
        if (
            not process.stopping
        ):  # else they are told at the end, when the last calls have been answered
            self._news.tell(process.place, up=False)
        self._hear_last(process)
        self._forget_pipes(process)
        code = started.wait()
        self._news.caller_died(started.pid)
        if not process.ready.is_set():
            process.failure = process.failure or f"its process ended with exit code {code}"
            process.ready.set()
        if process.stopping:
            return
        self._plan_restart(process, f"died (exit code {code})")

    def _plan_restart(self, process: ServiceProcess, why: str) -> None:
        options = process.order.factory.options
        if time.monotonic() - process.started_at > options.steady_after:
            process.deaths = 0
        process.deaths += 1
        most = options.max_restarts
        if process.deaths > most:
            self._logger.error("%s died %d times in a row; it stays down", process.name, most + 1)
            process.failure = f"its process died {most + 1} times in a row"
            return
        doublings = min(max(0, process.deaths - 1), 30)
        wait = min(options.restart_backoff * 2**doublings, _LONGEST_BACKOFF)
        self._logger.warning("%s %s; it is started again in %.1f s", process.name, why, wait)
        process.restart_at = time.monotonic() + wait

    def _hear_last(self, process: ServiceProcess) -> None:
        """Read why a process could not start, if it has said so before it ended."""
        pipe = None if process.process is None else process.process.stdout
        if process.ready.is_set() or pipe is None or process.life is None:
            return
        if pipe in process.life.watched and select.select([pipe], [], [], 0)[0]:
            head = _read_all(pipe, 5)
            if head[:1] == FAILED:
                text = _read_all(pipe, int.from_bytes(head[1:], "big"))
                process.failure = text.decode(errors="replace")
                process.stopping = process.stopping or process.lives == 1

    def _restart_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            for process in self._processes:
                due = process.restart_at is not None and process.restart_at <= now
                if due and not process.stopping:
                    self._launch_again(process)

    def _launch_again(self, process: ServiceProcess) -> None:
        try:
            self._launch(process)
        except OSError as error:  # no memory for another process, say: others are still watched
            self._plan_restart(process, f"could not be started ({error})")

    def _until_next(self) -> float | None:
        """Return in how many seconds there is something to do even if nobody is heard of."""
        now, news = time.monotonic(), self._news.wait_seconds()
        with self._lock:
            waits = [
                max(0.0, p.restart_at - now)
                for p in self._processes
                if p.restart_at is not None and not p.stopping
            ]
        return min([*waits, *(() if news is None else (news,))], default=None)

    def _wake(self) -> None:
        os.write(self._wake_write, b"!")


def _write_order(order: ProcessOrder) -> IO[bytes]:
    file = os.fdopen(os.memfd_create("sage-service-order"), "wb")
    try:
        pickle.dump((sys.path, cloudpickle.dumps(order)), file)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _read_all(pipe: IO[bytes], length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := pipe.read(length - len(data))):
        data += piece
    return data
