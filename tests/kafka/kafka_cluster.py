"""`KafkaCluster`: real Kafka brokers on loopback, for tests and benchmarks.

Each broker is a Java process below a small shell, which ends it and removes its data when the pipe
from this process closes: also when this process is killed.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from kafka.kafka_jars import cache, class_path, java

HOST = "127.0.0.1"
PATIENCE = 60.0
CLUSTER_ID = "c2FnZS10ZXN0cy1rYWZrYQ"
PORTS = range(15_000, 30_000)
"""Below those that clients are given, which could take the port of a broker that starts again."""

# "keep" says that the data stays for the next start; nothing said, that it goes.
KEEPER = """
java=$1 directory=$2; shift 2
"$java" "$@" </dev/null >>"$directory/output" 2>&1 &
broker=$!; echo $broker
read -r word
kill -9 $broker; wait $broker 2>/dev/null
[ "$word" = keep ] || { rm -rf "$directory"; rmdir "${directory%/*}" 2>/dev/null; }
"""
QUICK_START = ("-Xms64m", "-Xmx300m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


class KafkaCluster:
    """Brokers in KRaft mode, each of them a controller too.

    Args:
        brokers: 1 or 3.
        properties: Further settings of the brokers.
        java_options: How Java is run; by default, so that it starts quickly.
        secure: Whether to listen for clients that log in over TLS as well; `properties` say how.

    Attributes:
        bootstrap: Where clients find it.
        secure_bootstrap: Where those find it that log in over TLS.
        start_seconds: How long the start took.
    """

    def __init__(self, brokers=1, properties=None, java_options=None, *, secure=False):
        self._java, self._class_path = java(), class_path()
        self._options = java_options or quick_start()
        self._directory = Path(tempfile.mkdtemp(prefix="sage-kafka-"))
        ports = iter(free_ports(3 * brokers))
        nodes = [
            Node(n + 1, next(ports), next(ports), next(ports) if secure else None)
            for n in range(brokers)
        ]
        self._brokers = {node.id: self._broker(node, nodes, properties or {}) for node in nodes}
        self.bootstrap = ",".join(f"{HOST}:{node.port}" for node in nodes)
        self.secure_bootstrap = ",".join(f"{HOST}:{node.secure_port}" for node in nodes)
        self.start_seconds = None

    def _broker(self, node, nodes, properties):
        directory = self._directory / str(node.id)
        settings = {**settings_of(node, nodes, directory / "data"), **properties}
        command = [*self._options, "-cp", self._class_path]
        return Broker(node, directory, settings, [self._java, str(directory), *command])

    def start(self):
        """Start all brokers and wait until they answer."""
        began = time.monotonic()
        for broker in self._brokers.values():
            broker.format(formatted(broker, self._java, self._class_path))
            broker.start()
        try:
            self.wait_until_up()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began

    def wait_until_up(self, patience=PATIENCE):
        """Wait until all brokers that should run answer, and agree that all of them are there."""
        until = time.monotonic() + patience
        running = [broker for broker in self._brokers.values() if broker.running]
        for broker in running:
            while not broker.answers(len(running)):
                if not broker.alive() or time.monotonic() > until:
                    raise AssertionError(f"broker {broker.node.id} is not up:\n{broker.log()}")

    def stop(self):
        """End all brokers and remove their data."""
        for broker in self._brokers.values():
            broker.end(keep=False)
        shutil.rmtree(self._directory, ignore_errors=True)  # of brokers that have never run

    def kill(self, broker=1):
        """Kill a broker, as a machine that loses its power does; its data stays."""
        self._brokers[broker].end(keep=True)

    def shut_down(self, broker=1):
        """Let a broker end in order; its data stays."""
        self._brokers[broker].terminate()
        self._brokers[broker].end(keep=True)

    def restart(self, broker=1, *, kill=True, wait=True):
        """End a broker and start it again, on its data and its port."""
        if self._brokers[broker].running:
            (self.kill if kill else self.shut_down)(broker)
        self._brokers[broker].start()
        if wait:
            self.wait_until_up()

    def leader(self, topic, partition=0):
        """Return the number of the broker that leads a partition."""
        admin = self.admin()
        return admin.list_topics(topic, PATIENCE).topics[topic].partitions[partition].leader

    def create_topic(self, name, partitions=1, **config):
        """Make a topic, replicated to all brokers, and wait until every broker knows it."""
        topic = NewTopic(name, partitions, len(self._brokers), config={**config})
        admin = self.admin()
        admin.create_topics([topic])[name].result(PATIENCE)
        until = time.monotonic() + PATIENCE
        while not self._knows(name, partitions):
            assert time.monotonic() < until, f"{name} has not come to all brokers"
        return name

    def _knows(self, name, partitions):
        for broker in self._brokers.values():
            if broker.running:
                admin = AdminClient({"bootstrap.servers": f"{HOST}:{broker.node.port}"})
                found = admin.list_topics(name, timeout=PATIENCE).topics[name]
                leaders = [p for p in found.partitions.values() if p.leader > 0]
                if found.error or len(leaders) != partitions:
                    return False
        return True

    def admin(self):
        """Return a client that manages the cluster."""
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


@dataclass(frozen=True)
class Node:
    """Which broker it is and where it listens."""

    id: int
    port: int
    controller_port: int
    secure_port: int | None


class Broker:
    """The process of one broker."""

    def __init__(self, node, directory, settings, command):
        self.node = node
        self.directory = directory
        self._command = command
        self._keeper = None
        self._pid = 0
        directory.mkdir()
        self.properties = directory / "server.properties"
        self.properties.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    @property
    def running(self):
        """Whether it has been started and not ended since."""
        return self._keeper is not None

    def format(self, template):
        """Make the empty data directory."""
        shutil.copytree(template, self.directory / "data")

    def start(self):
        """Start the process; it answers a while later."""
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", *self._command, "kafka.Kafka", str(self.properties)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C is for the tests
        )
        self._pid = int(self._keeper.stdout.readline())

    def alive(self):
        """Say whether the process has not ended by itself."""
        try:
            state = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    def answers(self, brokers):
        """Say whether clients are served, and so many brokers are known."""
        try:
            with socket.create_connection((HOST, self.node.port), 0.2):
                pass
            admin = AdminClient({"bootstrap.servers": f"{HOST}:{self.node.port}", "log_level": 0})
            return len(admin.list_topics(timeout=2).brokers) >= brokers
        except (OSError, KafkaException):
            time.sleep(0.02)  # nothing tells when a port is opened
            return False

    def terminate(self, patience=PATIENCE):
        """Ask the process to end, and wait for it."""
        os.kill(self._pid, signal.SIGTERM)  # its shell has not waited for it: the id is its own
        until = time.monotonic() + patience
        while self.alive() and time.monotonic() < until:
            time.sleep(0.02)

    def end(self, *, keep):
        """Kill the process if it lives, and wait until it is gone."""
        if self._keeper is not None:
            self._keeper.communicate("keep\n" if keep else None, timeout=PATIENCE)
            self._keeper = None

    def log(self):
        """Return the end of what it has written."""
        return (self.directory / "output").read_text()[-4000:]


def settings_of(node, nodes, data):
    """Return the settings of a broker: small, quick, and as durable as their number allows."""
    copies = len(nodes)
    listeners = f"PLAINTEXT://{HOST}:{node.port}"
    if node.secure_port is not None:
        listeners += f",SASL_SSL://{HOST}:{node.secure_port}"
    voters = ",".join(f"{other.id}@{HOST}:{other.controller_port}" for other in nodes)
    return {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listeners},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": min(2, copies),
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.num.partitions": copies,
        "transaction.state.log.min.isr": min(2, copies),
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "controller.quorum.election.timeout.ms": 200,
        "controller.quorum.election.backoff.max.ms": 200,
        "initial.broker.registration.timeout.ms": 20_000,
        "broker.heartbeat.interval.ms": 100,
        "broker.session.timeout.ms": 1000 if copies == 1 else 3000,  # so long a restart waits
        "controlled.shutdown.enable": "false",
        "log.segment.bytes": 256 << 20,
        "log.index.size.max.bytes": 1 << 20,
        "num.network.threads": 2,
        "num.io.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    }


def formatted(broker, java_path, jars):
    """Return an empty data directory for a broker: making it takes a while, so it is kept."""
    kept = cache() / f"formatted-{broker.node.id}"
    if kept.exists():
        return kept
    format_command = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]
    options = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", jars]
    subprocess.run(
        [java_path, *options, *format_command, str(broker.properties)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    draft = Path(tempfile.mkdtemp(dir=cache()))
    shutil.move(broker.directory / "data", draft / "data")
    try:
        (draft / "data").rename(kept)
    except OSError:  # another process was quicker
        assert kept.exists()
    shutil.rmtree(draft)
    return kept


def quick_start():
    """Return options with which Java starts in half the time: with an archive of its classes."""
    archive = cache() / "classes.jsa"
    if not archive.exists():
        draft = Path(tempfile.mkdtemp(dir=cache()))
        options = (*QUICK_START, f"-XX:ArchiveClassesAtExit={draft / archive.name}")
        with KafkaCluster(java_options=options) as cluster:
            cluster.create_topic("any")
            cluster.shut_down()
        (draft / archive.name).rename(archive)
        draft.rmdir()
    return (*QUICK_START, f"-XX:SharedArchiveFile={archive}")


def free_ports(count):
    """Return ports that nobody listens at."""
    found = {}
    chance = random.SystemRandom()
    try:
        while len(found) < count:
            taken = socket.socket()
            try:
                taken.bind((HOST, chance.choice(PORTS)))
            except OSError:
                taken.close()
            else:
                found[taken.getsockname()[1]] = taken
    finally:
        for taken in found.values():
            taken.close()
    return list(found)
