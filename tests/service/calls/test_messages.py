"""What goes into a frame comes out of it, with its very type, whichever way it is written."""

from __future__ import annotations

import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.runtime.service.channel.service_message import (
    HEADER_BYTES,
    Form,
    PackedAddresses,
    ServiceRequest,
    ServiceResponse,
    failure,
    pack_request,
    pack_response,
    read_address,
    read_answer_head,
    read_lane,
    read_request,
    read_request_head,
    read_response,
)


class Colour(enum.IntEnum):
    """Equal to a number, and not one."""

    RED = 3


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None)),  # lone surrogates too, which only pickle can write
    st.binary(max_size=9_000),
    st.just(Colour.RED),
)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.tuples(inner), max_leaves=5)
NAMES = st.text(st.characters(codec=None), max_size=20)


def same(one, other):
    """Say whether two values are alike in all that a method could see."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (math.isnan(one) and math.isnan(other))


def sent(request):
    """Write a request, and read it as the service does."""
    addresses = PackedAddresses(request.response_queue_name, request.service_name)
    frame = pack_request(request, addresses[request.method_name])
    size, number, deadline = read_request_head(frame)
    start = HEADER_BYTES + size
    assert read_lane(frame) == request.response_queue_name
    return read_request(number, deadline, read_address(frame[HEADER_BYTES:start]), frame, start)


def answered(response):
    """Write a response, and read it as the caller does."""
    frame = pack_response(response)
    return read_response(*read_answer_head(frame), frame)


@given(st.lists(VALUES).map(tuple), NAMES, NAMES)
def test_arguments_arrive_as_they_were(args, service, method):
    """Arguments alone: written the quick way if they are plain."""
    read = sent(ServiceRequest(7, service, method, args, {}, "lane", 2.5))
    assert same(read.args, args)
    assert (read.request_id, read.service_name, read.method_name) == (7, service, method)
    assert (read.kwargs, read.deadline, read.attempt, read.caller_chain) == ({}, 2.5, 1, ())


@given(st.dictionaries(NAMES, PLAIN), st.integers(1, 3), st.tuples() | st.just(("a", "b")))
def test_all_else_that_is_said_of_a_request_arrives(kwargs, attempt, chain):
    """Keywords, retries, traces and chains, with plain arguments too."""
    trace = {"traceparent": "00-1"} if attempt == 2 else None
    request = ServiceRequest(1, "s", "m", ("x",), kwargs, "lane", math.inf, attempt, trace, chain)
    read = sent(request)
    assert all(same(read.kwargs[name], value) for name, value in kwargs.items())
    assert (read.args, read.deadline, read.attempt) == (("x",), math.inf, attempt)
    assert (read.trace_context, read.caller_chain) == (trace, chain)


@given(VALUES)
def test_a_result_arrives_as_it_was(result):
    """Of a method's result nothing is lost."""
    read = answered(ServiceResponse(True, result, None, 9))
    assert read.success
    assert same(read.result, result)
    assert read.request_id == 9


def test_a_failure_arrives_with_its_cause():
    """The exception itself, if it can be carried over."""
    read = answered(failure(9, ValueError("no"), "trace"))
    assert (read.success, read.error, read.request_id) == (False, "no", 9)
    assert (read.error_type, read.error_traceback) == ("ValueError", "trace")
    assert isinstance(read.cause, ValueError)


@pytest.mark.parametrize("result", ["text", 3, 2.5, None, True, b"bytes"])
def test_plain_values_are_not_pickled(result):
    """What most calls return is written the quick way."""
    assert read_answer_head(pack_response(ServiceResponse(True, result)))[1] == Form.MSGPACK


def test_many_names_of_methods_do_not_fill_the_memory():
    """They come from callers."""
    addresses = PackedAddresses("lane", "service")
    for number in range(3_000):
        assert read_address(addresses[f"method{number}"]) == ("lane", "service", f"method{number}")
    assert len(addresses) <= 1_000
