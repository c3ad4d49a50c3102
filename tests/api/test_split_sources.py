"""Sources whose splits are told apart: event time per split, splits that appear, bad records."""

import pytest

from sage import (
    FunctionError,
    GraphError,
    LocalEnvironment,
    OperatorError,
    punctuated,
    tumbling_time_window,
)
from sage.common.errors import OperatorError as EngineError
from sage.connector.collection import CollectionSource
from sage.dataflow.function.source import Source, SourceReader, SplitBatch, deal_splits
from sage.testing import ManualClock

SECOND = tumbling_time_window(1)


class Script(Source):
    """Gives batches in the order of a script: `("split", [records])`, a function to be called, or an
    exception for a bad record. A position is an index of the script, for all splits alike."""

    reports_bad_records = True

    def __init__(self, script, splits=("a", "b")):
        self.script, self.splits = list(script), splits
        self.completed, self.restored, self.given = [], [], []

    def list_splits(self):
        return self.splits

    def subtask_of(self, split, place, parallelism):
        return ord(split[0]) % parallelism

    def timestamps(self):
        return lambda record: record[1]

    def create_reader(self, splits, context):
        self.given.append(dict(splits))
        self.restored.append(context.is_restored)
        return _Reader(self, splits, context)


class _Reader(SourceReader):
    poll_interval = None

    def __init__(self, source, splits, context):
        self.source, self.context = source, context
        self.splits = set(splits)
        self.next = max((position or 0 for position in splits.values()), default=0)
        self.open_splits = frozenset(splits)

    def read_batch(self, max_records):
        script = self.source.script
        while self.next < len(script):
            step = script[self.next]
            self.next += 1
            if isinstance(step, Exception):
                self.context.fail_record(f"raw {step}", step)
            elif callable(step):
                if step(self) == "pause":
                    return []
            else:
                return SplitBatch(*step)
        return None

    def gauges(self):
        return {"lag": len(self.source.script) - self.next}

    def snapshot(self):
        return dict.fromkeys(self.splits, self.next)

    def checkpoint_complete(self, positions):
        self.source.completed.append(dict(positions))


def opens(*splits):
    def step(reader):
        reader.splits |= set(splits)
        reader.open_splits |= set(splits)

    return step


def ends(split):
    def step(reader):
        reader.open_splits -= {split}

    return step


def counted(source, clock=None, timed=lambda stream: stream.assign_timestamps()):
    env = LocalEnvironment("splits", clock=clock)
    counts = timed(env.from_source(source)).key_by(0).window(SECOND).count()
    late = counts.late_records().collect()
    out = counts.collect()
    env.execute(progress=False, timeout=20)
    return [(c.key, c.start, c.value) for c in out], list(late)


def test_a_split_that_is_behind_has_no_late_records():
    script = [
        ("a", [("k", 100), ("k", 5_100)]),
        ("b", [("k", 200), ("k", 300)]),
        ("b", [("k", 2_000)]),
        ("a", [("k", 6_000)]),
    ]
    assert counted(Script(script)) == (
        [("k", 0, 3), ("k", 2000, 1), ("k", 5000, 1), ("k", 6000, 1)],
        [],
    )


def test_without_splits_the_same_records_are_late():
    records = [("k", 100), ("k", 5_100), ("k", 200), ("k", 6_000)]
    source = Script([("a", records[i : i + 1]) for i in range(4)], splits=("a",))
    counts, late = counted(source)
    assert late == [("k", 200)]
    assert counts == [("k", 0, 1), ("k", 5000, 1), ("k", 6000, 1)]


@pytest.mark.parametrize(
    "timed",
    [
        lambda s: s.assign_timestamps(lambda r: r[1]),
        lambda s: s.map(list).filter(len).flat_map(lambda r: [r]).assign_timestamps(lambda r: r[1]),
        lambda s: s.assign_timestamps(lambda r: r[1], watermarks=punctuated(lambda r, t: t - 1)),
    ],
    ids=["function", "behind a parser", "punctuated"],
)
def test_a_function_of_the_program_gives_time_split_by_split(timed):
    script = [
        ("a", [("k", 5_100)]),
        ("b", [("k", 200)]),
        ("b", [("k", 5_200)]),
        ("b", [("k", 5_300)]),
    ]
    assert counted(Script(script), timed=timed) == ([("k", 0, 1), ("k", 5000, 3)], [])


