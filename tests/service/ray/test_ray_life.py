"""How Ray services start, die, come back and stop."""

from __future__ import annotations

import os
import time

import pytest

from sage import ConfigError, LocalEnvironment, MapFunction, ServiceUnavailableError
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions
from sage.kernel.runtime.service.ray_service_task import RayServiceTask
from service.calls.call_services import Noting, Worker, Zoo, notes
from service.ray.conftest import eventually, ray_services

ON_RAY = ServiceOptions().changed(isolation="ray")


class CustomTask(BaseServiceTask):
    """The custom task of the documents."""

    def custom_handle_request(self, request):
        return self.service.process(request)


def _answers(call):
    try:
        return call.same("back") == "back"
    except ServiceUnavailableError:
        return False


def test_hooks_are_called_once_and_in_order(ray, tmp_path):
    path = str(tmp_path / "notes")
    with ray_services(("noting", Noting, path)) as made:
        assert made.manager.call_service_sync("noting", "work", 3) == 3
        assert notes(path) == ["it.init", "it.setup", "it.start", "it.work"]
    assert notes(path)[4:] == ["it.stop", "it.cleanup"]


def test_a_service_that_cannot_start_says_why(ray, tmp_path):
    factory = ServiceFactory("noting", Noting, (str(tmp_path / "n"), "it", "setup"), {}, ON_RAY)
    task = RayServiceTask(factory)
    with pytest.raises(ServiceUnavailableError, match="no setup today"):
        task.start_service()
    assert not task.is_running
    assert notes(tmp_path / "n")[-1] == "it.cleanup"


def test_a_failing_stop_is_told_and_the_actor_ends(ray, tmp_path):
    factory = ServiceFactory("noting", Noting, (str(tmp_path / "n"), "it", "stop"), {}, ON_RAY)
    task = RayServiceTask(factory)
    task.start_service()
    with pytest.raises(ServiceUnavailableError, match="no stop today"):
        task.stop_service()
    _wait_gone(ray, task)


def test_stop_leaves_no_actor_and_may_be_repeated(ray):
    task = RayServiceTask(ServiceFactory("zoo", Zoo, (), {}, ON_RAY))
    assert task.get_service_status()["status"] == "stopped"
    task.start_service()
    task.start_service()
    status = task.get_service_status()
    assert (status["status"], status["isolation"], status["up"]) == ("running", "ray", 1)
    task.stop_service()
    task.stop_service()
    _wait_gone(ray, task)
    task.start_service()  # and again
    task.stop_service()
    _wait_gone(ray, task)


def _wait_gone(ray, task):
    named = {"name": task.address.actor(0), "namespace": task.address.token}
    eventually(lambda: named not in ray.util.list_named_actors(True), "the actor has ended")


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_callers_of_a_dead_actor_fail_at_once_and_later_calls_succeed(ray, how):
    with ray_services(("zoo", Zoo), max_concurrency=2) as made:
        call = made.manager.get_sync_proxy("zoo")
        pid = call.pid()
        waiting = made.manager.call_service_async("zoo", "slow", 60)
        if how == "exit":
            dying = made.manager.call_service_async("zoo", "die")
        else:
            task = made.tasks["zoo"]
            actor = ray.get_actor(task.address.actor(0), task.address.token)
            ray.kill(actor, no_restart=False)
            dying = waiting
        begun = time.monotonic()
        for future in (waiting, dying):
            with pytest.raises(ServiceUnavailableError, match="died while it had the call"):
                future.result()
        assert time.monotonic() - begun < 10
        eventually(lambda: _answers(call), "the service is back")
        assert call.pid() != pid


def test_an_actor_that_may_not_be_restarted_stays_down(ray):
    with ray_services(("zoo", Zoo), max_restarts=0) as made:
        call = made.manager.get_sync_proxy("zoo")
        with pytest.raises(ServiceUnavailableError, match="died"):
            call.die()
        with pytest.raises(ServiceUnavailableError, match="is down"):
            call.same(1)


def test_a_dead_replica_is_left_out(ray):
    with ray_services(("zoo", Zoo), replicas=2, max_restarts=0) as made:
        call = made.manager.get_sync_proxy("zoo")
        with pytest.raises(ServiceUnavailableError):
            call.die()
        assert [call.same(n) for n in range(10)] == list(range(10))


