"""SageQueue against `multiprocessing.Queue`, pyzmq over ipc and faster-fifo, in one run.

    python benchmarks/message_queue.py [--seconds 0.5] [--repeats 3]

Prints medians and their ratios, and asserts nothing: the figures depend on the machine. Peers that
are not installed are left out. Each queue is used in the quickest way its API offers for bytes:
batches where it has them (`many`), and one by one (`single`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context

from sage.kernel.transport.sage_queue import SageQueue, remove_queue

FORK = get_context("fork")
BATCH = 500
HANG = 5.0


class SageLane:
    """SageQueue, opened by name in each process."""

    name = "SageQueue"

    def __init__(self, capacity: int) -> None:
        self.label = f"bench-{uuid.uuid4().hex}"
        self.queue = SageQueue.create(self.label, capacity)
        self.put, self.get = self.queue.put, self.queue.get
        self.put_many, self.get_many = self.queue.put_many, lambda: self.queue.get_many(BATCH)

    def enter(self, producing: bool) -> None:
        """Nothing to set up: a forked child may use the handle."""

    def close(self) -> None:
        self.queue.close()
        remove_queue(self.label)


class MultiprocessingLane:
    """`multiprocessing.Queue`; no batches."""

    name = "multiprocessing"

    def __init__(self, capacity: int) -> None:
        self.queue = FORK.Queue(2000)
        self.put, self.get = self.queue.put, self.queue.get

    def enter(self, producing: bool) -> None:
        """Nothing to set up."""

    def put_many(self, messages: list[bytes]) -> None:
        for message in messages:
            self.queue.put(message)

    def get_many(self) -> list[bytes]:
        return [self.queue.get()]

    def close(self) -> None:
        self.queue.close()
        self.queue.join_thread()


class ZmqLane:
    """pyzmq push/pull over a Unix socket."""

    name = "pyzmq ipc"

    def __init__(self, capacity: int) -> None:
        self.address = f"ipc://{tempfile.gettempdir()}/bench-{uuid.uuid4().hex}"

    def enter(self, producing: bool) -> None:
        import zmq

        self.zmq = zmq
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH if producing else zmq.PULL)
        # The consumer binds, so that there may be several producers.
        (self.socket.connect if producing else self.socket.bind)(self.address)
        self.put, self.get = self.socket.send, self.socket.recv

    def put_many(self, messages: list[bytes]) -> None:
        send = self.socket.send
        for message in messages:
            send(message, copy=True)

    def get_many(self) -> list[bytes]:
        got = [self.socket.recv()]
        try:
            while len(got) < BATCH:
                got.append(self.socket.recv(self.zmq.NOBLOCK))
        except self.zmq.Again:
            pass
        return got

    def leave(self) -> None:
        self.socket.close(linger=5000)
        self.context.term()

    def close(self) -> None:
        path = self.address.removeprefix("ipc://")
        if os.path.exists(path):
            os.unlink(path)


class FasterFifoLane:
    """faster-fifo, with bytes passed through unpickled."""

    name = "faster-fifo"

    def __init__(self, capacity: int) -> None:
        from faster_fifo import Queue as FasterFifo

        self.queue = FasterFifo(max_size_bytes=capacity, loads=bytes, dumps=lambda b: b)
        self.put = lambda m: self.queue.put(m, timeout=30)
        self.get = lambda: self.queue.get(timeout=30)
        self.put_many = lambda messages: self.queue.put_many(messages, timeout=30)
        self.get_many = lambda: self.queue.get_many(timeout=30, max_messages_to_get=BATCH)

    def enter(self, producing: bool) -> None:
        """Nothing to set up."""

    def close(self) -> None:
        self.queue.close()


def lanes() -> list[type]:
    found: list[type] = [SageLane, MultiprocessingLane]
    for module, lane in (("zmq", ZmqLane), ("faster_fifo", FasterFifoLane)):
        try:
            __import__(module)
        except ImportError:
            print(f"({module} is not installed: left out)")
        else:
            found.append(lane)
    return found


def leave(lane) -> None:
    if hasattr(lane, "leave"):
        lane.leave()


def produce(lane, message: bytes, count: int, single: bool, ready) -> None:
    ready.wait()
    lane.enter(producing=True)  # after the consumer has bound its socket
    if single:
        for _ in range(count):
            lane.put(message)
    else:
        batch = [message] * BATCH
        for _ in range(0, count, BATCH):
            lane.put_many(batch)
    leave(lane)


def consume(lane, count: int, single: bool, ready, result) -> None:
    lane.enter(producing=False)
    ready.wait()
    start, left = time.perf_counter(), count
    if single:
        for _ in range(count):
            lane.get()
    else:
        while left > 0:
            left -= len(lane.get_many())
    result.send(time.perf_counter() - start)
    leave(lane)


def result_of(results, crowd) -> object:
    """Return what the measuring process says; `None` if the queue hangs, as some peers may."""
    took = results.recv() if results.poll(HANG) else None
    for process in crowd:
        process.join(HANG if took else 0)
        if process.is_alive():
            process.kill()
            process.join()
    return took


def stream(kind: type, producers: int, size: int, single: bool, count: int) -> float:
    """Return messages per second from some producers to one consumer."""
    lane = kind(max(1 << 20, 16 * size))
    each = -(-count // producers // BATCH) * BATCH
    ready = FORK.Barrier(producers + 1)
    ours, theirs = FORK.Pipe()
    crowd = [
        FORK.Process(target=produce, args=(lane, b"x" * size, each, single, ready))
        for _ in range(producers)
    ]
    crowd.append(FORK.Process(target=consume, args=(lane, each * producers, single, ready, theirs)))
    for process in crowd:
        process.start()
    took = result_of(ours, crowd)
    lane.close()
    return each * producers / took if took else float("nan")


def answer(requests, responses, count: int) -> None:
    requests.enter(producing=False)
    responses.enter(producing=True)
    get, put = requests.get, responses.put
    for _ in range(count):
        put(get())
    leave(requests)
    leave(responses)


def ask(requests, responses, count: int, result) -> None:
    requests.enter(producing=True)
    responses.enter(producing=False)
    get, put, clock, took = responses.get, requests.put, time.perf_counter_ns, []
    for _ in range(count):
        start = clock()
        put(b"ping")
        get()
        took.append(clock() - start)
    took.sort()
    result.send([took[int(count * q)] / 1000 for q in (0.5, 0.99)])
    leave(requests)
    leave(responses)


def burn(until) -> None:
    while not until.is_set():
        sum(range(10_000))


def echo(kind: type, count: int, hogs: int = 0) -> tuple[float, float]:
    """Return median and 99th percentile, in microseconds, of a request and its response."""
    requests, responses = kind(1 << 16), kind(1 << 16)
    stop = FORK.Event()
    ours, theirs = FORK.Pipe()
    crowd = [FORK.Process(target=burn, args=(stop,)) for _ in range(hogs)]
    crowd += [
        FORK.Process(target=answer, args=(requests, responses, count)),
        FORK.Process(target=ask, args=(requests, responses, count, theirs)),
    ]
    for process in crowd:
        process.start()
    if ours.poll(HANG):
        stop.set()
    p50, p99 = result_of(ours, crowd) or (float("nan"), float("nan"))
    requests.close()
    responses.close()
    return p50, p99


def sized(run: Callable[[int], float], seconds: float, start: int) -> int:
    """Return how many operations take about that long."""
    rate = run(start)
    return max(start, int(rate * seconds)) if rate == rate else start


def report(title: str, unit: str, rows: dict[str, float], more_is_better: bool) -> None:
    print(f"\n{title}")
    ours = rows[SageLane.name]
    for name, value in rows.items():
        ratio = ours / value if more_is_better else value / ours
        note = "" if name == SageLane.name else f"   SageQueue is {ratio:6.2f}x"
        if value != value:
            print(f"  {name:16} did not finish within {HANG:.0f} s")
            continue
        print(f"  {name:16} {value:12,.2f} {unit}{note}", flush=True)


def compare_streams(options, kinds: list[type]) -> None:
    for title, producers, size, single, start in (
        ("64 bytes, 1 producer, 1 consumer, many", 1, 64, False, 20_000),
        ("64 bytes, 1 producer, 1 consumer, single", 1, 64, True, 20_000),
        ("64 bytes, 4 producers, 1 consumer, many", 4, 64, False, 20_000),
        ("64 bytes, 4 producers, 1 consumer, single", 4, 64, True, 20_000),
        ("256 KiB, 1 producer, 1 consumer, single", 1, 256 << 10, True, 1_000),
    ):
        runs: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        counts = {
            kind: sized(partial(stream, kind, producers, size, single), options.seconds, start)
            for kind in kinds
        }
        for _ in range(options.repeats):
            for kind in kinds:  # interleaved, so that a disturbance hits all
                runs[kind.name].append(stream(kind, producers, size, single, counts[kind]))
        scale, unit = (size / 1e9, "GB/s") if size > 1000 else (1e-6, "M msg/s")
        rows = {name: statistics.median(rates) * scale for name, rates in runs.items()}
        report(title, unit, rows, more_is_better=True)


def compare_echoes(options, kinds: list[type]) -> None:
    cpus = len(os.sched_getaffinity(0))
    for title, hogs, count in (
        ("echo through two queues, idle machine", 0, 10_000),
        (f"echo, all {cpus} CPUs busy", cpus, 1_000),
    ):
        runs: dict[str, list[tuple[float, float]]] = {kind.name: [] for kind in kinds}
        for _ in range(options.repeats):
            for kind in kinds:
                runs[kind.name].append(echo(kind, count, hogs))
        for index, quantile in enumerate(("p50", "p99")):
            rows = {n: statistics.median(r[index] for r in rs) for n, rs in runs.items()}
            report(f"{title}, {quantile}", "µs", rows, more_is_better=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="about, per measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["streams", "echoes"])
    options = parser.parse_args()
    kinds = lanes()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}")
    if options.only != "echoes":
        compare_streams(options, kinds)
    if options.only != "streams":
        compare_echoes(options, kinds)


if __name__ == "__main__":
    main()
