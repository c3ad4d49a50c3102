"""`sage service top`: a table that follows the services."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.live import Live

_SECONDS = 1.0


def follow(console: Console, draw: Callable[[], RenderableType]) -> None:
    """Show what `draw` returns, anew each second, until q or Ctrl-C is typed."""
    with suppress(KeyboardInterrupt), _keys() as keys, _screen(console, draw()) as live:
        until = time.monotonic() + _SECONDS
        while not _typed_q(keys, until):
            live.update(draw(), refresh=True)
            until += _SECONDS


def _screen(console: Console, first: RenderableType) -> Live:
    return Live(first, console=console, screen=True, auto_refresh=False)


@contextmanager
def _keys() -> Iterator[int | None]:
    """Let keys come one by one; `None` if nobody can type."""
    if not sys.stdin.isatty():
        yield None
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield number
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _typed_q(keys: int | None, until: float) -> bool:
    """Wait until a time for the key q; other keys mean nothing."""
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([] if keys is None else [keys], [], [], left)
        if ready and keys is not None:
            typed = os.read(keys, 64)
            if not typed or b"q" in typed.lower():  # nothing: the terminal is gone
                return True
    return False
