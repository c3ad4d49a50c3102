"""What goes into a call and what comes out of it, wherever the service runs."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sage import (
    ServiceCallError,
    ServiceError,
    ServiceMethodError,
    ServiceNotFoundError,
    ServiceUnavailableError,
)
from service.calls.call_services import BadOnArrival, KeptError

VALUES = [
    None,
    0,
    False,
    "",
    b"",
    [],
    {},
    0.0,
    -(2**100),
    float("inf"),
    "snow ☃",
    {"a": [1, (2, {3})]},
    NotImplemented,
    ValueError,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_result_comes_back_as_it_is(zoo, value):
    result = zoo.call.same(value)
    assert result == value
    assert type(result) is type(value)


def test_both_shapes_of_a_call_mean_the_same(zoo):
    sync, start = zoo.manager.call_service_sync, zoo.manager.call_service_async
    expected = ((1, 2), {"a": 3})
    named = {"service_name": "zoo", "method": "echo", "args": (1, 2), "kwargs": {"a": 3}}
    assert sync("zoo", "echo", 1, 2, a=3) == expected
    assert sync(service_name="zoo", method_name="echo", a=3) == ((), {"a": 3})
    assert sync(**named) == expected
    assert sync(**named, timeout=5) == expected
    assert start("zoo", "echo", 1, 2, a=3).result() == expected
    assert start(**named).result() == expected
    assert sync(service_name="zoo", method="echo") == ((), {})
    assert sync(service_name="zoo", method="echo", args=[1], kwargs=None) == ((1,), {})


@pytest.mark.parametrize(
    "wrong",
    [{}, {"method": ""}, {"method": 3}, {"method": "echo", "extra": 1}, {"args": (1,)}],
    ids=repr,
)
def test_a_call_that_is_in_neither_shape_is_refused(zoo, wrong):
    with pytest.raises(TypeError, match="method"):
        zoo.manager.call_service_sync(service_name="zoo", **wrong)


def test_keywords_named_like_those_of_the_call_reach_the_method(zoo):
    words = {
        "timeout": 0.0,
        "method": "m",
        "service_name": "s",
        "method_name": "n",
        "args": (1,),
        "kwargs": {"k": 1},
        "options": 1,
        "request": 2,
        "name": 3,
    }
    assert zoo.call.echo(**words) == ((), words)
    assert zoo.begin.echo(**words).result() == ((), words)
    named = {"service_name": "zoo", "method": "echo", "kwargs": words}
    assert zoo.manager.call_service_sync(**named) == ((), words)
    free = {"method": "m", "args": (1,), "kwargs": {"k": 1}}
    assert zoo.manager.call_service_sync("zoo", "echo", **free, timeout=5) == ((), free)


@pytest.mark.parametrize("kind", ["key", "value", "os", "kept", "stop", "group", "timeout"])
def test_an_exception_crosses_with_type_text_and_traceback(zoo, kind):
    with pytest.raises(ServiceCallError) as caught:
        zoo.call.fail(kind)
    error, cause = caught.value, caught.value.__cause__
    assert isinstance(error, RuntimeError)
    assert error.service == "zoo"
    assert error.method == "fail"
    assert error.error_type.rpartition(".")[2] == type(cause).__name__
    assert error.error_message == str(cause)
    assert str(cause) in str(error)
    assert "in fail\n" in error.error_traceback
    assert "call_services.py" in error.error_traceback
    assert any("in fail\n" in written for written in error.__notes__)


def test_an_exception_keeps_its_attributes(zoo):
    with pytest.raises(ServiceCallError) as caught:
        zoo.call.fail("kept")
    cause = caught.value.__cause__
    assert isinstance(cause, KeptError)
    assert cause.code == 7
    assert caught.value.error_type == f"{KeptError.__module__}.KeptError"


def test_the_traceback_tells_of_the_cause_of_the_cause(zoo):
    with pytest.raises(ServiceCallError) as caught:
        zoo.call.fail_from()
    assert "KeyError: 'first'" in caught.value.error_traceback
    assert "direct cause" in caught.value.error_traceback


@pytest.mark.parametrize(("kind", "text"), [("two", "5: five"), ("locked", "shut")])
def test_an_exception_that_cannot_be_pickled_is_told_all_the_same(zoo, kind, text):
    with pytest.raises(ServiceCallError, match=text) as caught:
        zoo.call.fail(kind)
    assert caught.value.error_type.endswith("Error")
    assert caught.value.error_message == text
    assert (caught.value.__cause__ is None) == (not zoo.local)


@pytest.mark.parametrize("kind", ["wordless", "exit", "interrupt", "cancelled", "generator"])
@pytest.mark.parametrize("method", ["fail", "fail_later"])
def test_whatever_a_method_raises_its_caller_is_told_and_the_service_lives(zoo, kind, method):
    before = zoo.env.services.task("single").get_statistics().get("pids", [os.getpid()])
    # An inline method runs on the caller's thread: in the main thread, that is a real Ctrl-C.
    with pytest.raises((ServiceError, KeyboardInterrupt)):
        zoo.manager.call_service_sync("single", method, kind, timeout=3)
    for _ in range(8):
        assert zoo.manager.call_service_sync("single", "pid", timeout=3) in before


def test_a_timeout_error_of_the_method_is_not_one_of_the_call(zoo):
    with pytest.raises(ServiceCallError, match="my own") as caught:
        zoo.call.fail("timeout")
    assert type(caught.value.__cause__) is TimeoutError


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), lambda: 1, [open], BadOnArrival],
    ids=["lock", "lambda", "open", "bad"],
)
def test_arguments_that_cannot_be_sent_are_refused_where_they_are_sent(zoo, value):
    if not isinstance(value, type(threading.Lock())) or zoo.local:
        assert type(zoo.call.same(value)) is type(value)
        return
    with pytest.raises(TypeError, match=r"zoo\.same"):
        zoo.call.same(value)
    with pytest.raises(TypeError, match=r"zoo\.same"):
        zoo.begin.same(x=value)
    assert zoo.call.same(1) == 1


def test_arguments_that_cannot_be_read_are_the_callers_to_know(zoo):
    if zoo.local:
        assert zoo.call.length([BadOnArrival()]) == 1
        return
    with pytest.raises(ServiceCallError, match="ZeroDivisionError: on arrival"):
        zoo.call.length([BadOnArrival()])
    assert zoo.call.same(1) == 1


def test_a_result_that_cannot_be_sent_is_told(zoo):
    if zoo.local:
        assert zoo.call.lock_result()
        return
    with pytest.raises(ServiceCallError, match="result cannot be sent back") as caught:
        zoo.call.lock_result()
    assert isinstance(caught.value.__cause__, TypeError)
    assert zoo.call.same(1) == 1


def test_a_result_that_cannot_be_read_is_told(zoo):
    if zoo.local:
        assert zoo.call.bad_result()
        return
    with pytest.raises(ServiceCallError, match="ZeroDivisionError: on arrival"):
        zoo.call.bad_result()
    assert zoo.call.same(1) == 1


def test_an_unknown_service_is_told_with_the_nearest_name(zoo):
    for call in (
        lambda: zoo.manager.call_service_sync("zooo", "echo"),
        lambda: zoo.manager.call_service_async("zooo", "echo"),
        lambda: zoo.manager.get_sync_proxy("zooo").echo(),
        lambda: zoo.manager.get_async_proxy("zooo").echo(),
    ):
        with pytest.raises(ServiceNotFoundError, match="Did you mean 'zoo'") as caught:
            call()
        assert isinstance(caught.value, LookupError)
        assert "single" in str(caught.value)


def test_an_unknown_method_is_told_with_the_nearest_name(zoo):
    with pytest.raises(ServiceMethodError, match="Did you mean 'echo'") as caught:
        zoo.call.ecko()
    assert isinstance(caught.value, AttributeError)
    assert "Zoo" in str(caught.value)


@pytest.mark.parametrize("name", ["_hidden", "__init__", "__class__", "constant", "ctx", "lock"])
def test_what_is_private_or_no_method_is_refused(zoo, name):
    with pytest.raises(ServiceMethodError):
        zoo.manager.call_service_sync("zoo", name)
    if not name.startswith("__"):
        with pytest.raises(ServiceMethodError):
            getattr(zoo.call, name)()


def test_a_dunder_of_a_proxy_is_never_a_call(zoo):
    for proxy in (zoo.call, zoo.begin):
        assert not hasattr(proxy, "__len__")
        assert not hasattr(proxy, "__deepcopy__")
        assert "zoo" in repr(proxy)


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, (4 << 20) - 4096])
def test_large_arguments_and_results(zoo, size):
    data = bytes(range(256)) * (size // 256)
    assert zoo.call.length(data) == len(data)
    assert zoo.call.same(data) == data


def test_an_argument_larger_than_the_queue_is_refused_at_once_and_named(zoo):
    data = bytes(5 << 20)
    if zoo.local:
        assert zoo.call.length(data) == len(data)
        return
    with pytest.raises((ServiceError, ValueError, TypeError)) as caught:
        zoo.call.length(data)
    assert not isinstance(caught.value, ServiceUnavailableError), "the service is well"
    assert "queue_bytes" in str(caught.value)
    assert zoo.call.same(1) == 1


def test_a_result_larger_than_the_way_back_is_told(zoo):
    if zoo.local:
        assert len(zoo.call.bytes(9 << 20)) == 9 << 20
        return
    with pytest.raises(ServiceCallError):
        zoo.manager.call_service_sync("zoo", "bytes", 9 << 20, timeout=3)
    assert zoo.call.same(1) == 1


def test_more_large_calls_in_flight_than_the_queues_hold(zoo):
    data = [bytes([i]) * (256 << 10) for i in range(100)]
    futures = [zoo.begin.options(timeout=5).same(piece) for piece in data]
    for future, piece in zip(futures, data, strict=True):
        assert future.result() == piece


def test_a_proxy_is_safe_in_threads(zoo):
    def work(number):
        return [zoo.call.same((number, i)) for i in range(50)]

    with ThreadPoolExecutor(16) as pool:
        for number, results in enumerate(pool.map(work, range(16))):
            assert results == [(number, i) for i in range(50)]


def test_max_concurrency_bounds_plain_methods(zoo):
    name = "wide"
    begin = zoo.manager.get_async_proxy(name)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: begin.crowd(0.03).result(), range(16)))
    peaks = [zoo.manager.call_service_sync(name, "take_peak") for _ in range(8)]
    assert 1 < max(peaks) <= (16 if zoo.isolation == "inline" else 4)


def test_max_concurrency_bounds_async_methods(zoo):
    if zoo.isolation == "inline":
        return  # the caller's own thread bounds nothing
    begin = zoo.manager.get_async_proxy("wide")
    futures = [begin.async_crowd(0.03) for _ in range(24)]
    assert [future.result() for future in futures] == [None] * 24
    peaks = [zoo.manager.call_service_sync("wide", "take_peak") for _ in range(8)]
    assert 1 < max(peaks) <= 4


def test_async_methods_return_and_raise_like_others(zoo):
    assert zoo.call.later(0, "x") == "x"
    with pytest.raises(ServiceCallError) as caught:
        zoo.call.fail_later("kept")
    assert caught.value.__cause__.code == 7
    assert "in fail_later\n" in caught.value.error_traceback
