"""The message queue between the machines of a Ray cluster: its messages lie in a Ray actor.

An operation is one call of an actor's method, about a millisecond: some hundred times as long as with
a `SageQueue`. Batches pay that once.

All is as the contract says but for one thing: when Ctrl-C interrupts a `get` at the moment at which
the actor has handed a message out, that message is lost.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Final, Self

from sage.common.clock import Doorbell
from sage.common.errors import (
    MessageTooLargeError,
    QueueClosedError,
    QueueError,
    QueueExistsError,
    QueueHandleClosedError,
    QueueNotFoundError,
)
from sage.kernel.transport.queue_contract import (
    DEFAULT_CAPACITY,
    HEADER_BYTES,
    BytesLike,
    MessageQueue,
    footprint,
    round_capacity,
)
from sage.kernel.transport.ray_runtime import RayLease, import_ray, ray_runs

NAMESPACE: Final = "sage-queues"
"""The Ray namespace in which the queues' actors have their names."""

_WAITERS: Final = 10_000


class QueueActor:
    """The actor that holds a queue's messages.

    Its methods never block, except for the two that wait; those change nothing, so that a caller
    may give up on them at any time. What they wait for may be gone again when they return.

    Args:
        capacity: Bytes to hold, a power of two.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = self._room = capacity
        self._messages: deque[bytes] = deque()
        self._shut = False
        self._changed = asyncio.Event()

    async def capacity(self) -> int:
        """Return how many bytes it holds."""
        return self._capacity

    async def put(self, messages: list[bytes]) -> int | None:
        """Take as many messages as there is room for, and say how many; None: it is shut."""
        if self._shut:
            return None
        done = 0
        for message in messages:
            if (need := footprint(len(message))) > self._room:
                break
            self._room -= need
            self._messages.append(message)
            done += 1
        self._change()
        return done

    async def get(self, most: int) -> list[bytes] | None:
        """Hand out up to `most` messages; None: it is shut and empty."""
        if self._shut and not self._messages:
            return None
        count = min(most, len(self._messages))
        taken = [self._messages.popleft() for _ in range(count)]
        self._room += sum(footprint(len(message)) for message in taken)
        self._change()
        return taken

    async def wait_data(self, seconds: float | None) -> None:
        """Return when there is a message, or it is shut, or `seconds` have passed."""
        await self._wait(lambda: bool(self._messages), seconds)

    async def wait_room(self, seconds: float | None, need: int) -> None:
        """Return when `need` bytes are free, or it is shut, or `seconds` have passed."""
        await self._wait(lambda: self._room >= need, seconds)

    async def size(self) -> tuple[int, int]:
        """Return how many messages there are, and how many bytes are free."""
        return len(self._messages), self._room

    async def shutdown(self) -> None:
        """Take no more messages."""
        self._shut = True
        self._change()

    def _change(self) -> None:
        """Wake all who wait now."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, condition: Callable[[], bool], seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self._shut and not condition():
                    await self._changed.wait()
        except TimeoutError:
            return


