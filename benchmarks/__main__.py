"""Runs the benchmarks named on the command line, or all of them, and prints their tables."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable

from benchmarks import (
    async_map,
    checkpoints,
    kafka,
    kafka_word_count,
    latency,
    memory,
    parallel,
    service_calls,
    service_peers,
    service_steps,
    startup,
    throughput,
    windows,
)

BENCHMARKS: dict[str, Callable[[], str]] = {
    "memory": memory.memory,  # first: the peak of a process never falls
    "chain": throughput.chain,
    "word_count": throughput.word_count,
    "price": throughput.price,
    "latency": latency.latency,
    "startup": startup.startup,
    "async_map": async_map.async_map,
    "windows": windows.windows,
    "checkpoints": checkpoints.checkpoints,
    "parallel": parallel.parallel,
    "kafka": kafka.kafka,
    "kafka_word_count": kafka_word_count.kafka_word_count,
    "service_calls": service_calls.service_calls,
    "service_peers": service_peers.service_peers,
    "service_steps": service_steps.service_steps,
}


def main(names: list[str]) -> int:
    """Run and print; return the exit code."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(
            f"unknown: {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}", file=sys.stderr
        )
        return 2
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}\n")
    for name in names or BENCHMARKS:
        print(BENCHMARKS[name](), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
