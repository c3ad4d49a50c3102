"""Random histories of calls, deaths, restarts and stops; each call must end as its model permits.

No answer may be lost, doubled or given to another call, each callback is called once, and the figures
add up. `SAGE_CALL_EXAMPLES` sets how many histories are drawn for a service in this process; one in
processes, which take long to start, gets a seventh of them.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sage import LocalEnvironment
from sage.common.errors import ServiceTimeoutError, ServiceUnavailableError
from sage.kernel.runtime.service.service_caller import ServiceManager
from service.storm.call_model import LONG, Call, Wish
from service.storm.machine_services import Many
from service.storm.storm_services import read_book
from transport.processes import eventually

EXAMPLES = int(os.environ.get("SAGE_CALL_EXAMPLES", "20"))
SLACK = 10.0
WAYS = {
    "local": {"isolation": "local"},
    "inline": {"isolation": "local", "inline": True},
    "process": {"isolation": "process", "replicas": 2},
}
MOST_DEATHS = 3
MOST_STOPS = 2

methods = st.sampled_from(["plain", "later", "fail", "fail_later", "flaky", "stream", "kept"])
moments = st.sampled_from([0.0, 0.0, 0.001, 0.01])
timeouts = st.sampled_from([LONG, LONG, LONG, 0.002, 0.02])
wishes = st.builds(
    Wish, methods, moments, timeouts, st.booleans(), st.booleans(), st.booleans(), st.booleans()
)
picks = st.integers(0, 1 << 16)


def bring(future):
    """Return the whole of a result."""
    result = future.result()
    return list(result) if hasattr(result, "__next__") else result


def bring_awaited(future):
    """Return the whole of a result that a coroutine has waited for."""

    async def wait():
        return await future

    result = asyncio.run(wait())
    return list(result) if hasattr(result, "__next__") else result


class Calls(RuleBasedStateMachine):
    """Makes calls, ends them in any order, and disturbs them."""

    way = "local"

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="sage-calls-")
        self.book = str(Path(self.directory.name, "book"))
        self.env = LocalEnvironment("machine")
        self.env.register_service("many", Many, self.book).options(
            **WAYS[self.way],
            max_concurrency=4,
            max_restarts=1_000_000,
            restart_backoff=0.001,
            steady_after=0.001,
        )
        self.manager = ServiceManager(self.env)
        self.tokens = itertools.count(100, 4)
        self.calls: list[Call] = []
        self.ended: list[Call] = []
        self.known: set[int] = set()  # whose results must be in the cache
        self.misses = collections.Counter()
        self.deaths = self.stops = 0
        self.is_well = True
        self.is_sound = True  # until a call has come to what it must not
        self.awaited = []  # processes that have died, and which of their lives that was

    # ---- calls

    @rule(wanted=st.lists(wishes, min_size=1, max_size=8), key=st.integers(0, 2))
    def begin(self, wanted, key):
        """Begin calls, all under way together."""
        for wish in wanted:
            self.begin_one(wish, 4 * key if wish.method == "kept" else next(self.tokens))

    def begin_one(self, wish, token):
        kept = token in self.known
        proxy = self.manager.get_async_proxy("many").options(**wish.options())
        future = getattr(proxy, wish.method)(token, 0.0 if wish.method == "kept" else wish.seconds)
        self.calls.append(Call(wish, token, future, not self.is_well and not kept))
        if kept:
            assert future.settled(), f"{self.calls[-1]} has not been taken from the cache"
        else:
            self.misses[token] += wish.most_runs

    def has_calls(self):
        return bool(self.calls)

    def pick(self, number):
        return self.calls[number % len(self.calls)]

    @precondition(has_calls)
    @rule(number=picks, by=st.sampled_from([bring, bring_awaited]))
    def take(self, number, by):
        """Wait for a call, and judge it."""
        self.end(self.pick(number), by)

    def end(self, call, by=bring):
        self.calls.remove(call)
        self.is_sound = False
        call.judge(by)
        self.is_sound = True
        if call.wish.method == "kept" and call.outcome == "answer":
            self.known.add(call.token)
        self.ended.append(call)

    @precondition(has_calls)
    @rule(number=picks)
    def take_in_threads(self, number):
        """Let several threads wait for a call that has one result."""
        call = self.pick(number)
        if call.wish.method == "stream":
            return  # its items are there once
        threads = [threading.Thread(target=call.future.exception) for _ in range(3)]
        for thread in threads:
            thread.start()
        self.end(call)
        for thread in threads:
            thread.join(SLACK)
            assert not thread.is_alive(), f"a thread waits for ever: {call}"

    @precondition(has_calls)
    @rule(number=picks)
    def look(self, number):
        """Wait for a moment only: the call goes on."""
        with suppress(ServiceTimeoutError):
            self.pick(number).future.exception(timeout=0.001)

    @precondition(has_calls)
    @rule(number=picks)
    def cancel(self, number):
        call = self.pick(number)
        call.cancelled = call.future.cancel() or call.cancelled
        assert call.future.settled(), call
        assert call.cancelled == call.future.cancelled(), call

    @precondition(has_calls)
    @rule(number=picks, count=st.integers(1, 3))
    def add_callbacks(self, number, count):
        """Add callbacks to a call, which may have ended already."""
        call = self.pick(number)
        for _ in range(count):
            told = []
            call.told.append(told)
            call.future.add_done_callback(lambda future, told=told: told.append(future.settled()))

    # ---- disturbances

    def disturb(self):
        """Let all calls that are under way, or whose items are still there, fail with it."""
        for call in self.calls:
            if not call.future.settled() or call.wish.method == "stream":
                call.disturbed = True

    def can_die(self):
        return self.way == "process" and self.deaths < MOST_DEATHS and self.processes()

    def processes(self):
        manager = self.env.services._manager
        return [] if manager is None else manager.processes("many")

    @precondition(can_die)
    @rule(number=picks)
    def kill(self, number):
        """Kill a replica."""
        if living := [p for p in self.processes() if p.is_up]:
            process = living[number % len(living)]
            self.note_death([process])
            os.kill(process.process.pid, signal.SIGKILL)

    @precondition(can_die)
    @rule()
    def restart(self):
        """Start all replicas anew."""
        self.note_death(self.processes())
        self.env.services.restart("many")

    def note_death(self, processes):
        self.deaths += 1
        self.is_well = False
        self.disturb()
        self.awaited += [(process, process.lives) for process in processes]

    @precondition(lambda self: not self.is_well)
    @rule()
    def recover(self):
        """Wait until all replicas are back, and this process has heard so."""
        eventually(lambda: all(p.lives > lives for p, lives in self.awaited))
        eventually(lambda: all(p.is_up for p in self.processes()))
        eventually(self.answers)
        self.is_well, self.awaited = True, []

    def answers(self):
        try:
            return self.manager.call_service_sync("many", "pid", timeout=LONG) > 0
        except ServiceUnavailableError:
            return False

    @precondition(lambda self: self.stops < MOST_STOPS)
    @rule()
    def stop(self):
        """Stop the service; the next call starts it again."""
        self.stops += 1
        self.disturb()
        self.env.close()
        self.is_well, self.awaited = True, []
        began = time.monotonic()
        self.end_all()
        assert time.monotonic() - began < SLACK, "calls have outlived their service"
        self.ended.clear()
        self.known.clear()

    # ---- the end

    @invariant()
    def no_call_outlives_its_deadline(self):
        assert all(call.future.done() for call in self.calls if call.is_over())

    def end_all(self):
        """Judge all calls: first their callbacks, which nobody has to wait for."""
        told = [told for call in (*self.calls, *self.ended) for told in call.told]
        eventually(lambda: all(told), LONG + SLACK)
        for call in list(self.calls):
            self.end(call)
        assert all(one == [True] for one in told), f"called back more than once: {told}"

    def check_figures(self):
        """Compare what was counted with what became of the calls since the service was started."""
        counted = collections.Counter({c.wish.method: 0 for c in self.ended})
        failed = collections.Counter(counted)
        for call in self.ended:
            counted[call.wish.method] += 1
            failed[call.wish.method] += call.outcome != "answer" and call.wish.method != "stream"
        seen = self.manager.get_statistics("many").methods if self.ended else {}
        for method, count in counted.items():
            figures = seen[method]
            assert (figures.since_start.calls, figures.in_flight) == (count, 0), method
            if method != "stream":
                assert figures.since_start.failed == failed[method], method

    @rule()
    def settle(self):
        """End all calls, and look at the figures."""
        self.end_all()
        self.check_figures()

    def teardown(self):
        try:
            if self.is_sound:
                self.end_all()
                self.check_figures()
        finally:
            self.env.close()
        runs = collections.Counter(read_book(self.book) if Path(self.book).exists() else ())
        for token, count in runs.items():
            assert count <= self.misses[token], f"token {token} was executed {count} times"
        self.directory.cleanup()


@pytest.mark.parametrize("way", WAYS)
def test_each_call_comes_to_what_it_may_come_to(way):
    """Every history of a transport agrees with the model."""

    run_state_machine_as_test(
        type("Calls", (Calls,), {"way": way}),
        settings=settings(
            max_examples=EXAMPLES if way != "process" else max(1, EXAMPLES // 7),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
