"""`check_sink` passes sinks that keep the contract, and says where another one breaks it."""

import uuid

import pytest

from sage.dataflow.function.sink import Sink, SinkWriter, TwoPhaseWriter
from sage.testing.sink_conformance import check_sink

PLACES = {}
"""What is outside: records and what has been committed, by the name of the place."""


class Outside:
    def __init__(self):
        self.visible = []
        self.done = set()


class Plain(Sink):
    """A sink that keeps records until `flush`; `fault` names what it does wrong."""

    def __init__(self, fault=""):
        self.place = uuid.uuid4().hex
        self.fault = fault

    def create_writer(self, context, state):
        return PlainWriter(PLACES.setdefault(self.place, Outside()), self.fault)


class PlainWriter(SinkWriter):
    def __init__(self, outside, fault):
        self.outside, self.fault, self.batches = outside, fault, []

    def write_batch(self, values):
        self.batches.append(values if self.fault == "keeps the batch" else list(values))

    def flush(self):
        if self.fault != "flushes late":
            self.emit()

    def emit(self):
        for batch in reversed(self.batches) if self.fault == "turns round" else self.batches:
            self.outside.visible += batch
        if self.fault != "flushes twice":
            self.batches = []

    def snapshot(self):
        return (lambda: 0) if self.fault == "cannot be pickled" else None

    def close(self):
        if self.fault == "flushes late":
            self.emit()


class TwoPhase(Plain):
    def create_writer(self, context, state):
        return TwoPhaseOf(PLACES.setdefault(self.place, Outside()), self.fault)


class TwoPhaseOf(TwoPhaseWriter):
    def __init__(self, outside, fault):
        self.outside, self.fault, self.records = outside, fault, []
        self.run = "" if fault == "takes runs for one" else uuid.uuid4().hex

    def write_batch(self, values):
        self.records += values
        if self.fault == "shows at once":
            self.outside.visible += values

    def prepare_commit(self, checkpoint_id):
        records, self.records = self.records, []
        if self.fault == "commits what it prepares":
            self.commit((self.run, checkpoint_id, records))
        if self.fault == "forgets":
            self.kept = records
            return (self.run, checkpoint_id, None)
        return (self.run, checkpoint_id, records)

    def commit(self, committable):
        run, number, records = committable
        if (run, number) in self.outside.done and self.fault != "commits again":
            return
        self.outside.done.add((run, number))
        self.outside.visible += self.kept if records is None else records

    def close(self):
        if self.fault == "commits at the end":
            self.outside.visible += self.records


def read_back(sink):
    return PLACES[sink.place].visible


def test_sinks_that_keep_the_contract_pass():
    check_sink(Plain, read_back)
    check_sink(TwoPhase, read_back)
    check_sink(TwoPhase, read_back, records=[{"id": number} for number in range(8)])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("keeps the batch", r"after flush\(\): outside are \[\]"),
        ("flushes late", r"after flush\(\)"),
        ("flushes twice", r"after a second flush\(\)"),
        ("turns round", r"after flush\(\)"),
    ],
)
def test_a_plain_sink_that_breaks_the_contract_is_told(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_sink(lambda: Plain(fault), read_back)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shows at once", r"before flush\(\)"),
        ("commits what it prepares", r"before commit\(\)"),
        ("commits again", r"after a second commit\(\)"),
        ("commits at the end", r"after close\(\)"),
        ("takes runs for one", r"both subtasks"),
    ],
)
def test_a_two_phase_sink_that_breaks_the_contract_is_told(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_sink(lambda: TwoPhase(fault), read_back)


def test_what_only_the_old_writer_knows_is_lost_in_a_crash():
    with pytest.raises(AttributeError):
        check_sink(lambda: TwoPhase("forgets"), read_back)


def test_a_state_that_is_no_plain_data_is_told():
    with pytest.raises(AssertionError, match="is no plain data"):
        check_sink(lambda: Plain("cannot be pickled"), read_back)


def test_the_number_of_records_is_checked():
    with pytest.raises(ValueError, match="needs 8 records"):
        check_sink(Plain, read_back, records=[1])
