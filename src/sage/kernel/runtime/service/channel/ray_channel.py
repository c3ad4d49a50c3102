"""The way from a caller to a service in Ray actors.

A request is a call of an actor's method. When Ray has the answer, or knows that there will be none,
it says so in a thread of its own, which does no more than put a frame into this process's lane of
answers; from there on, all is as with services in processes. There is no thread per call.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from functools import partial
from math import inf
from typing import Any, Final

from sage.common.errors import (
    ServiceNotFoundError,
    ServiceOverloadedError,
    ServiceUnavailableError,
)
from sage.common.ids import new_uuid
from sage.common.log import get_logger
from sage.kernel.runtime.service.base_service_task import RequestQueue
from sage.kernel.runtime.service.call.call_path import CallPath, Surroundings
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.channel.response_lane import Place, ResponseLane
from sage.kernel.runtime.service.channel.service_message import (
    PackedAddresses,
    failure,
    pack_request,
    pack_response,
)
from sage.kernel.runtime.service.hosting.ray_actor import CONTROL, RayAddress
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.balancer import UNHEALTHY, choose_replica
from sage.kernel.transport.in_process import InProcessQueue
from sage.kernel.transport.ray_runtime import RayLease, import_ray

# Answers are in this process's memory already when they enter the lane: it need not bound them, and
# Ray's thread, which puts them there, must not wait.
_LANE_BYTES: Final = 1 << 50
_LOOK_SECONDS: Final = 0.1


class RaySide:
    """All that one process needs to call the Ray services of an environment.

    It keeps Ray running, if it had to start it, until it is closed.

    Args:
        token: Stands for the environment.
        cluster: The address of the Ray that runs them; None: it runs here, or is started.

    Raises:
        ConfigError: Ray is not installed.
        ConnectionError: no Ray is at that address.
    """

    def __init__(self, token: str, cluster: str | None = None) -> None:
        self.token = token
        self.lane_name = f"{token}-ray-{new_uuid()[:12]}"
        self._lease = RayLease(cluster)
        self.answers = InProcessQueue(_LANE_BYTES)
        self.lane = ResponseLane(self.answers, _ignore_change, self._cancel)
        self.watch = ReplicaWatch()
        self._channels: dict[int, RayChannel] = {}

    def channel(self, address: RayAddress) -> RayChannel:
        """Return the way to a service."""
        if address.number not in self._channels:
            self._channels[address.number] = RayChannel(address, self)
        return self._channels[address.number]

    def close(self) -> None:
        """Fail what is in flight; end a Ray that was started for this."""
        self.watch.close()
        self.lane.close()
        self.answers.close()
        self._lease.close()

    def _cancel(self, future: ServiceFuture, place: Place) -> None:
        channel = self._channels.get(place[0])
        if channel is not None:
            channel.cancel(future, place[1])


def _ignore_change(place: Place, up: bool) -> None:
    """Do nothing: frames that tell of replicas come from processes only."""


class RayChannel:
    """Sends requests to the replicas of one service. Implements `Channel`."""

    def __init__(self, address: RayAddress, side: RaySide) -> None:
        self.address = address
        self._ray = import_ray()
        self._side = side
        self._actors: list[Any] = [None] * address.replicas
        self._up = [True] * address.replicas
        self._addresses = PackedAddresses(side.lane_name, address.name)
        self._rooms = [_Room(address.queue_bytes) for _ in range(address.replicas)]

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self._side.lane

    def request_queue(self) -> RequestQueue | None:
        """Return None: requests wait in Ray and in the actors."""
        return None

    @property
    def up(self) -> int:
        """How many replicas are not known to be down."""
        return sum(self._up)

    def send(self, future: ServiceFuture) -> None:
        """Send the request to the less busy of two replicas.

        Raises:
            ServiceUnavailableError: no replica is up.
            ServiceOverloadedError: a limit is reached, or too much stays under way.
            TypeError: an argument cannot be pickled.
        """
        request = future.request
        request.response_queue_name = self._side.lane_name
        try:
            frame = pack_request(request, self._addresses[request.method_name])
        except Exception as error:
            name = f"{request.service_name}.{request.method_name}"
            raise TypeError(f"the arguments of {name} cannot be sent to Ray: {error}") from error
        if future.admit is not None:
            future.admit(len(frame))
        replica = self._choose(future)
        actor = self.actor(replica)
        self._enter(replica, len(frame), future)
        self._side.lane.expect(future, (self.address.number, replica))
        future.replica = replica
        try:
            reference = actor.answer.remote(frame, request.deadline - time.monotonic())
        except Exception as error:
            self._side.lane.forget(future, cancel=False)
            self._rooms[replica].leave(len(frame))
            raise self._failed(error) from error
        number, length = request.request_id, len(frame)
        reference.future().add_done_callback(partial(self._answered, number, replica, length))

    def _answered(self, number: int, replica: int, length: int, done: Any) -> None:
        """Put an answer into the lane; called by a thread of Ray's, which must not be kept."""
        self._rooms[replica].leave(length)
        error = done.exception()
        if error is None:
            frame: bytes = done.result()
            if not frame:
                return  # the caller has given up
        else:
            if isinstance(error, self._ray.exceptions.RayActorError):
                self.lost(replica)
            frame = pack_response(failure(number, self._failed(error)))
        try:
            self._side.answers.put_nowait(frame)
        except Exception:  # noqa: BLE001 - the lane has been closed, and has failed the call itself
            get_logger("service").debug("an answer of %r came too late", self.address.name)

    def _failed(self, error: BaseException) -> ServiceUnavailableError:
        name = self.address.name
        if isinstance(error, self._ray.exceptions.RayActorError):
            return ServiceUnavailableError(f"the service {name!r} died while it had the call")
        return ServiceUnavailableError(f"the service {name!r} cannot be reached by Ray: {error}")

    def lost(self, replica: int) -> None:
        """Take note that a replica has died, and have it watched until Ray has started it again."""
        if self._up[replica] and self._actors[replica] is not None:  # else it has been stopped
            self._up[replica] = False
            self._side.watch.add(self, replica)

    def found(self, replica: int) -> None:
        """Take note that a replica is back."""
        self._up[replica] = True

    def cancel(self, future: ServiceFuture, replica: int) -> None:
        """Tell a replica that nobody waits for a request any more; best effort."""
        if self._up[replica]:
            number = future.request.request_id
            cancel = self.actor(replica).cancel.options(concurrency_group=CONTROL)
            cancel.remote(self._side.lane_name, number)

    def actor(self, replica: int) -> Any:
        """Return the handle of a replica's actor, looked up by its name at first.

        Raises:
            ServiceUnavailableError: there is none.
        """
        handle = self._actors[replica]
        if handle is None:
            try:
                handle = self._ray.get_actor(self.address.actor(replica), self.address.token)
            except ValueError as error:
                raise ServiceUnavailableError(
                    f"the service {self.address.name!r} is down: it has no actor"
                ) from error
            self._actors[replica] = handle
        return handle

    def set_actor(self, replica: int, handle: Any) -> None:
        """Set the actor of a replica, or None if it has none any more."""
        self._actors[replica], self._up[replica] = handle, True

    def _choose(self, future: ServiceFuture) -> int:
        asked = future.replica
        if asked is not None and self._up[asked]:
            return asked
        if asked is not None or not any(self._up):
            raise ServiceUnavailableError(f"the service {self.address.name!r} is down")
        rooms = zip(self._up, self._rooms, strict=True)
        loads = [room.calls if up else UNHEALTHY for up, room in rooms]
        if future.avoid is not None and self.up > 1:
            loads[future.avoid] = UNHEALTHY
        return choose_replica(loads, random.random)

    def _enter(self, replica: int, length: int, future: ServiceFuture) -> None:
        """Wait until so many bytes may be sent.

        Another attempt of a call does not wait: it is made by the timer, on which others depend.
        """
        name, most = self.address.name, self.address.queue_bytes
        if length > most:
            raise ServiceOverloadedError(
                f"the arguments take {length} bytes, more than the {most} that may be under way to "
                f"{name!r}; give the service more with .options(queue_bytes=...)"
            )
        until = future.request.deadline if future.request.attempt == 1 else 0.0
        if self.address.queue_timeout is not None:
            until = min(until, time.monotonic() + self.address.queue_timeout)
        if not self._rooms[replica].enter(length, until):
            told = f"too many requests are under way to {name!r}; the call was not made"
            raise ServiceOverloadedError(told)


