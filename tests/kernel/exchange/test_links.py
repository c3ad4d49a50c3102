"""The channels between two slots, as each of them sees them."""

import pytest

from sage.kernel.runtime.exchange.in_flight import FIRST_FRAMES
from sage.kernel.runtime.exchange.links import Links, Mesh, mesh_token


@pytest.fixture
def two_slots():
    mesh = Mesh(mesh_token(), (0, 1), ((0, 1), (1, 0)), 1 << 16)
    mesh.create()
    links = Links(mesh, 0), Links(mesh, 1)
    yield links
    for end in links:
        end.close()
    mesh.remove()


def test_frames_arrive_in_order_and_ring(two_slots):
    one, two = two_slots
    assert one.send(1, b"a", 0.0)
    assert one.send(1, b"b", 0.0)
    assert two.bell.wait(0)
    assert two.receive() == [(0, b"a"), (0, b"b")]
    assert two.receive() == []
    assert two.send(0, b"c", 0.0)
    assert one.receive(leave={1}) == []
    assert one.receive() == [(1, b"c")]


def test_a_slot_that_has_enough_is_told_of_until_it_takes_some(two_slots):
    one, two = two_slots
    sent = 0
    while not one.is_full():
        assert one.send(1, b"frame", 0.0)
        sent += 1
    assert sent == FIRST_FRAMES
    assert not one.send(1, b"frame", 0.0)
    assert not two.is_full()
    assert two.receive()
    assert not one.is_full()
    assert one.send(1, b"frame", 0.0)
