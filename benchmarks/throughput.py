"""Records per second: the same pipelines by hand, on SAGE, on Bytewax and on streamz."""

from __future__ import annotations

from statistics import median

from benchmarks import engines, workloads
from benchmarks.measure import Contestant, ratio, table, take_turns

RECORDS = 2_000_000
STREAMZ_SHARE = 10  # streamz is given a tenth of the records, or the run would be its alone


def chain(rounds: int = 5) -> str:
    """Map → filter → map → sink over 2 M integers."""
    sink, numbers, few = workloads.new_sink(), range(RECORDS), range(RECORDS // STREAMZ_SHARE)
    return _compare(
        "map → filter → map → sink, 2 M integers",
        {
            "hand-written loop": lambda: workloads.chain_by_hand(numbers, sink),
            "SAGE": lambda: engines.sage_chain(numbers, sink),
            "Bytewax": lambda: engines.bytewax_chain(numbers, sink),
            "streamz": lambda: engines.streamz_chain(few, sink),
        },
        rounds,
    )


def word_count(rounds: int = 5) -> str:
    """Word count over 2 M words, every update to the sink."""
    lines = [workloads.LINE] * (RECORDS // 10)
    few = lines[: len(lines) // STREAMZ_SHARE]
    sink = workloads.new_sink()
    return _compare(
        "word count, 2 M words, every update to the sink",
        {
            "hand-written loop": lambda: workloads.word_count_by_hand(lines, sink),
            "SAGE": lambda: engines.sage_word_count(lines, sink),
            "Bytewax": lambda: engines.bytewax_word_count(lines, sink),
            "streamz": lambda: engines.streamz_word_count(few, sink),
        },
        rounds,
    )


def price(rounds: int = 7) -> str:
    """What error handling, counting and collecting cost."""
    sink, numbers = workloads.new_sink(), range(RECORDS)
    appended: list[int] = []

    def append_by_hand() -> None:
        appended.clear()
        workloads.chain_by_hand(numbers, appended.append)

    contestants: dict[str, Contestant] = {
        "SAGE": lambda: engines.sage_chain(numbers, sink),
        "skip": lambda: engines.sage_chain(numbers, sink, "skip"),
        "without counting": lambda: engines.sage_chain_uncounted(numbers, sink),
        "collect()": lambda: engines.sage_chain_collect(numbers),
        "hand-written loop with list.append": append_by_hand,
    }
    times = take_turns(contestants, rounds)
    rows = [
        ['on_error="skip", no errors', f"{ratio(times, 'skip', 'SAGE') - 1:+.1%}"],
        ["counting records in and out", f"{ratio(times, 'SAGE', 'without counting') - 1:+.1%}"],
        [
            "collect(), against a hand-written loop that appends",
            f"{ratio(times, 'collect()', 'hand-written loop with list.append') - 1:+.1%}",
        ],
    ]
    return table("The price of …, on map → filter → map", ["", "time"], rows)


def _compare(heading: str, contestants: dict[str, Contestant], rounds: int) -> str:
    times = take_turns(contestants, rounds)
    times["streamz"] = [taken * STREAMZ_SHARE for taken in times["streamz"]]
    rows = [
        [
            name,
            f"{RECORDS / median(taken) / 1e6:.2f} M/s",
            f"{ratio(times, 'hand-written loop', name):.2f}",
            f"{ratio(times, 'Bytewax', name):.2f}",
        ]
        for name, taken in times.items()
    ]
    return table(heading, ["", "records", "of the loop by hand", "of Bytewax"], rows)
