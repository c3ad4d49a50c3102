"""Random pipelines do what a naive interpreter over lists says, record for record and count for count.

A program is built twice from the same random choices: once on streams, once as lists. The results
are compared as sequences where the order is guaranteed (along a branch that no union or connect has
mixed) and as multisets elsewhere; then the figures of every operator are compared.

Records are chosen to be awkward (`None`, `""`, `False`, `0`), and functions give equal results for
equal records, so that `0 == False` needs no special care.
"""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage import (
    AggregateFunction,
    BaseCoMapFunction,
    FlatMapFunction,
    LocalEnvironment,
    OperatorError,
)

TOO_MANY = 2000
NO_KEY = object()


# ---- functions over awkward records


def num(x):
    if x is None:
        return 3
    if isinstance(x, str):
        return 4
    if isinstance(x, tuple):
        return sum(map(num, x)) + len(x)
    return int(x)


MAPS = [
    lambda x: num(x) * 2 % 7,
    lambda x: None if num(x) % 3 == 0 else x,
    lambda x: "" if num(x) % 2 else 0,
    lambda x: False if num(x) % 4 == 1 else (x,) if num(x) < 50 else 7,
    lambda x: x,
]
FILTERS = [
    lambda x: num(x) % 2 == 0,
    lambda x: x is not None,
    lambda x: x,
    lambda x: [] if num(x) % 3 == 0 else "yes",
]


def _generate(x):
    for i in range(num(x) % 4):
        yield (None, "", False, i)[i]


class Collects(FlatMapFunction):
    def execute(self, data):
        for _ in range(num(data) % 3):
            self.collect(data)


class CollectsAndYields(FlatMapFunction):
    def execute(self, data):
        self.collect(data)
        yield 0
        self.collect(None)


FLAT_MAPS = [
    (lambda x: [x, x], lambda x: [x, x]),
    (lambda x: (x,) * (num(x) % 3), lambda x: [x] * (num(x) % 3)),
    (_generate, lambda x: list(_generate(x))),
    (lambda x: [], lambda x: []),
    (lambda x: iter(range(num(x) % 5)), lambda x: list(range(num(x) % 5))),
    (lambda x: {"a": 1, "b": 2}, lambda x: ["a", "b"]),
    (lambda x: [None] * 70, lambda x: [None] * 70),
    (lambda x: (i for i in range(70)), lambda x: list(range(70))),
    (Collects, lambda x: [x] * (num(x) % 3)),
    (CollectsAndYields, lambda x: [x, 0, None]),
]
KEYS = [
    lambda x: num(x) % 3,
    lambda x: x,
    lambda x: None if num(x) % 2 else "",
    lambda x: (False, 0, "", None)[num(x) % 4],
]
REDUCES = [lambda a, b: (num(a) * 3 + num(b)) % 11, lambda a, b: b]
COMMUTATIVE = lambda a, b: (num(a) + num(b)) % 11  # noqa: E731
BATCHES = [
    lambda batch: [num(x) for x in batch],
    lambda batch: (x for x in batch if num(x) % 2),
    lambda batch: [y for x in batch for y in (x, None)],
]


def route(x, ctx):
    ctx.output("low", x)
    if num(x) % 3 == 0:
        return None
    if num(x) % 3 == 1:
        ctx.output("high", None)
        return [x, ctx.key]
    return _routed(x, ctx)


def _routed(x, ctx):
    yield x
    ctx.output("high", x)
    yield False


class Total(AggregateFunction):
    def create_accumulator(self):
        return [0]

    def add(self, accumulator, data):
        accumulator[0] += num(data)
        return accumulator

    def get_result(self, accumulator):
        return accumulator[0]


class Tag(BaseCoMapFunction):
    def map0(self, data):
        return (0, num(data))

    def map1(self, data):
        return (1, data)


class BadRecordError(Exception):
    pass


def bad(x):
    return num(x) % 5 == 4


def strict(function):
    """Return `function` as one that fails on some records."""

    def checked(x, *more):
        if bad(x):
            raise BadRecordError(x)
        return function(x, *more)

    return checked


def fails_late(x):
    yield x
    if bad(x):
        raise BadRecordError(x)
    yield None


class StrictTotal(Total):
    def add(self, accumulator, data):
        if bad(data):
            raise BadRecordError(data)
        return super().add(accumulator, data)


def strict_reduce(a, b):
    if bad(b):
        raise BadRecordError(b)
    return (num(a) * 3 + num(b)) % 11


class StrictTag(Tag):
    def map1(self, data):
        if bad(data):
            raise BadRecordError(data)
        return (1, data)


# ---- the model