def test_a_split_that_has_ended_holds_nobody_back():
    seen = []
    script = [
        ("a", [("k", 100)]),
        ends("b"),
        ("a", [("k", 1_500)]),
        ("a", [("k", 1_600)]),
    ]
    env = LocalEnvironment("ended")
    stream = env.from_source(Script(script)).assign_timestamps()
    stream.process(lambda record, ctx: [ctx.watermark]).sink(seen.append)
    env.execute(progress=False)
    assert seen == [-(2**63), -(2**63), 1_499]


def test_an_idle_split_holds_nobody_back_and_counts_again_when_it_speaks():
    clock, seen = ManualClock(), []

    def pause(reader):
        clock.advance(seconds=5)
        reader.context.wake()
        return "pause"

    script = [
        ("b", [("k", 1)]),
        ("a", [("k", 3_000)]),
        pause,
        ("a", [("k", 4_000)]),
        ("a", [("k", 4_100)]),
        ("b", [("k", 4_050)]),
        ("a", [("k", 9_000)]),
        ("a", [("k", 9_001)]),
    ]
    env = LocalEnvironment("idle", clock=clock)
    stream = env.from_source(Script(script)).assign_timestamps(idleness=2)
    stream.process(lambda record, ctx: [(record[1], ctx.watermark)]).sink(seen.append)
    env.execute(progress=False, timeout=20)
    assert seen[3:] == [(4_100, 3_999), (4_050, 4_099), (9_000, 4_099), (9_001, 4_099)]


def test_splits_that_become_idle_at_once_go_on_as_if_one_had_come_after_the_other():
    clock, out, seen = ManualClock(), [], []

    def pause(reader):
        clock.advance(seconds=5)
        reader.context.wake()
        return "pause"

    def look(reader):
        seen.extend((c.start, c.value) for c in out)

    script = [("b", [("k", 1)]), ("a", [("k", 3_000)]), pause, pause, look]
    env = LocalEnvironment("idle", clock=clock)
    stream = env.from_source(Script(script)).assign_timestamps(idleness=2)
    stream.key_by(0).window(SECOND).count().sink(out.append)
    env.execute(progress=False, timeout=20)
    assert seen == [(0, 1)]


def test_a_reader_without_splits_is_idle():
    clock, seen = ManualClock(), []
    script = [lambda reader: None, opens("c"), ("c", [("k", 10)]), ("c", [("k", 20)])]
    env = LocalEnvironment("none", clock=clock)
    env.from_source(Script(script, splits=())).assign_timestamps().process(
        lambda record, ctx: [ctx.watermark]
    ).sink(seen.append)
    env.execute(progress=False, timeout=20)
    assert seen[1] == 9


def test_a_split_that_appears_is_in_the_checkpoint_and_its_reader_is_told(tmp_path):
    source = Script(
        [("a", [("k", 1)]), opens("c"), ("c", [("k", 2)]), *[("b", [("k", 3)])] * 3], ("a", "b")
    )
    env = LocalEnvironment("appears")
    env.enable_checkpointing(3600, tmp_path)
    out = env.from_source(source).assign_timestamps().collect()
    env.execute(progress=False, timeout=20)
    assert len(out) == 5
    assert source.completed[-1].keys() == {"a", "b", "c"}
    assert set(source.completed[-1].values()) == {6}
    assert source.restored == [False]


