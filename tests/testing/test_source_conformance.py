"""The conformance suite finds what sources get wrong, and says what."""

import pytest

from sage.dataflow.function.source import Source, SourceReader, SplitBatch
from sage.testing import check_source


class Numbers(Source):
    """Correct; the faults below are deviations from it."""

    def create_reader(self, splits, context):
        return self.Reader(splits[""] or 0)

    class Reader(SourceReader):
        poll_interval = None

        def __init__(self, position):
            self.next = position

        def read_batch(self, max_records):
            end = min(self.next + max_records, 5)
            batch = list(range(self.next, end))
            self.next = end
            return batch or None

        def snapshot(self):
            return {"": self.next}


class UnstableSplits(Numbers):
    calls = 0

    def list_splits(self):
        UnstableSplits.calls += 1
        return [f"split-{UnstableSplits.calls}"]


class SameSplitTwice(Numbers):
    def list_splits(self):
        return ["a", "a"]


class Overlong(Numbers):
    class Reader(Numbers.Reader):
        def read_batch(self, max_records):
            return super().read_batch(max_records + 1)


class NotASequence(Numbers):
    class Reader(Numbers.Reader):
        def read_batch(self, max_records):
            batch = super().read_batch(max_records)
            return batch and {*batch}


class ReusedList(Numbers):
    class Reader(Numbers.Reader):
        def __init__(self, position):
            super().__init__(position)
            self.batch = []

        def read_batch(self, max_records):
            self.batch[:] = super().read_batch(max_records) or ()
            return self.batch or None


class LosesARecord(Numbers):
    class Reader(Numbers.Reader):
        def __init__(self, position):
            super().__init__(position + (position > 2))


class GivesOneTwice(Numbers):
    class Reader(Numbers.Reader):
        def snapshot(self):
            return {"": max(0, self.next - 1)}


class ForgetsASplit(Numbers):
    class Reader(Numbers.Reader):
        def snapshot(self):
            return {}


class NeverEnds(Numbers):
    class Reader(Numbers.Reader):
        def read_batch(self, max_records):
            return super().read_batch(max_records) or []


class ClosesOnce(Numbers):
    class Reader(Numbers.Reader):
        closed = False

        def close(self):
            assert not self.closed, "closed twice"
            self.closed = True


class Apart(Source):
    """Correct: tells its splits apart, and gives them in another order at each run."""

    runs = 0

    def list_splits(self):
        return ("a", "b")

    def create_reader(self, splits, context):
        Apart.runs += 1
        return self.Reader(splits, Apart.runs)

    class Reader(SourceReader):
        poll_interval = None

        def __init__(self, splits, run):
            names = sorted(splits, reverse=run % 2)
            self.position = {name: splits[name] or 0 for name in names}
            self.open_splits = frozenset(names)

        def read_batch(self, max_records):
            for split, position in self.position.items():
                batch = SplitBatch(
                    split, [f"{split}{n}" for n in range(3)][position:][:max_records]
                )
                if batch:
                    self.position[split] += len(batch)
                    return batch
            return None

        def snapshot(self):
            return dict(self.position)


class UntoldSplits(Apart):
    class Reader(Apart.Reader):
        def read_batch(self, max_records):
            batch = super().read_batch(max_records)
            return batch and list(batch)


class UnknownSplit(Apart):
    class Reader(Apart.Reader):
        def read_batch(self, max_records):
            batch = super().read_batch(max_records)
            return batch and SplitBatch("x", batch)


class MixesSplits(Apart):
    class Reader(Apart.Reader):
        def __init__(self, splits, run):
            super().__init__(splits, run)
            self.run = run

        def read_batch(self, max_records):
            batch = super().read_batch(max_records)
            return batch and SplitBatch("ab"[self.run % 2], batch)


class NoSuchSubtask(Numbers):
    def subtask_of(self, split, place, parallelism):
        return parallelism


class ForgetsHowItDeals(Numbers):
    def __reduce__(self):
        return (Numbers, ())

    def list_splits(self):
        return ("", "b")

    def subtask_of(self, split, place, parallelism):
        return 0


class OddGauge(Numbers):
    class Reader(Numbers.Reader):
        def gauges(self):
            return {"lag": "much"}


def test_splits_that_are_told_apart_have_an_order_of_their_own():
    found = check_source(Apart, ["b0", "b1", "b2", "a0", "a1", "a2"])
    assert sorted(found) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    with pytest.raises(AssertionError, match="'c0' is missing"):
        check_source(Apart, ["c0"])
    with pytest.raises(AssertionError, match="come besides what is expected"):
        check_source(Apart, ["b0", "b1", "b2", "a0", "a1"])
    with pytest.raises(AssertionError, match=r"split 'a'.* they differ from index 0 on"):
        check_source(MixesSplits)


def test_a_correct_source_passes():
    assert check_source(Numbers) == check_source(Numbers, range(5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (UnstableSplits, "it must be stable"),
        (SameSplitTwice, "names a split twice"),
        (Overlong, r"read_batch\(1\) returned 2 records"),
        (NotASequence, "it must be a sequence"),
        (ReusedList, r"a batch was \[0\] and became"),
        (LosesARecord, "restored after record 3 .*differ from index 0 on: found"),
        (GivesOneTwice, "restored after record 1 .*5 records where 4 are expected"),
        (ForgetsASplit, r"snapshot\(\) names the splits \[\]"),
        (NeverEnds, "gave no record for 0.01 s and did not end"),
        (ClosesOnce, "closed twice"),
        (UntoldSplits, "returned a list"),
        (UnknownSplit, "a batch is of 'x', not in"),
        (ForgetsHowItDeals, "after the source was pickled"),
        (OddGauge, "gauges.. gives lag as 'much', no whole number"),
    ],
)
def test_what_is_wrong_is_found(source, message):
    with pytest.raises(AssertionError, match=message):
        check_source(source, range(5), patience=0.01)


def test_other_records_than_expected_are_found():
    with pytest.raises(AssertionError, match=r"index 4 on: found \[4\], expected \[5\]"):
        check_source(Numbers, [0, 1, 2, 3, 5])


def test_a_subtask_that_there_is_not():
    with pytest.raises(ValueError, match="there are 1 subtasks"):
        check_source(NoSuchSubtask)
