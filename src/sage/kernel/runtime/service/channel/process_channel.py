"""The way from a caller to a service in another process: a queue there, and a lane back."""

from __future__ import annotations

import itertools
import queue
import random
import time
from contextlib import suppress

from sage.common.errors import (
    MessageTooLargeError,
    QueueError,
    QueueExistsError,
    QueueHandleClosedError,
    QueueInUseError,
    ServiceError,
    ServiceOverloadedError,
    ServiceUnavailableError,
)
from sage.kernel.runtime.service.base_service_task import RequestQueue
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.channel.queue_handles import QueueHandles
from sage.kernel.runtime.service.channel.response_lane import Place, ResponseLane
from sage.kernel.runtime.service.channel.service_address import ServiceAddress, lane_name
from sage.kernel.runtime.service.channel.service_message import (
    PackedAddresses,
    pack_cancel,
    pack_request,
)
from sage.kernel.runtime.service.policy.balancer import UNHEALTHY, choose_replica
from sage.kernel.transport.sage_queue import SageQueue, remove_queue

_LANE_BYTES = 8 << 20
_PATIENCE = 0.005
_numbers = itertools.count(1)


class CallerSide:
    """All that one process needs to call the services of an environment.

    Args:
        token: Stands for the environment.

    Attributes:
        handles: The queues by which the services take requests.
    """

    def __init__(self, token: str) -> None:
        self.handles = QueueHandles()
        self._queue = _create_lane(token)
        self._lane_name = self._queue.name
        self.lane = ResponseLane(self._queue, self._replica_changed, self._cancel)
        self._channels: dict[int, ProcessChannel] = {}

    @property
    def lane_name(self) -> str:
        """The name of the queue by which answers come back."""
        return self._lane_name

    def channel(self, address: ServiceAddress) -> ProcessChannel:
        """Return the way to a service."""
        if address.number not in self._channels:
            self._channels[address.number] = ProcessChannel(address, self)
        return self._channels[address.number]

    def close(self) -> None:
        """Fail what is in flight, and let all queues go."""
        self.lane.close()
        self.handles.close()
        self._queue.close()
        # A service may still have it open to answer; the host sweeps when all have ended.
        with suppress(QueueInUseError):
            remove_queue(self._lane_name)

    def _replica_changed(self, place: Place, up: bool) -> None:
        channel = self._channels.get(place[0])
        if channel is not None:
            channel.set_up(place[1], up)

    def _cancel(self, future: ServiceFuture, place: Place) -> None:
        channel = self._channels.get(place[0])
        if channel is not None:
            channel.cancel(future, place[1])


def _create_lane(token: str) -> SageQueue:
    while True:
        try:
            return SageQueue.create(lane_name(token, next(_numbers)), _LANE_BYTES)
        except QueueExistsError:
            continue  # an earlier process with the same id was killed, and its lane is still there