@dataclass
class Line:
    """A stream and what the model says of it.

    Attributes:
        stream: The stream of the program.
        records: Pairs of value and key, in order.
        ordered: Whether that order is guaranteed.
        keyed: Whether the keyed operators may follow.
        read: Whether somebody reads it.
    """

    stream: object
    records: list
    ordered: bool = True
    keyed: bool = False
    read: bool = False

    @property
    def values(self):
        return [value for value, _ in self.records]


@dataclass
class Figures:
    records_in: int
    records_out: int
    errors: int = 0
    dropped: int = 0
    unrouted: int = 0


@dataclass
class Program:
    """Builds the streams and the lists side by side."""

    env: LocalEnvironment
    policy: str
    lines: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    letters: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    count: int = 0

    @property
    def failing(self):
        return self.policy != "fail"

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def add(self, stream, values, like=None, **more):
        ordered = True if like is None else like.ordered
        records = [(value, NO_KEY) for value in values]
        self.lines.append(Line(stream, records, **{"ordered": ordered, **more}))

    def failed(self, name, values):
        self.letters += [(name, value) for value in values]

    def source(self, kind, values):
        name = self.name("source")
        makers = {
            "list": lambda: self.env.from_batch(values, name=name),
            "tuple": lambda: self.env.from_batch(tuple(values), name=name),
            "iterable": lambda: self.env.from_batch(lambda: iter(values), name=name),
            "live": lambda: self.env.from_source(lambda: iter(values), name=name),
        }
        self.add(makers[kind](), values)
        self.figures[name] = Figures(0, len(values))

    def record_wise(self, kind, line, functions, outputs_of, key_stays=False):
        """Append an operator that takes each record on its own; `outputs_of` may raise."""
        name = self.name(kind)
        line.read = True
        records, failed, dropped = [], [], 0
        for value, key in line.records:
            try:
                before = len(records)
                # What came before a failure has gone out; `extend` keeps it.
                records.extend((item, key if key_stays else NO_KEY) for item in outputs_of(value))
                dropped += kind == "filter" and len(records) == before
            except BadRecordError:
                failed.append(value)
        self.failed(name, failed)
        stream = getattr(line.stream, kind)(functions, name=name)
        self.lines.append(Line(stream, records, line.ordered, keyed=line.keyed and key_stays))
        self.figures[name] = Figures(len(line.records), len(records), len(failed), dropped)

    def map(self, line, other, n):
        f = MAPS[n % len(MAPS)]
        f = strict(f) if self.failing else f
        self.record_wise("map", line, f, lambda x: [f(x)])

    def filter(self, line, other, n):
        f = FILTERS[n % len(FILTERS)]
        f = strict(f) if self.failing else f
        self.record_wise("filter", line, f, lambda x: [x] if f(x) else [], key_stays=True)

    def flat_map(self, line, other, n):
        if len(line.records) > TOO_MANY // 70:
            n = n % 3
        f, model = FLAT_MAPS[n % len(FLAT_MAPS)]
        if self.failing and n % 4 == 1:
            f = model = fails_late
        elif self.failing and not isinstance(f, type):
            f, model = strict(f), strict(model)
        self.record_wise("flat_map", line, f, model)

    def key_by(self, line, other, n):
        name, f = self.name("key_by"), KEYS[n % len(KEYS)]
        f = strict(f) if self.failing else f
        line.read = True
        good = [v for v in line.values if not (self.failing and bad(v))]
        failed = [v for v in line.values if self.failing and bad(v)]
        self.failed(name, failed)
        stream = line.stream.key_by(f, name=name)
        records = [(v, f(v)) for v in good]
        self.lines.append(Line(stream, records, line.ordered, keyed=True))
        self.figures[name] = Figures(len(line.records), len(records), len(failed))

    def keyed(self, line, other, n):
        """Append a key_by and what keyed streams are for, sometimes twice."""
        self.key_by(line, other, n % 7)
        keyed = self.lines[-1]
        for which in (n, n // 5)[: 1 + n % 2]:
            getattr(self, KEYED[which % len(KEYED)])(keyed, other, n // 3)

    def fold(self, line, stream, name, fold, emit):
        """Append a keyed fold; `fold(state, key, value)` returns the state and what goes out."""
        states, out, failed = {}, [], []
        for value, key in line.records:
            try:
                state, result = fold(states.get(key), key, value)
            except BadRecordError:
                failed.append(value)
            else:
                states[key] = (state, result)
                out.append(result)
        if emit == "final":
            out = [result for _, result in states.values()]
        line.read = True
        self.failed(name, failed)
        self.add(stream, out, line)
        self.figures[name] = Figures(len(line.records), len(out), len(failed))

    def reduce(self, line, other, n):
        emit = "final" if n % 2 or not line.ordered else "update"
        name = self.name("reduce")
        f = REDUCES[n % len(REDUCES)] if line.ordered else COMMUTATIVE
        if self.failing and line.ordered:
            f = strict_reduce

        def fold(state, key, value):
            result = value if state is None else f(state[0], value)
            return result, result

        stream = line.stream.reduce(f, emit=emit, name=name)
        self.fold(line, stream, name, fold, emit)

    def aggregate(self, line, other, n):
        emit = "final" if n % 2 or not line.ordered else "update"
        name = self.name("aggregate")
        function = StrictTotal() if self.failing else Total()

        def fold(state, key, value):
            accumulator = function.create_accumulator() if state is None else state[0]
            accumulator = function.add(accumulator, value)
            return accumulator, (key, accumulator[0])

        cls = type(function)
        stream = line.stream.aggregate(cls, emit=emit, name=name)
        self.fold(line, stream, name, fold, emit)

    def key_count(self, line, other, n):
        emit, name = ("update", "final")[n % 2], self.name("count")

        def fold(state, key, value):
            count = 1 if state is None else state[0] + 1
            return count, (key, count)

        stream = line.stream.count(emit=emit, name=name)
        self.fold(line, stream, name, fold, emit)

    def key_sum(self, line, other, n):
        emit, name = "final" if n % 2 or not line.ordered else "update", self.name("sum")

        def fold(state, key, value):
            total = (0 if state is None else state[0]) + num(value)
            return total, (key, total)

        stream = line.stream.sum(num, emit=emit, name=name)
        self.fold(line, stream, name, fold, emit)

    def distinct(self, line, other, n):
        name = self.name("distinct")
        line.read = True
        seen, out = set(), []
        if line.keyed and not line.ordered:
            return self.map(line, other, n)
        if line.keyed:
            records, stream = line.records, line.stream.distinct(name=name)
        else:
            records, stream = [(v, v) for v in line.values], line.stream.distinct(name=name)
            self.count_key_step(line)
        for value, key in records:
            if key not in seen:
                seen.add(key)
                out.append(value)
        self.add(stream, out, line)
        dropped = len(records) - len(out)
        self.figures[name] = Figures(len(records), len(out), dropped=dropped)
        return None

    def count_key_step(self, line):
        """`distinct` without a key finds one first, by an operator of its own."""
        made = sum(1 for name in self.figures if name.startswith("distinct key"))
        name = f"distinct key-{made + 1}" if made else "distinct key"
        self.figures[name] = Figures(len(line.records), len(line.records))

    def union(self, line, other, n):
        if len(line.records) + len(other.records) > TOO_MANY:
            return
        line.read = other.read = True
        union = line.stream.union(other.stream)
        self.add(union, line.values + other.values, ordered=False)

    def split(self, line, other, n):
        name = self.name("split")
        tags = [("a", "b", "c")[num(v) % 3] for v in line.values if not (self.failing and bad(v))]
        good = [v for v in line.values if not (self.failing and bad(v))]
        failed = [v for v in line.values if self.failing and bad(v)]
        self.failed(name, failed)
        line.read = True
        f = lambda x: ("a", "b", "c")[num(x) % 3]  # noqa: E731
        branches = line.stream.split(strict(f) if self.failing else f, name=name)
        known = [("a",), ("a", "b"), ("c", "a"), ()][n % 4]
        for tag in known:
            values = [v for v, t in zip(good, tags, strict=True) if t == tag]
            self.add(branches[tag], values, line)
        routed = sum(t in known for t in tags)
        self.figures[name] = Figures(
            len(line.records), routed, len(failed), unrouted=len(tags) - routed
        )

    def process(self, line, other, n):
        name = self.name("process")
        line.read = True
        f = strict(route) if self.failing else route
        main, low, high, failed = [], [], [], []
        for value, key in line.records:
            if self.failing and bad(value):
                failed.append(value)
                continue
            low.append(value)
            if num(value) % 3 == 1:
                high.append(None)
                main += [value, None if key is NO_KEY else key]
            elif num(value) % 3 == 2:
                high.append(value)
                main += [value, False]
        self.failed(name, failed)
        stream = line.stream.process(f, name=name)
        self.add(stream, main, line)
        unrouted = 0
        if n % 2:
            self.add(stream.side_output("low"), low, line)
        else:
            unrouted += len(low)
        if n % 3:
            self.add(stream.side_output("high"), high, line)
        else:
            unrouted += len(high)
        self.figures[name] = Figures(len(line.records), len(main), len(failed), unrouted=unrouted)

    def connect(self, line, other, n):
        if len(line.records) + len(other.records) > TOO_MANY:
            return
        name, function = self.name("comap"), StrictTag() if self.failing else Tag()
        line.read = other.read = True
        failed = [v for v in other.values if self.failing and bad(v)]
        out = [function.map0(v) for v in line.values]
        out += [function.map1(v) for v in other.values if not (self.failing and bad(v))]
        self.failed(name, failed)
        stream = line.stream.connect(other.stream).comap(type(function), name=name)
        self.add(stream, out, ordered=False)
        received = len(line.records) + len(other.records)
        self.figures[name] = Figures(received, len(out), len(failed))

    def map_batch(self, line, other, n):
        name, f = self.name("map_batch"), BATCHES[n % len(BATCHES)]
        line.read = True
        out = list(f(line.values))
        self.add(line.stream.map_batch(f, name=name), out, line)
        self.figures[name] = Figures(len(line.records), len(out))

    def sink(self, line):
        name, got, function_got = self.name("sink"), [], []
        line.read = True
        take = strict(function_got.append) if self.failing else function_got.append
        line.stream.sink(take, name=name)
        got = [v for v in line.values if not (self.failing and bad(v))]
        failed = [v for v in line.values if self.failing and bad(v)]
        self.failed(name, failed)
        self.figures[name] = Figures(len(line.records), 0, len(failed))
        self.outputs.append((name, line.ordered, got, function_got))


ANYWHERE = ["map", "filter", "flat_map", "key_by", "union", "split", "process", "connect"]
ANYWHERE += ["map_batch", "distinct", "keyed", "keyed", "keyed"]
KEYED = ["reduce", "aggregate", "key_count", "key_sum", "distinct", "filter", "process"]

values = st.one_of(st.integers(-5, 60), st.sampled_from([None, "", False, 0]))
sources = st.tuples(
    st.sampled_from(["list", "list", "tuple", "iterable", "live"]), st.lists(values, max_size=14)
)
steps = st.tuples(
    st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.booleans()
)
plans = st.tuples(
    st.lists(sources, min_size=1, max_size=3), st.lists(steps, min_size=1, max_size=12)
)
batch_sizes = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 1024])


