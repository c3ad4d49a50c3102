"""Requests and responses, and how they are written into a queue.

A frame is a fixed header and a pickled body. What must be known before anything is decoded is in the
header: a request that is past its deadline is dropped without unpickling it, and an answer finds its
caller by its number.

Only processes of one user exchange frames, through queues that nobody else can open: unpickling them
is as safe as importing the user's own code.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from math import inf
from typing import Any, Final, NamedTuple

from sage.common.errors import (
    ServiceCallError,
    ServiceCancelledError,
    ServiceCycleError,
    ServiceError,
    ServiceMethodError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from sage.common.suggest import text_of


@dataclass(slots=True)
class ServiceRequest:
    """A call on its way to a service.

    Attributes:
        request_id: Unique among the calls of one process.
        service_name: The name of the service.
        method_name: The method to call.
        args: Its positional arguments.
        kwargs: Its keyword arguments, untouched by the call path.
        response_queue_name: Where the answer goes; empty within a process.
        deadline: When the caller stops waiting, on the machine's monotonic clock; infinite if never.
        attempt: 1 at first, then one more at each retry.
        trace_context: What a tracer needs to join both sides of the call.
        caller_chain: The services that are waiting for this call, outermost first.
    """

    request_id: int
    service_name: str
    method_name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    response_queue_name: str = ""
    deadline: float = inf
    attempt: int = 1
    trace_context: dict[str, str] | None = None
    caller_chain: tuple[str, ...] = ()


@dataclass(slots=True)
class ServiceResponse:
    """What a call came to.

    Attributes:
        success: Whether the method returned.
        result: What it returned.
        error: What the error says; None on success.
        request_id: That of the request.
        error_type: The name of the exception's type, with its module.
        error_traceback: The traceback in the service, formatted.
        cause: The exception itself, if it can be carried over.
        executed: False if it is certain that the method has not been called.
    """

    success: bool
    result: Any = None
    error: str | None = None
    request_id: int = 0
    error_type: str | None = None
    error_traceback: str | None = None
    cause: BaseException | None = None
    executed: bool = True


@dataclass(frozen=True)
class StreamToken:
    """Stands for the generator that a method returned; its items are fetched by further calls.

    Attributes:
        number: Which of the generators of the replica it is.
        replica: Where it lives.
    """

    number: int
    replica: int


class Kind(IntEnum):
    """What a frame is.

    `REQUEST` and `CANCEL` go to a service, the others come back from it: `STALE` answers a request
    that a service has not executed and never will; `DOWN` and `UP` tell all callers that a replica
    has died and that it is back.
    """

    REQUEST = 1
    CANCEL = 2
    RESULT = 3
    FAILURE = 4
    STALE = 5
    DOWN = 6
    UP = 7


class Header(NamedTuple):
    """The head of a frame.

    Attributes:
        kind: What the frame is.
        replica: Which replica of the service the frame tells of.
        service: The number of the service it tells of.
        number: The request's number.
        deadline: The request's deadline.
    """

    kind: int
    replica: int
    service: int
    number: int
    deadline: float


_HEADER: Final = struct.Struct("<BxHIQd")
HEADER_BYTES: Final = _HEADER.size
_REQUEST: Final = struct.Struct("<Qd")
_NUMBER: Final = struct.Struct("<Q")
_NUMBER_AT: Final = struct.calcsize("<BxHI")
_LONG_BYTES: Final = 4096

# Names of the module itself are found quickest, and these stand in the path of every call.
_pack_header: Final = _HEADER.pack
_number_from: Final = _NUMBER.unpack_from
_pickled: Final = pickle.dumps
_unpickled: Final = pickle.loads
_REQUEST_KIND: Final = int(Kind.REQUEST)
_RESULT_KIND: Final = int(Kind.RESULT)


def pack_header(
    kind: Kind, number: int = 0, *, service: int = 0, replica: int = 0, deadline: float = inf
) -> bytes:
    """Write the head of a frame."""
    return _HEADER.pack(kind, replica, service, number, deadline)


def read_header(frame: bytes) -> Header:
    """Read the head of a frame."""
    return Header._make(_HEADER.unpack_from(frame))


def read_answer_header(frame: bytes) -> tuple[int, int]:
    """Read the kind of a frame and the number of the request that it answers."""
    return frame[0], _number_from(frame, _NUMBER_AT)[0]


def pack_request(request: ServiceRequest) -> bytes:
    """Write a request: header, the name of the lane, the rest pickled.

    The lane is not pickled, so that a request whose arguments cannot be read is answered too.

    Raises:
        Exception: an argument cannot be pickled.
    """
    attempt, trace, chain = request.attempt, request.trace_context, request.caller_chain
    plain = attempt == 1 and trace is None and not chain
    further = () if plain else (attempt, trace, chain)
    body = (request.service_name, request.method_name, request.args, request.kwargs, further)
    head = _pack_header(_REQUEST_KIND, 0, 0, request.request_id, request.deadline)
    return head + _lane_part(request.response_queue_name) + _dumps(body)


@lru_cache(maxsize=64)
def _lane_part(name: str) -> bytes:
    lane = name.encode()
    return bytes((len(lane),)) + lane


def _dumps(body: object) -> bytes:
    """Pickle; what the program that was started has defined is pickled by value.

    The other process has another `__main__`: it could not find it by its name.
    """
    try:
        pickled = _pickled(body, 5)
    except Exception:  # noqa: BLE001 - what cannot be pickled at all raises below
        return _dumps_by_value(body)
    return _dumps_by_value(body) if b"__main__" in pickled else pickled


def _body(frame: bytes, start: int) -> bytes | memoryview:
    """Return a frame without its beginning; what is long is not copied."""
    return frame[start:] if len(frame) < _LONG_BYTES else memoryview(frame)[start:]


def _dumps_by_value(body: object) -> bytes:
    import cloudpickle  # few need it, and all would wait for its import  # noqa: PLC0415

    return cloudpickle.dumps(body, 5)  # type: ignore[no-any-return]


def read_lane(frame: bytes) -> str:
    """Read where the answer to a request goes."""
    length = frame[HEADER_BYTES]
    return str(frame[HEADER_BYTES + 1 : HEADER_BYTES + 1 + length], "ascii")


def read_request_header(frame: bytes) -> tuple[int, float]:
    """Read the number and the deadline of a request."""
    return _REQUEST.unpack_from(frame, _NUMBER_AT)


def read_request(number: int, deadline: float, lane: str, frame: bytes) -> ServiceRequest:
    """Read a request.

    Raises:
        Exception: an argument cannot be unpickled.
    """
    body = _body(frame, HEADER_BYTES + 1 + frame[HEADER_BYTES])
    name, method, args, kwargs, further = _unpickled(body)
    return ServiceRequest(number, name, method, args, kwargs, lane, deadline, *further)


def pack_response(response: ServiceResponse) -> bytes:
    """Write a response; a result that cannot be pickled becomes a failure that says so."""
    if response.success:
        try:
            body = _dumps(response.result)
        except Exception as error:  # noqa: BLE001 - told to the caller
            told = f"the result cannot be sent back: {error}"
            return pack_response(failure(response.request_id, TypeError(told)))
        return _pack_header(_RESULT_KIND, 0, 0, response.request_id, inf) + body
    told_parts = (response.error_type, response.error, response.error_traceback)
    body = pickle.dumps((*told_parts, _carried(response.cause)), 5)
    return _HEADER.pack(Kind.FAILURE, 0, 0, response.request_id, inf) + body


def read_response(kind: int, number: int, frame: bytes) -> ServiceResponse:
    """Read a response from its frame."""
    told = _unpickled(_body(frame, HEADER_BYTES))
    if kind == _RESULT_KIND:
        return ServiceResponse(True, told, None, number)
    error_type, error, trace, carried = told
    return ServiceResponse(False, None, error, number, error_type, trace, _restored(carried))


def _carried(cause: BaseException | None) -> bytes | None:
    """Return the exception pickled, if it also comes out again on the other side."""
    if cause is None:
        return None
    try:
        pickled = _dumps(cause)
        pickle.loads(pickled)  # noqa: S301 - made just now
    except Exception:  # noqa: BLE001 - many exceptions cannot; their type and text go all the same
        return None
    return pickled


def _restored(carried: bytes | None) -> BaseException | None:
    if carried is None:
        return None
    try:
        cause = pickle.loads(carried)  # noqa: S301 - our own user's
    except Exception:  # noqa: BLE001 - its class is not to be had here; type and text are known
        return None
    return cause if isinstance(cause, BaseException) else None


def failure(
    number: int, error: BaseException, trace: str = "", *, executed: bool = True
) -> ServiceResponse:
    """Return the response that tells of `error`."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return ServiceResponse(False, None, text_of(error), number, name, trace, error, executed)


PASSED_ON: Final = (
    ServiceCancelledError,
    ServiceCycleError,
    ServiceMethodError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
"""Errors of the call path itself: they reach the caller as they are."""


def error_name(response: ServiceResponse) -> str:
    """Return the name under which a failure is counted: for a method's own exception, its type's."""
    if isinstance(response.cause, PASSED_ON):
        return type(response.cause).__name__
    return response.error_type or "Exception"


def error_of(response: ServiceResponse, service: str, method: str) -> ServiceError:
    """Return the exception that a failed response means for its caller."""
    if isinstance(response.cause, PASSED_ON):
        return response.cause
    told = ServiceCallError(
        service,
        method,
        response.error_type or "Exception",
        response.error or "",
        response.error_traceback or "",
    )
    told.__cause__ = response.cause
    if response.error_traceback:
        told.add_note(f"In the service:\n{response.error_traceback}")
    return told
