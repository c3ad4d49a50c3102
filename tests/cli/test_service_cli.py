"""`sage service`, as somebody types it, beside a program whose services run."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patience import PATIENCE
from sage.kernel.runtime.service.service_registry import ServiceRegistry
from sage.kernel.transport.queue_files import DIRECTORY_VARIABLE

PROGRAM = """
import sys
from pathlib import Path

from sage import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager


class Model:
    def __init__(self, mood, token="sesame"):
        self.mood = Path(mood)

    def predict(self, x):
        return x

    def refuse(self, x):
        raise ValueError("no")

    def health_check(self):
        mood = self.mood.read_text()
        while mood == "stuck":
            mood = self.mood.read_text()
        return mood == "well"


if __name__ == "__main__":
    mood = sys.argv[1]
    with LocalEnvironment("shop") as env:
        env.register_service("model", Model, mood).options(isolation="process", replicas=2)
        env.register_service("words", dict, hello="world").options(
            circuit_breaker={}, methods={"get": {"cache_ttl": 60}}
        )
        manager = ServiceManager(env)
        for n in range(20):
            manager.call_service_sync("model", "predict", n)
            manager.call_service_sync("words", "get", "hello")
        manager.call_service_async("model", "refuse", "sesame").exception()
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The environment variables of a user with nothing running."""
    base = tmp_path_factory.mktemp("places")
    made = {name: str(base / name) for name in ("XDG_RUNTIME_DIR", DIRECTORY_VARIABLE)}
    for directory in made.values():
        os.mkdir(directory, 0o700)
    return made


@pytest.fixture(scope="module")
def shop(places, tmp_path_factory):
    """A program with two services; yields the file in which the model's mood is."""
    base = tmp_path_factory.mktemp("shop")
    (base / "program.py").write_text(PROGRAM)
    mood = base / "mood"
    mood.write_text("well")
    program = subprocess.Popen(
        [sys.executable, "program.py", str(mood)],
        cwd=base,
        env={**os.environ, **places},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with program:
        assert program.stdout.readline() == b"ready\n"
        wait_until_told(places)
        yield mood
        program.stdin.close()
        assert program.wait(PATIENCE) == 0
    assert sage(places, "ls")[1] == "No services are running.\n"
    left = [file for base in places.values() for file in Path(base).rglob("*") if file.is_file()]
    assert left == []


def wait_until_told(places):
    """Wait until the registry knows of the last call: it is told once a second."""
    deadline = time.monotonic() + PATIENCE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", places["XDG_RUNTIME_DIR"])
        with ServiceRegistry() as registry:
            while True:
                version = registry.version
                [model] = registry.discover_services("model")
                if "refuse" in model.metadata["figures"]["called"]["methods"]:
                    return
                registry.wait_changed(version, deadline - time.monotonic())
                assert time.monotonic() < deadline


def sage(places, *words, columns="100"):
    command = [sys.executable, "-m", "sage.cli", "service", *words]
    env = {**os.environ, **places, "COLUMNS": columns}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["ls", "status", "health", "top"])
def test_without_services_a_clear_line_is_shown(tmp_path, command):
    code, out, err = sage({"XDG_RUNTIME_DIR": str(tmp_path)}, command)
    assert (code, out, err) == (0, "No services are running.\n", "")


def test_services_are_listed(places, shop):
    code, out, _ = sage(places, "ls")
    assert code == 0
    assert "process 2/2" in out
    assert "healthy" in out
    services = json.loads(sage(places, "ls", "--json")[1])
    model, words = services
    assert (model["name"], model["isolation"], model["state"]) == ("model", "process", "healthy")
    assert (model["replicas"], model["up"], len(set(model["pids"]))) == (2, 2, 2)
    assert (words["name"], words["isolation"], len(words["pids"])) == ("words", "local", 1)
    assert 0 < words["calls_per_second"] <= 20 / min(words["uptime_seconds"], 50) + 0.01
    assert words["in_flight"] == 0


@pytest.mark.parametrize("columns", ["80", "160"])
def test_tables_fit_the_terminal(places, shop, columns):
    for command in ("ls", "status", "health"):
        code, out, _ = sage(places, command, columns=columns)
        assert code == 0
        assert max(map(len, out.splitlines())) <= int(columns)
        assert "model" in out
        assert "…" not in out


def test_the_status_tells_what_became_of_the_calls(places, shop):
    code, out, _ = sage(places, "status", "model")
    assert code == 0
    assert "ValueError" in out
    assert "15 min" in out
    [model] = json.loads(sage(places, "status", "model", "--json")[1])
    window = model["methods"]["predict"]["last_5_minutes"]
    assert window["calls"] == 20
    assert 0 < window["p50"] <= window["p99"]
    assert model["methods"]["refuse"]["since_start"]["failures"] == {"ValueError": 1}
    [words] = json.loads(sage(places, "status", "words", "--json")[1])
    assert words["breaker"] == "closed"
    assert words["cache"]["hits"] == 19
    assert "19 of 20 (95%)" in sage(places, "status", "words")[1]


def test_no_values_are_shown(places, shop):
    for command in ("ls", "status"):
        assert "sesame" not in sage(places, command, "--json")[1]


@pytest.mark.parametrize("command", ["status", "health"])
def test_an_unknown_name_is_told_with_a_near_miss(places, shop, command):
    code, out, err = sage(places, command, "modle")
    assert (code, out) == (2, "")
    assert "no service 'modle' is running. Did you mean 'model'?" in err


def test_services_are_asked_how_they_are(places, shop):
    code, out, _ = sage(places, "health")
    assert code == 0
    assert "all 2 replicas answer" in out
    model, words = json.loads(sage(places, "health", "--json")[1])
    assert (model["healthy"], model["source"]) == (True, "service")
    assert (words["healthy"], words["source"]) == (True, "environment")
    assert 0 < model["seconds"] < 5


def test_an_unhealthy_one_makes_the_exit_code_1(places, shop):
    shop.write_text("ill")
    try:
        code, out, _ = sage(places, "health", "model")
        assert sage(places, "health", "words")[0] == 0
    finally:
        shop.write_text("well")
    assert code == 1
    assert "it says that it is not well" in out


def test_one_that_does_not_answer_in_time_is_not_well(places, shop):
    shop.write_text("stuck")
    try:
        code, out, _ = sage(places, "health", "model", "--timeout", "0.2", "--json")
    finally:
        shop.write_text("well")
    assert code == 1
    [model] = json.loads(out)
    assert "did not answer within 0.2 s" in model["told"]
    assert sage(places, "health", "model")[0] == 0


def test_top_prints_once(places, shop):
    code, out, _ = sage(places, "top", "--once")
    assert code == 0
    assert {"model", "words"} <= set(out.split())


@pytest.mark.parametrize("how", ["q", "ctrl-c"])
def test_top_follows_in_a_terminal_and_ends_cleanly(places, shop, how):
    terminal, inside = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "sage.cli", "service", "top"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, **places, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(inside)
    try:
        shown = read_until(terminal, lambda text: text.count(b"model") >= 2)
        if how == "q":
            os.write(terminal, b"q")
        else:
            program.send_signal(signal.SIGINT)
        shown += read_until(terminal, lambda text: b"\x1b[?1049l" in text)
        assert program.wait(PATIENCE) == 0
    finally:
        program.kill()
        program.wait()
        os.close(terminal)
    assert b"Traceback" not in shown
    assert b"\x1b[?25h" in shown, "the cursor is shown again"


def read_until(terminal, enough):
    deadline, text = time.monotonic() + PATIENCE, b""
    while not enough(text):
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, text
        text += os.read(terminal, 65536)
    return text
