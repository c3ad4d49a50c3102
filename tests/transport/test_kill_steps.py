"""A process killed at each step of the protocol: nothing is corrupted, nobody hangs.

Each scenario puts a victim, armed to kill itself at one step, between peers that are asleep, and
looks at what they get, and that they get it *without* anybody else's help and before the belt
(`RECHECK_NS`, one second) could have caught them: `missed_wakes` stays 0.
"""

from __future__ import annotations

import queue as standard
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from sage.common.errors import QueueClosedError
from sage.kernel.transport import _sagequeue
from sage.kernel.transport.queue_contract import HEADER_BYTES
from sage.kernel.transport.sage_queue import SageQueue
from transport.processes import PATIENCE, Child, eventually
from transport.queues import fresh_queue

CAPACITY = 1 << 18
SMALL = b"small victim"
LARGE = bytes(range(256)) * 700  # 179,200 bytes: copied outside the lock, and two do not fit
assert _sagequeue.LARGE_BYTES < len(LARGE) < CAPACITY - HEADER_BYTES < 2 * len(LARGE)


def steps(*prefixes: str) -> list[str]:
    return [step for step in _sagequeue._STEPS if step.startswith(prefixes)]


def die_at(step: str, call, *arguments) -> None:
    """In a child: be killed at the step, which must come within the call."""
    _sagequeue._arm(step, signal.SIGKILL)
    call(*arguments)
    raise AssertionError(f"the step {step} was not passed")


def kill_at(step: str, call, *arguments) -> None:
    with Child(die_at, step, call, *arguments) as victim:
        assert victim.wait() == -signal.SIGKILL


@contextmanager
def asleep(queue: SageQueue, call, *arguments, **options) -> Iterator[Future]:
    """Run a blocking call in a thread; enter when it sleeps. It gets half the belt's time."""
    side = "producers_sleep" if "put" in call.__name__ else "consumers_sleep"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, *arguments, timeout=PATIENCE, **options)
        eventually(lambda: queue.statistics()[side])
        try:
            yield future
        except BaseException:
            queue.shutdown()  # so that the thread ends and the failure is seen
            raise
    assert queue.statistics()["missed_wakes"] == 0


def promptly(future: Future):
    return future.result(timeout=0.5)


PUBLISHED_SMALL = {"put:published", "put:unlocked"}


@pytest.mark.parametrize("step", steps("put:"))
def test_producer_killed(step):
    """A put killed at any step appears whole or not at all, and wakes who must be woken."""
    with fresh_queue(CAPACITY) as queue, asleep(queue, queue.get) as got:
        kill_at(step, queue.put, SMALL)
        if step in PUBLISHED_SMALL:
            assert promptly(got) == SMALL
        queue.put(b"after", timeout=PATIENCE)
        assert promptly(got) in (SMALL, b"after")
        rest = queue.get_many(9, timeout=0.0) if not queue.empty() else []
        assert [got.result(), *rest][-1] == b"after"
        assert len(rest) == (step in PUBLISHED_SMALL)


@pytest.mark.parametrize("step", steps("reserve:"))
def test_producer_of_a_large_message_killed(step):
    """A large message whose producer dies before the commit is skipped, at once."""
    halves = [LARGE[:100_000], LARGE[100_000:]]
    with fresh_queue(CAPACITY) as queue, asleep(queue, queue.get) as got:
        kill_at(step, queue.put_parts, halves)
        if step == "reserve:ready":
            assert promptly(got) == LARGE
        queue.put(b"after", timeout=PATIENCE)
        assert promptly(got) == (LARGE if step == "reserve:ready" else b"after")
        orphaned = step in ("reserve:published", "reserve:half copied", "reserve:copied")
        assert queue.statistics()["orphans"] == orphaned


@pytest.mark.parametrize("step", steps("reserve:"))
def test_room_of_a_dead_producer_is_freed(step):
    """What a dead producer had reserved does not keep another one waiting."""
    with fresh_queue(CAPACITY) as queue:
        kill_at(step, queue.put_parts, [LARGE[:1000], LARGE[1000:]])
        if step == "reserve:ready":
            assert queue.get(timeout=0.0) == LARGE
        queue.put(LARGE, timeout=0.5)
        assert queue.get(timeout=0.5) == LARGE


# Marking happens only behind a slow consumer, and there head cannot move.
AT_THE_HEAD = [step for step in steps("get:") if step != "get:marked"]
BEHIND_ANOTHER = [s for s in steps("get:") if s not in ("get:woken", "get:published")]


@pytest.mark.parametrize("step", AT_THE_HEAD)
def test_consumer_killed(step):
    """A get killed at any step has taken the message or not, and wakes who must be woken."""
    first = b"1" * 30_000
    fill = [first] + [b"2" * 30_000] * 7
    with fresh_queue(CAPACITY) as queue:
        assert queue.put_many(fill) == 8
        with asleep(queue, queue.put, b"3" * 30_000) as putting:
            kill_at(step, queue.get)
            taken = step in ("get:published", "get:unlocked")
            if taken:
                promptly(putting)
            rest = queue.get_many(1, timeout=0.5)
            promptly(putting)
        rest += queue.get_many(99, timeout=0.0)
        assert [m[:1] for m in rest] == ([] if taken else [b"1"]) + [b"2"] * 7 + [b"3"]