def test_a_custom_task_handles_requests(ray):
    with ray_services(("worker", Worker), task_class=CustomTask) as made:
        assert made.manager.call_service_sync("worker", "anything", 41) == 42


def test_resources_that_ray_does_not_have_are_not_waited_for(ray):
    options = ON_RAY.changed(resources={"CPU": 1000}, start_timeout=0.5)
    task = RayServiceTask(ServiceFactory("zoo", Zoo, (), {}, options))
    with pytest.raises(ServiceUnavailableError, match=r"not ready within 0\.5 s"):
        task.start_service()


def test_detached_actors_are_stopped_too(ray):
    options = ON_RAY.changed(lifetime="detached", resources={"CPU": 0.5})
    task = RayServiceTask(ServiceFactory("zoo", Zoo, (), {}, options))
    task.start_service()
    task.stop_service()
    _wait_gone(ray, task)


@pytest.mark.parametrize(
    "wrong",
    [
        {"isolation": "local", "resources": {"CPU": 1}},
        {"isolation": "process", "lifetime": "detached"},
        {"isolation": "ray", "lifetime": "eternal"},
        {"isolation": "ray", "resources": {"CPU": -1}},
        {"isolation": "ray", "inline": True},
    ],
    ids=repr,
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        ServiceOptions().changed(**wrong)


# ---- jobs over several processes

RECORDS = 60


class Counting:
    """Counts calls, says who answers, and can fail and die."""

    def __init__(self, marks):
        self.marks = marks
        self.calls = 0

    def add(self, number):
        self.calls += 1
        return os.getpid(), self.calls, number

    def fail(self, number):
        raise LookupError(f"no {number}")

    def die_once(self, number):
        if number % 20 == 0 and not os.path.exists(f"{self.marks}-{number}"):
            with open(f"{self.marks}-{number}", "w"):
                os._exit(1)
        return number


class Calls(MapFunction):
    def __init__(self, name, method="add"):
        super().__init__()
        self.service, self.method_name = name, method

    def execute(self, data):
        return os.getpid(), getattr(self.call_service[self.service], self.method_name)(data)


def test_workers_call_services_on_ray(ray, tmp_path):
    """One actor answers all; actors that die are called again once Ray has started them.

    All in one job: each of its workers takes seconds to join Ray.
    """
    env, marks = LocalEnvironment("on-ray", {"parallelism": 2}), str(tmp_path / "mark")
    env.register_service("near", Counting, marks).options(timeout=20)
    env.register_service("far", Counting, marks).options(isolation="ray", timeout=20)
    env.register_service("mortal", Counting, marks).options(
        isolation="ray",
        replicas=2,
        timeout=60,
        max_restarts=10,
        idempotent=True,
        retry={"max_attempts": 60, "initial_delay": 0.1, "max_delay": 0.5},
    )
    numbers = env.from_batch(range(RECORDS)).rebalance()
    counted = [numbers.map(Calls(name)).collect() for name in ("far", "near")]
    survived = numbers.map(Calls("mortal", "die_once")).collect()
    fails = numbers.filter(lambda n: n < 3).map(Calls("far", "fail"), on_error="dead_letter")
    letters = fails.dead_letters().map(lambda d: (d.value, repr(d.error))).collect()
    env.execute(progress=False)
    hosts = set()
    for found in counted:
        callers, answers = {pid for pid, _ in found}, [answer for _, answer in found]
        assert len(callers) == 2
        assert os.getpid() not in callers
        hosts |= {pid for pid, _, _ in answers}
        assert sorted(calls for _, calls, _ in answers) == list(range(1, RECORDS + 1))
        assert sorted(number for _, _, number in answers) == list(range(RECORDS))
    assert len(hosts) == 2
    assert sorted(number for _, number in survived) == list(range(RECORDS))
    assert len(list(tmp_path.iterdir())) == RECORDS / 20
    assert sorted(number for number, _ in letters) == [0, 1, 2]
    assert all("ServiceCallError" in told and "LookupError" in told for _, told in letters)
