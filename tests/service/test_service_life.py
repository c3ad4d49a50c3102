"""What an environment tells of its services while they run, and how it looks after them."""

from __future__ import annotations

import json
import os
import time

import pytest

from patience import PATIENCE
from sage import LocalEnvironment
from sage.common.private_directory import runtime_directory
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.service.service_registry import ServiceRegistry
from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE, queue_names


@pytest.fixture(autouse=True)
def _own_directories(monkeypatch, tmp_path):
    for variable in ("XDG_RUNTIME_DIR", DIRECTORY_VARIABLE):
        (tmp_path / variable).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    yield
    assert queue_names() == [], "queues left behind"
    assert list(runtime_directory().glob("registry/*")) == [], "entries left behind"


@pytest.fixture
def registry():
    with ServiceRegistry() as registry:
        yield registry


class Patient:
    """Is well as long as a file says so."""

    def __init__(self, path, password="none"):
        self.path = path
        self.password = password

    def health_check(self):
        with open(self.path) as file:
            return file.read() == "well"

    def pid(self):
        return os.getpid()

    def login(self, user, password):
        return user == password


@pytest.fixture
def mood(tmp_path):
    path = tmp_path / "mood"
    path.write_text("well")
    return path


def wait_for(registry, condition, name="patient"):
    """Wait until the entry of a service is as wanted; return it."""
    deadline, version = time.monotonic() + PATIENCE, -1
    while True:
        found = registry.discover_services(name)
        if found and condition(found[0]):
            return found[0]
        left = deadline - time.monotonic()
        assert left > 0, f"not in {PATIENCE} s: {found}"
        version = registry.wait_changed(version, left)


def test_a_service_is_known_while_it_runs(registry, mood):
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood))
        assert registry.discover_services() == {}
        ServiceManager(env).call_service_sync("patient", "pid")
        [info] = registry.discover_services("patient")
        assert (info.state, info.isolation, info.pid) == ("healthy", "local", os.getpid())
    assert registry.discover_services() == {}


@pytest.mark.parametrize("isolation", ["local", "process"])
def test_the_figures_of_its_calls_are_told_and_no_values(registry, mood, isolation):
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood), password="open sesame").options(
            isolation=isolation
        )
        manager = ServiceManager(env)
        for _ in range(3):
            manager.call_service_sync("patient", "login", "ali", "abracadabra")
        manager.call_service_async("patient", "login", "abracadabra").exception()

        def counted(info):
            called = info.metadata["figures"]["called"]
            return called["overall"]["since_start"]["calls"] == 4

        info = wait_for(registry, counted)
        window = info.metadata["figures"]["called"]["methods"]["login"]["last_minute"]
        assert (window["calls"], window["failures"]) == (4, {"TypeError": 1})
        [file] = (runtime_directory() / "registry").glob("*.json")
        told = file.read_text()
    assert "sesame" not in told
    assert "abracadabra" not in told
    assert "ali" not in json.loads(told)["metadata"]


def test_an_unhealthy_service_is_shown_and_a_healthy_one_again(registry, mood, caplog):
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood)).options(health_check_interval=0.1)
        ServiceManager(env).call_service_sync("patient", "pid")
        mood.write_text("ill")
        wait_for(registry, lambda info: info.state == "unhealthy")
        mood.write_text("well")
        wait_for(registry, lambda info: info.state == "healthy")
    told = [record.getMessage() for record in caplog.records]
    assert "the service 'patient' is not healthy: it says so itself" in told


def test_a_check_that_raises_is_a_bad_sign(registry, mood, caplog):
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood)).options(health_check_interval=0.1)
        ServiceManager(env).call_service_sync("patient", "pid")
        mood.unlink()
        wait_for(registry, lambda info: info.state == "unhealthy")
    assert "FileNotFoundError" in caplog.text or "No such file" in caplog.text


def restart(registry, manager, mood):
    """Let the service be ill until its process is another; return the new one's number."""
    first = manager.call_service_sync("patient", "pid")
    wait_for(registry, lambda info: info.metadata["figures"]["pids"] == [first])
    mood.write_text("ill")
    info = wait_for(registry, lambda info: info.metadata["figures"]["pids"] not in ([first], []))
    mood.write_text("well")
    [second] = info.metadata["figures"]["pids"]
    return second


def test_after_three_bad_checks_in_a_row_its_process_is_started_anew(registry, mood, caplog):
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood)).options(
            isolation="process", health_check_interval=0.1
        )
        second = restart(registry, ServiceManager(env), mood)
        wait_for(registry, lambda info: info.state == "healthy")
        assert ServiceManager(env).call_service_sync("patient", "pid") == second
    told = [record.getMessage() for record in caplog.records]
    ill = told.index("the service 'patient' is not healthy: it says so itself")
    assert told.index("the processes of 'patient' are started anew") > ill


def test_one_that_is_not_to_be_asked_is_not(registry, mood):
    mood.write_text("ill")
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood))
        ServiceManager(env).call_service_sync("patient", "pid")
        [before] = registry.discover_services("patient")
        later = wait_for(registry, lambda info: info.heartbeat_at > before.heartbeat_at)
        methods = later.metadata["figures"]["called"]["methods"]
    assert later.state == "healthy"
    assert list(methods) == ["pid"]


def test_of_very_many_methods_the_most_called_are_told(registry, mood):
    """An entry has a bound; what is called least is left out, and how much that is."""
    with LocalEnvironment("clinic") as env:
        env.register_service("patient", Patient, str(mood))
        manager = ServiceManager(env)
        futures = [manager.call_service_async("patient", f"no_{n}") for n in range(400)]
        for future in futures:
            assert future.exception() is not None
        for _ in range(5):
            manager.call_service_sync("patient", "pid")

        def counted(info):
            called = info.metadata["figures"]["called"]
            return called["overall"]["since_start"]["calls"] == 405

        called = wait_for(registry, counted).metadata["figures"]["called"]
    assert called["methods"]["pid"]["since_start"]["calls"] == 5
    assert called["left_out"] > 0
    assert len(called["methods"]) + called["left_out"] == 401
