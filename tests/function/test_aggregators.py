"""The ready-made aggregators against brute-force models, merged in every way, pickled at any time."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import statistics
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import FunctionError
from sage.dataflow.function import aggregators
from sage.dataflow.function.aggregators import (
    Aggregator,
    Mean,
    collect,
    count,
    count_distinct,
    distinct,
    first,
    last,
    max_of,
    mean,
    min_of,
    multi,
    quantiles,
    stddev,
    sum_of,
    top_k,
    variance,
)
from sage.dataflow.function.keyed import AggregateFunction

EPS = sys.float_info.epsilon
NAN = math.nan

ints = st.integers(-(10**6), 10**6)
floats = st.floats(-1e100, 1e100)
small = st.integers(-5, 5)
maybe = st.one_of(st.none(), ints)


def delay_of(record: dict[str, Any]) -> Any:
    """A field given as a callable that can be pickled."""
    return record["delay"]


EVERY: dict[str, Callable[..., Aggregator[Any, Any]]] = {
    "count": count,
    "sum_of": sum_of,
    "mean": mean,
    "variance": variance,
    "stddev": stddev,
    "min_of": min_of,
    "max_of": max_of,
    "first": first,
    "last": last,
    "collect": collect,
    "distinct": distinct,
    "count_distinct": count_distinct,
    "quantiles": quantiles,
    "collect_limit": lambda field=None: collect(field, limit=3),
    "top_k": lambda field=None: top_k(3, field),
    "bottom_k": lambda field=None: top_k(3, field, largest=False),
    "multi": lambda field=None: multi(n=count(field), all=multi(s=sum_of(field), l=collect(field))),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def known(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def fold(aggregate: AggregateFunction[Any, Any, Any], records: list[Any]) -> Any:
    accumulator = aggregate.create_accumulator()
    for record in records:
        accumulator = aggregate.add(accumulator, record)
    return accumulator


def merged(aggregate: AggregateFunction[Any, Any, Any], parts: list[list[Any]], left: bool) -> Any:
    """Merge the accumulators of the parts, from the left or from the right."""
    folded = [fold(aggregate, part) for part in parts]
    while len(folded) > 1:
        at = 0 if left else len(folded) - 2
        folded[at : at + 2] = [aggregate.merge(folded[at], folded[at + 1])]
    return aggregate.get_result(folded[0])


def split(values: list[Any], cuts: list[int]) -> list[list[Any]]:
    """Split a list at positions, in order; parts may be empty."""
    edges = [0, *sorted(cut % (len(values) + 1) for cut in cuts), len(values)]
    return [values[a:b] for a, b in pairwise(edges)]


cuts = st.lists(st.integers(0, 1000), max_size=5)


def sum_bound(values: list[float]) -> float:
    """The error that compensated summation promises."""
    exact, size = sum(map(Fraction, values)), math.fsum(map(abs, values))
    return 4 * EPS * abs(float(exact)) + (4 * len(values) * EPS) ** 2 * size + 1e-300


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN and floats are compared with a tolerance."""
    if isinstance(a, float) or isinstance(b, float):
        if a is None or b is None:
            return a is b
        return (a != a and b != b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# --- against models ---------------------------------------------------------------------------


@given(st.lists(maybe))
def test_count_counts_records_and_with_a_field_the_known_ones(values: list[Any]) -> None:
    records = [{"v": value} for value in values]
    assert count().over(records) == len(values)
    assert count().over(values) == len(values)
    assert count("v").over(records) == len(known(values))


@given(st.lists(st.one_of(st.none(), st.integers())))
def test_a_sum_and_a_mean_of_integers_are_exact(values: list[Any]) -> None:
    total = sum_of().over(values)
    assert type(total) is int
    assert total == sum(known(values))
    expected = float(Fraction(total, len(known(values)))) if known(values) else None
    assert mean().over(values) == expected


@given(st.lists(floats))
def test_a_sum_of_floats_keeps_its_error_bound(values: list[float]) -> None:
    exact = sum(map(Fraction, values))
    assert abs(Fraction(sum_of().over(values)) - exact) <= sum_bound(values)


@given(st.lists(floats), cuts)
def test_a_merged_sum_of_floats_keeps_its_error_bound(values: list[float], at: list[int]) -> None:
    exact = sum(map(Fraction, values))
    for left in (True, False):
        result = merged(sum_of(), split(values, at), left)
        assert abs(Fraction(result) - exact) <= sum_bound(values)


def test_cancellation_does_not_lose_the_small_values() -> None:
    values = [1e16, 1.0, -1e16, 1e-3]
    assert sum_of().over(values) == 1.001
    assert mean().over(values) == 1.001 / 4
    assert merged(sum_of(), [[1e16, 1.0], [-1e16, 1e-3]], left=True) == 1.001


@given(st.lists(floats, min_size=1))
def test_the_mean_of_floats_is_that_of_statistics(values: list[float]) -> None:
    exact = Fraction(statistics.mean(map(Fraction, values)))
    bound = sum_bound(values) / len(values) + 2 * EPS * float(abs(exact))
    assert abs(Fraction(mean().over(values)) - exact) <= bound


@given(st.lists(st.one_of(st.none(), ints)), st.integers(0, 3), st.sampled_from([0, 10**9]))
def test_the_variance_is_that_of_exact_arithmetic(values: list[Any], ddof: int, shift: int) -> None:
    exact = [Fraction(value + shift) for value in known(values)]
    result = variance(ddof=ddof).over([v if v is None else float(v + shift) for v in values])
    if len(exact) <= ddof:
        assert result is None
        return
    centre = sum(exact) / len(exact)
    expected = sum((value - centre) ** 2 for value in exact) / (len(exact) - ddof)
    assert result == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    deviation = stddev(ddof=ddof).over([v if v is None else float(v + shift) for v in values])
    assert deviation == math.sqrt(result)


@given(st.lists(st.fractions(), min_size=2))
def test_fractions_stay_exact(values: list[Fraction]) -> None:
    assert sum_of().over(values) == sum(values)
    assert mean().over(values) == statistics.mean(values)
    assert variance().over(values) == statistics.variance(values)


def test_decimals_stay_decimals() -> None:
    values = [Decimal("0.1"), Decimal("0.2"), Decimal("0.6")]
    assert sum_of().over(values) == Decimal("0.9")
    assert mean().over(values) == Decimal("0.3")
    assert variance(ddof=0).over([Decimal(1), Decimal(3)]) == Decimal(1)


@given(st.lists(st.one_of(st.none(), st.tuples(small, st.integers()))))
def test_min_and_max_are_the_first_of_the_best(values: list[Any]) -> None:
    class Card:
        def __init__(self, rank: int, serial: int) -> None:
            self.rank, self.serial = rank, serial

        def __lt__(self, other: Card) -> bool:
            return self.rank < other.rank

    cards = [None if value is None else Card(*value) for value in values]
    assert min_of().over(cards) is min(known(cards), default=None)
    expected = max(known(cards), key=lambda card: card.rank, default=None)
    assert max_of().over(cards) is expected
    assert [max_of().over(cards)] == (top_k(1).over(cards) or [None])
    assert [min_of().over(cards)] == (top_k(1, largest=False).over(cards) or [None])


@given(st.lists(maybe))
def test_first_and_last_skip_none(values: list[Any]) -> None:
    assert first().over(values) == next(iter(known(values)), None)
    assert last().over(values) == next(reversed(known(values)), None)


@given(st.lists(maybe), st.one_of(st.none(), st.integers(1, 5)))
def test_collect_keeps_the_first_ones_and_none_too(values: list[Any], limit: int | None) -> None:
    assert collect(limit=limit).over(values) == values[:limit]


@given(st.lists(st.one_of(st.none(), small, st.just(NAN), st.builds(float, st.just("nan")))))
def test_distinct_sees_each_value_once_and_one_nan(values: list[Any]) -> None:
    numbers = {value for value in known(values) if value == value}
    nans = any(value != value for value in known(values))
    result = distinct().over(values)
    assert {value for value in result if value == value} == numbers
    assert len(result) == count_distinct().over(values) == len(numbers) + nans


@given(st.lists(st.tuples(st.one_of(st.none(), small), st.integers())), st.integers(1, 6), cuts)
def test_top_k_is_a_stable_sort_cut_off(records: list[Any], k: int, at: list[int]) -> None:
    ranked = [record for record in records if record[0] is not None]
    for largest in (True, False):
        expected = sorted(ranked, key=operator.itemgetter(0), reverse=largest)[:k]
        aggregate = top_k(k, key=0, largest=largest)
        assert aggregate.over(records) == expected
        for left in (True, False):
            assert merged(aggregate, split(records, at), left) == expected
        values = top_k(k, 1, key=0, largest=largest).over(records)
        assert values == [record[1] for record in expected]


@given(st.lists(st.one_of(small, st.just(NAN))), st.integers(1, 4), cuts)
def test_nan_leads_the_top_in_both_directions(values: list[float], k: int, at: list[int]) -> None:
    nans = [value for value in values if value != value]
    numbers = [value for value in values if value == value]
    for largest in (True, False):
        expected = (nans + sorted(numbers, reverse=largest))[:k]
        assert same(top_k(k, largest=largest).over(values), expected)
        assert same(merged(top_k(k, largest=largest), split(values, at), True), expected)


@pytest.mark.parametrize("nan_at", [0, 1, 2])
@pytest.mark.parametrize("make", [sum_of, mean, variance, stddev, min_of, max_of])
def test_nan_spoils_what_is_calculated(make: Any, nan_at: int) -> None:
    values = [1.0, 2.0]
    values.insert(nan_at, NAN)
    assert math.isnan(make().over(values))
    assert math.isnan(merged(make(), [values[:1], values[1:]], left=True))


def test_an_infinite_sum_is_infinite_and_two_that_cancel_are_nan() -> None:
    assert sum_of().over([1.0, math.inf, 2.0]) == math.inf
    assert sum_of().over([1e308, 1e308]) == math.inf
    assert mean().over([-math.inf, 5]) == -math.inf
    assert math.isnan(sum_of().over([math.inf, -math.inf]))
    assert merged(sum_of(), [[math.inf], [1.0], [2.0]], left=False) == math.inf


# --- quantiles --------------------------------------------------------------------------------


@given(st.lists(ints, min_size=1, max_size=100), cuts)
def test_quantiles_of_few_values_are_exact(values: list[int], at: list[int]) -> None:
    qs = (0, 0.25, 0.5, 1)
    ordered = sorted(values)
    expected = {q: ordered[max(math.ceil(q * len(values)) - 1, 0)] for q in qs}
    assert quantiles(qs=qs).over(values) == expected
    assert merged(quantiles(qs=qs), split(values, at), left=True) == expected


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("step", [1, 7919])
def test_the_rank_error_of_quantiles_is_bounded(parts: int, step: int) -> None:
    n, qs = 20_000, tuple(i / 20 for i in range(21))
    values = [i * step % n for i in range(n)]  # each of 0 … n-1 once: a value is its rank
    result = merged(quantiles(qs=qs), [values[i::parts] for i in range(parts)], left=True)
    # Three times the error at 99 % confidence lies beyond seven standard deviations.
    assert all(abs(value / n - q) < 3 * 0.0133 for q, value in result.items())
    assert (result[0], result[1]) == (0, n - 1)


def test_quantiles_of_nothing_are_none_and_of_nan_are_nan() -> None:
    assert quantiles().over([None]) == {0.5: None, 0.95: None, 0.99: None}
    assert same(quantiles(qs=[0.5]).over([1.0, NAN, 2.0]), {0.5: NAN})
    assert same(merged(quantiles(qs=[0.5]), [[1.0], [NAN]], left=True), {0.5: NAN})


def test_quantiles_say_how_to_get_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(ImportError, match=r"pip install 'sage-dataflow\[sketches\]'"):
        quantiles("delay")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"qs": ()}, ValueError, "at least one rank"),
        ({"qs": (0.5, 1.5)}, ValueError, "1.5 is not from 0 to 1"),
        ({"qs": (NAN,)}, ValueError, "nan is not from 0 to 1"),
        ({"qs": 0.5}, TypeError, r"one in a tuple: \(0.5,\)"),
        ({"qs": ("0.5",)}, TypeError, "is not a number"),
        ({"k": 7}, ValueError, "k must be from 8 to 65535"),
    ],
)
def test_quantiles_refuse_what_is_no_rank(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        quantiles("delay", **arguments)


# --- laws of all ------------------------------------------------------------------------------


@every
@given(values=st.lists(maybe, max_size=40), at=cuts)
def test_merging_parts_gives_the_whole(make: Any, values: list[Any], at: list[int]) -> None:
    records = [{"delay": value} for value in values]
    aggregate = make("delay")
    whole = aggregate.over(records)
    for left in (True, False):
        assert same(merged(aggregate, split(records, at), left), whole)


@every
@given(before=st.lists(maybe, max_size=20), after=st.lists(maybe, max_size=20))
def test_an_accumulator_can_be_pickled_and_copied_at_any_time(
    make: Any, before: list[Any], after: list[Any]
) -> None:
    aggregate = make()
    whole = aggregate.over(before + after)
    for duplicate in (copy.deepcopy, through_pickle):
        original = fold(aggregate, before)
        twin = duplicate(original)
        for value in after:
            twin = aggregate.add(twin, value)
        assert same(aggregate.get_result(twin), whole)
        assert same(aggregate.get_result(original), aggregate.over(before))


@every
def test_reading_a_result_changes_nothing_and_shares_nothing(make: Any) -> None:
    aggregate = make()
    accumulator = fold(aggregate, [3, 1, 2])
    result = aggregate.get_result(accumulator)
    kept = copy.deepcopy(result)
    if hasattr(result, "clear"):
        result.clear()
    assert same(aggregate.get_result(accumulator), kept)
    again = aggregate.get_result(accumulator)
    aggregate.add(accumulator, 9)
    assert same(again, kept)


@every
def test_accumulators_of_two_keys_share_nothing(make: Any) -> None:
    aggregate = make()
    one, other = fold(aggregate, [1, 2]), aggregate.create_accumulator()
    assert same(aggregate.get_result(other), aggregate.over([]))
    assert same(aggregate.get_result(one), aggregate.over([1, 2]))


@every
@pytest.mark.parametrize("field", [None, "delay", "at.gate", 1, delay_of])
def test_an_aggregator_can_be_pickled_whatever_its_field(make: Any, field: Any) -> None:
    records: list[Any] = (
        [{"delay": 3, "at": {"gate": 3}, 1: 3}] * 2 if field is not None else [3, 3]
    )
    aggregate = make(field)
    aggregate.ctx = SimpleNamespace(unpicklable=lambda: None)
    twin = pickle.loads(pickle.dumps(aggregate))
    assert twin.ctx is None
    assert repr(twin) == repr(aggregate)
    assert same(twin.over(records), aggregate.over(records))
    assert same(copy.deepcopy(twin).over(records), aggregate.over(records))


class MeanDelay(Mean):
    """An aggregator of a user, with a constructor of its own."""

    def __init__(self) -> None:
        super().__init__("delay")
        self.unit = "min"


def test_a_subclass_with_its_own_constructor_can_be_pickled() -> None:
    twin = pickle.loads(pickle.dumps(MeanDelay()))
    assert twin.over([{"delay": 3}]) == 3
    assert twin.unit == "min"


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (count(), 0),
        (sum_of(), 0),
        (mean(), None),
        (variance(), None),
        (stddev(ddof=0), None),
        (min_of(), None),
        (max_of(), None),
        (first(), None),
        (last(), None),
        (collect(), []),
        (distinct(), set()),
        (count_distinct(), 0),
        (top_k(2), []),
        (multi(n=count(), m=mean()), {"n": 0, "m": None}),
    ],
    ids=repr,
)
def test_the_result_of_nothing(aggregate: Any, expected: Any) -> None:
    assert aggregate.over([]) == expected
    assert merged(aggregate, [[], [], []], left=True) == expected


