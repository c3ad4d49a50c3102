"""Programs as users write them, with the types that a checker must find; read by mypy, never run."""

from collections.abc import Iterable, Iterator
from typing import Any, assert_type

from sage import (
    AggregateFunction,
    BatchFunction,
    BroadcastProcessFunction,
    BroadcastState,
    CoFlatMapFunction,
    Collected,
    CoMapFunction,
    ConnectedStreams,
    CoProcessFunction,
    DataStream,
    DeadLetter,
    FilterFunction,
    FlatMapFunction,
    JobHandle,
    JobResult,
    KeyByFunction,
    KeyedStream,
    KeylessContext,
    LocalEnvironment,
    MapFunction,
    ProcessContext,
    ProcessFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
    SplitStream,
    StopSignal,
)
from sage.connector.collection import CollectionSource

env = LocalEnvironment("typed", {"batch_size": 10})
numbers: DataStream[int] = env.from_collection([1, 2, 3])


def to_text(number: int) -> str:
    return str(number)


def words(text: str) -> list[str]:
    return text.split()


def generate(text: str) -> Iterator[bytes]:
    yield text.encode()


class ToText(MapFunction[int, str]):
    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix

    def execute(self, data: int) -> str:
        return self.prefix + str(data)


class Even(FilterFunction[int]):
    def execute(self, data: int) -> bool:
        return data % 2 == 0


class Words(FlatMapFunction[str, str]):
    def execute(self, data: str) -> Iterable[str]:
        return data.split()


class Parity(KeyByFunction[int, bool]):
    def execute(self, data: int) -> bool:
        return data % 2 == 0


class Larger(ReduceFunction[int]):
    def execute(self, accumulated: int, data: int) -> int:
        return max(accumulated, data)


class Mean(AggregateFunction[int, tuple[int, int], float]):
    def create_accumulator(self) -> tuple[int, int]:
        return (0, 0)

    def add(self, accumulator: tuple[int, int], data: int) -> tuple[int, int]:
        return (accumulator[0] + data, accumulator[1] + 1)

    def get_result(self, accumulator: tuple[int, int]) -> float:
        return accumulator[0] / accumulator[1]


class Route(ProcessFunction[int, str]):
    def execute(self, data: int, ctx: ProcessContext) -> Iterable[str] | None:
        ctx.output("seen", data)
        return None


class Squares(BatchFunction[int]):
    def __init__(self, number: int = 3) -> None:
        super().__init__()
        self.number = number

    def get_data_iterator(self) -> Iterator[int]:
        return (n * n for n in range(self.number))


class Ticks(SourceFunction[float]):
    def execute(self) -> float | type[StopSignal]:
        return StopSignal


class Plain:
    def get_data_iterator(self) -> Iterator[bytes]:
        return iter([b"a"])


def squares() -> Iterator[int]:
    yield 1


class Tag(CoMapFunction[int, str, str]):
    def map0(self, data: int) -> str:
        return str(data)

    def map1(self, data: str) -> str:
        return data


class Twice(CoFlatMapFunction[int, str, bytes]):
    def flat_map0(self, data: int) -> Iterable[bytes]:
        yield bytes(data)

    def flat_map1(self, data: str) -> list[bytes]:
        return [data.encode()]


class Sides(CoProcessFunction[int, str, bool]):
    def process0(self, data: int, ctx: ProcessContext) -> Iterable[bool] | None:
        return None

    def process1(self, data: str, ctx: ProcessContext) -> Iterable[bool]:
        return [True]


class ByRules(BroadcastProcessFunction[int, str, bool]):
    rules = BroadcastState(str, int)

    def process_element(self, value: int, ctx: ProcessContext) -> Iterable[bool] | None:
        assert_type(self.rules["limit"], int)
        return None

    def process_broadcast_element(self, value: str, ctx: KeylessContext) -> None:
        ctx.apply_to_keyed_state(value, lambda key, state: assert_type(state, str))

    def on_end(self, ctx: KeylessContext) -> list[bool]:
        return [True]


class Lengths(MapFunction[list[str], list[int]]):
    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def execute(self, data: list[str]) -> list[int]:
        return [len(text) + self.offset for text in data]


class Show(SinkFunction[int]):
    def execute(self, data: int) -> None:
        self.logger.info("%s", data)


# sources: what is in a collection, what a callable or a function gives
assert_type(env.from_batch([1, 2]), DataStream[int])
assert_type(env.from_batch("abc", name="letters"), DataStream[str])
assert_type(env.from_batch({"a": 1}), DataStream[str])
assert_type(env.from_batch(range(3)), DataStream[int])
assert_type(env.from_batch(lambda: [1.5]), DataStream[float])
assert_type(env.from_batch(squares), DataStream[int])
assert_type(env.from_batch(Squares), DataStream[int])
assert_type(env.from_batch(Squares, 3, name="squares"), DataStream[int])
assert_type(env.from_batch(Squares(3)), DataStream[int])
assert_type(env.from_batch(Plain), DataStream[bytes])
assert_type(env.from_batch(Plain()), DataStream[bytes])
assert_type(env.from_source(squares), DataStream[int])
assert_type(env.from_source(Ticks), DataStream[float])
assert_type(env.from_source(Ticks(), name="ticks"), DataStream[float])
assert_type(env.from_source(Squares, number=3), DataStream[int])
assert_type(env.from_source(Plain), DataStream[bytes])
assert_type(env.source(Ticks), DataStream[float])
assert_type(env.from_source(CollectionSource(["a"])), DataStream[str])
assert_type(env.from_batch([1]).map(str).filter(bool).collect(), Collected[str])