def test_a_restored_reader_is_given_what_it_had_found(tmp_path):
    futures = []

    def take(reader):
        futures.append(env.job._job.checkpoint())
        futures[0].add_done_callback(lambda _: reader.context.wake())
        return "pause"

    def fail_once(reader):
        if not futures[0].done():
            reader.next -= 1
            return "pause"
        if len(source.restored) == 1:
            raise OSError("gone")
        return None

    script = [("a", [("k", 1)]), opens("c"), take, fail_once, ("c", [("k", 2)]), ("b", [("k", 3)])]
    source = Script(script)
    env = LocalEnvironment("restored", {"restart_strategy": "fixed-delay", "restart_delay": 0})
    env.enable_checkpointing(3600, tmp_path)
    env.from_source(source).assign_timestamps().key_by(0).window(SECOND).count().sink(print)
    env.execute(progress=False, timeout=20)
    assert source.restored == [False, True]
    assert source.given == [{"a": None, "b": None}, {"a": 3, "b": 3, "c": 3}]
    assert source.completed[0] == {"a": 3, "b": 3, "c": 3}


def test_gauges_are_in_the_metrics_of_the_job_also_when_it_has_ended():
    seen = []
    script = [
        ("a", [1]),
        ("a", [2]),
        lambda reader: seen.append(env.job.metrics["in"].gauges),
        ("a", [3]),
    ]
    env = LocalEnvironment("gauges")
    env.from_source(Script(script), name="in").sink(lambda record: None)
    result = env.execute(progress=False)
    assert seen == [{"lag": 1}]
    assert result.metrics["in"].gauges == {"lag": 0}


# ---- records that cannot be decoded


def bad_records(**options):
    script = [("a", [1]), ValueError("no number"), ValueError("nor this"), ("b", [2])]
    env = LocalEnvironment("bad")
    stream = env.from_source(Script(script), name="input", **options)
    return env, stream


def test_a_bad_record_ends_the_job_unless_the_program_says_otherwise():
    env, stream = bad_records()
    out = stream.collect()
    with pytest.raises(OperatorError, match="input failed on record 'raw no number'") as caught:
        env.execute(progress=False)
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value, EngineError)
    assert list(out) == [1]


def test_bad_records_are_skipped_and_counted():
    env, stream = bad_records(on_error="skip")
    out = stream.collect()
    result = env.execute(progress=False)
    assert list(out) == [1, 2]
    assert result.metrics["input"].errors == 2
    assert result.metrics["input"].records_out == 2


@pytest.mark.parametrize("of_all", [False, True])
def test_bad_records_become_dead_letters(of_all):
    env, stream = bad_records(on_error="dead_letter")
    out = stream.collect()
    letters = (env if of_all else stream).dead_letters().collect()
    env.execute(progress=False)
    assert list(out) == [1, 2]
    assert [(x.value, x.operator, str(x.error)) for x in letters] == [
        ("raw no number", "input", "no number"),
        ("raw nor this", "input", "nor this"),
    ]


def test_dead_letters_that_nobody_reads_are_refused():
    env, stream = bad_records(on_error="dead_letter")
    stream.collect()
    with pytest.raises(GraphError, match="nobody reads them"):
        env.execute(progress=False)


def test_a_source_that_reports_none_takes_no_policy():
    with pytest.raises(FunctionError, match="takes no on_error"):
        LocalEnvironment("none").from_source(CollectionSource([1]), on_error="skip")


# ---- where time comes from, and who reads what


def test_a_source_without_time_wants_a_function():
    env = LocalEnvironment("untimed")
    with pytest.raises(GraphError, match="needs a function"):
        env.from_batch([1]).assign_timestamps()
    with pytest.raises(GraphError, match="needs a function"):
        env.from_source(Script([])).map(str).assign_timestamps()


def test_the_source_says_which_subtask_reads_a_split():
    assert deal_splits(Script([]), ["a", "b", "c", "d"], 2) == (("b", "d"), ("a", "c"))
    assert deal_splits(CollectionSource([]), ["x", "y", "z"], 2) == (("x", "z"), ("y",))
    source = Script([])
    source.subtask_of = lambda split, place, parallelism: 7
    with pytest.raises(ValueError, match=r"subtask_of\(\) gave 7 for the split 'a'"):
        deal_splits(source, ["a"], 2)
