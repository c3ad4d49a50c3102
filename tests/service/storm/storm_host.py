"""A program with services in processes, callers, and a killer; it tells what became of all calls.

It reads what to do from its arguments, as JSON, and writes a line of JSON at the end: `Report`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

from patience import PATIENCE
from sage import LocalEnvironment
from sage.common.errors import ServiceCallError, ServiceUnavailableError
from sage.kernel.runtime.service.service_caller import ServiceManager
from service.storm.storm_services import DOWN, Back, Front, answer_of, read_book

NAMES = {"front": 1, "back": 2}
"""The services and how many replicas they have."""

KINDS = ("plain", "plain", "later", "fail", "stream")
TIMEOUT = 30.0
BATCH = 8
TOKENS_PER_THREAD = 1 << 32


@dataclass
class Report:
    """What a round has seen.

    Attributes:
        kills: How many service processes were killed.
        calls: How many calls have ended.
        acknowledged: How many of them brought their result.
        unavailable: How many failed because the process had died, or was down.
        told: Seconds from a death until a call that was under way was told.
        wrong: Calls with an answer that was not theirs, or an error that should not be.
        hung: Calls that ended at their deadline, or not at all.
        lost: Acknowledged calls that were not executed.
        doubled: Calls that were executed twice.
        late: What was told later than within 0.1 s: service, seconds.
    """

    kills: int = 0
    calls: int = 0
    acknowledged: int = 0
    unavailable: int = 0
    told: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


@dataclass
class Ended:
    """A call that failed because its replica died."""

    service: str
    replica: int | None
    began: float
    ended: float
    what: str


class Storm:
    """Calls from several threads, and deaths among those who are called."""

    def __init__(self, seed, kills, book, pause):
        self.random = random.Random(seed)
        self.kills_wanted, self.book, self.pause = kills, book, pause
        self.report = Report()
        self.env = LocalEnvironment("storm")
        for name, replicas in NAMES.items():
            self.env.register_service(name, Front if name == "front" else Back, book).options(
                isolation="process",
                replicas=replicas,
                max_concurrency=4,
                max_restarts=1_000_000,
                restart_backoff=0.001,
                steady_after=0.001,
                timeout=TIMEOUT,
            )
        self.manager = ServiceManager(self.env)
        self.over = threading.Event()
        self.deaths: dict[tuple[str, int], list[float]] = {}
        self.failed: list[Ended] = []
        self.tokens: list[int] = []
        self.lock = threading.Lock()

    # ---- calls

    def call_until_over(self, number, dice):
        """Make calls, several at a time, and check what they come to."""
        tokens = itertools.count(number * TOKENS_PER_THREAD, 4)
        proxies = {name: self.manager.get_async_proxy(name) for name in NAMES}
        while not self.over.is_set():
            batch = []
            for _ in range(dice.randint(1, BATCH)):
                name, kind, token = dice.choice(list(NAMES)), dice.choice(KINDS), next(tokens)
                began = time.monotonic()
                future = getattr(proxies[name], kind)(token, dice.random() * 0.01)
                if dice.random() < 0.3:
                    future.add_done_callback(lambda _: None)
                batch.append((name, kind, token, began, future))
            for call in batch:
                self.check(*call)
            if any(isinstance(call[-1].exception(), ServiceUnavailableError) for call in batch):
                self.over.wait(0.03)  # what is being started again needs the processor

    def check(self, name, kind, token, began, future):
        """Wait for a call, and judge it."""
        what = f"{name}.{kind}({token})"
        try:
            result = list(future.result()) if kind == "stream" else future.result()
        except ServiceUnavailableError as error:
            self.count_failed(Ended(name, future.replica, began, time.monotonic(), str(error)))
        except ServiceCallError as error:
            if kind != "fail" or f"token {token}" not in str(error):
                self.judge(self.report.wrong, f"{what}: {type(error).__name__} {error}")
            else:
                self.acknowledge(token)
        except TimeoutError as error:
            self.judge(self.report.hung, f"{what}: {error}")
        except Exception as error:
            self.judge(self.report.wrong, f"{what}: {type(error).__name__} {error}")
        else:
            self.check_result(what, kind, token, result)

    def check_result(self, what, kind, token, result):
        if isinstance(result, (tuple, list)) and result[0] == DOWN:
            _, began, ended, replica, error = result
            if error.startswith("ServiceUnavailableError"):
                self.count_failed(Ended("back", replica, began, ended, error))
            else:
                self.judge(self.report.hung, f"{what}, nested: {error}")
            return
        parts = [answer_of(token + part) for part in range(3)]
        if result != (parts if kind == "stream" else answer_of(token)):
            self.judge(self.report.wrong, f"{what} brought {result!r}")
        else:
            self.acknowledge(token)

    def acknowledge(self, token):
        with self.lock:
            self.report.calls += 1
            self.tokens.append(token)

    def count_failed(self, ended):
        with self.lock:
            self.report.calls += 1
            self.report.unavailable += 1
            self.failed.append(ended)

    def judge(self, where, what):
        with self.lock:
            self.report.calls += 1
            where.append(what)

    # ---- deaths

    def processes(self):
        """Return the processes that are up: service, replica, pid."""
        manager = self.env.services._manager
        return [
            (name, p.order.replica, p.process.pid)
            for name in NAMES
            for p in manager.processes(name)
            if p.is_up and p.process is not None
        ]

    def kill_one(self):
        """Kill a process that is up."""
        until = time.monotonic() + PATIENCE
        while not (living := self.processes()):
            if time.monotonic() > until:
                raise AssertionError("no service came back")
            time.sleep(0.005)
        name, replica, pid = self.random.choice(living)
        with self.lock:
            self.deaths.setdefault((name, replica), []).append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        self.report.kills += 1

    def kill_all(self):
        """Kill one after the other, with random pauses."""
        for _ in range(self.kills_wanted):
            time.sleep(self.random.expovariate(1 / self.pause))
            self.kill_one()

    def wait_back(self):
        """Wait until every service answers again; that is what restarts are for."""
        until = time.monotonic() + PATIENCE
        while len(self.processes()) < sum(NAMES.values()):
            if time.monotonic() > until:
                self.report.hung.append(f"only these came back: {self.processes()}")
                return
            time.sleep(0.01)
        for name in NAMES:
            if not isinstance(self.manager.call_service_sync(name, "pid"), int):
                self.report.wrong.append(f"{name}.pid")

    # ---- the whole

    def run(self):
        """Start all, kill, stop, and account."""
        for name in NAMES:
            self.manager.call_service_sync(name, "pid")
        callers = [
            threading.Thread(
                target=self.call_until_over,
                args=(i, random.Random(self.random.random())),
                name=f"caller-{i}",
            )
            for i in range(4)
        ]
        for caller in callers:
            caller.start()
        print("ready", flush=True)
        try:
            self.kill_all()
        finally:
            self.over.set()
            for caller in callers:
                caller.join(TIMEOUT + PATIENCE)
                if caller.is_alive():
                    self.report.hung.append(f"{caller.name} has not returned")
        self.wait_back()
        self.env.close()
        self.account()
        print(json.dumps(asdict(self.report)), flush=True)

    def account(self):
        """Compare what was acknowledged with what was executed, and deaths with failures."""
        executed = read_book(self.book)
        once = set(executed)
        self.report.acknowledged = len(self.tokens)
        self.report.lost += [str(token) for token in self.tokens if token not in once]
        if len(once) < len(executed):
            self.report.doubled.append(f"{len(executed) - len(once)} of {len(executed)}")
        for ended in self.failed:
            self.account_failed(ended)

    def account_failed(self, ended):
        """Find the death that a failure tells of: the last one while the call was under way."""
        deaths = self.deaths.get((ended.service, ended.replica), ())
        meanwhile = [death for death in deaths if ended.began <= death <= ended.ended]
        if meanwhile and "while it had the call" in ended.what:
            took = ended.ended - meanwhile[0]
            self.report.told.append(took)
            if took > 0.1:
                self.report.late.append(
                    f"{ended.service}[{ended.replica}] {took:.3f} s, deaths meanwhile: "
                    f"{len(meanwhile)}, began {meanwhile[0] - ended.began:.3f} s before: {ended.what}"
                )


def main():
    """Run one storm."""
    Storm(**json.loads(sys.argv[1])).run()


if __name__ == "__main__":
    main()
