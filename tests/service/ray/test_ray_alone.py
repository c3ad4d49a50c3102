"""A program that knows nothing of Ray but the name of the isolation; and one that has no Ray."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import sys
sys.modules.update({hidden})
from sage import ConfigError
from sage.kernel.runtime.service.channel.ray_channel import RayDirectory
from sage.kernel.runtime.service.ray_service_task import RayServiceTask
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory, ServiceOptions

class Adder:
    def add(self, a, b):
        return a + b

task = RayServiceTask(ServiceFactory("adder", Adder, (), {{}}, ServiceOptions(isolation="ray")))
assert "ray" not in sys.modules or sys.modules["ray"] is None
try:
    task.start_service()
except ConfigError as error:
    print(error)
    raise SystemExit
import ray
services = RayDirectory(task.address.token, (task.address,))
print(ServiceManager(services).call_service_sync("adder", "add", 1, 2))
addresses = {{node["NodeManagerAddress"] for node in ray.nodes()}}
assert addresses == {{"127.0.0.1"}}, addresses
services.close()
assert ray.is_initialized()
task.stop_service()
assert not ray.is_initialized()
"""


def _run(hidden):
    code = PROGRAM.format(hidden=hidden)
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_ray_is_started_on_the_loopback_and_ended_with_the_service():
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    ran = _run("{}")
    assert ran.returncode == 0, ran.stderr
    assert "3" in ran.stdout.split()


def test_without_ray_the_error_says_what_to_install():
    ran = _run("{'ray': None}")
    assert ran.returncode == 0, ran.stderr
    assert "install sage-dataflow[ray]" in ran.stdout
