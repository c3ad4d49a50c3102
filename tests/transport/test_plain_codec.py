"""Plain values as bytes: what comes out is what went in, or nothing was packed."""

import array
import collections
import enum
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.transport.plain_codec import is_packed, pack_plain, unpack_plain

ANYBODYS = 99
"""No list is so deep that nobody else may hold it: Hypothesis does."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
KEYS = st.one_of(
    SCALARS.filter(lambda key: key == key), st.tuples(st.integers(0, 9), st.text("ab"))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(KEYS, inner),
    ),
    max_leaves=50,
)


def seen(value):
    """Return what tells apart all that equality does not: types, the order of keys, signs, NaN."""
    if isinstance(value, dict):
        return dict, [(seen(key), seen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [seen(item) for item in value]
    return type(value), repr(value)


@given(VALUES)
def test_what_comes_out_is_what_went_in(value):
    packed = pack_plain(value, ANYBODYS)
    assert is_packed(packed)
    assert seen(unpack_plain(packed)) == seen(value)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 70_000])
def test_sizes_at_the_borders(size):
    values = ["ä" * size, b"x" * size, [0] * size, (1.5,) * size, dict.fromkeys(range(size))]
    assert unpack_plain(pack_plain(values)) == values


@pytest.mark.parametrize("bits", [7, 8, 31, 32, 63])
def test_whole_numbers_at_the_borders(bits):
    numbers = [sign * 2**bits + step for sign in (1, -1) for step in (-1, 0, 1)]
    plain = [number for number in numbers if -(2**63) <= number < 2**63]
    assert unpack_plain(pack_plain(plain)) == plain
    assert all(pack_plain(number) is None for number in set(numbers) - set(plain))


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        bytearray(b"x"),
        memoryview(b"x"),
        array.array("q", [1]),
        Colour.RED,
        Text("x"),
        Point(1, 2),
        collections.OrderedDict(a=1),
        collections.Counter("aa"),
        2**63,
        1j,
        "half of a pair: \ud800",
        object(),
        len,
        int,
        ...,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_not_plain(value):
    for holder in (value, [value], (1, value), {"a": value}):
        assert pack_plain(holder) is None


def test_what_may_be_there_twice_is_not_plain():
    shared = [1]
    assert pack_plain([shared, shared]) is None
    assert pack_plain([{"a": shared}]) is None, "the other one may be anywhere"
    assert unpack_plain(pack_plain([shared, 2], own=2)) == [[1], 2], "the caller holds on to it"


def test_a_circle_is_not_plain():
    circle = []
    circle.append(circle)
    assert pack_plain(circle, own=100) is None


def test_tuples_that_unfold_without_an_end_are_not_plain():
    laugh = ("ha",)
    for _ in range(31):
        laugh = (laugh,) * 10
    assert pack_plain(laugh) is None


@pytest.mark.parametrize(("depth", "plain"), [(32, True), (33, False)])
def test_depth_has_a_limit(depth, plain):
    value = ()
    for _ in range(depth - 1):
        value = (value,)
    packed = pack_plain(value)
    assert (packed is not None) == plain
    assert packed is None or unpack_plain(packed) == value


def test_large_values_are_not_plain():
    assert pack_plain(b"x" * (16 << 20)) is None
    assert pack_plain([b"x" * (1 << 20) for _ in range(16)]) is None


def test_one_string_stays_one():
    name = "a name".upper()
    records = [{name: number, "value": (name, 1.5)} for number in range(1000)]
    packed = pack_plain(records, own=2)
    back = unpack_plain(packed)
    assert back == records
    assert len({id(key) for record in back for key in record}) == 2
    assert packed.count(name.encode()) == 1


def test_many_strings_are_told_apart():
    words = [f"word {number % 700}" for number in range(5000)]
    records = [(word, words[number * 7 % 5000]) for number, word in enumerate(words)]
    assert unpack_plain(pack_plain(records)) == records


def test_nothing_is_held_on_to():
    name, record = "a name".upper(), ["a", "b"]
    before = sys.getrefcount(name), sys.getrefcount(record)
    for _ in range(100):
        pack_plain([(name, record)], own=9)
        pack_plain([(name, record), {1}], own=9)
    assert (sys.getrefcount(name), sys.getrefcount(record)) == before
    (back, again), _ = unpack_plain(pack_plain([(name, name), None]))
    assert back is again
    assert sys.getrefcount(back) == sys.getrefcount(name) + 1


@given(VALUES, st.data())
def test_damaged_frames_are_refused_or_read_as_something(value, data):
    packed = bytearray(pack_plain(value, ANYBODYS))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(1, len(packed) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(packed))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_as_something(noise):
    read(b"\x01" + noise)


def read(frame):
    """Read what may be damaged: an error, or a value that can be told."""
    try:
        value = unpack_plain(frame)
    except (ValueError, TypeError):  # also of text that is no UTF-8, and of keys that have no hash
        return
    assert repr(value)


@given(VALUES)
def test_every_cut_is_told(value):
    packed = pack_plain(value, ANYBODYS)
    for length in range(min(len(packed), 300)):
        with pytest.raises(ValueError, match=r"packed value|utf-8"):
            unpack_plain(packed[:length])
    with pytest.raises(ValueError, match="something follows it"):
        unpack_plain(packed + b"\x00")


@pytest.mark.parametrize("frame", [b"", b"\x80", bytearray(b"\x01\x00"), "\x01", None])
def test_what_was_not_packed_is_refused(frame):
    with pytest.raises((ValueError, TypeError)):
        unpack_plain(frame)


def test_floats_keep_their_bits():
    back = unpack_plain(pack_plain([-0.0, math.inf, 5e-324]))
    assert [math.copysign(1, back[0]), *back[1:]] == [-1.0, math.inf, 5e-324]