def build(plan, batch_size, policy):
    starts, choices = plan
    env = LocalEnvironment("model", {"batch_size": batch_size, "on_error": policy})
    program = Program(env, policy)
    for kind, records in starts:
        program.source(kind, records)
    for first, second, which, n, also_sunk in choices:
        # Late lines are preferred, so that programs grow long and not only wide.
        line = program.lines[-1 - min(first % 5, len(program.lines) - 1)]
        other = program.lines[second % len(program.lines)]
        kinds = KEYED if line.keyed else ANYWHERE
        getattr(program, kinds[which % len(kinds)])(line, other, n)
        if also_sunk and not line.keyed:
            program.sink(line)
    for line in list(program.lines):
        if not line.read:
            program.sink(line)
    return program


def check_outputs(program):
    for name, ordered, expected, got in program.outputs:
        if ordered:
            assert got == expected, name
        else:
            assert Counter(got) == Counter(expected), name


def check_figures(program, metrics):
    for name, expected in program.figures.items():
        got = metrics[name]
        found = Figures(got.records_in, got.records_out, got.errors, got.dropped, got.unrouted)
        assert found == expected, name


quick = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@quick
@given(plans, batch_sizes)
def test_random_pipelines_agree_with_lists(plan, batch_size):
    program = build(plan, batch_size, "fail")
    result = program.env.execute()
    check_outputs(program)
    check_figures(program, result.metrics)


