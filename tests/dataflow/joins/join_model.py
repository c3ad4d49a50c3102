"""What joins should put out, by brute force: what was in time is kept, and all of it is scanned.

A stream is a list of steps: `("left" | "right", key, timestamp, value)` for a record and
`("watermark", time)`. A record is late if its timestamp is not later than the watermark.
"""

import pickle
from collections import Counter

from sage.dataflow.record import LATE_RECORDS
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK


class Gathered:
    """Implements `Results`; knows how far event time behind the join has come."""

    def __init__(self):
        self.out, self.late = Counter(), Counter()
        self.released = MIN_WATERMARK
        self.overtaken = []

    def emit(self, value, timestamp):
        self.out[value, timestamp] += 1
        if timestamp <= self.released:
            self.overtaken.append((value, timestamp, self.released))

    def side(self, tag, value, timestamp):
        assert tag == LATE_RECORDS
        self.late[value, timestamp] += 1


def in_time(steps):
    """Part the records that are in time, each side in order of arrival, from those that are late."""
    watermark, sides, late = MIN_WATERMARK, {"left": [], "right": []}, Counter()
    for kind, *rest in steps:
        if kind == "watermark":
            watermark = max(watermark, rest[0])
        else:
            key, ts, value = rest
            if ts <= watermark:
                late[value, ts] += 1
            else:
                sides[kind].append((key, ts, value))
    return sides["left"], sides["right"], late


def interval_model(steps, lower, upper, how):
    lefts, rights, late = in_time(steps)
    out, met = Counter(), set()
    for left in lefts:
        for right in rights:
            if left[0] == right[0] and left[1] + lower <= right[1] <= left[1] + upper:
                out[(left[2], right[2]), max(left[1], right[1])] += 1
                met |= {left[2], right[2]}
    if how in ("left", "outer"):
        out.update(((v, None), ts) for _, ts, v in lefts if v not in met)
    if how in ("right", "outer"):
        out.update(((None, v), ts) for _, ts, v in rights if v not in met)
    return out, late


def asof_model(steps, direction, tolerance, how):
    lefts, rights, late = in_time(steps)
    out = Counter()
    for key, ts, value in lefts:
        near = [
            (abs(r[1] - ts), r[1] > ts, -n if r[1] <= ts and direction != "forward" else n, r[2])
            for n, r in enumerate(rights)
            if r[0] == key
            and (direction != "backward" or r[1] <= ts)
            and (direction != "forward" or r[1] >= ts)
            and (tolerance is None or abs(r[1] - ts) <= tolerance)
        ]
        if near or how == "left":
            out[(value, min(near)[3] if near else None), ts] += 1
    return out, late


def window_join_model(steps, windows_of, how):
    """No allowed lateness; `windows_of` gives starts and ends of the windows of a time."""
    watermark, kept, late = MIN_WATERMARK, [], Counter()
    for kind, *rest in steps:
        if kind == "watermark":
            watermark = max(watermark, rest[0])
            continue
        key, ts, value = rest
        live = [w for w in windows_of(ts) if w[1] - 1 > watermark]
        kept += [((key, *w), kind, value) for w in live]
        if not live and ts <= watermark:
            late[value, ts] += 1
    out = Counter()
    for window in {w for w, _, _ in kept}:
        sides = {s: [v for w, k, v in kept if (w, k) == (window, s)] for s in ("left", "right")}
        out.update((pair, window[2] - 1) for pair in paired(sides["left"], sides["right"], how))
    return out, late


def session_join_model(steps, gap, how):
    """Sessions over both sides: those that touch are one, as long as they have not fired."""
    watermark, sessions, late, out = MIN_WATERMARK, [], Counter(), Counter()
    for kind, *rest in [*steps, ("watermark", MAX_WATERMARK)]:
        if kind == "watermark":
            watermark = max(watermark, rest[0])
            ended = [s for s in sessions if s["end"] - 1 <= watermark]
            sessions = [s for s in sessions if s["end"] - 1 > watermark]
            for s in ended:
                out.update((p, s["end"] - 1) for p in paired(s["left"], s["right"], how))
            continue
        key, ts, value = rest
        touching = [
            s for s in sessions if s["key"] == key and s["start"] <= ts + gap and ts <= s["end"]
        ]
        if not touching and ts + gap - 1 <= watermark:
            late[value, ts] += 1
            continue
        session = {
            "key": key,
            "start": min([ts, *(s["start"] for s in touching)]),
            "end": max([ts + gap, *(s["end"] for s in touching)]),
            "left": [v for s in touching for v in s["left"]],
            "right": [v for s in touching for v in s["right"]],
        }
        session[kind].append(value)
        sessions = [s for s in sessions if s not in touching] + [session]
    return out, late


def paired(lefts, rights, how):
    if lefts and rights:
        return [(left, right) for left in lefts for right in rights]
    alone = [(v, None) for v in lefts if how in ("left", "outer")]
    return alone + [(None, v) for v in rights if how in ("right", "outer")]


def run(make, adders, steps, restore_at=(), changes_at=()):
    """Drive a live part; also through snapshots: at some steps it is made anew from what was saved.

    Args:
        make: Makes the live part, given where its results go.
        adders: Returns the functions that take left and right records, given the live part.
        steps: The stream.
        restore_at: Before which steps it is thrown away and restored.
        changes_at: Before which steps what changed is saved.
    """
    results = Gathered()
    live, watermark = make(results), MIN_WATERMARK
    saved = [pickle.dumps(live.full_state())]
    live.take_changes()
    for number, (kind, *rest) in enumerate([*steps, ("watermark", MAX_WATERMARK)]):
        if number in changes_at or number in restore_at:
            saved.append(pickle.dumps(live.take_changes()))
        if number in restore_at:
            live = make(results)
            live.load([[pickle.loads(state) for state in saved]])
        if kind == "watermark":
            if rest[0] > watermark:
                watermark = rest[0]
                live.advance(watermark)
                results.released = live.released if live.holds_time else watermark
        else:
            key, ts, value = rest
            left, right = adders(live)
            (left if kind == "left" else right)(key, value, ts)
    return live, results