@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("x", {"x": 3}),
        ("x", SimpleNamespace(x=3)),
        ("pos.x", {"pos": SimpleNamespace(x=3)}),
        (-1, (1, 2, 3)),
        (lambda record: record + 1, 2),
        (float, "3"),
        (None, 3),
    ],
)
def test_a_field_is_a_name_a_path_an_index_a_callable_or_the_record(
    field: Any, record: Any
) -> None:
    assert mean(field).over([record]) == 3


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [True, 3.5, ("a", "b")])
@every
def test_what_cannot_be_a_field_is_refused_at_once(make: Any, field: Any) -> None:
    with pytest.raises(FunctionError, match=r"\(\) takes as a field a name, a dotted path"):
        make(field)


def test_a_key_that_cannot_be_a_field_is_refused_at_once() -> None:
    with pytest.raises(FunctionError, match=r"top_k\(\) takes as a field"):
        top_k(3, key=3.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (sum_of, [3, "late"], r"sum_of\(field='v'\) cannot add 'late' \(str\) to 3 \(int\)"),
        (mean, [3, "late"], r"mean\(field='v'\) cannot add 'late' \(str\) to 3 \(int\)"),
        (
            variance,
            [3, "late"],
            r"variance\(field='v', ddof=1\) cannot take 'late' \(str\) together",
        ),
        (min_of, [3, "late"], r"min_of\(field='v'\) cannot compare 'late' \(str\) with 3 \(int\)"),
        (max_of, [3, "late"], r"max_of\(field='v'\) cannot compare 'late' \(str\) with 3 \(int\)"),
        (EVERY["top_k"], [3, "late"], r"top_k\(k=3, field='v', largest=True\) cannot rank 'late'"),
        (
            distinct,
            [3, [1]],
            r"distinct\(field='v'\) cannot tell \[1\] \(list\) from others: .*hash",
        ),
        (quantiles, [3, "late"], r"quantiles\(field='v', .*\) cannot add 'late' \(str\): .*float"),
        (quantiles, [3, 10**400], r"must fit a float"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_leaves_no_trace(
    make: Any, values: list[Any], message: str
) -> None:
    aggregate = make("v")
    good, bad = ({"v": value} for value in values)
    accumulator = fold(aggregate, [good])
    with pytest.raises(TypeError, match=message) as caught:
        aggregate.add(accumulator, bad)
    assert caught.value.__cause__ is not None
    assert same(aggregate.get_result(accumulator), aggregate.over([good]))


def test_a_missing_field_is_an_error_and_not_none() -> None:
    with pytest.raises(KeyError, match="no field 'delay'"):
        mean("delay").over([{"dealy": 3}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: top_k(0), r"top_k\(k=0\): k must be at least 1"),
        (lambda: collect(limit=0), r"collect\(limit=0\): limit must be at least 1"),
        (lambda: variance(ddof=-1), r"variance\(ddof=-1\): ddof must be at least 0"),
        (multi, r"multi\(\) needs at least one part"),
    ],
)
def test_a_size_out_of_range_is_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("k", ["3", 3.0, True])
def test_a_size_that_is_no_int_is_refused_at_once(k: Any) -> None:
    with pytest.raises(TypeError, match="k must be an int"):
        top_k(k)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (sum, r"did you mean total=sum_of\(\)\?"),
        (count, r"did you mean total=count\(\)\?"),
        (Mean, r"did you mean total=Mean\(\)\?"),
        ("delay", r"multi\(total=...\) needs an aggregate, not 'delay' \(str\)$"),
    ],
)
def test_multi_refuses_what_is_no_aggregate(part: Any, message: str) -> None:
    with pytest.raises(FunctionError, match=message):
        multi(total=part)


