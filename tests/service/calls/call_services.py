"""The services that the tests call; importable from service processes too."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

from sage.kernel.runtime.service.hosting.service_executor import CURRENT_REQUEST


def note(path, text):
    """Append a line to a file, in one piece."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def notes(path):
    """Return the lines of a file; none if there is no such file."""
    path = Path(path)
    return path.read_text().split() if path.exists() else []


def pass_gate(directory):
    """Say that one has come, and wait until the gate lets one through."""
    directory = Path(directory)
    with open(directory / "came", "wb", buffering=0) as came:
        came.write(b".")
    with open(directory / "pass", "rb", buffering=0) as gate:
        return gate.read(1)


class TwoPartError(Exception):
    """Cannot be unpickled: its constructor wants more than `args` has."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class WordlessError(Exception):
    """Cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


class KeptError(ValueError):
    """Travels with its attributes."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class BadOnArrival:
    """Pickles well and cannot be unpickled."""

    def __reduce__(self):
        return _refuse, ("on arrival",)


def _refuse(text):
    raise ZeroDivisionError(text)


ERRORS = {
    "key": lambda: KeyError("k"),
    "value": lambda: ValueError("bad", 3),
    "os": lambda: FileNotFoundError(2, "no such thing", "name"),
    "kept": lambda: KeptError(7),
    "two": lambda: TwoPartError(5, "five"),
    "locked": lambda: LockedError("shut"),
    "wordless": WordlessError,
    "timeout": lambda: TimeoutError("my own"),
    "stop": lambda: StopIteration(3),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
    "generator": GeneratorExit,
    "group": lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
}


class Zoo:
    """A bit of everything."""

    ctx = None
    constant = 42

    def __init__(self):
        self.inside = self.peak = 0
        self.lock = threading.Lock()

    def echo(self, *args, **kwargs):
        return args, kwargs

    def same(self, value):
        return value

    def length(self, value):
        return len(value)

    def pid(self):
        return os.getpid()

    def thread(self):
        return threading.get_ident()

    def note(self, path, text):
        note(path, text)
        return text

    def gate(self, directory):
        pass_gate(directory)
        return "through"

    def slow(self, seconds, value=None):
        time.sleep(seconds)
        return value

    def fail(self, kind):
        raise ERRORS[kind]()  # noqa: RSE102 - it makes the exception

    def fail_from(self):
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    def lock_result(self):
        return threading.Lock()

    def bad_result(self):
        return BadOnArrival()

    def bytes(self, count):
        return b"x" * count

    def die(self, code=9):
        os._exit(code)

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def left(self):
        return CURRENT_REQUEST.get().deadline - time.monotonic()

    def chain(self):
        return CURRENT_REQUEST.get().caller_chain

    def call(self, service, method, *args, **kwargs):
        return getattr(self.ctx.call_service[service], method)(*args, **kwargs)

    def crowd(self, seconds):
        with self.lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
        time.sleep(seconds)
        with self.lock:
            self.inside -= 1

    def take_peak(self):
        self.peak, peak = 0, self.peak
        return peak

    def _hidden(self):
        return "hidden"

    # ---- async def

    async def later(self, seconds, value=None):
        await asyncio.sleep(seconds)
        return value

    async def fail_later(self, kind):
        await asyncio.sleep(0)
        raise ERRORS[kind]()  # noqa: RSE102 - it makes the exception

    async def forever(self, path):
        note(path, "begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note(path, "cancelled")
            raise

    async def async_crowd(self, seconds):
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        await asyncio.sleep(seconds)
        self.inside -= 1

    async def async_left(self):
        return self.left()

    # ---- generators

    def count(self, n):
        yield from range(n)

    def count_noting(self, path, n):
        try:
            for i in range(n):
                note(path, i)
                yield i
        finally:
            note(path, "closed")

    def count_then_fail(self, n):
        yield from range(n)
        raise ValueError("midway")

    def count_slowly(self, n, seconds):
        for i in range(n):
            time.sleep(seconds)
            yield i


class Noting:
    """Writes down its life; fails where told."""

    ctx = None

    def __init__(self, path, name="it", fail_at=""):
        self.path, self.name, self.fail_at = path, name, fail_at
        self._step("init")

    def _step(self, what):
        note(self.path, f"{self.name}.{what}")
        if self.fail_at == what:
            raise ValueError(f"no {what} today")

    def setup(self):
        self._step("setup")

    def start(self):
        self._step("start")

    def stop(self):
        self._step("stop")

    def cleanup(self):
        self._step("cleanup")

    def health_check(self):
        return self.fail_at != "health"

    def work(self, value=None):
        self._step("work")
        return value


class DiesAtBirth:
    """Lives at its first start, and never again."""

    def __init__(self, path):
        note(path, "born")
        if len(notes(path)) > 1:
            os._exit(5)

    def same(self, value):
        return value

    def die(self):
        os._exit(9)


class Cache:
    """The cache of the documents."""

    def __init__(self, cache_size=10):
        self.cache_size = cache_size
        self.entries = {}

    def get(self, key):
        return self.entries.get(key)

    def set(self, key, value):
        self.entries[key] = value

    def pid(self):
        return os.getpid()


class Database:
    """The database of the documents."""

    def __init__(self, connection_string):
        self.connection_string = connection_string

    def query(self, text):
        return f"row of {text}"

    def batch_query(self, texts):
        return [self.query(text) for text in texts]

    def health_check(self):
        return True


class Flaky:
    """Fails the first times."""

    def __init__(self, times):
        self.left = times

    def fetch(self, value):
        if self.left:
            self.left -= 1
            raise ConnectionError("connection refused")
        return value


class Unwell:
    def health_check(self):
        return False


class Broken:
    def health_check(self):
        raise OSError("disk on fire")


class Worker:
    def process(self, request):
        return request.args[0] + 1
