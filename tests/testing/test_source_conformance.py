"""The conformance suite finds what sources get wrong, and says what."""

import pytest

from sage.dataflow.function.source import Source, SourceReader
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
    ],
)
def test_what_is_wrong_is_found(source, message):
    with pytest.raises(AssertionError, match=message):
        check_source(source, range(5), patience=0.01)


def test_other_records_than_expected_are_found():
    with pytest.raises(AssertionError, match=r"index 4 on: found \[4\], expected \[5\]"):
        check_source(Numbers, [0, 1, 2, 3, 5])