class _Room:
    """Bounds the bytes that are under way to a replica, and counts the calls."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self.calls = 0
        self._left = threading.Condition()

    def enter(self, length: int, until: float) -> bool:
        """Wait for room; False if there was none by `until`."""
        with self._left:
            while self._bytes + length > self._most:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._left.wait(None if left == inf else left)
            self._bytes += length
            self.calls += 1
            return True

    def leave(self, length: int) -> None:
        """Give room back."""
        with self._left:
            self._bytes -= length
            self.calls -= 1
            self._left.notify_all()


class ReplicaWatch:
    """Asks dead replicas for a sign of life, in one thread that starts with the first death."""

    def __init__(self) -> None:
        self._lost: queue.SimpleQueue[tuple[RayChannel, int] | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def add(self, channel: RayChannel, replica: int) -> None:
        """Watch a replica until it is back, or gone for good."""
        self._lost.put((channel, replica))
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                name = "sage-service-ray-watch"
                self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        with self._starting:
            self._closed.set()
        self._lost.put(None)
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        signs: dict[tuple[RayChannel, int], Any] = {}
        while not self._closed.is_set():
            try:
                lost = self._lost.get(timeout=_LOOK_SECONDS if signs else None)
            except queue.Empty:
                lost = None
            if lost is not None:
                signs[lost] = None
            for (channel, replica), sign in list(signs.items()):
                signs.pop((channel, replica))
                if (again := _look(channel, replica, sign)) is not None:
                    signs[channel, replica] = again


def _ask(channel: RayChannel, replica: int) -> Any:
    """Ask for a sign of life; Ray keeps the question until the actor has been started again."""
    return channel.actor(replica).ready.options(concurrency_group=CONTROL).remote()


def _look(channel: RayChannel, replica: int, sign: Any) -> Any:
    """Return what sign to wait for; None if the replica is back, or gone for good."""
    ray, name = import_ray(), channel.address.name
    try:
        if sign is None:
            return _ask(channel, replica)
        if not ray.wait([sign], timeout=0)[0]:
            return sign
        ray.get(sign)
    except ray.exceptions.ActorUnavailableError:
        return _ask(channel, replica)
    except Exception as error:  # noqa: BLE001 - whatever it is, it will not come back
        get_logger("service").error("%s[%d] stays down: %s", name, replica, error)
        return None
    get_logger("service").warning("%s[%d] died; Ray has started it again", name, replica)
    channel.found(replica)
    return None


class RayDirectory:
    """The Ray services of an environment, from their addresses alone. Implements `Directory`.

    The way to an actor is made at the first call.

    Args:
        token: Stands for the environment.
        addresses: Its services that run on Ray.
        elsewhere: The names of its other services, which cannot be reached from a Ray actor.
        middleware: What is around every call.
    """

    def __init__(
        self,
        token: str,
        addresses: tuple[RayAddress, ...],
        elsewhere: tuple[str, ...] = (),
        middleware: tuple[ServiceMiddleware, ...] = (),
    ) -> None:
        self._token = token
        self._addresses = {address.name: address for address in addresses}
        self._elsewhere = elsewhere
        self._surroundings = Surroundings(middleware)
        self._paths: dict[str, CallPath] = {}
        self._side: RaySide | None = None
        self._lock = threading.Lock()

    @property
    def services(self) -> RayDirectory:
        """Itself: it stands where an environment stands."""
        return self

    def path(self, name: str) -> CallPath | None:
        """Return the path to a service; None if there is none of that name.

        Raises:
            ServiceNotFoundError: it does not run on Ray.
        """
        return self._paths.get(name) or self._make_path(name)

    def _make_path(self, name: str) -> CallPath | None:
        if name in self._elsewhere:
            raise ServiceNotFoundError(
                f"the service {name!r} does not run on Ray, and from a service on Ray only Ray "
                f'services can be reached; register it with isolation="ray". On Ray: '
                f"{', '.join(self._addresses) or 'none'}."
            )
        address = self._addresses.get(name)
        if address is None:
            return None
        with self._lock:
            if self._side is None:
                self._side = RaySide(self._token)
            if name not in self._paths:
                channel = self._side.channel(address)
                self._paths[name] = CallPath(name, address.calls, channel, self._surroundings)
            return self._paths[name]

    def service_names(self) -> list[str]:
        """Return the names of all services that can be reached."""
        return list(self._addresses)

    def close(self) -> None:
        """Let the ways go."""
        self._surroundings.close()
        with self._lock:
            if self._side is not None:
                self._side.close()
                self._side = None
