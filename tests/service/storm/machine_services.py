"""The service that the state machine calls; importable from service processes too."""

from __future__ import annotations

import asyncio
import time

from service.storm.storm_services import Back, answer_of, read_book


class Many(Back):
    """One method for each way to answer; a call carries a token, from which its answer follows."""

    def __init__(self, path):
        super().__init__(path)
        self._path = path

    async def fail_later(self, token, seconds):
        self._book.note(token)
        await asyncio.sleep(seconds)
        raise ValueError(f"token {token}")

    def flaky(self, token, seconds):
        """Fail the first time that it is called with a token, whichever process that was."""
        first = token not in read_book(self._path)
        self._book.note(token)
        time.sleep(seconds)
        if first:
            raise ConnectionError(f"token {token}")
        return answer_of(token)

    def kept(self, token, seconds):
        self._book.note(token)
        time.sleep(seconds)
        return answer_of(token)
