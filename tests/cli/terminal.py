"""Runs a program in a terminal of a fixed size, and tells what somebody who looks at it sees."""

import os
import pty
import re
import select
import struct
import sys
import termios
import time
from fcntl import ioctl

import pyte

from patience import PATIENCE

_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
    "TERM": "xterm-256color",
}
"""As in a terminal: its size is that of the terminal, whatever other programs were told."""


class Terminal:
    """A program in a terminal.

    Args:
        words: The program and its arguments.
        columns: How wide the terminal is.
        lines: How high it is.
        stdout: Where standard output goes instead.

    Attributes:
        raw: All bytes that the program has sent.
    """

    def __init__(self, words, *, columns=120, lines=50, stdout=None):
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.execvpe(words[0], list(map(str, words)), _ENVIRONMENT)

    def wait_for(self, pattern):
        """Wait until a line of the screen has what a regular expression says; return all lines."""
        return self._until(lambda: any(re.search(pattern, line) for line in self._screen.display))

    def press(self, keys):
        """Type."""
        os.write(self._fd, keys)

    def wait_end(self):
        """Wait until the program has ended; return its exit code."""
        self._until(lambda: False)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    @property
    def seen(self):
        """All lines that are on the screen or have left it at the top."""
        history = [
            "".join(line[column].data for column in range(self._screen.columns))
            for line in self._screen.history.top
        ]
        return [line.rstrip() for line in (*history, *self._screen.display)]

    @property
    def has_cursor(self):
        """Whether the cursor is visible."""
        return not self._screen.cursor.hidden

    def _until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ready, _, _ = select.select([self._fd], [], [], deadline - time.monotonic())
            assert ready, f"it takes too long; seen so far: {self.seen}"
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                break
            self.raw += data
            self._stream.feed(data)
        return self.seen


def sage_run(*words, **options):
    """Type `sage run` with these words."""
    return Terminal([sys.executable, "-m", "sage.cli", "run", *words], **options)
