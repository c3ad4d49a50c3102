"""Turns the operators of a task into compiled loops.

A *segment* is one generated function: it begins where a batch comes in (a source, a union, an input
of a connect, the output of a batch operator, the head of a loop) and holds all record operators that
follow, branches included. Where a record leaves it for the beginning of another segment, it is put
into that segment's *port*, whose batch is delivered when the loop is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sage.dataflow.function.transform import CoFlatMapFunction, FlatMapFunction
from sage.dataflow.graph.event_time import timed_nodes
from sage.dataflow.graph.execution_graph import Exchange, is_keyed_input, keyed_nodes
from sage.dataflow.graph.stream_graph import Edge, StreamGraph, StreamNode
from sage.dataflow.operator.base import BatchOperator, RecordOperator
from sage.dataflow.operator.loop_writer import FIRST_VALUE, Flow, LineOrigin, LoopWriter
from sage.dataflow.operator.record_wise import LoopHead, Process
from sage.dataflow.record import DEAD_LETTERS
from sage.dataflow.state.live import NO_KEY
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.expansion import Expansion, Surroundings
from sage.kernel.runtime.task.failure import USER_ERRORS, RecordFailure, operator_error
from sage.kernel.runtime.task.live_operator import LiveOperator
from sage.kernel.runtime.task.live_results import LiveResults
from sage.kernel.runtime.task.segment import BATCH_LIMIT, Deliver, KeyedPort, Port, Segment, drain

if TYPE_CHECKING:
    from sage.kernel.runtime.exchange.exchange import SlotExchange

_MAX_OPERATORS = 60  # one behind the other; they are written recursively
_MAX_DEPTH = 40  # Python's tokenizer refuses 100 levels of indentation
_MAX_LOOPS = 8  # CPython refuses 20 statically nested blocks


class Fuser:
    """Compiles the segments of one task.

    Args:
        graph: The whole stream graph.
        live: The task's operators.
        counters: What the task counts.
        cancelled: Not empty once the task is being cancelled.
        monotonic: The job's clock.
        exchange: Takes records to other slots, and brings those from there; None: there are none.
    """

    def __init__(
        self,
        graph: StreamGraph,
        live: dict[int, LiveOperator],
        counters: Counters,
        cancelled: list[bool],
        monotonic: Callable[[], float],
        *,
        exchange: SlotExchange | None = None,
    ) -> None:
        self.graph = graph
        self.live = live
        self.counters = counters
        self.surroundings = Surroundings(counters, cancelled, self.flush, monotonic)
        self.backlog: deque[tuple[tuple[int, int], Sequence[Any]]] = deque()
        self.loop_inputs: dict[tuple[int, int], Deliver] = {}
        self._outputs: dict[int, Deliver] = {}
        self._ports: dict[tuple[int, int], Port] = {}
        self._segments: list[Segment] = []
        self._unconnected: list[Edge] = []
        self._ready: deque[Port] = deque()
        self._results: dict[int, LiveResults] = {}
        self._keyed = keyed_nodes(graph)
        self._timed = timed_nodes(graph)
        self._exchange = exchange
        self._ways = {} if exchange is None else {e.edge: e for e in exchange.graph.exchanges}
        self._received: dict[int, Port] = {}

    def output(self, node: int) -> Deliver:
        """Return what takes the batches that come out of an operator, and counts them."""
        if node not in self._outputs:
            writer = LoopWriter()
            scope = NodeScope(self, self.live[node], writer)
            flow = Flow(FIRST_VALUE)
            if node in self._timed:
                flow = Flow(writer.fresh("v"), None, writer.fresh("t"))
                writer.line(f"{flow.value}, {flow.timestamp} = {FIRST_VALUE}")
            scope.emit(flow)
            slot = self.counters.slot(node, "produced")
            self._outputs[node] = self._compile(writer, slot)
        return self._outputs[node]

    def results(self, node: int) -> LiveResults:
        """Return where an operator puts what does not come of the record at hand."""
        if node not in self._results:
            port, timed = Port(self._ready), node in self._timed
            self._results[node] = LiveResults(node, port, self.counters, timed=timed)
        return self._results[node]

    def pass_on(self, node: int) -> None:
        """Deliver what an operator has put out, and what comes of it."""
        self._results[node].schedule()
        self.drain()

    def port(self, edge: Edge) -> Port:
        """Return the port of the input at the end of `edge`; `connect` compiles what is behind it."""
        way = self._ways.get(edge)
        return self._port_here(edge) if way is None else self._port_to_others(way)

    def crosses(self, edge: Edge) -> bool:
        """Say whether the records of an edge may go to another slot."""
        return edge in self._ways

    def _port_here(self, edge: Edge) -> Port:
        place = (edge.target, edge.index)
        if place not in self._ports:
            self._ports[place] = Port(self._ready)
            self._unconnected.append(edge)
            self.counters.add(edge.target, f"port:{edge.index}")
        return self._ports[place]

    def _port_to_others(self, way: Exchange) -> Port:
        """Return the port of an exchange; records that stay in this slot go on from there at once."""
        place = (~way.number, 0)  # no operator has a number below zero
        if place not in self._ports:
            assert self._exchange is not None
            here = self._port_here(way.edge) if way.edge.target in self.live else None
            if way.spread == "hash":
                send = self._exchange.keyed_sender(way, None if here is None else here.append)
                self._ports[place] = KeyedPort(self._ready, *send, here)
            else:
                port = self._ports[place] = Port(self._ready)
                port.deliver = self._sender(self._exchange, way, here)
        return self._ports[place]

    def _sender(self, exchange: SlotExchange, way: Exchange, here: Port | None) -> Deliver:
        """Return what takes the batches of an exchange that does not go by key."""
        edge = way.edge
        target = self.graph.nodes[edge.target]
        packed = self.is_keyed(target, edge.index) or self.is_timed(target, edge.index)
        fail = self.failing(self.live[edge.source])

        def deliver(values: Sequence[Any]) -> None:
            assert here is not None
            assert here.deliver is not None
            here.deliver(values)

        def refuse(value: Any, error: Exception) -> None:
            fail(error, value[0] if packed else value)

        return exchange.sender(way, deliver, packed=packed, refuse=refuse)

    def take_batch(self, exchange: int, values: Sequence[Any]) -> None:
        """Take records that have come from another slot, and what comes of them, to the end."""
        deliver = self._received[exchange].deliver
        assert deliver is not None
        deliver(values)
        self.drain()

    def connect(self) -> None:
        """Compile what is behind the ports, one by one: a long program is no deep recursion."""
        for way in self._ways.values():
            if way.edge.target in self.live:
                self._received[way.number] = self._port_here(way.edge)
        for node, results in self._results.items():
            results.port.deliver = self.output(node)
            for tag in side_tags(self.graph, node):
                ports = self.side_ports(node, tag)
                results.add_side(tag, ports, [self.is_timed_edge(node, tag)] * len(ports))
        while self._unconnected:
            edge = self._unconnected.pop()
            self._ports[edge.target, edge.index].deliver = self._receiver(edge)

    def flush(self) -> None:
        """Deliver all that is pending, in the midst of a loop."""
        for results in self._results.values():
            results.schedule()
        for port in list(self._ports.values()):
            port.schedule()
        self.drain()

    def drain(self) -> None:
        """Deliver what is ready, batch by batch: a long program is no deep recursion."""
        drain(self._ready)

    def forget(self) -> None:
        """Let go of the loops, of what they hold, and of what was registered for tracebacks."""
        for segment in self._segments:
            segment.forget()
        self._segments.clear()
        self._outputs.clear()
        self._results.clear()
        self._ports.clear()
        self._received.clear()
        self._ready.clear()
        self.backlog.clear()
        self.loop_inputs.clear()

    def _receiver(self, edge: Edge) -> Deliver:
        live, backlog = self.live[edge.target], self.backlog
        deliver = (
            self._batch_step(live)
            if isinstance(live.node.operator, BatchOperator)
            else self._input(live, edge.index)
        )

        if not isinstance(live.node.operator, LoopHead):
            return deliver
        place = (edge.target, edge.index)
        self.loop_inputs[place] = deliver
        return lambda values: backlog.append((place, values))

    def _input(self, live: LiveOperator, index: int) -> Deliver:
        writer = LoopWriter()
        flow = Flow(FIRST_VALUE)
        keyed, timed = self.is_keyed(live.node, index), self.is_timed(live.node, index)
        if keyed or timed:
            key, timestamp = writer.fresh("k"), writer.fresh("t")
            flow = Flow(writer.fresh("v"), key if keyed else None, timestamp if timed else None)
            writer.line(f"{packed(flow)} = {FIRST_VALUE}")
        NodeScope(self, live, writer).write(flow, index)
        return self._compile(writer, self.counters.slot(live.node.id, f"received:{index}"))

    def is_keyed(self, node: StreamNode, index: int) -> bool:
        """Say whether all records of an input have a key, which then goes through its port too."""
        return is_keyed_input(self.graph, self._keyed, node.id, index)

    def is_timed(self, node: StreamNode, index: int) -> bool:
        """Say whether all records of an input have an event time, which goes through its port."""
        return not isinstance(node.operator, BatchOperator) and all(
            self.is_timed_edge(upstream.node, upstream.tag) for upstream in node.inputs[index]
        )

    def is_timed_edge(self, node: int, tag: str | None) -> bool:
        """Say whether the records of an output have an event time."""
        return node in self._timed and tag != DEAD_LETTERS

    def _batch_step(self, live: LiveOperator) -> Deliver:
        processor, node = live.processor, live.node
        if processor is None:
            raise RuntimeError(f"{node.name} has not been opened")
        send = self.output(node.id)
        received, counts = self.counters.slot(node.id, "received:0"), self.counters.values
        fail = self.failure(live)
        letters = self.side_ports(node.id, DEAD_LETTERS)

        def step(values: Sequence[Any]) -> None:
            try:
                result = processor.process_batch(list(values))
            except USER_ERRORS as error:
                if fail is None or not isinstance(error, Exception):
                    raise operator_error(error, node, "batch", size=len(values)) from error
                fail.take_batch(error, values)
                result = []
                for port in letters:
                    port.schedule()
            counts[received] += len(values)
            if result:
                send(result)

        return step

    def _compile(self, writer: LoopWriter, slot: int) -> Deliver:
        nodes = {i: live.node for i, live in self.live.items()}
        segment = Segment(writer, nodes, self.counters, slot)
        self._segments.append(segment)
        return segment.run

    def failure(self, live: LiveOperator) -> RecordFailure | None:
        """Return what takes the exceptions of an operator; None under the policy `"fail"`."""
        node = live.node
        if node.on_error == "fail":
            return None
        ports = self.side_ports(node.id, DEAD_LETTERS) if node.on_error == "dead_letter" else []
        return RecordFailure(node, live.context, self.counters, _fan_out(ports) if ports else None)

    def failing(self, live: LiveOperator) -> Callable[[BaseException, Any], None]:
        """Return what gives the errors of an operator to its policy, outside of a loop."""
        node, fail = live.node, self.failure(live)
        letters = self.side_ports(node.id, DEAD_LETTERS)

        def take(error: BaseException, record: Any) -> None:
            if fail is None or not isinstance(error, Exception):
                told = operator_error(error, node, "record", record)
                raise told from told.__cause__
            fail(error, record)
            for port in letters:
                port.schedule()

        return take

    def side_ports(self, node: int, tag: str) -> list[Port]:
        """Return the ports of those who read the side output `tag` of an operator."""
        return [self.port(e) for e in self.graph.outputs(node) if e.upstream.tag == tag]

    def needs_port(self, edge: Edge) -> bool:
        """Say whether the operator at the end of `edge` begins a segment of its own."""
        target = self.graph.nodes[edge.target]
        return (
            edge in self._ways
            or isinstance(target.operator, (BatchOperator, LoopHead))
            or len(target.inputs) > 1
            or len(target.inputs[edge.index]) > 1
        )


def _fan_out(ports: Sequence[Port]) -> Callable[[Any], None]:
    if len(ports) == 1:
        return ports[0].put

    def put(value: Any) -> None:
        for port in ports:
            port.put(value)

    return put


def packed(flow: Flow) -> str:
    """Return the text of what goes through a port: the record, with its key and time if it has them."""
    parts = [part for part in (flow.value, flow.key, flow.timestamp) if part is not None]
    return f"({', '.join(parts)})" if len(parts) > 1 else parts[0]


def side_tags(graph: StreamGraph, node: int) -> list[str]:
    """Return the tags of the side outputs of an operator that somebody reads, dead letters aside."""
    tags = dict.fromkeys(edge.upstream.tag for edge in graph.outputs(node))
    return [tag for tag in tags if tag is not None and tag != DEAD_LETTERS]


class NodeScope:
    """Implements `OperatorScope`: one operator's view of the loop that is being written."""

    def __init__(self, fuser: Fuser, live: LiveOperator, writer: LoopWriter) -> None:
        self.writer = writer
        self._fuser = fuser
        self._live = live
        self._node = live.node
        self._timestamp: str | None = None  # of the record at hand: what comes of it has it too

    def write(self, flow: Flow, index: int) -> None:
        """Write the operator, and by that all that follows it in this segment."""
        operator = self._node.operator
        if not isinstance(operator, RecordOperator):
            raise TypeError(f"{self._node.name} cannot be a part of a fused loop")
        self._timestamp = flow.timestamp
        with self.writer.scope():
            self._write_key(flow)
            operator.write(self, flow, index)

    def _write_key(self, flow: Flow) -> None:
        """Let state be that of the record's key; or of none, where another input may have keys."""
        if self._live.store is None:
            return
        if flow.key is None and len(self._node.inputs) == 1:
            return
        key = flow.key or self.writer.bind("no_key", NO_KEY)
        self.writer.line(f"{self.writer.bind('store', self._live.store)}.current_key = {key}")

    @property
    def outlives_errors(self) -> bool:
        """Whether the job goes on when a function of the operator fails."""
        return self._node.on_error != "fail"

    def entry(self, index: int) -> str:
        """Return the local that is bound to an entry point."""
        return self.writer.bind("f", self._live.entries[index])

    def table(self, name: str) -> str:
        """Return the local that is bound to what changed in a keyed table."""
        return self.writer.bind("table", self._live.context.layered_table(name).fresh)

    def base(self, name: str) -> str | None:
        """Return the local that is bound to the rest of a keyed table; None without checkpoints."""
        context = self._live.context
        if not context.job.checkpoints:
            return None
        return self.writer.bind("base", context.layered_table(name).base)

    def counter(self, what: str) -> str:
        """Return the local that counts `what`."""
        return self.writer.counter(self._fuser.counters.slot(self._node.id, what))

    def attempt(self, lines: Sequence[str], flow: Flow, phase: str = "record") -> None:
        """Write `lines` under the error policy."""
        writer = self.writer
        origin = LineOrigin(self._node.id, flow.value, flow.key if phase == "key" else None)
        fail = self._fuser.failure(self._live)
        if fail is None:
            for line in lines:
                writer.line(line, origin)
            return
        with writer.block("try:"):
            for line in lines:
                writer.line(line, origin)
        with writer.block("except Exception as error:"):
            writer.line(f"{self._bind_failure(fail)}(error, {flow.value})")
        writer.descend("else:")

    def check(self, condition: str, flow: Flow, otherwise: str, phase: str = "record") -> None:
        """Write a test; its truth is asked for where a failure is the function's own."""
        writer, fails = self.writer, f"not ({condition})"
        origin = LineOrigin(self._node.id, flow.value, flow.key if phase == "key" else None)
        if self._node.on_error != "fail":
            fails = writer.fresh("fails")
            self.attempt([f"{fails} = not ({condition})"], flow, phase)
        with writer.block(f"if {fails}:", origin):
            writer.line(otherwise)
        writer.descend("else:")

    def _bind_failure(self, fail: RecordFailure) -> str:
        if self._node.on_error == "dead_letter":
            self._flush_at_end(DEAD_LETTERS)
        return self.writer.bind("fail", fail)

    def _flush_at_end(self, tag: str) -> None:
        for port in self._fuser.side_ports(self._node.id, tag):
            self.writer.last(f"{self.writer.bind('port', port)}.schedule()")

    @contextmanager
    def expand(self, items: str, flow: Flow) -> Iterator[str]:
        """Write the loop over `items`; the number of items of a list needs no counting."""
        writer, item = self.writer, self.writer.fresh("v")
        origin = LineOrigin(self._node.id, flow.value)
        stream = writer.bind("expand", self._expansion())
        with writer.block(f"if {items}.__class__ is list:"):
            writer.line(f"{self.counter('produced')} += len({items})")
        with writer.block("else:"):
            writer.line(f"{items} = {stream}({items}, {flow.value})", origin)
        writer.loops += 1
        with writer.block(f"for {item} in {items}:", origin):
            yield item
        self._pass_on_enough()

    def _pass_on_enough(self) -> None:
        """Write, behind a loop over items, that records which wait to go on do so when there are many.

        A stream of items, which may be endless, sees to it by itself.
        """
        writer = self.writer
        if writer.puts:
            produced, enough = self.counter("produced"), writer.fresh("n")
            writer.first(f"{enough} = {BATCH_LIMIT}")
            with writer.block(f"if {produced} >= {enough}:"):
                writer.line(f"{enough} = {produced} + {BATCH_LIMIT}")
                writer.line(f"{writer.bind('flush', self._fuser.flush)}()")
            writer.puts = False

    def _expansion(self) -> Callable[[Any, Any], Iterator[Any]]:
        functions = self._live.functions
        may_be_none = isinstance(self._node.operator, Process) or any(
            isinstance(function, (FlatMapFunction, CoFlatMapFunction)) for function in functions
        )
        fuser = self._fuser
        fail = fuser.failure(self._live)
        return Expansion(self._node, fail, fuser.surroundings, may_be_none=may_be_none).run

    def live(self) -> Any:
        """Return the operator's live part, whose results go out when the loop is done."""
        results = self._fuser.results(self._node.id)
        self.writer.last(f"{self.writer.bind('results', results)}.schedule()")
        return self._live.part

    def consumers(self) -> Sequence[str]:
        """Return the tags of the side outputs that somebody reads."""
        return side_tags(self._fuser.graph, self._node.id)

    def emit(self, flow: Flow, tag: str | None = None) -> None:
        """Write what the consumers do, in the order in which the program names them."""
        if flow.timestamp is None:
            flow = replace(flow, timestamp=self._timestamp)
        for edge in self._fuser.graph.outputs(self._node.id):
            if edge.upstream.tag != tag:
                continue
            if self._fuser.needs_port(edge) or self._is_too_deep():
                target = self._fuser.graph.nodes[edge.target]
                keyed = self._fuser.is_keyed(target, edge.index)
                timed = self._fuser.is_timed(target, edge.index)
                key, timestamp = flow.key if keyed else None, flow.timestamp if timed else None
                self._put(Flow(flow.value, key, timestamp), self._fuser.port(edge))
            else:
                scope = NodeScope(self._fuser, self._fuser.live[edge.target], self.writer)
                scope.write(flow, edge.index)

    def _is_too_deep(self) -> bool:
        writer = self.writer
        return (
            writer.operators > _MAX_OPERATORS
            or writer.depth > _MAX_DEPTH
            or writer.loops > _MAX_LOOPS
        )

    def _put(self, flow: Flow, port: Port) -> None:
        writer, name = self.writer, self.writer.bind("port", port)
        if isinstance(port, KeyedPort):
            places = writer.bind("places", port.places)
            # That a key has no place among the slots is a fault of the function that gave it.
            self.attempt([f"{places}[{flow.key}]({packed(flow)})"], flow)
        else:
            writer.line(f"{writer.bind('put', port.append)}({packed(flow)})")
        writer.puts = True
        writer.last(f"{name}.schedule()")
