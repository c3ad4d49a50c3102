"""Futures, cancelling, and the streams that generators become."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from sage import ServiceCallError, ServiceCancelledError, ServiceTimeoutError
from service.calls.conftest import eventually, services_of

EVERYWHERE = pytest.mark.parametrize("isolation", ["local", "inline", "process", "replicas"])
APART = pytest.mark.parametrize("isolation", ["local", "process"])


class Streams:
    def __init__(self, path=""):
        self.path = path

    def count(self, most):
        yield from range(most)

    def count_then_fail(self, most):
        yield from range(most)
        raise ValueError("enough")

    def same(self, value):
        return value

    async def for_ever(self):
        with open(self.path, "a") as file:
            file.write("begun ")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            with open(self.path, "a") as file:
                file.write("cancelled ")
            raise


@EVERYWHERE
def test_a_stream_gives_all_items_in_order(isolation):
    with services_of(isolation, ("streams", Streams)) as services:
        assert list(services.manager.call_service_sync("streams", "count", 300)) == [*range(300)]
        call = services.manager.get_async_proxy("streams").count(3)
        assert list(call.result()) == [0, 1, 2]


@EVERYWHERE
def test_streams_stay_apart_while_other_calls_are_in_flight(isolation):
    with services_of(isolation, ("streams", Streams)) as services:
        begin = services.manager.get_async_proxy("streams")
        streams = [begin.count(200).result() for _ in range(8)]
        others = [begin.same(i) for i in range(200)]
        rows = list(zip(*streams, strict=True))
        assert rows == [(i,) * 8 for i in range(200)]
        assert [other.result() for other in others] == [*range(200)]


@EVERYWHERE
def test_what_a_stream_gave_before_it_failed_is_not_lost(isolation):
    with services_of(isolation, ("streams", Streams)) as services:
        stream = services.manager.get_sync_proxy("streams").count_then_fail(3)
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ServiceCallError, match="enough"):
            next(stream)


@EVERYWHERE
def test_a_callback_that_fails_is_logged_and_harms_nobody(isolation, caplog):
    with services_of(isolation, ("streams", Streams)) as services:
        begin = services.manager.get_async_proxy("streams")
        told = threading.Event()
        with caplog.at_level(logging.ERROR, logger="sage"):
            future = begin.same(1)
            future.add_done_callback(lambda _: 1 / 0)
            future.add_done_callback(lambda _: told.set())
            assert told.wait(10)
            eventually(lambda: "a callback of a call" in caplog.text, "it is logged")
        assert begin.same(2).result() == 2


@APART
def test_cancelling_reaches_an_async_method(isolation, tmp_path):
    notes = tmp_path / "notes"
    with services_of(isolation, ("streams", Streams, str(notes))) as services:
        future = services.manager.get_async_proxy("streams").for_ever()
        eventually(lambda: notes.exists() and "begun" in notes.read_text(), "it has begun")
        assert future.cancel()
        assert not future.cancel()
        eventually(lambda: "cancelled" in notes.read_text(), "it is cancelled")
        with pytest.raises(ServiceCancelledError):
            future.result()


@APART
def test_asking_too_early_is_not_the_end_of_a_call(isolation, tmp_path):
    with services_of(isolation, ("streams", Streams, str(tmp_path / "notes"))) as services:
        future = services.manager.get_async_proxy("streams").for_ever()
        with pytest.raises(ServiceTimeoutError):
            future.result(timeout=0.01)
        assert not future.done()
        future.cancel()


@EVERYWHERE
def test_futures_can_be_awaited_together(isolation):
    async def gather(begin):
        return await asyncio.gather(*(_awaited(begin.same(i)) for i in range(50)))

    with services_of(isolation, ("streams", Streams)) as services:
        begin = services.manager.get_async_proxy("streams")
        assert asyncio.run(gather(begin)) == [*range(50)]


async def _awaited(future):
    return await future
