"""Spans of calls, in programs that have set OpenTelemetry up, on both sides of a call.

A tracer provider is for a whole program and for good: each test is a program of its own.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sage import LocalEnvironment
from sage.kernel.runtime.service.hosting.service_context import ServiceContext
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.service.trace import TraceFilter
from sage.kernel.runtime.service.tracing import TracingMiddleware, is_tracing

EVERYWHERE = pytest.mark.parametrize("isolation", ["local", "process"])

SERVICES = '''
import asyncio
import atexit
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor


def to_line(span):
    return span.to_json(indent=None) + "\\n"


def set_up():
    """Let this process write its spans into a file of its own."""
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    out = open(os.path.join(os.path.dirname(__file__), f"{os.getpid()}.spans"), "a")
    atexit.register(out.close)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=to_line)))
    trace.set_tracer_provider(provider)


class Inner:
    def setup(self):
        set_up()

    def add(self, a, b):
        return a + b

    def refuse(self, word):
        raise ValueError("this is refused")

    async def later(self, a):
        await asyncio.sleep(0)
        with trace.get_tracer("inner").start_as_current_span("work"):
            return a

    def count(self, n):
        yield from range(n)


class Outer:
    ctx = None

    def setup(self):
        set_up()

    def add_two(self, a):
        return self.ctx.call_service["inner"].add(a, 2)
'''

PROGRAM = """
import sys

from sage import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager
from traced_services import Inner, Outer, set_up, trace

if __name__ == "__main__":
    isolation, lines = sys.argv[1:]
    set_up()
    with LocalEnvironment("traced") as env:
        env.register_service("inner", Inner).options(isolation=isolation)
        env.register_service("outer", Outer).options(isolation=isolation)
        manager = ServiceManager(env)
        exec(lines)
