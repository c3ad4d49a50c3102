"""`check_registry`: the conformance suite of service registries and their stores."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TypeAlias

from sage.common.clock import Clock, SystemClock
from sage.common.deadline import Deadline
from sage.common.errors import ConfigError, ServiceNotFoundError, ServiceUnavailableError
from sage.kernel.runtime.service.registry.service_info import ServiceEvent, ServiceInfo
from sage.kernel.runtime.service.service_registry import ServiceRegistry
from sage.testing.manual_clock import ManualClock

MakeRegistry: TypeAlias = Callable[[Clock], ServiceRegistry]
_Events: TypeAlias = "queue.SimpleQueue[ServiceEvent]"

_REAL: Final = SystemClock()


def check_registry(make_registry: MakeRegistry, *, patience: float = 10.0) -> None:
    """Demand that registries keep the contract of `ServiceRegistry`, whatever their store.

    Two registries are driven, as in two processes: what one registers, the other finds; it lasts
    as long as its process, its heartbeats and its registry; changes are told once, to watches and
    to those who wait. Takes less than a second, starts one process, and leaves nothing.

    Args:
        make_registry: Makes a registry with the given clock. All those it makes must share one
            store that is empty at first; it is empty again after each check.
        patience: For how many real seconds to wait for what a process or thread must do.

    Raises:
        AssertionError: the contract is broken; the text says where.

    Examples:
        >>> from sage.kernel.runtime.service.registry.registry_store import MemoryStore
        >>> store = MemoryStore()
        >>> check_registry(lambda clock: ServiceRegistry(store, clock=clock))
    """
    for check in _CHECKS:
        clock = ManualClock(start_ms=1_000_000)
        with ExitStack() as stack:
            here = stack.enter_context(make_registry(clock))
            there = stack.enter_context(make_registry(clock))
            _demand(here.discover_services() == {}, f"not empty before {check.__name__}")
            check(here, there, clock, patience)


def _check_addresses(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    info = here.register_service("memory", "localhost:8080", health_check_url="/health", ttl=None)
    found = _find_one(there, "memory")
    _demand(found == info, f"registered {info}, found {found}")
    _demand(found.address == "localhost:8080", f"the address became {found.address}")
    _demand(found.metadata == {"health_check_url": "/health"}, f"metadata: {found.metadata}")
    _demand(found.pid == os.getpid(), "the process is not the one that registered")
    _demand(found.registered_at == clock.now_ms(), "the time is not that of the clock")
    _demand(there.discover_services() == {"memory": info}, "the dict of all is another one")
    _demand(there.discover_services("other") == [], "found what is not there")


def _check_classes(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    here.register_service("cache", dict, password="pw-17", size=3, queues=["q1"])  # noqa: S106
    found = _find_one(there, "cache")
    _demand(found.class_path == "builtins.dict", f"the class became {found.class_path}")
    _demand(found.arguments == ("password", "size"), f"the arguments became {found.arguments}")
    _demand(found.queues == ("q1",), f"the queues became {found.queues}")
    _demand("pw-17" not in repr(found), "the value of an argument was made known")


def _check_order(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    infos = []
    for state in ("starting", "unhealthy", "healthy", "stopped", "healthy"):
        infos.append(here.register_service("s", "localhost:1", state=state))
        clock.advance(ms=1)
    found = [info.instance for info in there.discover_services("s")]
    expected = [infos[i].instance for i in (2, 4, 0, 1)]
    _demand(found == expected, f"the order is {found}, not {expected}")
    best = there.discover_services()["s"].instance
    _demand(best == infos[2].instance, "the dict of all does not tell the best instance")


def _check_heartbeats(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    info = here.register_service("s", "localhost:1", ttl=10, state="healthy")
    version = there.version
    clock.advance(seconds=10)
    here.heartbeat(info)
    _demand(there.version == version, "a heartbeat alone was told as a change")
    clock.advance(seconds=10)
    _demand(len(there.discover_services("s")) == 1, "gone before its time to live was over")
    clock.advance(ms=1)
    _demand(there.discover_services("s") == [], "found after its time to live was over")
    here.heartbeat("s", "unhealthy")
    found = _find_one(there, "s")
    _demand(found.state == "unhealthy", f"the state became {found.state}")
    _demand(found.heartbeat_at == clock.now_ms(), "the heartbeat has another time")
    _demand(there.version > version, "a change of the state was not told")


def _check_owner(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    info = here.register_service("s", "localhost:1")
    for attempt in (there.heartbeat, there.deregister):
        _demand_raises(ServiceNotFoundError, attempt, info)
    here.deregister("s")
    _demand(there.discover_services("s") == [], "found after it was taken back")
    _demand_raises(ServiceNotFoundError, here.deregister, "s")


def _check_refused(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    for name, target in (("", dict), ("s\n", dict), ("s", "localhost"), ("s", "h:0"), ("s", 3)):
        _demand_raises(ConfigError, here.register_service, name, target)
    options: list[dict[str, object]] = [{"replicas": 0}, {"state": "odd"}, {"ttl": 0}]
    for option in [*options, {"zone": object()}]:
        _demand_raises(ConfigError, here.register_service, "s", "h:1", **option)
    _demand(there.discover_services() == {}, "something that was refused was registered")


def _check_processes(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    with _process() as process:
        info = here.register_service("s", dict, pid=process.pid)
        _demand(len(there.discover_services("s")) == 1, "not found while its process runs")
        process.kill()
        deadline = Deadline.after(_REAL, patience)
        while there.discover_services("s") and not deadline.expired(_REAL):
            pass
        _demand(there.discover_services("s") == [], "found after its process was killed")
        _demand_raises(ServiceNotFoundError, here.heartbeat, info)
    _demand_raises(ServiceUnavailableError, here.register_service, "s", dict, pid=info.pid)


def _check_waits(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    version = there.version
    _demand(there.wait_changed(version, 0) == version, "waited for nothing, and it came")
    here.register_service("s", "localhost:1")
    changed = there.wait_changed(version)
    _demand(changed > version, "a change made before the wait was missed")
    _demand(there.wait_changed(version) == changed, "the same change was told as another one")
    _demand(clock.monotonic() == 0, "time has passed")


def _check_watches(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    events: _Events = queue.SimpleQueue()
    later: _Events = queue.SimpleQueue()

    info = here.register_service("s", "localhost:1")
    watch = there.watch(events.put)
    _expect(events, "added", patience)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("added", lambda: here.register_service("t", "localhost:2")),
        ("changed", lambda: here.heartbeat(info)),
        ("removed", lambda: here.deregister(info)),
    ]
    for kind, step in steps:
        clock.wait_waiting(timeout=patience)  # the other registry's thread, until its next look
        step()
        clock.advance(seconds=60)
        _expect(events, kind, patience)
    watch.end()
    there.watch(later.put)
    _expect(later, "added", patience)
    clock.wait_waiting(timeout=patience)
    here.deregister("t")
    clock.advance(seconds=60)
    _expect(later, "removed", patience)
    _demand(events.empty(), "told after the watch was ended")


def _check_close(
    here: ServiceRegistry, there: ServiceRegistry, clock: ManualClock, patience: float
) -> None:
    there.register_service("t", "localhost:2")
    here.register_service("s", "localhost:1")
    here.close()
    here.close()
    _demand(list(there.discover_services()) == ["t"], "closing takes back what it registered only")
    _demand_raises(ServiceUnavailableError, here.discover_services)
    _demand_raises(ServiceUnavailableError, here.register_service, "s", "localhost:1")
    _demand_raises(ServiceUnavailableError, here.heartbeat, "s")
    _demand_raises(ServiceUnavailableError, here.watch, print)
    _demand_raises(ServiceUnavailableError, here.wait_changed, 0, 0)


_CHECKS = (
    _check_addresses,
    _check_classes,
    _check_order,
    _check_heartbeats,
    _check_owner,
    _check_refused,
    _check_processes,
    _check_waits,
    _check_watches,
    _check_close,
)


def _expect(events: _Events, kind: str, patience: float) -> None:
    try:
        found = events.get(timeout=patience).kind
    except queue.Empty:
        raise AssertionError(f"a watch was not told of {kind!r} within {patience:g} s") from None
    _demand(found == kind, f"a watch was told {found!r} instead of {kind!r}")


def _find_one(registry: ServiceRegistry, name: str) -> ServiceInfo:
    found = registry.discover_services(name)
    _demand(len(found) == 1, f"found {found} instead of the one instance of {name!r}")
    return found[0]


@contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing until it is told to end."""
    command = [sys.executable, "-S", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.kill()


def _demand_raises(
    kind: type[Exception], call: Callable[..., object], *args: object, **options: object
) -> None:
    try:
        call(*args, **options)
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