# --- multi ------------------------------------------------------------------------------------


class Product(AggregateFunction[int, int, int]):
    """An aggregate of a user, which notes its life."""

    def __init__(self, life: list[Any], fails: bool = False) -> None:
        super().__init__()
        self.life, self.fails = life, fails

    def open(self) -> None:
        self.life.append(self.ctx)

    def close(self) -> None:
        self.life.append("closed")
        if self.fails:
            raise OSError("cannot close")

    def create_accumulator(self) -> int:
        return 1

    def add(self, accumulator: int, data: int) -> int:
        return accumulator * data

    def get_result(self, accumulator: int) -> int:
        return accumulator


def test_multi_takes_aggregates_of_users_and_itself_in_order() -> None:
    aggregate = multi(product=Product([]), both=multi(low=min_of(), high=max_of()))
    result = aggregate.over([2, 3, 4])
    assert result == {"product": 24, "both": {"low": 2, "high": 4}}
    assert list(result) == ["product", "both"]


def test_multi_opens_its_parts_with_its_context_and_closes_all_of_them() -> None:
    life: list[Any] = []
    aggregate = multi(a=Product(life), b=Product(life, fails=True), c=count())
    context: Any = SimpleNamespace()
    aggregate.ctx = context
    aggregate.open()
    assert life == [context, context]
    with pytest.raises(OSError, match="cannot close"):
        aggregate.close()
    assert life[2:] == ["closed", "closed"]


def test_messages_show_an_aggregate_as_it_is_written() -> None:
    aggregate = multi(n=count(), worst=top_k(2, "id", key=delay_of))
    shown = "multi(n=count(), worst=top_k(k=2, field='id', key=delay_of, largest=True))"
    assert repr(aggregate) == shown


def test_all_that_is_public_is_named() -> None:
    public = {name for name, value in vars(aggregators).items() if callable(value)}
    assert public | {"Field"} == set(aggregators.__all__)
