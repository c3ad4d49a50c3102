"""The context without a runtime and the sink that remembers."""

import pytest

from sage.connector.collection import CollectionSource
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.context import SourceContext
from sage.testing import CollectingSink, ManualClock, StandaloneContext, TestSource, read_all


def test_a_function_finds_all_it_may_ask_for():
    context: SourceContext = StandaloneContext(
        operator_name="parse", job_name="app", clock=ManualClock(start_ms=7)
    )
    function = BaseFunction()
    function.ctx = context
    assert (function.name, function.logger.name) == ("parse", "sage.job.app.parse")
    assert (context.subtask_index, context.parallelism, context.buffer_size) == (0, 1, 10_000)
    assert context.now_ms() == 7
    context.keyed_table("sums")["a"] = 1
    assert context.keyed_table("sums") == {"a": 1}
    assert context.keyed_table("counts") == {}


def test_a_wake_up_before_the_wait_is_kept():
    context = StandaloneContext()
    context.wake()
    context.wake()
    assert context.wait_woken(0)
    assert not context.wait_woken(0)


def test_read_all_gives_up_on_a_source_that_gives_nothing():
    source = TestSource([TestSource.PAUSE(3600)])
    with pytest.raises(AssertionError, match=r"gave no record for 0.02 s"):
        read_all(source, patience=0.02)


def test_the_sink_remembers_records_and_calls():
    records = []
    sink = CollectingSink(records)
    writer = sink.create_writer(StandaloneContext(), None)
    writer.write_batch(read_all(CollectionSource("ab")))
    writer.write_batch(())
    writer.flush()
    assert writer.snapshot() is None
    writer.close()
    assert records is sink.records == ["a", "b"]
    assert sink.events == ["open", "flush", "close"]