"""


@pytest.fixture
def spans_of(tmp_path):
    """Run lines that call the services; return the spans of all processes."""
    (tmp_path / "traced_services.py").write_text(SERVICES)
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(isolation, lines):
        command = [sys.executable, "-W", "error", "program.py", isolation, lines]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        spans = []
        for file in tmp_path.glob("*.spans"):
            for line in file.read_text().splitlines():
                told = json.loads(line)
                spans.append(
                    SimpleNamespace(
                        name=told["name"],
                        kind=told["kind"].removeprefix("SpanKind."),
                        trace=told["context"]["trace_id"],
                        id=told["context"]["span_id"],
                        parent=told["parent_id"],
                        attributes=told["attributes"],
                        status=told["status"]["status_code"],
                        text=line,
                        process=file.name,
                    )
                )
        return spans

    return run


def find(spans, name, kind):
    [found] = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return found


@EVERYWHERE
def test_a_nested_call_is_one_trace(spans_of, isolation):
    spans = spans_of(
        isolation,
        "with trace.get_tracer('t').start_as_current_span('main'):\n"
        "    assert manager.call_service_sync('outer', 'add_two', 40) == 42",
    )
    way = [
        ("main", "INTERNAL"),
        ("outer.add_two", "CLIENT"),
        ("outer.add_two", "SERVER"),
        ("inner.add", "CLIENT"),
        ("inner.add", "SERVER"),
    ]
    assert len(spans) == len(way)
    above = None
    for name, kind in way:
        span = find(spans, name, kind)
        assert span.parent == above, f"the parent of {name} {kind}"
        above = span.id
    assert len({span.trace for span in spans}) == 1
    assert len({span.process for span in spans}) == (3 if isolation == "process" else 1)
    attributes = find(spans, "inner.add", "CLIENT").attributes
    assert attributes == {"rpc.system": "sage", "rpc.service": "inner", "rpc.method": "add"}


@EVERYWHERE
def test_calls_without_a_span_around_them_are_traces_of_their_own(spans_of, isolation):
    spans = spans_of(
        isolation, "for n in 1, 2:\n    manager.call_service_sync('inner', 'add', n, 1)"
    )
    assert len({span.trace for span in spans}) == 2
    assert len(spans) == 4


@EVERYWHERE
def test_an_error_is_told_on_both_sides_and_arguments_are_not(spans_of, isolation):
    spans = spans_of(
        isolation,
        "future = manager.call_service_async('inner', 'refuse', 'open sesame')\n"
        "assert 'refused' in str(future.exception())",
    )
    for kind in ("CLIENT", "SERVER"):
        span = find(spans, "inner.refuse", kind)
        assert span.status == "ERROR"
        assert span.attributes["error.type"] == "ValueError"
        assert "this is refused" in span.text
        assert "open sesame" not in span.text


@EVERYWHERE
def test_spans_of_an_async_method_are_below_its_own(spans_of, isolation):
    spans = spans_of(isolation, "assert manager.call_service_sync('inner', 'later', 7) == 7")
    work, server = find(spans, "work", "INTERNAL"), find(spans, "inner.later", "SERVER")
    assert work.parent == server.id


@EVERYWHERE
def test_a_stream_has_one_span_per_side(spans_of, isolation):
    spans = spans_of(
        isolation, "assert list(manager.call_service_sync('inner', 'count', 500)) == [*range(500)]"
    )
    assert [span.name for span in spans] == ["inner.count"] * 2


def test_each_attempt_has_a_span_in_the_service(spans_of):
    spans = spans_of(
        "local",
        "call = manager.get_sync_proxy('inner').options(retry=dict(max_attempts=2), idempotent=True)\n"
        "try:\n    call.refuse('x')\nexcept RuntimeError:\n    pass",
    )
    client = find(spans, "inner.refuse", "CLIENT")
    servers = [span for span in spans if span.kind == "SERVER"]
    assert {span.parent for span in servers} == {client.id}


class Words:
    def get(self, key):
        return key


def test_a_provider_can_be_given_by_hand():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with LocalEnvironment("traced") as env:
        env.register_service("words", Words)
        env.services.add_middleware(TracingMiddleware(provider))
        manager = ServiceManager(env)
        assert manager.call_service_sync("words", "get", "a") == "a"
        assert manager.call_service_async("words", "lose", "a").exception() is not None
    good, bad = exporter.get_finished_spans()
    assert (good.name, good.status.is_ok) == ("words.get", True)
    assert (bad.name, bad.attributes["error.type"]) == ("words.lose", "ServiceMethodError")
    provider.shutdown()


def test_nothing_is_traced_without_a_provider():
    """This test program has imported OpenTelemetry, and set nothing up."""
    assert not is_tracing()
    with LocalEnvironment("plain") as env:
        env.register_service("words", Words)
        ServiceManager(env).call_service_sync("words", "get", "a")
        assert env.services.path("words").guards.middleware is None


def test_opentelemetry_is_not_imported_by_calls():
    program = (
        "import sys, sage\n"
        "from sage.kernel.runtime.service.service_caller import ServiceManager\n"
        "with sage.LocalEnvironment('plain') as env:\n"
        "    env.register_service('words', dict, a=1)\n"
        "    assert ServiceManager(env).call_service_sync('words', 'get', 'a') == 1\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0


# ---- the trace id in the log


class Lower:
    ctx = None

    def setup(self):
        """Write the log of this process where the test can read it."""
        self.handler = logging.FileHandler(self.path)
        self.handler.setFormatter(logging.Formatter("%(trace_id)s %(message)s"))
        self.ctx.logger.addHandler(self.handler)
        self.ctx.logger.setLevel(logging.INFO)

    def __init__(self, path):
        self.path = path

    def work(self):
        self.ctx.logger.info(type(self).__name__)

    def cleanup(self):
        self.ctx.logger.removeHandler(self.handler)
        self.handler.close()


class Upper(Lower):
    def work(self):
        super().work()
        self.ctx.call_service["lower"].work()


@EVERYWHERE
def test_log_records_of_a_call_and_those_below_have_one_trace_id(isolation, tmp_path):
    log = tmp_path / "log"
    with LocalEnvironment("logged") as env:
        env.register_service("lower", Lower, str(log)).options(isolation=isolation)
        env.register_service("upper", Upper, str(log)).options(isolation=isolation)
        for _ in range(2):
            ServiceManager(env).call_service_sync("upper", "work")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for _, name in lines] == ["Upper", "Lower"] * 2
    first, below, second, below_second = [number for number, _ in lines]
    assert first == below != second == below_second
    assert "-" not in (first, second)


def test_a_record_outside_of_calls_has_a_dash(caplog):
    logger = ServiceContext("alone", LocalEnvironment("logged")).logger
    with caplog.at_level(logging.INFO, "sage"):
        logger.info("hello")
    assert caplog.records[0].trace_id == "-"
    assert len([f for f in logger.filters if isinstance(f, TraceFilter)]) == 1
