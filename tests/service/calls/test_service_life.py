"""When services start and stop, and what becomes of calls when their process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sage import (
    LocalEnvironment,
    MapFunction,
    OperatorError,
    ServiceCycleError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.transport.sage_queue import list_queues
from service.calls.conftest import eventually, services_of

EVERYWHERE = pytest.mark.parametrize("isolation", ["local", "process"])


class Diary:
    """Writes down what happens to it, where the test can read it."""

    ctx = None

    def __init__(self, path):
        self.path = path
        self.write("made")

    def write(self, what):
        with open(self.path, "a") as file:
            file.write(f"{what}\n")

    def setup(self):
        self.write("setup")

    def start(self):
        self.write("start")

    def stop(self):
        self.write("stop")

    def cleanup(self):
        self.write("cleanup")

    def called(self):
        self.write("called")

    def pid(self):
        return os.getpid()


class Broken:
    def __init__(self):
        raise ValueError("no such database")


class Front:
    ctx = None

    def ask(self, left):
        return self.ctx.call_service["back"].answer(left)

    def ask_myself(self):
        return self.ctx.call_service["front"].ask_myself()


class Back:
    ctx = None

    def answer(self, wait):
        time.sleep(wait)
        return "answered"


class CallsDiary(MapFunction):
    def open(self):
        self.call_service["diary"].write("open")

    def execute(self, data):
        self.call_service["diary"].called()
        return 1 // data

    def close(self):
        self.call_service["diary"].write("close")


def lines(path):
    return path.read_text().split()


@EVERYWHERE
def test_a_service_starts_before_the_tasks_and_stops_after_them(isolation, tmp_path):
    path = tmp_path / "diary"
    with services_of(isolation, ("diary", Diary, str(path))) as services:
        services.env.from_batch([1]).map(CallsDiary).collect()
        services.env.execute()
        expected = ["made", "setup", "start", "open", "called", "close", "stop", "cleanup"]
        assert lines(path) == expected


@EVERYWHERE
def test_a_service_stops_when_the_job_fails(isolation, tmp_path):
    path = tmp_path / "diary"
    with services_of(isolation, ("diary", Diary, str(path))) as services:
        services.env.from_batch([0]).map(CallsDiary).collect()
        with pytest.raises(OperatorError):
            services.env.execute()
        assert lines(path)[-3:] == ["close", "stop", "cleanup"]


@EVERYWHERE
def test_each_run_of_an_environment_has_services_of_its_own(isolation, tmp_path):
    path = tmp_path / "diary"
    with services_of(isolation, ("diary", Diary, str(path))) as services:
        services.env.from_batch([1]).map(CallsDiary).collect()
        services.env.execute()
        services.env.execute()
        assert lines(path).count("made") == lines(path).count("cleanup") == 2


@EVERYWHERE
def test_a_service_that_cannot_be_made_is_told_and_nothing_runs(isolation, tmp_path):
    path = tmp_path / "diary"
    read = []
    with services_of(isolation, ("diary", Diary, str(path)), ("broken", Broken)) as services:
        services.env.from_batch(lambda: read.append(1) or [1]).collect()
        with pytest.raises((ValueError, ServiceUnavailableError), match="no such database"):
            services.env.execute()
        assert read == []
        assert lines(path)[-2:] == ["stop", "cleanup"]


@EVERYWHERE
def test_a_service_calls_another_one_within_what_is_left_of_the_time(isolation):
    with services_of(isolation, ("back", Back), ("front", Front), timeout=30) as services:
        manager = services.manager
        assert manager.call_service_sync("front", "ask", 0) == "answered"
        with pytest.raises(ServiceTimeoutError):
            manager.call_service_sync("front", "ask", 1, timeout=0.2)


def test_a_service_that_would_wait_for_itself_is_told():
    with services_of("local", ("front", Front)) as services:
        with pytest.raises(Exception, match="waits for this very call") as caught:
            services.manager.call_service_sync("front", "ask_myself", timeout=5)
        assert isinstance(caught.value, ServiceCycleError)


def test_the_death_of_a_process_fails_its_callers_at_once_and_it_comes_back(tmp_path):
    with services_of("process", ("diary", Diary, str(tmp_path / "d")), ("back", Back)) as services:
        manager = services.manager
        first = manager.call_service_sync("diary", "pid")
        (pid,) = services.env.services.task("back").get_statistics()["pids"]
        waiting = manager.call_service_async("back", "answer", 60, timeout=60)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServiceUnavailableError, match="died"):
            waiting.result()
        assert time.monotonic() - killed < 20

        def is_back():
            try:
                return manager.call_service_sync("back", "answer", 0) == "answered"
            except ServiceUnavailableError:
                return False

        eventually(is_back, "the service is back")
        assert manager.call_service_sync("diary", "pid") == first, "another one was not touched"


def test_a_process_that_dies_again_and_again_stays_down(tmp_path):
    services = services_of("process", ("diary", Diary, str(tmp_path / "d")), max_restarts=0)
    with services as living:
        os.kill(living.manager.call_service_sync("diary", "pid"), signal.SIGKILL)
        task = living.env.services.task("diary")
        eventually(lambda: task.get_statistics()["up"] == 0, "it is down")

        def is_refused():
            try:
                living.manager.call_service_sync("diary", "pid", timeout=1)
            except ServiceUnavailableError:
                return True
            except ServiceTimeoutError:
                return False

        eventually(is_refused, "calls are refused")


def test_replicas_share_the_calls(tmp_path):
    with services_of("replicas", ("diary", Diary, str(tmp_path / "d"))) as services:
        begin = services.manager.get_async_proxy("diary")
        pids = {future.result() for future in [begin.pid() for _ in range(100)]}
        assert len(pids) == 2


def test_a_program_that_is_killed_leaves_no_service_process_behind():
    program = """
        import os, sys, threading
        from sage import LocalEnvironment
        from sage.kernel.runtime.service.service_caller import ServiceManager

        class Service:
            def pid(self):
                return os.getpid()

        env = LocalEnvironment("killed")
        env.register_service("service", Service).options(isolation="process")
        print(ServiceManager(env).call_service_sync("service", "pid"), flush=True)
        threading.Event().wait()
    """
    code = textwrap.dedent(program)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as started:
        pid = int(started.stdout.readline())
        started.kill()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the service process has ended")
    remove_stale()


def test_closing_leaves_no_queue_and_is_no_error_twice():
    env = LocalEnvironment("closed")
    env.register_service("back", Back).options(isolation="process")
    assert ServiceManager(env).call_service_sync("back", "answer", 0) == "answered"
    assert list_queues()
    assert env.close()["status"] == "success"
    assert env.close()["status"] == "success"
    assert list_queues() == []


def remove_stale():
    from sage.kernel.transport.sage_queue import remove_stale_queues

    eventually(lambda: remove_stale_queues() is not None and not list_queues(), "queues are stale")
