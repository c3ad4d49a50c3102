"""The place at the bottom of the terminal where the jobs of this process are shown while they run.

There is one terminal, so this is one of the few places with state of its own: jobs that run at the same
time share it. Nothing of the terminal is changed that would have to be restored after a kill: the
cursor stays visible, keys are not read, and there is no second screen.
"""

from __future__ import annotations

import io
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from sage.core.api.lines_above import Streams

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_PRINT_SECONDS: Final = 0.1
_TURNS_PER_DRAWING: Final = 5
_WIDTH_OF_FILES: Final = 120
_MOST_PENDING: Final = 1_000


class View(Protocol):
    """What is shown of a job."""

    def draw(self, width: int, height: int) -> RenderableType:
        """Return how it is now, in so many columns and lines if that can be."""
        ...

    def draw_end(self, width: int) -> RenderableType:
        """Return how it ended."""
        ...


class LiveScreen:
    """Shows views at the bottom of the terminal; for all threads.

    A thread of its own draws them, as long as there are any. Where standard error is no terminal, only
    the end of each is printed.
    """

    def __init__(self) -> None:
        self._changing = threading.RLock()  # held while views begin and end
        # Held while something is drawn or printed. Nobody who holds it may wait for a log handler:
        # one that writes waits for this.
        self._writing = threading.RLock()
        self._views: list[View] = []
        self._console: Console | None = None
        self._live: Live | None = None
        self._streams = Streams(self._print_above)
        self._drawn: RenderableType = ""
        self._pending: deque[tuple[TextIO, str]] = deque()
        self._over = threading.Event()

    def begin(self, view: View) -> Callable[[], None]:
        """Show a view; return what ends it, which may be called twice and prints how it ended."""
        with self._changing:
            self._views.append(view)
            if len(self._views) == 1:
                self._console = _console()
                if _is_terminal(self._console):
                    self._begin_live(self._console)
        return lambda: self._end(view)

    def _begin_live(self, console: Console) -> None:
        from rich.live import Live  # only for those who watch  # noqa: PLC0415

        self._streams.take()
        live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lambda: self._drawn,
        )
        with self._writing:
            self._live, self._drawn = live, ""
            live.start()
            console.show_cursor(True)  # so that it is there also after a kill
        self._over = threading.Event()
        arguments = (live, self._over)
        threading.Thread(
            target=self._refresh, args=arguments, name="sage-live-view", daemon=True
        ).start()

    def _refresh(self, live: Live, over: threading.Event) -> None:
        for turn in itertools.count(1):
            if over.wait(_PRINT_SECONDS):
                return
            with self._writing:
                if self._live is live:
                    self._print_pending()
                    if turn % _TURNS_PER_DRAWING == 0:
                        self._drawn = self._draw()
                        live.refresh()

    def _draw(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        assert self._console is not None
        width, height = self._console.size
        begun = self._streams.begun()
        parts = [Text.from_ansi(begun)] if begun else []
        room = (height - 1 - len(parts)) // max(1, len(self._views))
        return Group(*parts, *(view.draw(width, room) for view in self._views))

    def _print_above(self, stream: TextIO, lines: str) -> None:
        """Print lines, soon: what is below has to be drawn anew, so that is not done for each."""
        self._pending.append((stream, lines))
        if self._live is None or len(self._pending) >= _MOST_PENDING:
            with self._writing:
                self._print_pending()

    def _print_pending(self) -> None:
        from rich.text import Text  # noqa: PLC0415

        pending = []
        while self._pending:  # others add to it meanwhile
            pending.append(self._pending.popleft())
        if self._live is None or self._console is None:
            for stream, lines in pending:
                stream.write(lines + "\n")
        elif pending:
            text = Text.from_ansi("\n".join(lines for _, lines in pending))
            self._console.print(text, soft_wrap=True, highlight=False)

    def _end(self, view: View) -> None:
        with self._changing:
            if view not in self._views or self._console is None:
                return
            self._views.remove(view)
            if not self._views:
                self._end_live()
            with self._writing:
                self._print_pending()
                self._console.print(view.draw_end(self._console.width))

    def _end_live(self) -> None:
        self._over.set()
        with self._writing:
            self._print_pending()
            live, self._live = self._live, None
            if live is not None:
                live.stop()
        self._streams.give_back()


def _is_terminal(console: Console) -> bool:
    return console.file.isatty() and not console.is_dumb_terminal


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    file = sys.stderr or io.StringIO()  # a program without a terminal may have none
    return Console(file=file, width=None if file.isatty() else _WIDTH_OF_FILES)


SCREEN: Final = LiveScreen()
"""That of this process."""