@quick
@given(plans, batch_sizes)
def test_skipped_records_are_counted_where_they_failed(plan, batch_size):
    program = build(plan, batch_size, "skip")
    program.env.logger.disabled = True
    result = program.env.execute()
    check_outputs(program)
    check_figures(program, result.metrics)


@quick
@given(plans, batch_sizes)
def test_dead_letters_name_every_record_that_failed_and_where(plan, batch_size):
    program = build(plan, batch_size, "dead_letter")
    letters = []
    program.env.dead_letters().sink(letters.append, on_error="fail")
    result = program.env.execute()
    check_outputs(program)
    check_figures(program, result.metrics)
    got = Counter((letter.operator, letter.value) for letter in letters)
    assert got == Counter(program.letters)
    assert all(isinstance(letter.error, BadRecordError) for letter in letters)
    assert all("BadRecordError" in letter.traceback for letter in letters)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(values, max_size=20), batch_sizes)
def test_the_first_bad_record_fails_the_job_and_those_before_it_went_through(records, batch_size):
    env = LocalEnvironment("model", {"batch_size": batch_size})
    got = []
    env.from_batch(records).map(strict(lambda x: x), name="strict").sink(got.append)
    good = next((i for i, x in enumerate(records) if bad(x)), None)
    if good is None:
        env.execute()
        assert got == records
        return
    with pytest.raises(OperatorError) as caught:
        env.execute()
    assert caught.value.operator == "strict"
    assert caught.value.record == records[good]
    assert isinstance(caught.value.__cause__, BadRecordError)
    assert got == records[:good]
