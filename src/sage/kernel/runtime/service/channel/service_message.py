"""Requests and responses, and how they are written into a queue.

A frame is a fixed header and a body. What must be known before anything is decoded is in the header:
a request that is past its deadline is dropped without reading its arguments, and an answer finds its
caller by its number. Between the two a request has its address, the names of the way back, of the
service and of the method: the same bytes in each call of a method, so both sides know them already.

Plain values (numbers, strings, bytes, None) are written as MessagePack, which takes a fifth of the
time of pickling; all others are pickled.

Only processes of one user exchange frames, through queues that nobody else can open: unpickling them
is as safe as importing the user's own code.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import inf
from typing import Any, Final, NamedTuple

import msgspec

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


class ServiceRequest(msgspec.Struct):
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
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    response_queue_name: str = ""
    deadline: float = inf
    attempt: int = 1
    trace_context: dict[str, str] | None = None
    caller_chain: tuple[str, ...] = ()


class ServiceResponse(msgspec.Struct):
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


class Form(IntEnum):
    """How the body of a frame is written."""

    PICKLED = 0
    MSGPACK = 1


Address = tuple[str, str, str]
"""The names of the queue for the answer, of the service and of its method."""

_HEADER: Final = struct.Struct("<BBHIQd")
HEADER_BYTES: Final = _HEADER.size
_REQUEST: Final = struct.Struct("<4xIQd")  # where others name a service: the length of the address
_ANSWER: Final = struct.Struct("<BB6xQ8x")
_LONG_BYTES: Final = 4096
_MOST_ADDRESSES: Final = 1000

PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes})
"""The types that MessagePack can write; their heirs would come out as these."""

# Names of the module itself are found quickest, and these stand in the path of every call.
_pack_header: Final = _HEADER.pack
_pack_answer: Final = _ANSWER.pack
_pickled: Final = pickle.dumps
_unpickled: Final = pickle.loads
_packed: Final = msgspec.msgpack.Encoder().encode
_unpacked: Final = msgspec.msgpack.Decoder().decode
_unpacked_arguments: Final = msgspec.msgpack.Decoder(tuple).decode
_REQUEST_KIND: Final = int(Kind.REQUEST)
_RESULT_KIND: Final = int(Kind.RESULT)
_PICKLED: Final = int(Form.PICKLED)
_MSGPACK: Final = int(Form.MSGPACK)


def pack_header(
    kind: Kind, number: int = 0, *, service: int = 0, replica: int = 0, deadline: float = inf
) -> bytes:
    """Write the head of a frame."""
    return _HEADER.pack(kind, _PICKLED, replica, service, number, deadline)


def read_header(frame: bytes) -> Header:
    """Read the head of a frame."""
    kind, _, replica, service, number, deadline = _HEADER.unpack_from(frame)
    return Header(kind, replica, service, number, deadline)


read_answer_head: Final[Callable[[bytes], tuple[int, int, int]]] = _ANSWER.unpack_from
"""Reads of an answer its kind, its form, and the number of the request that it answers."""

read_request_head: Final[Callable[[bytes], tuple[int, int, float]]] = _REQUEST.unpack_from
"""Reads of a request the length of its address, its number and its deadline."""


class PackedAddresses(dict[str, bytes]):
    """The addresses of the methods of a service, written, by the name of the method.

    Args:
        lane: The name of the queue for the answers.
        service: The name of the service.
    """

    def __init__(self, lane: str, service: str) -> None:
        super().__init__()
        self._lane = lane
        self._service = service

    def __missing__(self, method: str) -> bytes:
        """Write an address."""
        packed = _pack_address(self._lane, self._service, method)
        if len(self) < _MOST_ADDRESSES:  # names come from callers
            self[method] = packed
        return packed


def pack_request(request: ServiceRequest, address: bytes) -> bytes:
    """Write a request: header, address, and the rest.

    The address is apart, so that a request whose arguments cannot be read is answered too.

    Args:
        request: The request.
        address: Where the answer goes and what is called, from `PackedAddresses`.

    Raises:
        Exception: an argument cannot be pickled.
    """
    body, form = _pack_plain(request), _MSGPACK
    if body is None:
        further = (request.attempt, request.trace_context, request.caller_chain)
        body, form = _dumps((request.args, request.kwargs, *further)), _PICKLED
    number, deadline = request.request_id, request.deadline
    return _pack_header(_REQUEST_KIND, form, 0, len(address), number, deadline) + address + body


def _pack_plain(request: ServiceRequest) -> bytes | None:
    """Write the arguments if there is nothing else to be written, and they are plain."""
    args = request.args
    if request.kwargs or request.caller_chain or request.attempt != 1:
        return None
    for value in args:
        if value.__class__ not in PLAIN:
            return None
    if request.trace_context is not None:
        return None
    try:
        return _packed(args)
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate, more than 64 bits
        return None


def pack_cancel(lane: str, number: int) -> bytes:
    """Write that nobody waits for a request any more."""
    address = _pack_address(lane, "", "")
    return _HEADER.pack(Kind.CANCEL, _PICKLED, 0, len(address), number, inf) + address


def _pack_address(lane: str, service: str, method: str) -> bytes:
    return pickle.dumps((lane, service, method), 5)


@lru_cache(maxsize=_MOST_ADDRESSES)
def read_address(packed: bytes) -> Address:
    """Read the address of a request: what lies between its head and its body."""
    return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301 - our own user's


def _dumps(body: object) -> bytes:
    """Pickle; what the program that was started has defined is pickled by value.

    The other process has another `__main__`: it could not find it by its name.
    """
    try:
        pickled = _pickled(body, 5)
    except Exception:  # noqa: BLE001 - what cannot be pickled at all raises below
        return _dumps_by_value(body)
    return _dumps_by_value(body) if b"__main__" in pickled else pickled


def _dumps_by_value(body: object) -> bytes:
    import cloudpickle  # few need it, and all would wait for its import  # noqa: PLC0415

    return cloudpickle.dumps(body, 5)  # type: ignore[no-any-return]


def read_lane(frame: bytes) -> str:
    """Read where the answer to a request goes."""
    return read_address(frame[HEADER_BYTES : HEADER_BYTES + read_request_head(frame)[0]])[0]


def read_request(
    number: int, deadline: float, address: Address, frame: bytes, start: int
) -> ServiceRequest:
    """Read a request whose head and address have been read; the rest begins at `start`.

    Raises:
        Exception: an argument cannot be unpickled.
    """
    body = frame[start:] if len(frame) < _LONG_BYTES else memoryview(frame)[start:]
    lane, name, method = address
    if frame[1] == _MSGPACK:
        args = _unpacked_arguments(body)
        return ServiceRequest(number, name, method, args, {}, lane, deadline)
    args, kwargs, attempt, trace, chain = _unpickled(body)
    return ServiceRequest(number, name, method, args, kwargs, lane, deadline, attempt, trace, chain)


def pack_response(response: ServiceResponse) -> bytes:
    """Write a response; a result that cannot be pickled becomes a failure that says so."""
    if response.success:
        return _pack_result(response.request_id, response.result)
    told_parts = (response.error_type, response.error, response.error_traceback)
    body = pickle.dumps((*told_parts, _carried(response.cause)), 5)
    return _pack_answer(Kind.FAILURE, _PICKLED, response.request_id) + body


def _pack_result(number: int, result: Any) -> bytes:
    if result.__class__ in PLAIN:
        try:
            return _pack_answer(_RESULT_KIND, _MSGPACK, number) + _packed(result)
        except (UnicodeEncodeError, OverflowError):  # pickling knows how
            pass
    try:
        return _pack_answer(_RESULT_KIND, _PICKLED, number) + _dumps(result)
    except Exception as error:  # noqa: BLE001 - told to the caller
        told = f"the result cannot be sent back: {error}"
        return pack_response(failure(number, TypeError(told)))


def read_response(kind: int, form: int, number: int, frame: bytes) -> ServiceResponse:
    """Read a response whose head has been read."""
    short = len(frame) < _LONG_BYTES  # what is long is not copied
    body = frame[HEADER_BYTES:] if short else memoryview(frame)[HEADER_BYTES:]
    if form == _MSGPACK:
        return ServiceResponse(True, _unpacked(body), None, number)
    told = _unpickled(body)
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
