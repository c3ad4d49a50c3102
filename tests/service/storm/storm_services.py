"""The services that are called while processes are killed; importable from service processes too.

Every call carries a token of its own, from which follows what its answer must be.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time

from sage.common.errors import ServiceError

TOKEN = struct.Struct("<QQ")
DOWN = "down"


def answer_of(token):
    """Return what a call with this token must bring."""
    return token * 0x9E3779B97F4A7C15 % (1 << 64)


class Book:
    """A file of the tokens whose methods have run: whole records, also of those who are killed."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self):
        os.close(self._file)

    def note(self, token):
        os.write(self._file, TOKEN.pack(token, os.getpid()))


def read_book(path):
    """Return the tokens of all calls that were executed, one for each execution."""
    with open(path, "rb") as file:
        return [token for token, _ in TOKEN.iter_unpack(file.read())]


class Back:
    """Answers after a moment: plainly, with an error, from a coroutine, as a stream."""

    def __init__(self, path):
        self._book = Book(path)

    def cleanup(self):
        self._book.close()

    def plain(self, token, seconds):
        self._book.note(token)
        time.sleep(seconds)
        return answer_of(token)

    def fail(self, token, seconds):
        self._book.note(token)
        time.sleep(seconds)
        raise ValueError(f"token {token}")

    async def later(self, token, seconds):
        self._book.note(token)
        await asyncio.sleep(seconds)
        return answer_of(token)

    def stream(self, token, seconds):
        self._book.note(token)
        for part in range(3):
            time.sleep(seconds / 3)
            yield answer_of(token + part)

    def pid(self):
        return os.getpid()


class Front(Back):
    """Asks `back`, and says when it learned that `back` has died."""

    ctx = None

    def plain(self, token, seconds):
        self._book.note(token)
        began = time.monotonic()
        future = self.ctx.call_service_async["back"].plain(token + 1, seconds)
        try:
            return future.result() - answer_of(token + 1) + answer_of(token)
        except ServiceError as error:
            return DOWN, began, time.monotonic(), future.replica, f"{type(error).__name__}: {error}"
