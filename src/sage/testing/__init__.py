"""What users test their pipelines, sources and sinks with.

Time that the test moves (`ManualClock`), a source whose faults are values (`TestSource`), a sink
that remembers (`CollectingSink`), a context without a runtime (`StandaloneContext`), and the
conformance suites that every source, sink and store of state passes (`check_source`, `check_sink`,
`check_state_backend`). Nothing here sleeps.
"""

from sage.testing.collecting_sink import CollectingSink
from sage.testing.context import StandaloneContext, read_all
from sage.testing.manual_clock import ManualClock
from sage.testing.sink_conformance import check_sink
from sage.testing.source_conformance import check_source
from sage.testing.state_conformance import check_state_backend
from sage.testing.test_source import InjectedFaultError, TestSource

__all__ = [
    "CollectingSink",
    "InjectedFaultError",
    "ManualClock",
    "StandaloneContext",
    "TestSource",
    "check_sink",
    "check_source",
    "check_state_backend",
    "read_all",
]
