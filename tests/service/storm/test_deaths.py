"""Deaths and stops of service processes, one at a time, at the moments that matter."""

from __future__ import annotations

import os
import signal
import time

import pytest

from sage import LocalEnvironment
from sage.common.errors import ConfigError, ServiceUnavailableError
from sage.kernel.runtime.service.hosting.service_factory import ServiceOptions
from sage.kernel.runtime.service.service_caller import ServiceManager
from transport.processes import eventually


class Slow:
    ctx = None

    def pid(self):
        return os.getpid()

    def wait(self, seconds):
        time.sleep(seconds)
        return "waited"

    def relay(self, seconds):
        return self.ctx.call_service["back"].wait(seconds)


class Heavy(Slow):
    def __init__(self, ballast):
        self.size = len(ballast)

    def weight(self):
        return self.size


@pytest.fixture
def env():
    made = LocalEnvironment("deaths")
    yield made
    made.close()


def register(env, name, target=Slow, *args, **options):
    env.register_service(name, target, *args).options(isolation="process", timeout=20, **options)


def kill(env, name):
    for pid in env.services.task(name).get_statistics()["pids"]:
        os.kill(pid, signal.SIGKILL)


def is_up(env, name):
    return env.services.is_up(name)


def wait_restarted(env, name):
    process = env.services._manager.processes(name)[0]
    eventually(lambda: process.lives > 1 and process.is_up)


def test_a_caller_that_was_idle_is_not_told_that_its_new_call_died(env):
    register(env, "back", restart_backoff=0.01)
    manager = ServiceManager(env)
    first = manager.call_service_sync("back", "pid")
    kill(env, "back")
    wait_restarted(env, "back")
    assert manager.call_service_sync("back", "pid") != first


def test_replicas_that_were_all_down_are_called_again(env):
    register(env, "back", replicas=2, restart_backoff=0.01)
    manager = ServiceManager(env)
    manager.call_service_sync("back", "pid")
    kill(env, "back")
    processes = env.services._manager.processes("back")
    waiting = [manager.call_service_async("back", "wait", 0) for _ in range(4)]
    for future in waiting:
        future.exception()
    eventually(lambda: all(process.lives > 1 and process.is_up for process in processes))
    assert manager.call_service_sync("back", "wait", 0) == "waited"


def test_a_service_that_first_calls_another_one_while_that_is_down_is_told(env):
    register(env, "back", max_restarts=0)
    register(env, "front")
    manager = ServiceManager(env)
    manager.call_service_sync("front", "pid")
    kill(env, "back")
    eventually(lambda: not is_up(env, "back"))
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        manager.call_service_sync("front", "relay", 0)
    assert time.monotonic() - began < 10


def test_those_who_call_a_service_that_is_stopped_are_told(env):
    register(env, "back")
    register(env, "front", max_concurrency=2)
    manager = ServiceManager(env)
    assert manager.call_service_sync("front", "relay", 0) == "waited"
    env.services.task("back").stop_service()
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        manager.call_service_sync("front", "relay", 0)
    assert time.monotonic() - began < 10


def test_a_large_order_does_not_hold_up_the_watch(env):
    register(env, "heavy", Heavy, b"x" * (16 << 20), restart_backoff=0.01)
    manager = ServiceManager(env)
    assert manager.call_service_sync("heavy", "weight") == 16 << 20
    kill(env, "heavy")
    wait_restarted(env, "heavy")
    assert manager.call_service_sync("heavy", "weight") == 16 << 20


@pytest.mark.parametrize("option", ["restart_backoff", "steady_after"])
def test_impossible_seconds_are_refused(option):
    with pytest.raises(ConfigError, match=option):
        ServiceOptions().changed(**{option: 0})