# map: a lambda, a function, a type, a class with arguments, an instance
assert_type(numbers.map(lambda n: n / 2), DataStream[float])
assert_type(numbers.map(to_text), DataStream[str])
assert_type(numbers.map(to_text, name="text", on_error="skip"), DataStream[str])
assert_type(numbers.map(float), DataStream[float])
assert_type(numbers.map(ToText), DataStream[str])
assert_type(numbers.map(ToText, "no. ", name="text"), DataStream[str])
assert_type(numbers.map(ToText, prefix="no. "), DataStream[str])
assert_type(numbers.map(ToText("no. ")), DataStream[str])

# filter keeps the type
assert_type(numbers.filter(lambda n: n > 1), DataStream[int])
assert_type(numbers.filter(Even), DataStream[int])
assert_type(numbers.filter(Even()), DataStream[int])

# flat_map gives the type of the items
texts = numbers.map(to_text)
assert_type(texts.flat_map(words), DataStream[str])
assert_type(texts.flat_map(generate), DataStream[bytes])
assert_type(texts.flat_map(lambda text: [len(text)]), DataStream[int])
assert_type(texts.flat_map(Words), DataStream[str])
assert_type(texts.flat_map(Words()), DataStream[str])

# process, split, side outputs, dead letters
assert_type(numbers.process(Route), DataStream[str])
assert_type(numbers.process(Route()), DataStream[str])
assert_type(numbers.process(lambda n, ctx: [n, ctx.key]).side_output("seen"), DataStream[Any])
parts = numbers.split(lambda n: "even" if n % 2 == 0 else "odd")
assert_type(parts, SplitStream[int])
assert_type(parts.select("odd"), DataStream[int])
assert_type(parts["even"], DataStream[int])
assert_type(numbers.dead_letters(), DataStream[DeadLetter])
assert_type(env.dead_letters(), DataStream[DeadLetter])

# keys
keyed = numbers.key_by(lambda n: n % 2 == 0)
assert_type(keyed, KeyedStream[int, bool])
assert_type(numbers.key_by(to_text), KeyedStream[int, str])
assert_type(numbers.key_by(Parity), KeyedStream[int, bool])
assert_type(numbers.key_by(Parity()), KeyedStream[int, bool])
assert_type(numbers.key_by("field", 1), KeyedStream[int, Any])
assert_type(keyed.reduce(lambda a, b: a + b), DataStream[int])
assert_type(keyed.reduce(lambda a, b: a + b, emit="final", name="total"), DataStream[int])
assert_type(keyed.reduce(Larger), DataStream[int])
assert_type(keyed.reduce(Larger(), emit="final"), DataStream[int])
assert_type(keyed.aggregate(Mean), DataStream[tuple[bool, float]])
assert_type(keyed.aggregate(Mean(), emit="final"), DataStream[tuple[bool, float]])
assert_type(keyed.count(), DataStream[tuple[bool, int]])
assert_type(keyed.sum(), DataStream[tuple[bool, Any]])
assert_type(keyed.distinct(), DataStream[int])
assert_type(numbers.distinct(), DataStream[int])

# several streams, ends
assert_type(numbers.union(numbers), DataStream[int])
assert_type(numbers.connect(texts), ConnectedStreams)
assert_type(numbers.connect(texts).key_by(lambda r: r, name="key"), ConnectedStreams)
assert_type(numbers.connect(texts).map(Tag), DataStream[str])
assert_type(numbers.connect(texts).comap(Tag(), name="tag"), DataStream[str])
assert_type(numbers.connect(texts).map(str), DataStream[Any])
assert_type(numbers.connect(texts).map(str, len), DataStream[Any])
assert_type(numbers.connect(texts).flat_map(Twice), DataStream[bytes])
assert_type(numbers.connect(texts).process(Sides), DataStream[bool])
assert_type(numbers.connect(texts.broadcast()).process(ByRules), DataStream[bool])
assert_type(texts.map_batch(Lengths, 1, name="lengths"), DataStream[Any])
assert_type(texts.map_batch(len, format="numpy"), DataStream[Any])
assert_type(numbers.sink(print), DataStream[int])
assert_type(numbers.sink(Show), DataStream[int])
assert_type(numbers.inspect(print).name("seen").uid("seen-1"), DataStream[int])
assert_type(numbers.collect(), Collected[int])
assert_type(texts.execute_and_collect(limit=1), Iterator[str])

# a chain from one end to the other
chained = (
    numbers.map(lambda n: n + 1)
    .filter(lambda n: n > 1)
    .map(to_text)
    .flat_map(words)
    .key_by(lambda word: len(word) % 2)
    .reduce(lambda a, b: a + b)
    .map(lambda word: (word, len(word)))
    .collect()
)
assert_type(chained, Collected[tuple[str, int]])
assert_type(chained[0], tuple[str, int])
assert_type(chained[:1], list[tuple[str, int]])
assert_type(list(chained), list[tuple[str, int]])

# jobs
assert_type(env.execute(), JobResult)
assert_type(env.execute(timeout=5.0, progress=False), JobResult)
assert_type(env.execute(live=True), JobResult)
assert_type(env.serve_metrics(9464).port, int)
assert_type(env.submit(), str)
assert_type(env.submit_async(), JobHandle)
assert_type(env.job, JobHandle | None)
assert_type(env.wait()["status"] == "success", bool)


async def wait_for(job: JobHandle) -> JobResult:
    return await job
