"""Registries: what is registered is found, as long as it lives, by every process of the user."""

import logging
import os
import queue
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from patience import PATIENCE
from sage.common.errors import ConfigError, ServiceNotFoundError, ServiceUnavailableError
from sage.common.private_directory import runtime_directory
from sage.common.process_id import ProcessId
from sage.kernel.runtime.service.registry.registry_directory import MAX_BYTES, DirectoryStore
from sage.kernel.runtime.service.registry.registry_store import MemoryStore
from sage.kernel.runtime.service.registry.registry_watch import THREAD_NAME
from sage.kernel.runtime.service.registry.service_info import RANK, ServiceInfo
from sage.kernel.runtime.service.service_registry import ServiceRegistry
from sage.testing import ManualClock
from sage.testing.registry_conformance import check_registry


@pytest.fixture
def directory():
    """A directory in memory, where `fsync` costs nothing; it does not exist yet."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as parent:
        yield Path(parent, "registry")


@pytest.fixture(params=["memory", "directory"])
def store(request, directory):
    return MemoryStore() if request.param == "memory" else DirectoryStore(directory)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def registry(store, clock):
    with ServiceRegistry(store, clock=clock) as registry:
        yield registry


@pytest.fixture
def shared(directory):
    with ServiceRegistry(DirectoryStore(directory)) as registry:
        yield registry


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"


def test_conformance(store):
    check_registry(lambda clock: ServiceRegistry(store, clock=clock))


class FindsNothing(ServiceRegistry):
    def discover_services(self, name=None):
        return {} if name is None else []


class FindsTheStopped(ServiceRegistry):
    def discover_services(self, name=None):
        found = [i for i in self._store.load().values() if name in {None, i.name}]
        return found if name else {i.name: i for i in found}


class TellsSecrets(ServiceRegistry):
    def register_service(self, name, address_or_class, **options):
        if address_or_class is dict and "password" in options:
            options["metadata"] = {"password": options["password"]}
        return super().register_service(name, address_or_class, **options)


class NeverTold(ServiceRegistry):
    def watch(self, callback):
        return super().watch(lambda event: None)


class ToldForEver(ServiceRegistry):
    def watch(self, callback):
        super().watch(callback)
        return super().watch(lambda event: None)


class KeepsAtClose(ServiceRegistry):
    def deregister(self, service):
        self._find_own(service)


class HeartbeatsChange(ServiceRegistry):
    def heartbeat(self, service, state="healthy"):
        super().heartbeat(service, state)
        for info in self._find_own(service):
            self._put(msgspec.structs.replace(info, replicas=info.replicas + 1))


class NoHeartbeats(ServiceRegistry):
    def heartbeat(self, service, state="healthy"):
        self._find_own(service)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (FindsNothing, "instead of the one instance of 'memory'"),
        (FindsTheStopped, "the order is"),
        (TellsSecrets, "the value of an argument was made known"),
        (NeverTold, "a watch was not told of"),
        (ToldForEver, "told after the watch was ended"),
        (KeepsAtClose, "found after it was taken back"),
        (HeartbeatsChange, "a heartbeat alone was told as a change"),
        (NoHeartbeats, "gone before|instead of the one"),
    ],
)
def test_conformance_finds_faults(faulty, message):
    store = MemoryStore()
    with pytest.raises(AssertionError, match=message):
        check_registry(lambda clock: faulty(store, clock=clock), patience=0.5)


class Registries(RuleBasedStateMachine):
    """Two registries on each store, against a dict of what they should know."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock(start_ms=10**6)
        self.parent = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.stores = [MemoryStore(), DirectoryStore(self.parent / "registry")]
        self.registries = [[self.make(store) for _ in range(2)] for store in self.stores]
        self.model = {}  # number → [name, state, ttl, heartbeat, which registry, infos by store]
        self.count = 0

    def make(self, store):
        return ServiceRegistry(store, clock=self.clock)

    def teardown(self):
        for registries in self.registries:
            for registry in registries:
                registry.close()
        left = [path for path in self.parent.rglob("*") if path.is_file()]
        shutil.rmtree(self.parent)
        assert left == []

    @initialize()
    def start(self):
        self.versions = [[r.version for r in rs] for rs in self.registries]
        self.expected = self.visible()

    which = st.integers(0, 1)
    name = st.sampled_from(["a", "b", "c c/../é"])
    state = st.sampled_from(sorted(RANK))

    @rule(which=which, name=name, state=state, ttl=st.none() | st.integers(1, 20))
    def register(self, which, name, state, ttl):
        options = {"state": state, "ttl": ttl, "number": self.count}
        infos = [rs[which].register_service(name, "h:1", **options) for rs in self.registries]
        now = self.clock.now_ms()
        self.model[self.count] = [name, state, ttl, now, which, infos]
        self.count += 1

    @rule(which=which, name=name, state=state)
    def heartbeat(self, which, name, state):
        own = self.own(which, name)
        for registries in self.registries:
            self.attempt(own, registries[which].heartbeat, name, state)
        for entry in own.values():
            entry[1], entry[3] = state, self.clock.now_ms()

    @rule(data=st.data(), state=state)
    def heartbeat_one(self, data, state):
        number = data.draw(st.sampled_from(sorted(self.model) or [None]))
        if number is not None:
            entry = self.model[number]
            for registries, info in zip(self.registries, entry[5], strict=True):
                registries[entry[4]].heartbeat(info, state)
            entry[1], entry[3] = state, self.clock.now_ms()

    @rule(which=which, name=name)
    def deregister(self, which, name):
        own = self.own(which, name)
        for registries in self.registries:
            self.attempt(own, registries[which].deregister, name)
        for number in own:
            del self.model[number]

    @rule(ms=st.integers(1, 15_000))
    def advance(self, ms):
        self.clock.advance(ms=ms)

    @rule(which=which)
    def reopen(self, which):
        for registries, store, versions in zip(
            self.registries, self.stores, self.versions, strict=True
        ):
            registries[which].close()
            registries[which] = self.make(store)
            versions[which] = 0
        self.model = {n: e for n, e in self.model.items() if e[4] != which}
        self.expected_reopened = which
        for registries, versions in zip(self.registries, self.versions, strict=True):
            versions[which] = registries[which].version

    @rule()
    def lose_files(self):
        """A clean-up takes the files away; the next heartbeats put them back."""
        if all(entry[2] is not None for entry in self.model.values()):
            shutil.rmtree(self.parent / "registry", ignore_errors=True)
            for number, entry in self.model.items():
                self.stores[0].remove(entry[5][0].instance)
                self.model[number][3] = -(10**9)

    def own(self, which, name):
        return {n: e for n, e in self.model.items() if (e[0], e[4]) == (name, which)}

    def attempt(self, own, call, *args):
        if own:
            call(*args)
        else:
            with pytest.raises(ServiceNotFoundError):
                call(*args)

    def visible(self):
        """What is known and current, without the times of heartbeats."""
        now = self.clock.now_ms()
        current = (
            (number, entry[0], entry[1])
            for number, entry in self.model.items()
            if entry[2] is None or now - entry[3] <= entry[2] * 1000
        )
        return sorted(current)

    @invariant()
    def all_agree_with_the_model(self):
        visible = self.visible()
        for registry in (r for rs in self.registries for r in rs):
            found = {name: registry.discover_services(name) for name in ("a", "b", "c c/../é")}
            listed = [(i.metadata["number"], i.name, i.state) for n in found.values() for i in n]
            assert sorted(listed) == [v for v in visible if v[2] != "stopped"]
            assert registry.discover_services() == {n: i[0] for n, i in found.items() if i}
            for infos in found.values():
                assert infos == sorted(
                    infos, key=lambda i: (RANK[i.state], i.registered_at, i.instance)
                )

    @invariant()
    def versions_move_with_changes(self):
        visible = self.visible()
        changed = visible != getattr(self, "expected", visible)
        for registries, versions in zip(
            self.registries, getattr(self, "versions", ()), strict=False
        ):
            for which, registry in enumerate(registries):
                version = registry.version
                if getattr(self, "expected_reopened", None) != which:
                    assert (version > versions[which]) == changed
                versions[which] = version
        self.expected = visible
        self.expected_reopened = None


