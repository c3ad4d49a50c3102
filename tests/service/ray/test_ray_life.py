"""How Ray services start, die, come back and stop."""

from __future__ import annotations

import time

import pytest

from sage import ConfigError, ServiceUnavailableError
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.ray_service_task import RayServiceTask
from sage.kernel.runtime.service.service_factory import ServiceFactory, ServiceOptions
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
