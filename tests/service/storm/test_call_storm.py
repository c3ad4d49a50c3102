"""A thousand calls in flight, each of which must end once, in its own way."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time

import pytest

from sage import LocalEnvironment
from sage.common.errors import ServiceCallError, ServiceCancelledError, ServiceTimeoutError
from sage.kernel.runtime.service.service_caller import ServiceManager
from service.storm.storm_services import Back, answer_of, read_book

SEED = 20_250
THREADS = 16
IN_FLIGHT = 64
"""Calls that each thread has in flight at a time."""
ROUNDS = 2
ISOLATIONS = {
    "local": {"isolation": "local"},
    "process": {"isolation": "process"},
    "replicas": {"isolation": "process", "replicas": 2},
}
ENDS = ("plain", "fail", "later", "stream", "timeout", "cancel")
WAYS = ("future", "callback", "await", "sync")


class Call:
    """One call: what it is to come to, and how often its end was told."""

    def __init__(self, manager, token, dice):
        self.token, self.end, self.way = token, dice.choice(ENDS), dice.choice(WAYS)
        self.told = 0
        method = "later" if self.end in ("timeout", "cancel") else self.end
        seconds = 30.0 if self.end in ("timeout", "cancel") else dice.random() * 0.002
        timeout = 0.05 + dice.random() * 0.2 if self.end == "timeout" else 60.0
        proxy = manager.get_async_proxy("back").options(timeout=timeout)
        self.future = getattr(proxy, method)(token, seconds)
        if self.way == "callback":
            self.future.add_done_callback(self._tell)

    def _tell(self, future):
        self.told += 1

    def outcome(self):
        """Wait for the end and return it."""
        if self.end == "cancel":
            self.future.cancel()
        try:
            result = asyncio.run(self._wait()) if self.way == "await" else self.future.result()
            return list(result) if self.end == "stream" else result
        except (ServiceCallError, ServiceTimeoutError, ServiceCancelledError) as error:
            return error

    async def _wait(self):
        return await self.future

    def check(self):
        """Fail unless the call ended as it had to."""
        outcome, told = self.outcome(), f"{self.end}({self.token}) by {self.way}"
        if self.end == "stream":
            assert outcome == [answer_of(self.token + part) for part in range(3)], told
        elif self.end == "fail":
            assert isinstance(outcome, ServiceCallError), (told, outcome)
            assert f"token {self.token}" in str(outcome), (told, outcome)
        elif self.end in ("timeout", "cancel"):
            kinds = {"timeout": ServiceTimeoutError, "cancel": ServiceCancelledError}
            assert isinstance(outcome, kinds[self.end]), (told, outcome)
        else:
            assert outcome == answer_of(self.token), told


def make_calls(manager, number, dice, calls):
    """Keep calls in flight, and end them in any order."""
    tokens = itertools.count(number << 32, 4)
    for _ in range(ROUNDS):
        batch = [Call(manager, next(tokens), dice) for _ in range(IN_FLIGHT)]
        dice.shuffle(batch)
        for call in batch:
            call.check()
        calls += batch


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_each_call_ends_once_and_in_its_own_way(isolation, tmp_path):
    book = str(tmp_path / "book")
    env = LocalEnvironment("storm")
    options = {**ISOLATIONS[isolation], "max_concurrency": 400}
    env.register_service("back", Back, book).options(**options)
    manager, dice = ServiceManager(env), random.Random(SEED)
    failures, calls = [], []

    def run(number, own):
        try:
            make_calls(manager, number, own, calls)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(i, random.Random(dice.random()))) for i in range(THREADS)
    ]
    try:
        manager.call_service_sync("back", "pid")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"a call hangs; seed {SEED}"
        assert not failures, f"seed {SEED}: {failures[0]!r}"
        if isolation != "local":
            assert env.services.path_if_running("back").channel.in_flight == 0
    finally:
        env.close()
    check_books(calls, read_book(book))


def check_books(calls, executed):
    """Each call was executed at most once, those that were answered once; each end was told once."""
    assert len(calls) == THREADS * IN_FLIGHT * ROUNDS
    assert len(set(executed)) == len(executed), "executed twice"
    answered = {call.token for call in calls if call.end not in ("timeout", "cancel")}
    assert answered <= set(executed), "answered, but not executed"
    callbacks = [call for call in calls if call.way == "callback"]
    deadline = time.monotonic() + 30
    while any(call.told == 0 for call in callbacks) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert {call.told for call in callbacks} == {1}
