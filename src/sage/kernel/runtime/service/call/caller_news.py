"""`CallerNews`: tells all callers, in whatever process, which replicas are down and which are back.

Callers are found by the queues of their answers, the lanes. What is told is a state, not an event:
a caller that comes while a replica is down is told so too, and one whose lane is full is told when
there is room again. Nothing here waits for a caller.
"""

from __future__ import annotations

import queue
import threading
import time

from sage.common.errors import QueueError, QueueInUseError
from sage.kernel.runtime.service.channel.response_lane import Place
from sage.kernel.runtime.service.channel.service_address import lane_prefix
from sage.kernel.runtime.service.channel.service_message import Kind, pack_header
from sage.kernel.transport.sage_queue import SageQueue, list_queues, remove_queue

_LOOK_SECONDS = 0.03
_TIDY_SECONDS = 1.0

News = list[tuple[Place, Kind]]


class CallerNews:
    """What the callers of an environment have been told, and have yet to be told. Thread-safe.

    Args:
        token: Stands for the environment.

    Examples:
        >>> news = CallerNews("docs-nobody-calls")
        >>> news.tell((0, 1), up=False)
        >>> news.wait_seconds() <= 0.03  # to look for callers that come while it is down
        True
        >>> news.tell((0, 1), up=True)
        >>> news.wait_seconds() is None
        True
    """

    def __init__(self, token: str) -> None:
        self._prefix = lane_prefix(token)
        self._lock = threading.Lock()
        self._down: dict[Place, None] = {}
        self._untold: dict[str, News] = {}
        self._deserted: set[str] = set()
        self._next_look = 0.0

    def tell(self, place: Place, *, up: bool) -> None:
        """Tell all callers that a replica is down, or is back; nothing if they know it."""
        with self._lock:
            if up != (place in self._down):
                return
            self._look()
            if up:
                del self._down[place]
            else:
                self._down[place] = None
            for news in self._untold.values():
                _add(news, place, Kind.UP if up else Kind.DOWN)
            self._tell_all()

    def caller_died(self, pid: int) -> None:
        """Remove the lanes of a process that has ended, as soon as no service has them open."""
        with self._lock:
            mine = f"{self._prefix}{pid}-"
            self._deserted |= {name for name in list_queues() if name.startswith(mine)}
            self._remove_deserted()

    def look_again(self) -> None:
        """Tell those who have not been told yet, if it is time for it."""
        with self._lock:
            if not self._has_work() or time.monotonic() < self._next_look:
                return
            self._remove_deserted()
            self._look()
            self._tell_all()

    def wait_seconds(self) -> float | None:
        """Return in how many seconds `look_again` has something to do; None if there is nothing."""
        with self._lock:
            return max(0.0, self._next_look - time.monotonic()) if self._has_work() else None

    def _has_work(self) -> bool:
        return bool(self._down or self._deserted or any(self._untold.values()))

    def _look(self) -> None:
        """Find the lanes that there are; who has just come has to learn of all that is down."""
        names = [name for name in list_queues() if name.startswith(self._prefix)]
        known = self._untold
        self._untold = {
            name: known[name] if name in known else [(place, Kind.DOWN) for place in self._down]
            for name in names
            if name not in self._deserted
        }

    def _tell_all(self) -> None:
        for name, news in self._untold.items():
            if news:
                _tell(name, news)
        urgent = self._down or any(self._untold.values())
        self._next_look = time.monotonic() + (_LOOK_SECONDS if urgent else _TIDY_SECONDS)

    def _remove_deserted(self) -> None:
        for name in list(self._deserted):
            try:
                remove_queue(name)
            except QueueInUseError:
                continue  # a service has yet to notice
            except QueueError:
                pass  # somebody else has removed it
            self._deserted.discard(name)


def _add(news: News, place: Place, kind: Kind) -> None:
    """Add to what is to be told; what was yet to be told of the same replica may be needless now.

    A death is told even if the replica is back: it has to fail the calls that were under way.
    """
    if kind == Kind.DOWN:
        news[:] = [other for other in news if other[0] != place]
    news.append((place, kind))


def _tell(name: str, news: News) -> None:
    """Put news into a lane, as far as there is room.

    It is opened anew each time: services know by who has it open whether its reader lives.
    """
    try:
        with SageQueue.open(name) as lane:
            while news:
                (service, replica), kind = news[0]
                lane.put_nowait(pack_header(kind, service=service, replica=replica))
                del news[0]
    except queue.Full:
        return
    except QueueError:  # its reader has let it go
        news.clear()