TestRegistries = Registries.TestCase
TestRegistries.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


CHILD = """
import sys
from pathlib import Path
from sage.kernel.runtime.service.registry.registry_directory import DirectoryStore
from sage.kernel.runtime.service.service_registry import ServiceRegistry
registry = ServiceRegistry(DirectoryStore(Path(sys.argv[1])))
"""

REGISTER_MANY = """
for i in range(25):
    registry.register_service(f"s{i}", "h:1", state="healthy", child=sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
registry.close()
"""

CHURN = """
print("ready", flush=True)
while True:
    infos = [registry.register_service("churn", "h:1", text="x" * 2000) for _ in range(3)]
    for state in ("healthy", "unhealthy"):
        registry.heartbeat("churn", state)
    registry.deregister(infos[0])
    registry.deregister("churn")
"""

FORK = """
import os
registry.register_service("s", "h:1")
if os.fork() == 0:
    registry.close()
    os._exit(0)
os.wait()
print(len(registry.discover_services("s")), flush=True)
sys.stdin.read()
"""


@contextmanager
def child(script, directory, *args):
    """Run a script in a process of its own, past its first line of output."""
    command = [sys.executable, "-c", CHILD + script, str(directory), *map(str, args)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            process.first_line = process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def test_processes_register_at_the_same_time(directory, shared):
    """Each of them is found whole; the killed are gone at once; those that end, when they end."""
    command = [sys.executable, "-c", CHILD + REGISTER_MANY, str(directory)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([*command, str(i)], **pipes) for i in range(6)]
    try:
        for process in children:
            assert process.stdout.readline() == b"ready\n"
        for i in range(25):
            found = shared.discover_services(f"s{i}")
            assert sorted(info.metadata["child"] for info in found) == list("012345")
            assert {info.pid for info in found} == {process.pid for process in children}
        for process in children[:3]:
            process.kill()
        wait_until(lambda: len(shared.discover_services("s0")) == 3)
        assert len(list(directory.glob("*.json"))) == 75
        for process in children[3:]:
            process.stdin.close()
        wait_until(lambda: shared.discover_services() == {})
    finally:
        for process in children:
            process.kill()
            with process:
                process.wait(PATIENCE)
    assert list(directory.iterdir()) == []


def test_a_process_may_be_killed_at_any_time(directory, caplog):
    """A reader never meets half an entry, and the dead are not found."""
    with ServiceRegistry(DirectoryStore(directory), poll_interval=0.001) as registry:
        check_kills(directory, registry)
    assert caplog.records == []


def check_kills(directory, shared):
    version = shared.version
    for round_ in range(12):
        with child(CHURN, directory) as process:
            for _ in range(1 + round_ * 3):
                version = shared.wait_changed(version, PATIENCE)
                assert all(
                    len(i.metadata["text"]) == 2000 for i in shared.discover_services("churn")
                )
            process.kill()
            process.wait(PATIENCE)
            assert shared.discover_services() == {}
            assert list(directory.glob("*.json")) == []
    mine = shared.register_service("s", "h:1")
    assert shared.discover_services("s") == [mine]


def test_a_forked_copy_takes_nothing_back(directory, shared):
    with child(FORK, directory) as process:
        assert process.first_line == "1"
        assert len(shared.discover_services("s")) == 1


def test_watches_are_told_of_other_processes(directory, shared):
    events = queue.SimpleQueue()
    shared.watch(events.put)
    with child(REGISTER_MANY, directory, "x") as process:
        added = [events.get(timeout=PATIENCE) for _ in range(25)]
        process.kill()
        removed = [events.get(timeout=PATIENCE) for _ in range(25)]
    assert {event.kind for event in added} == {"added"}
    assert {event.kind for event in removed} == {"removed"}
    assert sorted(e.service.instance for e in added) == sorted(e.service.instance for e in removed)


def test_a_failing_callback_does_not_stop_the_others(registry, caplog):
    events = queue.SimpleQueue()

    def fail(event):
        raise RuntimeError(event.service.name)

    registry.watch(fail)
    registry.watch(events.put)
    registry.register_service("s", "h:1")
    registry.register_service("t", "h:1")
    assert {events.get(timeout=PATIENCE).service.name for _ in range(2)} == {"s", "t"}
    registry.close()
    assert "a watch failed" in caplog.text


def test_one_thread_serves_all_watches_and_ends_with_the_registry(registry):
    def threads():
        return [t for t in threading.enumerate() if t.name == THREAD_NAME]

    assert threads() == []
    for _ in range(3):
        registry.watch(print)
    assert len(threads()) == 1
    registry.close()
    assert threads() == []


def test_a_registry_may_be_closed_by_a_callback(registry):
    done = threading.Event()

    def close(event):
        registry.close()
        done.set()

    registry.watch(close)
    registry.register_service("s", "h:1")
    assert done.wait(PATIENCE)


def test_a_watch_survives_a_directory_that_cannot_be_used(directory, clock, caplog):
    events = queue.SimpleQueue()
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with ServiceRegistry(DirectoryStore(directory), clock=clock) as registry:
        registry.watch(events.put)
        for _ in range(3):
            clock.wait_waiting()
            clock.advance(seconds=1)
        directory.chmod(0o700)
        registry.register_service("s", "h:1")
        assert events.get(timeout=PATIENCE).service.name == "s"
    messages = [r.getMessage() for r in caplog.records]
    assert len([m for m in messages if "is open to others" in m]) == 1


def test_a_wait_ends_with_a_registration(registry, clock):
    version, changed = registry.version, queue.SimpleQueue()
    waiter = threading.Thread(target=lambda: changed.put(registry.wait_changed(version)))
    waiter.start()
    clock.wait_waiting()
    registry.register_service("s", "h:1")
    assert changed.get(timeout=PATIENCE) > version
    waiter.join(PATIENCE)


def test_a_wait_ends_with_its_time(registry, clock):
    version, changed = registry.version, queue.SimpleQueue()
    waiter = threading.Thread(target=lambda: changed.put(registry.wait_changed(version, 0.3)))
    waiter.start()
    for _ in range(2):
        clock.wait_waiting()
        assert changed.empty()
        clock.advance(seconds=0.2)
    assert changed.get(timeout=PATIENCE) == version
    waiter.join(PATIENCE)


def test_a_wait_ends_with_the_registry(registry, clock):
    outcome = queue.SimpleQueue()

    def wait():
        try:
            registry.wait_changed(registry.version)
        except ServiceUnavailableError as error:
            outcome.put(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    clock.wait_waiting()
    registry.close()
    assert "closed" in str(outcome.get(timeout=PATIENCE))
    waiter.join(PATIENCE)


@pytest.mark.parametrize(
    ("change", "alive"),
    [({}, True), ({"started": 1}, False), ({"boot": "x"}, False), ({"namespace": "pid:[1]"}, True)],
)
def test_a_process_is_told_from_a_later_one_of_its_number(store, registry, change, alive):
    """A process of another namespace cannot be seen: only missed heartbeats tell of its end."""
    process = msgspec.structs.replace(ProcessId.of(os.getpid()), **change)
    store.put(ServiceInfo(name="s", instance="i", process=process))
    assert bool(registry.discover_services("s")) == alive
    assert bool(store.load()) == alive


def test_what_a_reader_changes_is_not_seen_by_others(registry):
    registry.register_service("s", "h:1", zone={"a": 1})
    assert registry.discover_services("s")[0].metadata == {"zone": {"a": 1}}


def test_nobody_else_can_read(directory, shared):
    shared.register_service("s", "h:1")
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (directory, *directory.iterdir())]
    assert modes == [0o700, 0o600]


def test_a_directory_that_is_not_private_is_refused(directory, tmp_path):
    with ServiceRegistry(DirectoryStore(directory)) as registry:
        directory.mkdir()
        directory.chmod(0o750)
        for use in (registry.discover_services, lambda: registry.register_service("s", "h:1")):
            with pytest.raises(ConfigError, match="is open to others"):
                use()
        directory.rmdir()
        directory.symlink_to(tmp_path)
        with pytest.raises(ConfigError, match="is not a directory"):
            registry.discover_services()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_others_is_refused(directory, shared, caplog):
    info = shared.register_service("s", "h:1")
    file = directory / f"{info.instance}.json"
    os.chown(file, 12345, 12345)
    shared.register_service("t", "h:1")
    assert list(shared.discover_services()) == ["t"]
    assert "not a file of this user" in caplog.text
    os.chown(directory, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        shared.discover_services()
    os.chown(directory, 0, 0)


def test_files_that_are_no_entries_are_left_alone(directory, shared, caplog):
    """They may be those of another version; each is complained of once."""
    info = shared.register_service("s", "h:1")
    data = (directory / f"{info.instance}.json").read_bytes()
    (directory / "half.json").write_bytes(data[:40])
    (directory / "renamed.json").write_bytes(data)
    (directory / "binary.json").write_bytes(b"\xff" * 20)
    (directory / "long.json").write_bytes(b" " * (MAX_BYTES + 1))
    (directory / "link.json").symlink_to(directory / f"{info.instance}.json")
    (directory / "directory.json").mkdir()
    os.mkfifo(directory / "pipe.json")
    (directory / "README").write_text("not ours")
    for _ in range(3):
        assert shared.discover_services() == {"s": info}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 7, warnings
    assert len(list(directory.iterdir())) == 9


def test_what_a_killed_writer_left_is_removed_in_time(directory, shared):
    shared.register_service("s", "h:1")
    old, fresh = directory / "x.1.tmp", directory / "x.2.tmp"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    past = time.time() - 100
    os.utime(old, (past, past))
    shared.register_service("t", "h:1")
    shared.discover_services()
    assert not old.exists()
    assert fresh.exists()


def test_an_entry_that_is_too_long_is_refused(directory, shared):
    with pytest.raises(ValueError, match="bytes of 65536"):
        shared.register_service("s", "h:1", text="x" * MAX_BYTES)
    assert shared.discover_services() == {}
    assert not directory.exists()


def test_looking_makes_nothing(directory, shared):
    assert shared.discover_services() == {}
    assert shared.version == 0
    assert not directory.exists()


def test_an_unchanged_directory_is_not_read_again(directory):
    """Once its time is old enough to be trusted: a file put there by a writer of the same time."""
    store = DirectoryStore(directory)
    with ServiceRegistry(store) as registry:
        info = registry.register_service("s", "h:1")
        past = time.time() - 10
        os.utime(directory, (past, past))
        assert list(store.load()) == [info.instance]
        file = directory / f"{info.instance}.json"
        hidden = file.rename(directory.parent / "hidden")
        os.utime(directory, (past, past))
        assert list(store.load()) == [info.instance]
        hidden.rename(file)
        assert list(store.load()) == [info.instance]


def test_the_runtime_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / f"sage-{os.geteuid()}"
    with ServiceRegistry() as registry:
        registry.register_service("s", "h:1")
        [file] = (tmp_path / f"sage-{os.geteuid()}" / "registry").iterdir()
        assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_directory().parent in {Path("/dev/shm"), Path(tempfile.gettempdir())}


def test_the_user_directory_around_is_checked_too(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    around = tmp_path / f"sage-{os.geteuid()}"
    around.mkdir()
    around.chmod(0o777)
    with ServiceRegistry() as registry, pytest.raises(ConfigError, match="is open to others"):
        registry.register_service("s", "h:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", dict), "1 to 200 printable characters"),
        (("x" * 201, dict), "1 to 200 printable characters"),
        (("a\nb", dict), "1 to 200 printable characters"),
        (("s", "localhost"), "'localhost' is not 'host:port'"),
        (("s", "h:99999"), "'h:99999' is not 'host:port'"),
        (("s", 17), "give its address as 'host:port', its class or a factory function, not 17"),
    ],
)
def test_what_cannot_be_registered_is_named(registry, arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.register_service(*arguments)


def test_functions_and_objects_that_make_services(registry):
    def make():
        pass

    class Factory:
        def __call__(self):
            pass

    assert registry.register_service("s", make).class_path.endswith("<locals>.make")
    assert registry.register_service("s", Factory()).class_path.endswith("Factory")


def test_a_name_that_is_not_registered_names_the_nearest(registry):
    registry.register_service("memory-service", "h:1")
    with pytest.raises(ServiceNotFoundError, match="Did you mean 'memory-service'"):
        registry.heartbeat("memory-servce")