class ProcessChannel:
    """Sends requests to the replicas of one service. Implements `Channel`."""

    def __init__(self, address: ServiceAddress, side: CallerSide) -> None:
        self.address = address
        self.queue_timeout = address.queue_timeout
        self._side = side
        self._lane = side.lane
        self._up = [True] * address.replicas
        self._alone = address.replicas == 1
        self._places = [(address.number, replica) for replica in range(address.replicas)]
        self._lane_name = side.lane_name
        self._names = [address.requests(replica) for replica in range(address.replicas)]
        self._handles = side.handles
        self._touch = side.handles.touch
        self._addresses = PackedAddresses(side.lane_name, address.name)

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self._lane

    def send(self, future: ServiceFuture) -> None:
        """Send the request to the less busy of two replicas.

        Raises:
            ServiceUnavailableError: no replica is up.
            ServiceOverloadedError: a limit is reached, or the queue of requests stays full.
            TypeError: an argument cannot be pickled.
        """
        request = future.request
        request.response_queue_name = self._lane_name
        try:
            frame = pack_request(request, self._addresses[request.method_name])
        except Exception as error:
            raise self._unsendable(future, error) from error
        if future.admit is not None:
            future.admit(len(frame))
        try:
            name = self._names[self._expect(future)]
            self._touch(name)
            try:
                self._handles[name].put_nowait(frame)
            except (queue.Full, QueueHandleClosedError):
                self._deliver(name, frame, future)
        except (queue.Full, QueueError) as error:
            self._lane.forget(future, cancel=False)
            raise self._refused(error) from error

    def _expect(self, future: ServiceFuture) -> int:
        """Choose a replica, and let the lane expect its answer."""
        lane, up = self._lane, self._up
        lane.catch_up()
        while True:
            replica = future.replica
            if replica is None:
                replica = 0 if self._alone and up[0] else self._choose(future.avoid)
            lane.expect(future, self._places[replica])
            # Those who tell of a death first say that it is down, then fail what is expected.
            if up[replica]:
                future.replica = replica
                return replica
            lane.forget(future, cancel=False)
            if future.replica is not None:
                raise self._down()

    def _deliver(self, name: str, frame: bytes, future: ServiceFuture) -> None:
        """Put a request into a queue that is full, or has just been closed as nobody used it."""
        while True:
            try:
                self._put(name, frame, future)
            except QueueHandleClosedError:
                self._handles.drop(name)
                self._touch(name)
            else:
                return

    def _put(self, name: str, frame: bytes, future: ServiceFuture) -> None:
        """Wait for room, and take in answers meanwhile.

        The service may itself be waiting for room in the lane of this caller. Another attempt of a
        call does not wait: it is made by the timer, on which others depend.
        """
        request, requests = future.request, self._handles[name]
        until = request.deadline if request.attempt == 1 else 0.0
        if self.queue_timeout is not None:
            until = min(until, time.monotonic() + self.queue_timeout)
        while not future.settled():
            try:
                requests.put(frame, True, _PATIENCE)
            except queue.Full:
                self._handles.touch(name)
                self._lane.poll()
                if time.monotonic() >= until:
                    raise
            else:
                return

    def _refused(self, error: Exception) -> ServiceError:
        name = self.address.name
        if isinstance(error, MessageTooLargeError):
            return ServiceOverloadedError(
                f"the arguments are larger than the queue of {name!r}: {error}; give the service "
                "a larger one with .options(queue_bytes=...)"
            )
        if isinstance(error, queue.Full):
            told = f"the requests waiting for {name!r} fill its queue; the call was not made"
            return ServiceOverloadedError(told)
        return ServiceUnavailableError(f"the service {name!r} cannot be reached: {error}")

    def _unsendable(self, future: ServiceFuture, error: Exception) -> TypeError:
        request = future.request
        return TypeError(
            f"the arguments of {request.service_name}.{request.method_name} cannot be sent to "
            f"another process: {error}"
        )

    def cancel(self, future: ServiceFuture, replica: int) -> None:
        """Tell a replica that nobody waits for a request any more; best effort."""
        frame = pack_cancel(self._lane_name, future.request.request_id)
        try:
            self._handles[self.address.control(replica)].put_nowait(frame)
        except (queue.Full, QueueError):
            return  # the service is busy being told, or gone: the answer is ignored anyway

    def set_up(self, replica: int, up: bool) -> None:
        """Take note that a replica has died, or is back."""
        self._up[replica] = up

    def close(self) -> None:
        """Let the queues of this service go."""
        for replica, requests in enumerate(self._names):
            self._handles.drop(requests)
            self._handles.drop(self.address.control(replica))

    def _choose(self, avoid: int | None) -> int:
        if self._alone:
            if not self._is_any_up():
                raise self._down()
            return 0
        if not self._is_any_up():
            raise self._down()
        number = self.address.number
        loads = [
            self._lane.in_flight((number, i)) if up else UNHEALTHY for i, up in enumerate(self._up)
        ]
        if avoid is not None and sum(self._up) > 1:
            loads[avoid] = UNHEALTHY
        return choose_replica(loads, random.random)

    def _is_any_up(self) -> bool:
        if not any(self._up):
            self._lane.poll()  # perhaps one is back
        return any(self._up)

    def _down(self) -> ServiceUnavailableError:
        return ServiceUnavailableError(f"the service {self.address.name!r} is down")

    @property
    def in_flight(self) -> int:
        """How many calls of this process wait for an answer."""
        number = self.address.number
        return sum(self._lane.in_flight((number, i)) for i in range(self.address.replicas))

    def request_queue(self, replica: int = 0) -> RequestQueue:
        """Return the queue by which a replica takes requests."""
        return self._handles[self._names[replica]]
