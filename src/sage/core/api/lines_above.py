"""What a program prints and logs while something is shown at the bottom of its terminal."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Show = Callable[[TextIO, str], None]
"""Shows whole lines that were meant for a stream, without the newline of the last."""


class LinesAbove(io.TextIOBase):
    """Stands for a stream of the terminal: whole lines of each thread go to `show`, never torn.

    What has not come to the end of its line yet is in `begun`. After `let_go` it is the stream: who
    has taken hold of it meanwhile, a log handler for instance, goes on writing.

    Args:
        stream: The stream.
        show: Shows lines.
    """

    def __init__(self, stream: TextIO, show: Show) -> None:
        super().__init__()
        self.stream = stream
        self._show: Show | None = show
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Show the lines that are complete."""
        show = self._show
        if show is None:
            return self.stream.write(text)
        thread = threading.get_ident()
        lines, end, begun = (self._begun.pop(thread, "") + text).rpartition("\n")
        if begun:
            self._begun[thread] = _visible(begun) + ("\r" if begun.endswith("\r") else "")
        if end:
            show(self.stream, "\n".join(map(_visible, lines.split("\n"))))
        return len(text)

    def flush(self) -> None:
        """Let the stream write what it holds."""
        self.stream.flush()

    def begun(self) -> str:
        """Return the lines that have been begun: the text of a prompt, or a count that goes on."""
        return "\n".join(map(_visible, tuple(self._begun.values())))

    def let_go(self) -> None:
        """Write to the stream from now on."""
        self._show = None
        begun, self._begun = "".join(self._begun.values()), {}
        self.stream.write(begun)
        self.stream.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream."""
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """As the stream."""
        return self.stream.errors

    def isatty(self) -> bool:
        """As the stream."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)  # `buffer`, `encoding`, `mode`: what else streams have


def _visible(line: str) -> str:
    """Return what is seen of a line: a carriage return begins it anew."""
    return line.rstrip("\r").rpartition("\r")[2]


class Streams:
    """Standard output and error, and the log handlers that write to them, as long as they are taken.

    Only what is a terminal is taken: output that goes to a file or a pipe goes there.

    Args:
        show: Shows lines.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._taken: dict[str, LinesAbove] = {}
        self._handlers: list[logging.StreamHandler[Any]] = []

    def take(self) -> None:
        """Let lines go to `show`."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self._taken[name] = LinesAbove(stream, self._show)
                setattr(sys, name, self._taken[name])
        stands_for = {id(taken.stream): taken for taken in self._taken.values()}
        for handler in _stream_handlers():
            if id(handler.stream) in stands_for:
                handler.setStream(stands_for[id(handler.stream)])
                self._handlers.append(handler)

    def begun(self) -> str:
        """Return the lines that have been begun."""
        return "\n".join(filter(None, (taken.begun() for taken in self._taken.values())))

    def give_back(self) -> None:
        """Let everything write where it did before."""
        for name, taken in self._taken.items():
            if getattr(sys, name) is taken:
                setattr(sys, name, taken.stream)
        for handler in self._handlers:
            if isinstance(handler.stream, LinesAbove):
                handler.setStream(handler.stream.stream)
        for taken in self._taken.values():
            taken.let_go()
        self._taken.clear()
        self._handlers.clear()


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    known = list(logging.root.manager.loggerDict.values())
    for logger in (logging.root, *known):
        if isinstance(logger, logging.Logger):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler):
                    yield handler
