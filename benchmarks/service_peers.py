"""The same small call to another process, through SAGE and through what one would use instead.

Each peer does what a service call does: the arguments are pickled, a process calls `get(key)` on an
object, and the pickled result comes back to the thread that waits for it. All take their turns in one
run, the rounds interleaved; peers that are not installed are left out. With `busy`, as many processes
as there are CPUs compute for nothing meanwhile.
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from typing import Any

from benchmarks.measure import table
from sage import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager

ROUNDS = 5
CALLS = 2_000
FEW_CALLS = 200
Call = Callable[[str], Any]
SPAWN = get_context("spawn")


class Cache:
    """A service that does next to nothing."""

    def __init__(self) -> None:
        self.values = {"key": 1}

    def get(self, key: str) -> int | None:
        """Return the value of `key`."""
        return self.values.get(key)


@contextmanager
def sage_service() -> Iterator[Call]:
    """A SAGE service in a process of its own."""
    with LocalEnvironment("peers") as env:
        env.register_service("cache", Cache).options(isolation="process")
        yield ServiceManager(env).get_sync_proxy("cache").get


def _serve_queues(requests: Any, responses: Any, many: bool) -> None:
    cache = Cache()
    while True:
        for request in requests.get_many(timeout=1000.0) if many else [requests.get()]:
            if request is None:
                return
            responses.put(cache.get(*request))


@contextmanager
def _queues(requests: Any, responses: Any, get: Callable[[], Any], many: bool) -> Iterator[Call]:
    process = SPAWN.Process(target=_serve_queues, args=(requests, responses, many), daemon=True)
    process.start()

    def call(key: str) -> Any:
        requests.put((key,))
        return get()

    yield call
    requests.put(None)
    process.join(5)


@contextmanager
def multiprocessing_queues() -> Iterator[Call]:
    """Two `multiprocessing.SimpleQueue`: quicker than `Queue`, which has a thread in the way."""
    requests, responses = SPAWN.SimpleQueue(), SPAWN.SimpleQueue()
    with _queues(requests, responses, responses.get, many=False) as call:
        yield call


@contextmanager
def faster_fifo_queues() -> Iterator[Call]:
    """Two faster-fifo queues."""
    from faster_fifo import Queue  # noqa: PLC0415

    requests, responses = Queue(1 << 20), Queue(1 << 20)
    with _queues(requests, responses, lambda: responses.get(timeout=10.0), many=True) as call:
        yield call


def _serve_zmq(address: str) -> None:
    import zmq  # noqa: PLC0415

    cache, socket = Cache(), zmq.Context().socket(zmq.REP)
    socket.bind(address)
    while (request := pickle.loads(socket.recv())) is not None:
        socket.send(pickle.dumps(cache.get(*request), 5))
    socket.send(b"")


@contextmanager
def zmq_sockets() -> Iterator[Call]:
    """Pyzmq's REQ and REP over a Unix socket."""
    import zmq  # noqa: PLC0415

    address = f"ipc://{tempfile.gettempdir()}/bench-{uuid.uuid4().hex}"
    process = SPAWN.Process(target=_serve_zmq, args=(address,), daemon=True)
    process.start()
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(address)

        def call(key: str) -> Any:
            socket.send(pickle.dumps((key,), 5))
            return pickle.loads(socket.recv())

        yield call
        socket.send(pickle.dumps(None))
        socket.recv()
        process.join(5)


def _serve_grpc(address: str, ready: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    import grpc  # noqa: PLC0415

    cache = Cache()
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, _context: cache.get(*request),
        request_deserializer=pickle.loads,
        response_serializer=pickle.dumps,
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("Cache", {"get": handler}),)
    )
    server.add_insecure_port(address)
    server.start()
    ready.set()
    server.wait_for_termination()


@contextmanager
def grpc_channel() -> Iterator[Call]:
    """Grpcio over a Unix socket, with pickle instead of Protocol Buffers."""
    import grpc  # noqa: PLC0415

    address, ready = f"unix:{tempfile.gettempdir()}/bench-{uuid.uuid4().hex}", SPAWN.Event()
    process = SPAWN.Process(target=_serve_grpc, args=(address, ready), daemon=True)
    process.start()
    ready.wait(20)
    with grpc.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/Cache/get", request_serializer=pickle.dumps, response_deserializer=pickle.loads
        )
        yield lambda key: get((key,))
    process.terminate()
    process.join(5)


@contextmanager
def ray_actor() -> Iterator[Call]:
    """A Ray actor."""
    import ray  # noqa: PLC0415

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    actor = ray.remote(Cache).remote()
    yield lambda key: ray.get(actor.get.remote(key))
    ray.shutdown()


PEERS: dict[str, Callable[[], Any]] = {
    "SAGE": sage_service,
    "multiprocessing": multiprocessing_queues,
    "faster-fifo": faster_fifo_queues,
    "pyzmq ipc": zmq_sockets,
    "grpcio, Unix socket": grpc_channel,
    "Ray actor": ray_actor,
}
QUICK = {"SAGE", "multiprocessing", "faster-fifo", "pyzmq ipc"}


def service_peers() -> str:
    """A small call, on an idle machine and on a busy one.

    Ray's own processes keep the machine from being idle: it is measured by itself, beside SAGE.
    """
    rows = _rows([name for name in PEERS if name != "Ray actor"])
    rows += [row for row in _rows(["SAGE", "Ray actor"]) if row[0] != "SAGE"]
    header = ["", "p50 idle", "of SAGE's", "p50 busy", "of SAGE's"]
    return table("A small call to another process", header, rows)


def _rows(names: list[str]) -> list[list[str]]:
    with ExitStack() as stack:
        calls: dict[str, Call] = {}
        for name in names:
            with suppress(ImportError):
                calls[name] = stack.enter_context(PEERS[name]())
        idle = _medians(calls)
        with _busy():
            busy = _medians(calls)
    return [
        [
            name,
            f"{idle[name] * 1e6:,.1f} µs",
            f"{idle[name] / idle['SAGE']:.1f} x",
            f"{busy[name] * 1e6:,.1f} µs",
            f"{busy[name] / busy['SAGE']:.1f} x",
        ]
        for name in calls
    ]


def _medians(calls: dict[str, Call]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            taken[name].append(_median(call, CALLS if name in QUICK else FEW_CALLS))
    return {name: statistics.median(medians) for name, medians in taken.items()}


def _median(call: Call, count: int) -> float:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call("key")
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _burn() -> None:
    while True:
        sum(range(1000))


@contextmanager
def _busy() -> Iterator[None]:
    """Let as many processes compute as there are CPUs."""
    burners = [SPAWN.Process(target=_burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for burner in burners:
        burner.start()
    time.sleep(0.5)
    yield
    for burner in burners:
        burner.kill()
        burner.join()
