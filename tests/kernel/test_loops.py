"""Feedback loops: with bounded input they end, and nothing is lost on the way round."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sage import LocalEnvironment


def step(n):
    return n // 2 if n % 2 == 0 else 3 * n + 1


def collatz(numbers):
    seen = Counter()
    for start in numbers:
        n = start
        while n != 1:
            n = step(n)
            seen[n] += 1
    return seen


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 100), max_size=30), st.sampled_from([1, 2, 7, 1024]))
def test_collatz_agrees_with_a_plain_loop(numbers, batch_size):
    env = LocalEnvironment("collatz", {"batch_size": batch_size})
    back = env.from_future("back")
    steps = env.from_batch(numbers).union(back).map(step, name="step")
    steps.filter(lambda n: n != 1).fill_future(back)
    got = steps.collect()
    result = env.execute()
    expected = collatz(numbers)
    assert Counter(got) == expected
    assert result.metrics["step"].records_out == expected.total()
    assert result.metrics["back"].records_in == expected.total() - expected[1]


def test_a_loop_that_multiplies_ends_with_all_its_records():
    env = LocalEnvironment("tree")
    back = env.from_future("back")
    level = env.from_batch([10]).union(back)
    children = level.flat_map(lambda n: [n - 1, n - 1] if n else [])
    children.fill_future(back)
    counts = children.key_by(lambda n: n).count(emit="final").collect()
    env.execute()
    assert dict(counts) == {9 - i: 2 ** (i + 1) for i in range(10)}


def test_a_long_source_does_not_pile_up_in_a_loop():
    """The source waits while the loop has work, so what is in flight stays about a batch."""
    batch, rounds = 10, 50
    env = LocalEnvironment("bounded", {"batch_size": batch})
    in_flight, most = [0], [0]

    def records():
        for _ in range(1000):
            in_flight[0] += 1
            most[0] = max(most[0], in_flight[0])
            yield rounds

    def leave(n):
        in_flight[0] -= 1

    back = env.from_future("back")
    left = env.from_batch(records).union(back).map(lambda n: n - 1)
    left.filter(lambda n: n > 0).fill_future(back)
    left.filter(lambda n: n == 0).sink(leave)
    env.execute()
    assert in_flight[0] == 0
    assert most[0] <= 10 * batch


def test_a_loop_inside_of_a_loop():
    env = LocalEnvironment("nested", {"batch_size": 3})
    outer, inner = env.from_future("outer"), env.from_future("inner")
    # (a, b): the inner loop counts b down, the outer one a, starting b again.
    records = env.from_batch([(3, 2), (1, 4)]).union(outer, inner)
    parts = records.inspect(lambda r: None).split(lambda r: "inner" if r[1] else "outer")
    parts["inner"].map(lambda r: (r[0], r[1] - 1)).fill_future(inner)
    restarted = parts["outer"].map(lambda r: (r[0] - 1, 2))
    restarted.filter(lambda r: r[0] > 0).fill_future(outer)
    got = restarted.collect()
    env.execute()
    assert sorted(got) == [(0, 2), (0, 2), (1, 2), (2, 2)]


def test_two_loops_that_feed_each_other():
    env = LocalEnvironment("crossed")
    one, two = env.from_future("one"), env.from_future("two")
    a = env.from_batch([6]).union(two).map(lambda n: n - 1)
    b = one.map(lambda n: n - 1)
    a.filter(lambda n: n > 0).fill_future(one)
    b.filter(lambda n: n > 0).fill_future(two)
    got_a, got_b = a.collect(), b.collect()
    env.execute()
    assert (list(got_a), list(got_b)) == ([5, 3, 1], [4, 2, 0])


def test_a_loop_without_a_source_ends_at_once():
    env = LocalEnvironment("empty")
    back = env.from_future("back")
    moved = back.map(lambda n: n)
    moved.fill_future(back)
    got = moved.collect()
    env.execute(timeout=10)
    assert got == []


def test_state_in_a_loop_sees_every_round():
    env = LocalEnvironment("state")
    back = env.from_future("back")
    counts = env.from_batch(["a", "b"]).union(back).key_by(lambda key: key).count()
    counts.filter(lambda pair: pair[1] < 3).map(lambda pair: pair[0]).fill_future(back)
    got = counts.collect()
    env.execute()
    assert sorted(got) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]


def test_final_results_that_enter_a_loop_go_all_the_way_round():
    env = LocalEnvironment("final")
    back = env.from_future("back")
    totals = env.from_batch([1, 2, 3]).key_by(lambda n: 0).sum(emit="final")
    left = totals.map(lambda pair: pair[1]).union(back).map(lambda n: n - 1)
    left.filter(lambda n: n > 0).fill_future(back)
    got = left.collect()
    env.execute()
    assert got == [5, 4, 3, 2, 1, 0]


def test_final_results_behind_a_loop_wait_for_final_results_that_enter_it():
    env = LocalEnvironment("final")
    back = env.from_future("back")
    body = env.from_batch([100]).union(back).map(lambda n: n)
    counts = body.key_by(lambda n: 0).count(emit="final").collect()
    late = env.from_batch([1, 2])
    for _ in range(5):
        late = late.map(lambda n: n)
    late = late.key_by(lambda n: n).reduce(max, emit="final")
    body.filter(lambda n: False).union(late).fill_future(back)
    env.execute()
    assert counts == [(0, 3)]


def test_dead_letters_can_be_retried_through_a_loop():
    env, attempts = LocalEnvironment("retry"), Counter()

    def works_at_the_third_attempt(n):
        attempts[n] += 1
        if attempts[n] < 3:
            raise ConnectionError(n)
        return n

    back = env.from_future("back")
    done = env.from_batch([1, 2]).union(back)
    done = done.map(works_at_the_third_attempt, on_error="dead_letter")
    done.dead_letters().map(lambda letter: letter.value).fill_future(back)
    got = done.collect()
    env.execute()
    assert sorted(got) == [1, 2]
    assert attempts == {1: 3, 2: 3}
