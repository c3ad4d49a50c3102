"""Windows on event time: counts per key by hand, on SAGE and on Bytewax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from statistics import median
from typing import Any

import bytewax.operators.windowing as bw

from benchmarks.engines import run_bytewax
from benchmarks.measure import ratio, table, take_turns
from benchmarks.workloads import Sink, new_sink
from sage import (
    LocalEnvironment,
    WindowAssigner,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)

EVENTS = 2_000_000
BYTEWAX_SHARE = 20  # Bytewax is given a twentieth of the events, or the run would be its alone
KEYS = [f"key-{number}" for number in range(100)]
SECOND = 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp()) * SECOND

Event = tuple[str, int]


def steady() -> Iterator[Event]:
    """Give an event each millisecond, the keys in turn."""
    return zip(cycle(KEYS), range(START_MS, START_MS + EVENTS), strict=False)


def bursts() -> Iterator[Event]:
    """Give two seconds of events, three of silence, and so on."""
    for number, (key, at) in enumerate(steady()):
        yield key, at + number // (2 * SECOND) * 3 * SECOND


def dated(events: Iterator[Event]) -> list[tuple[str, datetime]]:
    """Return the first of the events as Bytewax wants them: keyed values, here their times."""
    share = islice(events, EVENTS // BYTEWAX_SHARE)
    return [(key, START + timedelta(milliseconds=at - START_MS)) for key, at in share]


def count_by_hand(events: Sequence[Event], sink: Sink) -> None:
    """Count by key and second in dicts; a second is put out once a later event has come."""
    windows: dict[int, dict[str, int]] = {}
    until = START_MS + SECOND
    for key, at in events:
        if at >= until:
            _put_out(windows, at, sink)
            until = at - at % SECOND + SECOND
        counts = windows.setdefault(at - at % SECOND, {})
        counts[key] = counts.get(key, 0) + 1
    _put_out(windows, until, sink)


def _put_out(windows: dict[int, dict[str, int]], time: int, sink: Sink) -> None:
    for start in sorted(start for start in windows if start + SECOND <= time):
        for key, count in windows.pop(start).items():
            sink((key, start, start + SECOND, count))


def sage_count(events: Sequence[Event], windows: WindowAssigner, sink: Sink) -> None:
    """Count by key and window on SAGE."""
    env = LocalEnvironment("windows")
    timed = env.from_batch(events).assign_timestamps(lambda event: event[1])
    timed.key_by(0).window(windows).count().sink(sink)
    env.execute(progress=False)


def bytewax_count(events: Sequence[tuple[str, datetime]], windower: Any, sink: Sink) -> None:
    """Count by key and window on Bytewax, in the quickest way that it has: not ordered."""
    clock = bw.EventClock(lambda at: at, wait_for_system_duration=timedelta(0))

    def build(_: Any, stream: Any) -> Any:
        counts = bw.fold_window(
            "count", stream, clock, windower, lambda: 0, _add_one, _add, ordered=False
        )
        return counts.down

    run_bytewax(events, sink, build)


def _add_one(count: int, _: datetime) -> int:
    return count + 1


def _add(first: int, second: int) -> int:
    return first + second


def windows(rounds: int = 3) -> str:
    """Tumbling and sliding windows and sessions: events per second."""
    return _table(_aligned(rounds) | _sessions(rounds))


def _aligned(rounds: int) -> dict[str, list[float]]:
    events, few, sink = list(steady()), dated(steady()), new_sink()
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    tumbling = bw.TumblingWindower(length=second, align_to=START)
    sliding = bw.SlidingWindower(length=minute, offset=second, align_to=START)
    slow = take_turns(
        {"sliding, Bytewax": lambda: bytewax_count(few[: len(few) // 10], sliding, sink)}, 1
    )
    return {name: [taken * 10 for taken in times] for name, times in slow.items()} | take_turns(
        {
            "tumbling, by hand": lambda: count_by_hand(events, sink),
            "tumbling, SAGE": lambda: sage_count(events, tumbling_time_window(second), sink),
            "tumbling, Bytewax": lambda: bytewax_count(few, tumbling, sink),
            "sliding, SAGE": lambda: sage_count(events, sliding_time_window(minute, second), sink),
        },
        rounds,
    )


def _sessions(rounds: int) -> dict[str, list[float]]:
    events, few, sink = list(bursts()), dated(bursts()), new_sink()
    gap = timedelta(seconds=1)
    return take_turns(
        {
            "sessions, SAGE": lambda: sage_count(events, session_window(gap), sink),
            "sessions, Bytewax": lambda: bytewax_count(few, bw.SessionWindower(gap=gap), sink),
        },
        rounds,
    )


def _table(times: dict[str, list[float]]) -> str:
    share = {name: BYTEWAX_SHARE if "Bytewax" in name else 1 for name in times}
    times = {name: [taken * share[name] for taken in all_] for name, all_ in times.items()}
    rows = [[name, f"{EVENTS / median(taken) / 1e6:.2f} M/s"] for name, taken in times.items()]
    ratios = {
        "tumbling: SAGE of the loop by hand": ("tumbling, by hand", "tumbling, SAGE"),
        "tumbling: SAGE of Bytewax": ("tumbling, Bytewax", "tumbling, SAGE"),
        "sessions: SAGE of Bytewax": ("sessions, Bytewax", "sessions, SAGE"),
        "SAGE: sliding of tumbling": ("tumbling, SAGE", "sliding, SAGE"),
    }
    rows += [[name, f"{ratio(times, *pair):.2f}"] for name, pair in ratios.items()]
    heading = "counts per key, 100 keys, 2 M events, windows of 1 s (sliding: 60 s by 1 s)"
    return table(heading, ["", "events"], rows)