class RayQueue(MessageQueue):
    """A `MessageQueue` for the processes of a Ray cluster. Picklable by name.

    Make it by `RayQueue.create` or `RayQueue.open`. It is there until `remove_ray_queue` is called or
    Ray ends: closing a handle does not end it, unless Ray was started for that handle.

    Args:
        name: The name of the queue.
        actor: The handle of its actor.
        capacity: Bytes it holds.
        lease: Keeps Ray running.
    """

    __slots__ = ("_actor", "_bells", "_capacity", "_closed", "_lease", "_lock", "_ray", "name")

    def __init__(self, name: str, actor: Any, capacity: int, lease: RayLease) -> None:
        self.name = name
        self._actor = actor
        self._capacity = capacity
        self._lease = lease
        self._ray = import_ray()
        self._closed = False
        self._bells: set[Doorbell] = set()
        self._lock = threading.Lock()

    @classmethod
    def create(cls, name: str, capacity: int = DEFAULT_CAPACITY) -> Self:
        """Make a new queue; Ray is started, for this machine alone, if it does not run.

        Args:
            name: The name by which others open it.
            capacity: Bytes to hold, rounded up to a power of two.

        Raises:
            ConfigError: Ray is not installed.
            QueueExistsError: There is a queue of that name.
        """
        held = round_capacity(capacity)
        lease = RayLease()
        try:
            options = {
                "name": name,
                "namespace": NAMESPACE,
                "lifetime": "detached",
                "num_cpus": 0,
                "max_concurrency": _WAITERS,
            }
            actor = import_ray().remote(QueueActor).options(**options).remote(held)
        except ValueError as error:
            lease.close()
            raise QueueExistsError(f"there is a Ray queue {name!r} already: {error}") from error
        except BaseException:
            lease.close()
            raise
        return cls(name, actor, held, lease)

    @classmethod
    def open(cls, name: str) -> Self:
        """Open a queue that has been created, in whatever process.

        Raises:
            ConfigError: Ray is not installed.
            QueueNotFoundError: There is no queue of that name.
        """
        lease = RayLease()
        try:
            actor = _find(name)
            capacity = import_ray().get(actor.capacity.remote())
        except BaseException:
            lease.close()
            raise
        return cls(name, actor, capacity, lease)

    def __reduce__(self) -> tuple[Callable[[str], Self], tuple[str]]:
        return type(self).open, (self.name,)

    @property
    def capacity(self) -> int:
        """See `MessageQueue.capacity`."""
        return self._capacity

    @property
    def closed(self) -> bool:
        """See `MessageQueue.closed`."""
        return self._closed

    def put(self, message: BytesLike, /, block: bool = True, timeout: float | None = None) -> None:
        """See `MessageQueue.put`."""
        self.put_many((message,), block, timeout)

    def put_nowait(self, message: BytesLike, /) -> None:
        """See `MessageQueue.put_nowait`."""
        self.put(message, block=False)

    def put_parts(
        self, parts: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> None:
        """See `MessageQueue.put_parts`; the parts are joined first."""
        self.put(b"".join(parts), block, timeout)

    def put_many(
        self, messages: Iterable[BytesLike], /, block: bool = True, timeout: float | None = None
    ) -> int:
        """See `MessageQueue.put_many`."""
        until = _until(block, timeout)
        frozen = [self._freeze(message) for message in messages]
        done = 0
        self._check_handle()
        while done < len(frozen):
            put: int | None = self._call(self._actor.put, self._fitting(frozen, done))
            if put is None and not done:
                raise QueueClosedError("the queue has been shut down")
            if put is None:
                return done
            done += put
            if put:
                continue
            if _left(until) == 0:
                if done:
                    return done
                raise queue.Full
            self._wait(self._actor.wait_room, until, footprint(len(frozen[done])))
        return done

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """See `MessageQueue.get`."""
        return self.get_many(1, block, timeout)[0]

    def get_nowait(self) -> bytes:
        """See `MessageQueue.get_nowait`."""
        return self.get(block=False)

    def get_many(
        self, most: int, /, block: bool = True, timeout: float | None = None
    ) -> list[bytes]:
        """See `MessageQueue.get_many`."""
        if most < 1:
            raise ValueError("the number of messages to get must be at least 1")
        until = _until(block, timeout)
        while True:
            messages: list[bytes] | None = self._call(self._actor.get, most)
            if messages is None:
                raise QueueClosedError("the queue has been shut down")
            if messages:
                return messages
            if _left(until) == 0:
                raise queue.Empty
            self._wait(self._actor.wait_data, until)

    def qsize(self) -> int:
        """See `MessageQueue.qsize`."""
        return int(self._call(self._actor.size)[0])

    def empty(self) -> bool:
        """See `MessageQueue.empty`."""
        return self.qsize() == 0

    def full(self) -> bool:
        """See `MessageQueue.full`."""
        return bool(self._call(self._actor.size)[1] < footprint(0))

    def shutdown(self) -> None:
        """See `MessageQueue.shutdown`."""
        self._call(self._actor.shutdown)

    def close(self) -> None:
        """See `MessageQueue.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for bell in self._bells:
                bell.ring()
        self._lease.close()

    def _freeze(self, message: BytesLike) -> bytes:
        # bytes(memoryview(…)) refuses what is no buffer, where bytes(3) would make three zeroes.
        frozen = message if type(message) is bytes else bytes(memoryview(message))
        most = self._capacity - HEADER_BYTES
        if len(frozen) > most:
            raise MessageTooLargeError(
                f"a message of {len(frozen)} bytes does not fit this queue: {most} at most"
            )
        return frozen

    def _fitting(self, messages: list[bytes], start: int) -> list[bytes]:
        """Return those from `start` on that fit the queue when it is empty: no more need travel."""
        room, end = self._capacity, start
        while end < len(messages) and (room := room - footprint(len(messages[end]))) >= 0:
            end += 1
        return messages[start:end]

    def _check_handle(self) -> None:
        if self._closed:
            raise QueueHandleClosedError("this handle of the queue has been closed")

    def _call(self, method: Any, *args: object) -> Any:
        """Call a method of the actor that answers at once."""
        self._check_handle()
        try:
            return self._ray.get(method.remote(*args))
        except self._ray.exceptions.RayError as error:
            raise self._gone(error) from error

    def _wait(self, method: Any, until: float | None, *args: object) -> None:
        """Wait, for at most as long as `until`, for what a method of the actor waits for."""
        bell, left = Doorbell(), _left(until)
        with self._lock:
            self._check_handle()
            self._bells.add(bell)
        try:
            waited = method.remote(left, *args).future()
            waited.add_done_callback(lambda _: bell.ring())
            bell.wait(left)
        finally:
            with self._lock:
                self._bells.discard(bell)
        self._check_handle()
        if waited.done() and (error := waited.exception()) is not None:
            raise self._gone(error) from error

    def _gone(self, error: BaseException) -> QueueError:
        return QueueNotFoundError(f"the Ray queue {self.name!r} is gone: {error}")


def remove_ray_queue(name: str) -> None:
    """End a queue, and with it what is left in it; those who wait get `QueueNotFoundError`.

    Args:
        name: The name of the queue.

    Raises:
        QueueNotFoundError: There is none, or Ray does not run.
    """
    actor = _find(name)
    import_ray().kill(actor, no_restart=True)


def _find(name: str) -> Any:
    missing = f"there is no Ray queue {name!r}"
    if not ray_runs():
        raise QueueNotFoundError(f"{missing}: Ray does not run")
    ray = import_ray()
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError as error:
        raise QueueNotFoundError(missing) from error


def _until(block: bool, timeout: float | None) -> float | None:
    """Return when to give up, on the monotonic clock; None: never."""
    if block and timeout is None:
        return None
    if timeout is not None and not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return monotonic() + (timeout or 0.0) if block else 0.0


def _left(until: float | None) -> float | None:
    """Return how many seconds are left; None: no end of them."""
    return None if until is None else max(0.0, until - monotonic())
