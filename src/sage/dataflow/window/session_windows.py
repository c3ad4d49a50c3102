"""The fast path of session windows on event time, with reduce or aggregate.

Most records fall into the latest session of their key, which is found by one look-up. The inner loop
of a batch, for a fixed gap:

    session = latest.get(key)
    if session is not None and session.start <= timestamp <= session.end:
        session.folded = add(session.folded, value)
        if timestamp + gap > session.end:
            session.end = timestamp + gap
    else:
        sessions.miss(key, value, timestamp, timestamp + gap)

Extending a session costs nothing more: its entry in the heap of ends stays where it is, and is put
back when it comes up too early. `latest` may be bound to a local for good: it is never replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias

from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.dataflow.window.assigner import SessionWindows
from sage.dataflow.window.copy_policy import independent_copy
from sage.dataflow.window.window_function import IncrementalContents
from sage.dataflow.window.window_result import WindowResult

Timed: TypeAlias = tuple[WindowResult, int]
"""A result and its timestamp."""
Plain: TypeAlias = tuple[int, int, Any, bool]
"""A session in a snapshot: start, end, accumulator, whether it has fired."""


class Session:
    """One session of one key: `[start, end)`, what is folded, and whether it has fired."""

    __slots__ = ("end", "fired", "folded", "start")

    def __init__(self, start: int, end: int, folded: Any, fired: bool = False) -> None:
        self.start, self.end, self.folded, self.fired = start, end, folded, fired


class KeyedSessions:
    """See the module.

    Args:
        assigner: The gap; on event time.
        fold: How records are folded; needs its `merge`.
        allowed_lateness_ms: How long sessions are kept behind the watermark.
        emit: Takes results that late records bring about.
        late: Takes value, key and timestamp of a record that is too late.

    Attributes:
        latest: The latest session of each key that was touched since the last snapshot and has not
            fired.
        watermark: How far event time has come.
        next_fire: A watermark below this fires and drops nothing: setting `watermark` to it is all
            there is to do. For any other, call `advance` and leave `watermark` to it.

    Raises:
        ValueError: the fold cannot merge, or the sessions are on processing time.

    Examples:
        >>> from sage.dataflow.function.aggregators import count
        >>> from sage.dataflow.window.window_function import aggregating
        >>> from sage.dataflow.window.windows import session_window
        >>> sessions = KeyedSessions(session_window(1), aggregating(count()))
        >>> sessions.add("a", "x", 500); sessions.add("a", "y", 1500)
        >>> sessions.advance(2499)
        [(WindowResult(key='a', start=500, end=2500, value=2), 2499)]
    """

    def __init__(
        self,
        assigner: SessionWindows,
        fold: IncrementalContents,
        allowed_lateness_ms: int = 0,
        emit: Callable[[WindowResult, int], None] = lambda *_: None,
        late: Callable[[Any, Any, int], None] = lambda *_: None,
    ) -> None:
        if assigner.processing_time:
            raise ValueError("these sessions are on event time")
        if fold.merge is None:
            raise ValueError("sessions need an aggregate that can merge")
        self._gap_for, self._fold, self._merge = assigner.gap_for, fold, fold.merge
        self._lateness, self._emit, self._late = allowed_lateness_ms, emit, late
        self.watermark = MIN_WATERMARK
        self.next_fire = MAX_WATERMARK + 1
        self.latest: dict[Any, Session] = {}
        self._others: dict[Any, list[Session]] = {}  # by key: all that are not in `latest`
        # Keys that `miss` or `advance` changed since the last snapshot. A key in `latest` is one of
        # them, because a snapshot clears `latest`: so the loop need not note anything.
        self._touched: set[Any] = set()
        self._heap: list[tuple[int, int, Any, Session]] = []
        self._count = 0

    # Records

    def add(self, key: Any, value: Any, timestamp: int) -> None:
        """Add a record: the loop body of the module's docstring as a method."""
        end = timestamp + self._gap_for(value)
        session = self.latest.get(key)
        if session is not None and session.start <= timestamp <= session.end:
            session.folded = self._fold.add(session.folded, value)
            session.end = max(session.end, end)
        else:
            self.miss(key, value, timestamp, end)

    def miss(self, key: Any, value: Any, timestamp: int, end: int) -> None:
        """Add a record that does not fall into or behind the latest session of its key.

        Args:
            key: Its key.
            value: The record.
            timestamp: When its session would start.
            end: When it would end, were the record alone.
        """
        latest = self.latest.get(key)
        if latest is None and key not in self._others:
            self._begin(key, value, timestamp, end)
        elif latest is not None and timestamp > latest.end:
            self._follow(key, value, timestamp, end)
        else:
            self._insert(key, value, timestamp, end)

    def _follow(self, key: Any, value: Any, start: int, end: int) -> None:
        """Make a session after the latest one; that is not past, so this one is not either."""
        session = Session(start, end, self._fold.first(value))
        self._others.setdefault(key, []).append(self.latest[key])
        self.latest[key] = session
        self._push(key, session)

    def _insert(self, key: Any, value: Any, timestamp: int, end: int) -> None:
        sessions = self._sessions_of(key)
        touching = [s for s in sessions if s.start <= end and timestamp <= s.end]
        if not touching and self._is_late(end):
            self._late(value, key, timestamp)
            return
        if len(touching) == 1 and not touching[0].fired:
            self._extend(touching[0], value, timestamp, end)
            self._place(key, sessions)  # back in `latest`, if a snapshot has taken it from there
            return
        session = self._joined(touching, value, timestamp, end)
        rest = [s for s in sessions if s not in touching]
        self._plan(key, session)
        self._place(key, sorted([*rest, session], key=_start))

    def _begin(self, key: Any, value: Any, start: int, end: int) -> None:
        """Make the only session of a key."""
        if end - 1 > self.watermark:
            session = self.latest[key] = Session(start, end, self._fold.first(value))
            self._touched.add(key)
            self._push(key, session)
        elif self._is_late(end):
            self._late(value, key, start)
        else:
            session = Session(start, end, self._fold.first(value))
            self._plan(key, session)
            self._place(key, [session])

    def _is_late(self, end: int) -> bool:
        return min(end - 1 + self._lateness, MAX_WATERMARK) <= self.watermark

    def _extend(self, session: Session, value: Any, start: int, end: int) -> None:
        session.folded = self._fold.add(session.folded, value)
        session.start, session.end = min(start, session.start), max(end, session.end)

    def _joined(self, touching: list[Session], value: Any, start: int, end: int) -> Session:
        """Return the session that a record makes with those it touches."""
        if not touching:
            return Session(start, end, self._fold.first(value))
        # Copies, so that the sessions are as they were if the record fails.
        folded = independent_copy(touching[0].folded)
        for later in touching[1:]:
            folded = self._merge(folded, independent_copy(later.folded))
        folded = self._fold.add(folded, value)
        return Session(min(start, touching[0].start), max(end, touching[-1].end), folded)

    def _plan(self, key: Any, session: Session) -> None:
        """Fire at once if the end is past, otherwise wait for it."""
        if session.end - 1 <= self.watermark:
            session.fired = True
            self._emit(*self._result(key, session))
        self._push(key, session)

    def _push(self, key: Any, session: Session) -> None:
        at = session.end - 1
        if session.fired:
            at = min(at + self._lateness, MAX_WATERMARK)
        self._count += 1
        heappush(self._heap, (at, self._count, key, session))
        self.next_fire = min(self.next_fire, at)

    def _sessions_of(self, key: Any) -> list[Session]:
        """Return the live sessions of a key, in order of time."""
        latest = self.latest.get(key)
        others = self._others.get(key, [])
        return list(others) if latest is None else [*others, latest]

    def _place(self, key: Any, sessions: list[Session]) -> None:
        """Keep these as the sessions of a key; the loop sees the last one unless that has fired."""
        self._touched.add(key)
        if sessions and not sessions[-1].fired:
            self.latest[key] = sessions.pop()
        else:
            self.latest.pop(key, None)
        if sessions:
            self._others[key] = sessions
        else:
            self._others.pop(key, None)

    # Time

    def advance(self, watermark: int) -> list[Timed]:
        """Move the watermark; return the results of all sessions that are complete by then.

        Args:
            watermark: The new one; an older one than before changes nothing.

        Returns:
            Results and their timestamps, in order of the sessions' ends.
        """
        self.watermark = watermark = max(self.watermark, watermark)
        results: list[Timed] = []
        heap = self._heap
        while heap and heap[0][0] <= watermark:
            at, _, key, session = heappop(heap)
            if session.end - 1 > at and not session.fired:
                self._push(key, session)
            elif self._is_current(key, session):
                if not session.fired:
                    results.append(self._result(key, session))
                self._close(key, session)
        self.next_fire = heap[0][0] if heap else MAX_WATERMARK + 1
        return results

    def _is_current(self, key: Any, session: Session) -> bool:
        """Return whether a session is there, and not merged into another."""
        return self.latest.get(key) is session or session in self._others.get(key, ())

    def _close(self, key: Any, session: Session) -> None:
        """Forget a session whose time has come, or keep it once more if late records may come."""
        keep = not session.fired and self._lateness and not self._is_late(session.end)
        session.fired = True
        if keep:
            self._place(key, self._sessions_of(key))
            self._push(key, session)
        else:
            self._forget(key, session)

    def _forget(self, key: Any, session: Session) -> None:
        self._touched.add(key)
        if self.latest.get(key) is session:
            del self.latest[key]
            return
        others = self._others[key]
        others.remove(session)
        if not others:
            del self._others[key]

    def _result(self, key: Any, session: Session) -> Timed:
        value = self._fold.result(session.folded)
        return WindowResult(key, session.start, session.end, value), session.end - 1

    # Snapshots

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call; it is to be pickled before anything else happens.

        Returns:
            `sessions`: all sessions of each key that changed, as `(start, end, accumulator, fired)`
            in order of time; `dropped`: keys that have none any more; `watermark`.
        """
        touched, self._touched = self._touched, set()
        changed = {key: plain for key in touched if (plain := self._plain(key))}
        dropped = [key for key in touched if key not in changed]
        # What is not in `latest` is moved back into it, and noted as touched, at the first record.
        for key, session in self.latest.items():
            self._others.setdefault(key, []).append(session)
        self.latest.clear()
        return {"sessions": changed, "dropped": dropped, "watermark": self.watermark}

    def full_state(self) -> dict[str, Any]:
        """Return everything, in the form of `take_changes`; it is to be pickled at once."""
        keys = self._others.keys() | self.latest.keys()
        sessions = {key: self._plain(key) for key in keys}
        return {"sessions": sessions, "dropped": [], "watermark": self.watermark}

    def _plain(self, key: Any) -> list[Plain]:
        return [(s.start, s.end, s.folded, s.fired) for s in self._sessions_of(key)]

    def load(
        self, *changes: dict[str, Any], owns: Callable[[Any], bool] = lambda _key: True
    ) -> None:
        """Take over a state: a full one and the changes after it, in their order.

        Before the first record. When the states of several subtasks are to be joined, it is called
        for each; the lowest watermark counts, and no session fires twice.

        Args:
            *changes: What `full_state` and `take_changes` returned.
            owns: Says which keys to take.
        """
        if not changes:
            return
        first = self.watermark == MIN_WATERMARK and not self._others
        state: dict[Any, list[Plain]] = {}
        for change in changes:
            for key in change["dropped"]:
                state.pop(key, None)
            state.update(change["sessions"])
        for key, plain in state.items():
            if owns(key):
                self._others[key] = [Session(*one) for one in plain]
                for session in self._others[key]:
                    self._push(key, session)
        watermark = changes[-1]["watermark"]
        self.watermark = watermark if first else min(self.watermark, watermark)


def _start(session: Session) -> int:
    return session.start