@pytest.mark.parametrize("step", steps("claim:"))
def test_consumer_of_a_large_message_killed(step):
    """Its message is there still or gone with it; if gone, so is what it took up."""
    with fresh_queue(CAPACITY) as queue:
        queue.put(LARGE)
        with asleep(queue, queue.put, LARGE[::-1]) as putting:
            kill_at(step, queue.get)
            if step == "claim:woken":
                assert queue.get(timeout=0.5) == LARGE
            promptly(putting)
        assert queue.get(timeout=0.5) == LARGE[::-1]
        assert queue.empty()


def stop_at(step: str, call, *arguments) -> None:
    _sagequeue._arm(step, signal.SIGSTOP)
    call(*arguments)


@pytest.mark.parametrize("step", BEHIND_ANOTHER)
def test_consumer_killed_behind_a_slow_one(step):
    """While a large message is being copied out, later ones can be taken, and their takers die."""
    with fresh_queue(CAPACITY) as queue:
        queue.put(LARGE)
        queue.put_many([b"1", b"2", b"3"])
        with Child(stop_at, "claim:half copied", queue.get) as slow:
            slow.wait_stopped()
            kill_at(step, queue.get)
            taken = step in ("get:marked", "get:unlocked")
            assert queue.get(timeout=0.5) == (b"2" if taken else b"1")
            slow.send(signal.SIGCONT)
            assert slow.wait() == 0
        assert queue.get_many(9)[-1] == b"3"
        assert queue.statistics()["used_bytes"] == 0


def test_peers_of_a_stopped_copier_wait_in_vain_but_only_so_long():
    """A stopped (not dead) producer holds up the frames behind its own; deadlines still hold."""
    with fresh_queue(CAPACITY) as queue:
        with Child(stop_at, "reserve:half copied", queue.put_parts, [LARGE, b""]) as slow:
            slow.wait_stopped()
            queue.put(b"behind", timeout=0.5)
            with pytest.raises(standard.Empty):
                queue.get(timeout=0.05)
            with ThreadPoolExecutor(1) as pool:
                getting = pool.submit(queue.get, timeout=PATIENCE)
                slow.kill()
                assert promptly(getting) == b"behind"


def test_a_consumer_needs_nothing_of_a_stopped_producer():
    """Who waits for messages takes no lock of those who put them: its deadline holds regardless."""
    with fresh_queue(CAPACITY) as queue, Child(stop_at, "put:copied", queue.put, SMALL) as slow:
        slow.wait_stopped()
        with pytest.raises(standard.Empty):
            queue.get(timeout=0.05)
        with ThreadPoolExecutor(1) as pool:
            getting = pool.submit(queue.get, timeout=PATIENCE)
            eventually(lambda: queue.statistics()["consumers_sleep"])
            slow.send(signal.SIGCONT)
            assert promptly(getting) == SMALL
            assert slow.wait() == 0


@pytest.mark.parametrize("step", steps("wait:"))
def test_killed_while_registering_to_sleep(step):
    """A consumer registers without a lock; a producer leaves the other side's to be recovered."""
    with fresh_queue(CAPACITY) as queue:
        if step == "wait:data registered":
            kill_at(step, queue.get)
        else:
            queue.put(LARGE)
            kill_at(step, queue.put, LARGE)
            assert queue.get(timeout=0.5) == LARGE
        queue.put(b"after", timeout=0.5)
        assert queue.get(timeout=0.5) == b"after"
        assert queue.statistics()["recoveries"] == (step == "wait:space registered")


def test_killed_while_recovering():
    """The recovery of a lock can itself be cut short, any number of times."""
    with fresh_queue(CAPACITY) as queue:
        kill_at("put:copied", queue.put, SMALL)
        for _ in range(3):
            kill_at("recover:consistent", queue.put, SMALL)
        queue.put(b"after", timeout=0.5)
        assert queue.get(timeout=0.5) == b"after"


@pytest.mark.parametrize("step", steps("shutdown:"))
def test_killed_while_shutting_down(step):
    """The queue is then shut down for all or for nobody."""
    with fresh_queue(CAPACITY) as queue, asleep(queue, queue.get) as getting:
        kill_at(step, queue.shutdown)
        if step == "shutdown:woken":
            assert not queue.statistics()["is_shut_down"]
            queue.shutdown()
        assert isinstance(getting.exception(0.5), QueueClosedError)


def test_more_deaths_than_slots():
    """Slots of the dead are used again, with large messages lost on both sides of the ring."""
    with fresh_queue(CAPACITY) as queue:
        for _ in range(40):
            kill_at("reserve:half copied", queue.put_parts, [LARGE, b"x"])
            queue.put(LARGE, timeout=0.5)
            kill_at("claim:half copied", queue.get)
        queue.put(LARGE, timeout=0.5)
        assert queue.get(timeout=0.5) == LARGE
        assert queue.statistics()["orphans"] == 80


def test_every_step_is_swept():
    """No step of the protocol is left out above."""
    swept = steps("put:", "reserve:", "get:", "claim:", "wait:", "recover:", "shutdown:")
    assert swept == _sagequeue._STEPS
    assert set(AT_THE_HEAD) | set(BEHIND_ANOTHER) == set(steps("get:"))
