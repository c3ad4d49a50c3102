"""Stable hashes, key groups and the ranges of subtasks."""

import enum
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.dataflow.key_group import (
    default_max_parallelism,
    group_range,
    key_group,
    stable_hash,
    subtask_of,
)

ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False),
    st.decimals(allow_nan=False), st.datetimes(timezones=st.timezones() | st.none()), st.dates(),
    st.timedeltas(), st.uuids(),
)  # fmt: skip
KEYS = st.recursive(ATOMS, lambda k: st.tuples(k, k) | st.frozensets(k, max_size=3), max_leaves=6)


EAST = timezone(timedelta(hours=8))


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Place:
    x: int
    name: str


@given(KEYS, KEYS)
def test_equal_keys_have_equal_hashes_of_32_bits(one, other):
    assert 0 <= stable_hash(one) < 2**32
    if one == other:
        assert stable_hash(one) == stable_hash(other)


@pytest.mark.parametrize(
    "equal",
    [
        (1, 1.0, True, Decimal(1), Fraction(1), Level.LOW, 1 + 0j),
        (0, False, 0.0, -0.0),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 8, tzinfo=EAST)),
        (Place(1, "a"), Place(True, "a")),
        (("a", 1), ("a", 1.0)),
    ],
)  # fmt: skip
def test_keys_that_are_one_key_of_a_dict_have_one_hash(equal):
    assert len(dict.fromkeys(equal)) == 1
    assert len({stable_hash(key) for key in equal}) == 1


def test_another_process_with_another_hash_seed_says_the_same():
    keys = (
        "['a', 'ü\\udc80', b'x', 1, -1, 2**70, 1.5, None, (1, 'a', None), frozenset(['a', 'b', 3]),"
        " d.datetime(2020, 1, 2), d.date(2020, 1, 2), d.timedelta(3, 4), u.UUID(int=5), Decimal('1.1')]"
    )
    code = (
        "import datetime as d, uuid as u; from decimal import Decimal; "
        f"from sage.dataflow.key_group import stable_hash; print([stable_hash(k) for k in {keys}])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert len(set(eval(said.pop()))) == 15


def test_the_hash_of_a_key_never_changes_as_checkpoints_depend_on_it():
    told = [
        stable_hash(k)
        for k in ("user-7", 7, None, (1, "a"), Colour.RED, UUID(int=7), date(2020, 1, 1))
    ]
    assert told == [
        3475663628,
        1401181202,
        2090959988,
        894937620,
        737653160,
        1401181202,
        3553143241,
    ]


@pytest.mark.parametrize("wrong", [object(), [1], {"a": 1}, (1, object())])
def test_a_key_without_a_stable_hash_is_refused_by_its_type(wrong):
    with pytest.raises(TypeError, match=r"builtins\.(object|list|dict) cannot be a key.*key_by"):
        stable_hash(wrong)


def test_nan_is_no_key():
    with pytest.raises(TypeError, match="NaN"):
        stable_hash(float("nan"))


@given(st.integers(1, 300), st.data())
def test_ranges_are_what_subtasks_own_and_cover_all_groups(most, data):
    p = data.draw(st.integers(1, most))
    owned = [group for i in range(p) for group in group_range(i, most, p)]
    assert owned == list(range(most))
    for i in range(p):
        assert {subtask_of(group, most, p) for group in group_range(i, most, p)} == {i}


def test_groups_are_even():
    for keys in (
        range(12_800),
        [f"user-{i}" for i in range(12_800)],
        [(i, "x") for i in range(12_800)],
    ):
        sizes = [0] * 128
        for key in keys:
            sizes[key_group(key, 128)] += 1
        assert min(sizes) > 40
        assert max(sizes) < 180


def test_the_default_grows_with_parallelism():
    assert [default_max_parallelism(p) for p in (1, 85, 86, 171, 10**6)] == [
        128,
        128,
        256,
        512,
        32768,
    ]


@pytest.mark.parametrize(("subtask", "parallelism"), [(-1, 2), (2, 2), (0, 0), (0, 129)])
def test_ranges_of_subtasks_that_do_not_exist_are_refused(subtask, parallelism):
    with pytest.raises(ValueError):
        group_range(subtask, 128, parallelism)
