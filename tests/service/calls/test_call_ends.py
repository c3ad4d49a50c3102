"""Calls that several threads wait for, that wait to be tried again, or whose stream breaks off."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sage.common.errors import ServiceTimeoutError, ServiceUnavailableError
from service.calls.call_services import Flaky, Zoo
from service.calls.conftest import PATIENCE, eventually, services_of

LONG = 10 * PATIENCE


def test_all_threads_that_wait_for_one_call_are_woken(isolation, gate):
    with services_of(isolation, ("it", Zoo), timeout=LONG) as made:
        if isolation == "inline":
            future = made.manager.call_service_async("it", "later", 0.05, "through")
        else:
            future = made.manager.call_service_async("it", "gate", gate.path)
        results = []
        threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in "abc"]
        for thread in threads:
            thread.start()
        if isolation != "inline":
            gate.wait_came()
            gate.let_pass()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == ["through"] * 3


def test_a_call_that_waits_for_another_attempt_ends_when_its_service_is_stopped(isolation):
    retry = {"initial_delay": LONG, "max_delay": LONG, "jitter": 0, "retry_on": ["ConnectionError"]}
    options = {"retry": retry, "idempotent": True, "timeout": None}
    with services_of(isolation, ("it", Flaky, 10), **options) as made:
        future = made.manager.call_service_async("it", "fetch", 1)
        told = []
        future.add_done_callback(told.append)
        eventually(lambda: made.env.services.status()["it"]["retries"], "a retry is planned")
    eventually(lambda: told == [future], "it has ended")
    assert future.exception(0) is not None


def test_a_stream_whose_items_come_too_late_says_so(isolation):
    if isolation == "inline":
        return  # the caller fetches the items itself
    with services_of(isolation, ("it", Zoo), timeout=LONG, max_concurrency=2) as made:
        proxy = made.manager.get_async_proxy("it")
        assert list(proxy.count_slowly(2, 0).result()) == [0, 1]
        items = proxy.options(timeout=0.3).count_slowly(1, 1.0).result()
        with pytest.raises(ServiceTimeoutError):
            next(items)


def test_a_stream_of_a_process_that_died_does_not_give_the_items_of_another():
    with services_of("process", ("it", Zoo), timeout=LONG) as made:
        begin = made.manager.get_async_proxy("it")
        stale = begin.count(3).result()
        [process] = made.env.services._manager.processes("it")
        os.kill(process.process.pid, signal.SIGKILL)
        eventually(lambda: process.lives > 1 and process.is_up, "the service is back")
        eventually(lambda: begin.pid().exception() is None, "it answers")
        fresh = begin.count(5).result()
        with pytest.raises(ServiceUnavailableError):
            next(stale)
        assert list(fresh) == list(range(5))


def test_a_stream_outlives_its_service_as_an_error(isolation):
    with services_of(isolation, ("it", Zoo), timeout=LONG) as made:
        items = made.manager.get_async_proxy("it").count(1000).result()
        assert next(items) == 0
    with pytest.raises(ServiceUnavailableError):
        list(items)


def test_an_async_call_under_way_when_its_service_is_stopped_is_told(tmp_path):
    with services_of("inline", ("it", Zoo), timeout=LONG) as made:
        future = made.manager.call_service_async("it", "forever", str(tmp_path / "notes"))
        eventually((tmp_path / "notes").exists, "it has begun")
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE
    with pytest.raises(ServiceUnavailableError, match="stopped"):
        future.result(0)
