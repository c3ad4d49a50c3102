"""Where the microseconds of a small call to another process go.

Caller and service take turns in one thread, each step timed by itself: so nothing waits for another
CPU, and what is seen is the work alone. A real call has less than the sum of it before its answer, as
each side goes on working while the other one has its turn, and waits twice for a message to cross.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.measure import table
from benchmarks.service_calls import Cache
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.call.call_path import CallPath, Surroundings
from sage.kernel.runtime.service.channel.process_channel import CallerSide
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.channel.service_message import (
    HEADER_BYTES,
    PackedAddresses,
    ServiceRequest,
    ServiceResponse,
    pack_request,
    pack_response,
    read_address,
    read_answer_head,
    read_request,
    read_request_head,
    read_response,
)
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.hosting.service_process import ServiceWorker
from sage.kernel.runtime.service.policy.policy_config import PolicyConfig
from sage.kernel.transport.sage_queue import SageQueue, remove_queue

CALLS = 20_000
Step = Callable[[], Any]


@contextmanager
def _both_sides() -> Iterator[tuple[CallPath, ServiceWorker, SageQueue, BaseServiceTask]]:
    """A caller and a service that this thread works for in turn."""
    address = ServiceAddress(f"steps-{secrets.token_hex(4)}", 0, "cache", 1)
    names = [address.requests(0), address.control(0)]
    queues = [SageQueue.create(name) for name in names]
    side = CallerSide(address.token)
    task = BaseServiceTask(ServiceFactory("cache", Cache))
    task.make_service()
    worker = ServiceWorker(task, address, 0)
    try:
        path = CallPath("cache", PolicyConfig(), side.channel(address), Surroundings())
        yield path, worker, queues[0], task
    finally:
        worker.stop()
        task.unmake_service()
        side.close()
        for queue, name in zip(queues, names, strict=True):
            queue.close()
            remove_queue(name)


def _tenth_percentile(seconds: list[float]) -> float:
    """Return what one in ten is quicker than: the work itself, without what comes in between."""
    return sorted(seconds)[len(seconds) // 10]


def _seconds(steps: dict[str, Step]) -> dict[str, float]:
    """Time each of the steps, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(CALLS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - began)
    return {name: _tenth_percentile(seconds) for name, seconds in taken.items()}


def _sides(path: CallPath, worker: ServiceWorker, requests: SageQueue) -> list[float]:
    """Time whole calls: up to the request in the queue, the service, the answer taken in."""
    taken: tuple[list[float], ...] = ([], [], [])
    clock = time.perf_counter
    for _ in range(CALLS):
        times = [clock()]
        future = path.begin("get", ("key",), {})
        times.append(clock())
        worker.handle(requests.get())
        times.append(clock())
        future.result()
        times.append(clock())
        for seconds, began, ended in zip(taken, times, times[1:], strict=False):
            seconds.append(ended - began)
    return [_tenth_percentile(seconds) for seconds in taken]


def _steps(task: BaseServiceTask, requests: SageQueue) -> Iterator[tuple[str, Step]]:
    address = PackedAddresses("lane", "cache")["get"]
    request = ServiceRequest(1, "cache", "get", ("key",), {}, "lane")
    response = ServiceResponse(True, 1)
    asked, answer = pack_request(request, address), pack_response(response)
    start = HEADER_BYTES + len(address)

    def read() -> ServiceRequest:
        _, number, deadline = read_request_head(asked)
        return read_request(number, deadline, read_address(asked[HEADER_BYTES:start]), asked, start)

    def put_and_get() -> bytes:
        requests.put_nowait(asked)
        return requests.get()

    yield "caller: write the request", lambda: pack_request(request, address)
    yield "service: read the request", read
    yield "service: run the method", lambda: task.run_request(request, id)
    yield "service: write the answer", lambda: pack_response(response)
    yield "caller: read the answer", lambda: read_response(*read_answer_head(answer), answer)
    yield "one way through the queue, put and get", put_and_get


def service_steps() -> str:
    """The steps of one call, in µs."""
    with _both_sides() as (path, worker, requests, task):
        sides = _sides(path, worker, requests)
        steps = _seconds({"nothing": lambda: None, **dict(_steps(task, requests))})
    nothing = steps.pop("nothing")
    names = ("caller, up to the request in the queue", "service", "caller, taking the answer in")
    rows = {**dict(zip(names, sides, strict=True)), "all work for a call": sum(sides)}
    rows |= {f"of these: {name}": seconds - nothing for name, seconds in steps.items()}
    cells = [[name, f"{seconds * 1e6:.1f} µs"] for name, seconds in rows.items()]
    return table("The work for a small call to another process", ["", "time"], cells)
