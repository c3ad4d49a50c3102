"""Where subtasks are, what joins them, and which records go where."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.sources import SplitSource
from sage import GraphError, LocalEnvironment
from sage.dataflow.graph.execution_graph import Exchange, build_execution_graph
from sage.dataflow.graph.stream_graph import Edge, build_stream_graph
from sage.dataflow.graph.transformation import Upstream
from sage.dataflow.key_group import group_range, key_group, subtask_of
from sage.dataflow.operator.source import ReadSource
from sage.kernel.runtime.exchange.routing import KeyPlaces, make_router


def lay_out(build, parallelism=2, splits=1, max_parallelism=None):
    """Return the layout of what `build(env, stream)` makes of a source with some splits."""
    env = LocalEnvironment("layout", {"parallelism": parallelism})
    source = SplitSource(**{f"s{i}": [] for i in range(splits)})
    build(env, env.from_source(source, name="source"))
    graph = build_stream_graph("layout", env.pipeline, env._settings)
    names = {
        node.id: node.operator.source.list_splits()
        for node in graph.nodes.values()
        if isinstance(node.operator, ReadSource)
    }
    return build_execution_graph(graph, names, max_parallelism)


def slots(layout):
    return {node.name: layout.slots[node.id] for node in layout.stream_graph.nodes.values()}


def ways(layout):
    """Return how records are spread between the operators, by their names."""
    nodes = layout.stream_graph.nodes
    return {
        (nodes[e.edge.source].name, nodes[e.edge.target].name): e.spread for e in layout.exchanges
    }


@pytest.mark.parametrize(
    ("splits", "parallelism", "subtasks"), [(1, 3, 1), (2, 3, 2), (3, 3, 3), (7, 3, 3), (0, 2, 1)]
)
def test_a_source_has_no_more_subtasks_than_splits(splits, parallelism, subtasks):
    layout = lay_out(lambda env, s: s.map(str, name="map"), parallelism, splits)
    (dealt,) = layout.splits.values()
    assert slots(layout) == {"source": tuple(range(subtasks)), "map": tuple(range(parallelism))}
    assert sorted(name for part in dealt for name in part) == [f"s{i}" for i in range(splits)]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert ways(layout) == ({} if subtasks == parallelism else {("source", "map"): "rebalance"})


def test_keys_are_found_where_records_come_from_and_hashed_once():
    def build(env, stream):
        keyed = stream.key_by(len, name="key").filter(bool, name="filter")
        keyed.reduce(max, name="reduce").map(str, name="map")

    narrow, wide = lay_out(build), lay_out(build, splits=2)
    assert slots(narrow) == {"source": (0,), "key": (0,)} | dict.fromkeys(
        ("filter", "reduce", "map"), (0, 1)
    )
    assert set(slots(wide).values()) == {(0, 1)}
    assert ways(narrow) == ways(wide) == {("key", "filter"): "hash"}


def test_what_hands_keys_on_to_another_parallelism_hashes_again():
    def build(env, stream):
        keyed = stream.key_by(len, name="key")
        keyed.filter(bool, name="filter", parallelism=3).reduce(max, name="reduce")

    layout = lay_out(build, splits=2)
    assert ways(layout) == {("key", "filter"): "hash", ("filter", "reduce"): "hash"}
    assert layout.workers == 3


@pytest.mark.parametrize(
    ("spread", "kind"),
    [
        (lambda s: s.rebalance(), "rebalance"),
        (lambda s: s.broadcast(), "broadcast"),
        (lambda s: s.partition_custom(lambda r, n: 0), "custom"),
        (lambda s: s, None),
    ],
)
def test_records_are_spread_as_the_program_says(spread, kind):
    layout = lay_out(lambda env, s: spread(s.map(str, name="a")).map(len, name="b"), splits=2)
    assert ways(layout) == ({("a", "b"): kind} if kind else {})
    assert (layout.exchanges[0].function is not None) == (kind == "custom") if kind else True


def test_to_one_subtask_all_records_go_whatever_was_said():
    layout = lay_out(lambda env, s: s.rebalance().map(str, name="one").set_parallelism(1), splits=2)
    assert ways(layout) == {("source", "one"): "global"}
    one = lay_out(lambda env, s: s.map(str).set_parallelism(1).map(len, name="all"), splits=1)
    assert set(ways(one).values()) == {"rebalance"}


def test_each_way_of_a_union_is_spread_on_its_own():
    def build(env, stream):
        other = env.from_source(SplitSource(a=[]), name="one split")
        keyed = stream.key_by(len, name="key")
        union = stream.map(str, name="here").union(stream.rebalance(), other, keyed)
        union.map(str, name="union")

    assert ways(lay_out(build, splits=2)) == {
        ("source", "union"): "rebalance",
        ("one split", "union"): "rebalance",
    }


def test_a_union_of_keyed_streams_is_hashed():
    def build(env, stream):
        a, b = stream.key_by(len, name="a"), stream.rebalance().key_by(len, name="b")
        a.union(b).map(str, name="union")

    spread = ways(lay_out(build, splits=2))
    assert spread == {("a", "union"): "hash", ("b", "union"): "hash", ("source", "b"): "rebalance"}


def test_side_outputs_and_dead_letters_go_their_own_ways():
    def build(env, stream):
        parts = stream.process(lambda r, ctx: [], name="parts", on_error="dead_letter")
        parts.side_output("side").rebalance().map(str, name="side")
        parts.dead_letters().map(str, name="letters").set_parallelism(1)
        parts.map(str, name="main")

    spread = ways(lay_out(build, splits=2))
    assert spread == {("parts", "side"): "rebalance", ("parts", "letters"): "global"}


def test_a_loop_has_subtasks_in_all_slots():
    def build(env, stream):
        back = env.from_future("back")
        steps = stream.union(back).key_by(len, name="key").map(str, name="step")
        steps.filter(bool, name="again").fill_future(back)
        steps.filter(bool, name="out")

    layout = lay_out(build, splits=2)
    assert set(slots(layout).values()) == {(0, 1)}
    assert ways(layout) == {("key", "step"): "hash"}
    (loop,) = layout.loops
    names = {node.id: node.name for node in layout.stream_graph.nodes.values()}
    assert [names[node] for node in loop.nodes] == ["back", "key", "step", "again"]
    assert (loop.slots, loop.exchanges, loop.entrances) == ((0, 1), {0}, set())


def test_loops_that_share_an_operator_are_one():
    def build(env, stream):
        a, b, c = (env.from_future(name) for name in "abc")
        both = stream.union(a, b).rebalance().map(str, name="both")
        both.filter(bool).fill_future(a)
        both.rebalance().filter(bool).fill_future(b)
        stream.map(str, parallelism=1).fill_future(c)  # nothing comes round to it
        c.union(both).map(str, name="out")

    layout = lay_out(build, splits=2)
    (loop,) = layout.loops
    names = [layout.stream_graph.nodes[node].name for node in loop.nodes]
    assert sorted(names) == ["a", "b", "both", "filter(bool)", "filter(bool)-2"]
    assert {layout.exchanges[number].edge.target for number in loop.entrances} <= set(loop.nodes)
    assert loop.ending == ()
    assert layout.loop_of(loop.nodes[0]) is loop
    assert layout.loop_of(max(layout.stream_graph.nodes)) is None


def test_what_gives_records_back_runs_in_the_program_itself():
    layout = lay_out(lambda env, s: s.map(str, name="map").collect(), splits=2)
    assert layout.has_client_slot
    assert layout.workers == 2
    client = next(n for n in layout.stream_graph.nodes.values() if n.name not in ("source", "map"))
    assert layout.slots[client.id] == (2,)
    assert layout.nodes_of(2) == (client.id,)
    assert ways(layout) == {("map", client.name): "global"}
    assert not lay_out(lambda env, s: s.sink(print), splits=2).has_client_slot


def test_a_slot_runs_operators_behind_those_that_they_read_from():
    layout = lay_out(lambda env, s: s.key_by(len).map(str).rebalance().map(len), splits=2)
    assert layout.nodes_of(0) == layout.nodes_of(1) == tuple(sorted(layout.stream_graph.nodes))
    for exchange in layout.exchanges:
        assert layout.exchange_of(exchange.edge) is exchange


def test_there_are_no_more_subtasks_than_key_groups():
    def build(env, stream):
        stream.map(str)

    assert lay_out(build, 200).max_parallelism == 512
    assert lay_out(build, 4, max_parallelism=4).max_parallelism == 4
    with pytest.raises(GraphError, match=r"parallelism 5 is more than .* key groups, 4"):
        lay_out(build, 5, max_parallelism=4)


# ---- routing

KEYS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False)
) | st.tuples(st.integers(), st.text())
COUNTS = st.integers(1, 9)


def router(spread, count, *, function=None, packed=False, first=0):
    exchange = Exchange(
        0, Edge(0, 1, 0, Upstream(0)), spread, function, tuple(range(count)), tuple(range(count))
    )
    return make_router(exchange, packed=packed, first=first)


def gather(route, batches):
    """Return what each receiver gets; no part is empty, none comes twice."""
    found = defaultdict(list)
    for batch in batches:
        parts = route(batch)
        assert all(part for _, part in parts)
        assert len(dict(parts)) == len(parts)
        for index, part in parts:
            found[index] += part
    return found


@given(st.lists(st.lists(KEYS, max_size=20), max_size=10), COUNTS, st.sampled_from([9, 128, 1000]))
def test_a_record_goes_to_the_owner_of_its_keys_group(batches, count, groups):
    packed = [[(number, key, 5) for number, key in enumerate(batch)] for batch in batches]
    found = {index: [] for index in range(count)}
    places = KeyPlaces(groups, [part.append for part in found.values()])
    for batch in packed:
        for value in batch:
            places[value[1]](value)
    for index, values in found.items():
        for value in values:
            group = key_group(value[1], groups)
            assert index == subtask_of(group, groups, count)
            assert group in group_range(index, groups, count)
    everything = [value for batch in packed for value in batch]
    assert Counter(map(repr, everything)) == Counter(
        repr(value) for values in found.values() for value in values
    )
    for key in {repr(value[1]) for value in everything}:
        places = [[v for v in values if repr(v[1]) == key] for values in found.values()]
        assert [v for v in everything if repr(v[1]) == key] in places


@given(st.lists(st.integers(0, 20), max_size=20), COUNTS, st.integers(0, 20))
def test_turns_go_on_from_batch_to_batch(sizes, count, first):
    numbers = iter(range(sum(sizes)))
    batches = [[next(numbers) for _ in range(size)] for size in sizes]
    found = gather(router("rebalance", count, first=first), batches)
    assert dict(found) == {
        (first + turn) % count: list(range(turn, sum(sizes), count))
        for turn in range(min(count, sum(sizes)))
    }


@given(st.integers(0, 20), COUNTS, COUNTS)
def test_rescaled_records_stay_between_those_that_belong_together(size, senders, receivers):
    edge = Edge(0, 1, 0, Upstream(0))
    way = Exchange(0, edge, "rescale", None, tuple(range(senders)), tuple(range(receivers)))
    came = defaultdict(set)
    for sender in range(senders):
        batch = list(range(size))
        found = gather(make_router(way, packed=False, first=sender), [batch[:7], batch[7:]])
        assert sorted(n for part in found.values() for n in part) == batch
        assert max(map(len, found.values()), default=0) <= -(-size // max(1, len(found)))
        for receiver in found:
            came[receiver].add(sender)
    assert senders > receivers or all(len(froms) == 1 for froms in came.values())
    assert size < receivers or set(came) == set(range(receivers))


@given(st.lists(st.lists(st.integers()), max_size=5), COUNTS)
def test_all_get_all_and_each_has_a_list_of_its_own(batches, count):
    route = router("broadcast", count)
    for batch in batches:
        parts = route(batch) if batch else []
        assert [part for _, part in parts] == [batch] * len(parts)
        assert len({id(part) for _, part in parts}) == len(parts)
        assert [index for index, _ in parts] == list(range(count if batch else 0))


@given(st.lists(st.lists(st.integers()), max_size=5), COUNTS, st.booleans())
def test_a_function_is_asked_about_the_record_itself(batches, count, packed):
    route = router("custom", count, function=lambda n, total: n % total, packed=packed)
    values = [[(n, "key") if packed else n for n in batch] for batch in batches]
    found = gather(route, values)
    for index, part in found.items():
        assert all((value[0] if packed else value) % count == index for value in part)
    assert sum(map(len, found.values())) == sum(map(len, batches))


@pytest.mark.parametrize("wrong", [-1, 2, None, 1.0, "0", True])
def test_a_function_must_return_the_index_of_a_subtask(wrong):
    route = router("custom", 2, function=lambda n, total: wrong)
    with pytest.raises(GraphError, match=r"partition_custom\(\) returned .* from 0 to 1"):
        route([1])


@pytest.mark.parametrize("key", [float("nan"), object(), print])
def test_a_key_without_a_stable_hash_has_no_place(key):
    with pytest.raises(TypeError, match="cannot be a key"):
        KeyPlaces(128, [print, print])[key]


@pytest.mark.parametrize(
    ("build", "splits", "regions"),
    [
        (lambda env, s: s.map(str).sink(abs), 3, ((0,), (1,), (2,))),
        (lambda env, s: s.map(str).sink(abs), 2, ((0, 1, 2),)),  # dealt out to the third
        (lambda env, s: s.key_by(len).count().sink(abs), 3, ((0, 1, 2),)),
        (lambda env, s: s.map(str).collect(), 3, ((0, 1, 2, 3),)),  # the last one is the program
        (lambda env, s: s.map(str, parallelism=2).sink(abs, parallelism=2), 2, ((0,), (1,))),
    ],
)
def test_slots_between_which_no_record_goes_are_apart(build, splits, regions):
    assert lay_out(build, 3, splits).regions() == regions


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8))
def test_regions_are_what_exchanges_join(pairs):
    layout = lay_out(lambda env, s: s.sink(abs), 8, 8)
    edge = Edge(0, 1, 0, Upstream(0))
    ways = tuple(Exchange(n, edge, "global", None, (a,), (b,)) for n, (a, b) in enumerate(pairs))
    regions = replace(layout, exchanges=ways).regions()
    assert sorted(slot for region in regions for slot in region) == list(range(8))
    place = {slot: n for n, region in enumerate(regions) for slot in region}
    assert all(place[a] == place[b] for a, b in pairs)
    joins = sum(len(region) - 1 for region in regions)
    assert joins <= len({(min(p), max(p)) for p in pairs if p[0] != p[1]})
