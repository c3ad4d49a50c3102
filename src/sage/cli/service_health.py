"""Asks running services how they are."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from sage.cli.running_service import RunningService
from sage.common.errors import SageError, ServiceError
from sage.kernel.runtime.service.call.service_future import ServiceFuture
from sage.kernel.runtime.service.channel.process_channel import CallerSide
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    StreamToken,
    failure,
)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Health:
    """How a service is.

    Attributes:
        service: Which.
        well: Whether all of it is well.
        asked: Whether it said so itself, just now; else its environment did, a second ago.
        told: What there is to say.
        seconds: How long the slowest replica took to answer.
    """

    service: RunningService
    well: bool
    asked: bool
    told: str
    seconds: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.service.name,
            "environment": self.service.environment or None,
            "healthy": self.well,
            "source": "service" if self.asked else "environment",
            "told": self.told,
            "seconds": self.seconds,
        }


def check_health(service: RunningService, timeout: float) -> Health:
    """Ask a service in processes of its own; of others, tell what its environment said last.

    Args:
        service: Which.
        timeout: How many seconds all its replicas may take together to answer.
    """
    address = _address(service)
    if address is None:
        return Health(service, service.is_well, False, f"{service.state}, says its environment")
    try:
        side = CallerSide(address.token)
    except (SageError, OSError) as error:
        return Health(service, False, False, f"it cannot be asked: {error}")
    try:
        return _ask(service, address, side, time.monotonic() + timeout)
    finally:
        side.close()


def _address(service: RunningService) -> ServiceAddress | None:
    said = service.info.metadata
    token, number = said.get("token"), said.get("number")
    if not (isinstance(token, str) and isinstance(number, int)):
        return None
    return ServiceAddress(token, number, service.name, service.info.replicas)


def _ask(
    service: RunningService, address: ServiceAddress, side: CallerSide, deadline: float
) -> Health:
    started = time.monotonic()
    asked = [_send(address, side, replica, deadline) for replica in range(address.replicas)]
    answers = [_answer(future) for future in asked]
    seconds = time.monotonic() - started
    bad = [f"replica {i}: {told}" for i, told in enumerate(answers) if told]
    if bad:
        return Health(service, False, True, "; ".join(bad), seconds)
    told = "it answers" if len(asked) == 1 else f"all {len(asked)} replicas answer"
    return Health(service, True, True, told, seconds)


def _send(
    address: ServiceAddress, side: CallerSide, replica: int, deadline: float
) -> ServiceFuture:
    number = next(_numbers)
    request = ServiceRequest(number, address.name, "health_check", deadline=deadline)
    channel = side.channel(address)
    future = ServiceFuture(request, channel.waiter, time.monotonic(), _Question(), replica)
    try:
        channel.send(future)
    except (ServiceError, SageError, OSError) as error:
        future.complete(failure(number, error, executed=False))
    return future


def _answer(future: ServiceFuture) -> str:
    """Return what is wrong; nothing if all is well."""
    error = future.exception()
    if error is not None:
        return str(error)
    return "" if future.result() else "it says that it is not well"


class _Question:
    """Implements `Calls`: nothing is counted and no policy has a say."""

    def ended(self, future: ServiceFuture, response: ServiceResponse) -> ServiceResponse:
        return response

    def open_stream(self, future: ServiceFuture, token: StreamToken) -> Iterator[Any]:
        raise TypeError(
            f"health_check() of {future.request.service_name!r} is a generator ({token.number})"
        )

    def fall_back(self, error: BaseException) -> NoReturn:
        raise error
