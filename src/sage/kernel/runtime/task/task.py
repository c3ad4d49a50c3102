"""The one loop that moves records: read a batch, take it through the segments, look around.

Everything here happens in the thread that calls `run`. Other threads only set flags and ring the
doorbell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sage.common.clock import Doorbell
from sage.common.errors import OperatorError
from sage.dataflow.function.source import Source
from sage.dataflow.graph.job_graph import JobVertex, end_order
from sage.dataflow.graph.loops import Loop
from sage.dataflow.graph.stream_graph import StreamGraph
from sage.dataflow.operator.base import BatchOperator, Operator, RecordOperator
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.operator.timestamps import AssignTimestamps
from sage.kernel.runtime.exchange.figures import SlotFigures, SlotMeter
from sage.kernel.runtime.task.checkpoint_orders import SnapshotFigures, TakeState
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.event_time import Timekeeper
from sage.kernel.runtime.task.expansion import TaskCancelled
from sage.kernel.runtime.task.failure import USER_ERRORS, add_notes, operator_error
from sage.kernel.runtime.task.fusion import Fuser
from sage.kernel.runtime.task.inlet import (
    FIRST_BATCH,
    Inlet,
    read_gauges,
    split_assigners,
)
from sage.kernel.runtime.task.intake import Intake
from sage.kernel.runtime.task.live_operator import LiveOperator, TaskAccess
from sage.kernel.runtime.task.loop_end import LoopEnd
from sage.kernel.runtime.task.operator_context import JobContext, OperatorContext
from sage.kernel.runtime.task.segment import Deliver
from sage.kernel.runtime.task.task_start import TaskStart
from sage.kernel.runtime.task.task_state import TaskState

if TYPE_CHECKING:
    from sage.kernel.runtime.exchange.exchange import SlotExchange
    from sage.kernel.runtime.service.policy.call_statistics import Calls


_RECEIVING_SECONDS: Final = 0.01
_LOOK_AGAIN: Final = 0.001


class _LeftError(Exception):
    """Ends a task that was told to leave while it waited for others."""


Order = Callable[["Task"], object]
"""Something to be done in the thread of a task."""


class Task:
    """Runs a chain of operators from their opening to their closing.

    Args:
        graph: The whole stream graph.
        vertex: Which part of it this task runs.
        job: What all tasks of the job share.
        counters: Where to count.
        start: With what it begins.
        exchange: What joins this slot with others; None: all of the job is in this task.
    """

    def __init__(
        self,
        graph: StreamGraph,
        vertex: JobVertex,
        job: JobContext,
        counters: Counters,
        start: TaskStart,
        *,
        exchange: SlotExchange | None = None,
    ) -> None:
        self.vertex = vertex
        self._graph = graph
        self._job = job
        self._counters = counters
        self._exchange = exchange
        if exchange is not None:
            exchange.check_cancelled = self._check_cancelled
            exchange.count = counters.add
        monotonic = job.clock.monotonic
        self._meter = SlotMeter(vertex.id, monotonic) if exchange is None else exchange.meter
        self._read_watermarks: Callable[[], Mapping[int, int]] = dict
        self._gauges: Mapping[int, Mapping[str, int]] = {}
        self._forget_time: Callable[[], None] = lambda: None
        self._doorbell = Doorbell() if exchange is None else exchange.links.bell
        self._stopping = self._stopped = self._closing = False
        self._cancelled: list[bool] = []  # a flag that a loop can look at for next to nothing
        self._orders: deque[Order] = deque()
        self._reports = start.reports
        self._wanted: TakeState | None = None
        self.last_checkpoint = 0
        self._leaving = self._holding = False
        self.input_ended = False
        self._restored = start.restored
        self.has_ended = start.has_ended
        self._live: dict[int, LiveOperator] = {}
        self._outputs: dict[int, Deliver] = {}
        self._fuser = Fuser(
            graph, self._live, counters, self._cancelled, monotonic, exchange=exchange
        )
        self._intake = Intake(job.batch_size, monotonic, self._fuser.drain)
        self._state = TaskState(self._live, self._fuser.backlog)

    def stop(self) -> None:
        """Read no more; finish what has been read, as if the input had ended here."""
        self._stopping = True
        self._doorbell.ring()

    def cancel(self) -> None:
        """Leave off after the batch at hand."""
        self._cancelled.append(True)
        self._doorbell.ring()

    def total_counts(self) -> list[int | None]:
        """Return how many records each source will give; empty before they are open."""
        return self._intake.total_counts()

    def run(self) -> None:
        """Open, move records until the input has ended or somebody says stop, close.

        Raises:
            OperatorError: a function, source or sink failed; what else failed while closing is
                added to it as notes.
            TaskCancelled: the task was cancelled.
        """
        failure: BaseException | None = None
        try:
            if self.has_ended:
                self._open_writers()
                return
            self._open()
            self._move()
            self._end()
            self._end_commits()
        except BaseException as error:
            failure = error
            raise
        finally:
            self._close(failure)

    def _open(self) -> None:
        """Open from the sinks up, so that whatever a source has to give finds everything ready."""
        for node in reversed(self.vertex.nodes):
            name, ring = self._graph.nodes[node].name, self._doorbell.ring
            reads = isinstance(self._graph.nodes[node].operator, ReadSource)
            asks = self._reads_no_more if reads else self._is_cancelled
            context = OperatorContext(self._job, name, ring, asks, *self._place(node))
            found = self._restored.get(self._graph.nodes[node].uid)
            self._live[node] = LiveOperator(self._graph.nodes[node], context, found)
            self._live[node].open()
        for node, live in self._live.items():
            self._create_part(node, live)
        self._make_outputs()
        self._fuser.connect()
        self._state.go_on()
        self._time = Timekeeper(
            self._graph,
            self._live,
            self._job.clock,
            self._fuser.pass_on,
            exchange=self._exchange,
        )
        self._read_watermarks, self._forget_time = self._time.watermarks, self._time.forget
        if self._exchange is not None:
            self._exchange.times = self._time.times
        for node in self.vertex.nodes:
            if not isinstance(self._live[node].node.operator, ReadSource):
                continue
            if node in self._state.ended_nodes:  # in an earlier attempt
                self._time.source_ended(node)
            else:
                self._open_source(self._live[node], self._live[node].node.operator)

    def _make_outputs(self) -> None:
        for node, live in self._live.items():
            operator = live.node.operator
            if isinstance(operator, (ReadSource, BatchOperator)) or operator.final:
                self._outputs[node] = self._fuser.output(node)
            if isinstance(operator, ReadSource):
                live.context = replace(live.context, fail=self._fuser.failing(live))

    def _create_part(self, node: int, live: LiveOperator) -> None:
        """Make the live part of an operator that has one."""
        if type(live.node.operator).create_live is Operator.create_live:
            return
        timed = bool(live.node.inputs) and all(
            self._fuser.is_timed(live.node, index) for index in range(len(live.node.inputs))
        )

        def set_watermark(watermark: int) -> None:
            self._fuser.flush()
            self._time.set_watermark(node, watermark)

        results, fuser = self._fuser.results(node), self._fuser
        fail, pause = fuser.failing(live), self._pause
        live.create_part(TaskAccess(results, timed, set_watermark, fail, fuser.flush, pause))

    def _open_writers(self) -> None:
        """Open those sinks that may still have to commit, which they do when they are opened."""
        for node in self.vertex.nodes:
            found = self._restored.get(self._graph.nodes[node].uid)
            if found is not None and found.uncommitted:
                name, ring = self._graph.nodes[node].name, self._doorbell.ring
                context = OperatorContext(self._job, name, ring, self._is_cancelled)
                self._live[node] = LiveOperator(self._graph.nodes[node], context, found)
                self._live[node].open()

    def _open_source(self, live: LiveOperator, operator: object) -> None:
        source = operator.source if isinstance(operator, ReadSource) else None
        if source is None:
            raise TypeError(f"{live.node.name} has no source to read")
        try:
            splits: dict[str, object] = dict.fromkeys(self._splits(live.node.id, source))
            if live.restored is not None:
                splits |= live.restored.last("reader") or {}
            is_restored = live.restored is not None and live.restored.last("reader") is not None
            live.context = replace(live.context, is_restored=is_restored)
            reader = source.create_reader(splits, live.context)
        except USER_ERRORS as error:
            raise operator_error(error, live.node, "open") from error
        live.on_close(reader.close)
        live.reader = reader
        assigners = split_assigners(self._graph, live.node.id, self._live, self._fuser.crosses)
        size = min(FIRST_BATCH, self._job.batch_size)
        self._intake.add(Inlet(live, reader, self._outputs[live.node.id], assigners, size))

    def _place(self, node: int) -> tuple[int, int]:
        """Return how many subtasks an operator has, and which of them is here."""
        if self._exchange is None:
            return 1, 0
        slots = self._exchange.graph.slots[node]
        return len(slots), slots.index(self._exchange.slot)

    def _splits(self, node: int, source: Source[Any]) -> Sequence[str]:
        if self._exchange is None:
            return source.list_splits()
        return self._exchange.graph.splits[node][self._place(node)[1]]

    def _move(self) -> None:
        """Read the sources in turn until they have ended and nothing is in flight in a loop."""
        while not self._has_read_all():
            self._check_cancelled()
            self._obey()
            if self._leaving:
                return
            if self._stopping and not self._stopped:
                self._stopped = True
                self._intake.stop()
            self._step(self._has_read_all)

    def _has_read_all(self) -> bool:
        return not (self._intake or self._is_busy())

    def _step(self, is_done: Callable[[], bool]) -> None:
        """Do what there is to do, once; wait if there is nothing, unless it is done with that."""
        if self._exchange is not None and self._exchange.aligning is not None:
            self._align(self._exchange)
            return
        backlog, time = self._fuser.backlog, self._time
        if backlog:
            self._feed_back()
        if time:
            time.look_at_clock()
            time.poll()
        moved = self._exchange is not None and self._receive(self._exchange)
        if self.is_full():  # nothing more comes in: the memory of loops stays bounded
            return
        held_up = self._exchange is not None and self._exchange.is_held_up
        read = not held_up and self._intake.read(time)
        if not (read or backlog or moved or is_done()):
            self._wait(held_up=held_up)

    def _receive(self, exchange: SlotExchange) -> bool:
        """Take what has come from other slots, and send what has waited for long enough.

        All of it, if that does not take long: else more would be under way with every batch of the
        sources.
        """
        monotonic = self._job.clock.monotonic
        until, moved = monotonic() + _RECEIVING_SECONDS, exchange.receive(self)
        while moved and monotonic() < until and exchange.receive(self):
            pass
        if moved and self._time:
            self._time.advance()
        exchange.flush_old()
        return moved

    def _align(self, exchange: SlotExchange) -> None:
        """Take in what comes before a checkpoint; when all of it has come, take the state.

        Nothing else may put anything out: it would be neither before the checkpoint nor after it.
        """
        moved, order = exchange.receive(self), self._wanted
        if exchange.is_aligned and order is not None and order.checkpoint_id == exchange.aligning:
            self._take(order)
            exchange.end_checkpoint()
        elif not moved:
            self._job.clock.wait(self._doorbell, None)

    def is_full(self) -> bool:
        """Say whether loops hold more than a batch here."""
        backlog = self._fuser.backlog
        return len(backlog) > 1 and sum(len(v) for _, v in backlog) > self._job.batch_size

    def take_batch(self, exchange: int, values: Sequence[object]) -> None:
        """Take records that have come through an exchange."""
        self._fuser.take_batch(exchange, values)

    def take_times(self, slot: int, times: Mapping[int, tuple[int, bool]]) -> None:
        """Take note of how far the time of operators of another slot has come."""
        self._time.take_times(slot, times)

    def _feed_back(self) -> None:
        """Take one round of what has come back to the heads of loops, oldest first."""
        backlog = self._fuser.backlog
        for _ in range(len(backlog)):
            place, values = backlog.popleft()
            self._fuser.loop_inputs[place](values)
            self._fuser.drain()

    def _pause(self, seconds: float | None) -> None:
        """Wait, in the midst of a loop, until woken."""
        self._check_cancelled()
        self._meter.blocked.start()
        self._job.clock.wait(self._doorbell, seconds)
        self._meter.blocked.stop()
        self._check_cancelled()

    def _wait(self, *, held_up: bool) -> None:
        """Wait for what there may be to do; not long where the sources were not asked."""
        polled = self._intake.poll_intervals()
        due = self._time.next_look() if self._time else None
        if due is not None:
            polled.append(due)
        if self._exchange is not None:
            self._exchange.flush()
        if self._intake or self._time.is_waiting() or self._exchange is not None:
            if held_up:  # nobody rings when there is room again
                polled.append(_LOOK_AGAIN)
            self._sleep(min(polled, default=None), held_up=held_up)
        if self._time:
            self._time.advance()

    def _sleep(self, seconds: float | None, *, held_up: bool = False) -> None:
        watch = self._meter.blocked if held_up else self._meter.idle
        watch.start()
        self._job.clock.wait(self._doorbell, seconds)
        watch.stop()

    @property
    def figures(self) -> SlotFigures:
        """What it does with its time."""
        return self._meter.read()

    calls: ClassVar[Mapping[str, Calls]] = {}
    """Those to services in this process are known to these."""

    @property
    def watermarks(self) -> Mapping[int, int]:
        """How far event time has come, in milliseconds, for those operators that have any."""
        return self._read_watermarks()

    @property
    def gauges(self) -> Mapping[int, Mapping[str, int]]:
        """What its sources say of themselves, by name; from any thread, and also when it has ended."""
        self._gauges = {**self._gauges, **read_gauges(tuple(self._live.values()))}
        return self._gauges

    # ---- checkpoints

    def order(self, order: Order) -> None:
        """Let `order(task)` be called in the task's thread, between two batches."""
        self._orders.append(order)
        self._doorbell.ring()

    def _obey(self) -> None:
        while self._orders or self._holding:
            self._check_cancelled()
            if self._orders:
                self._orders.popleft()(self)
            else:
                self._sleep(None)

    def take_checkpoint(self, order: TakeState) -> None:
        """Take the state when all that comes before the checkpoint has been processed."""
        self.order(partial(Task._begin_checkpoint, order=order))

    def abort_checkpoint(self, checkpoint_id: int) -> None:
        """Go on: the checkpoint will not be."""
        self.order(partial(Task._abort_checkpoint, checkpoint_id=checkpoint_id))

    def commit_checkpoint(self, checkpoint_id: int, *, leave: bool = False) -> None:
        """Let sinks commit what belongs to checkpoints up to this one; with `leave`, end after it."""
        self.order(partial(Task._commit, checkpoint_id=checkpoint_id, leave=leave))

    def leave_now(self) -> None:
        """Read no more and put nothing more out."""
        self.order(Task._leave)

    def _begin_checkpoint(self, order: TakeState) -> None:
        if self.input_ended:  # meanwhile: its final state, which was told before this, will count
            return
        if self._exchange is None:
            self._take(order)
        else:
            self._wanted = order
            self._exchange.begin_checkpoint(order.checkpoint_id)

    def _abort_checkpoint(self, checkpoint_id: int) -> None:
        if self._exchange is not None:
            self._exchange.abort_checkpoint(checkpoint_id)
        self._holding = self.input_ended

    def _take(self, order: TakeState) -> None:
        assert self._reports is not None
        number = self.last_checkpoint = order.checkpoint_id
        began, exchange = self._meter.now(), self._exchange
        aligned = (0.0, 0) if exchange is None else exchange.alignment_figures()
        try:
            parts = self._state.take(number, lambda uid: uid not in order.increments)
        except Exception as error:  # noqa: BLE001 - told: the checkpoint fails, the task goes on
            self._reports.state_refused(number, str(error))
            return
        self._holding = order.hold
        figures = SnapshotFigures(*aligned, self._meter.now() - began)
        self._reports.state_taken(number, parts, figures)

    def _commit(self, checkpoint_id: int, *, leave: bool) -> None:
        self._state.commit(checkpoint_id)
        if leave:
            self._leave()
        elif self._reports is not None:
            self._reports.committed(checkpoint_id)

    def _leave(self) -> None:
        self._leaving, self._holding = True, False

    def query_state(self, uid: str, name: str, key: Any, timeout: float = 0.0) -> Any:
        """Return the present value of a key in a state that an operator declares; from any thread.

        There is nothing to wait for here, for however many seconds.

        Raises:
            KeyError: no operator of this task has that uid.
        """
        return self._state.query(uid, name, key)

    @property
    def left_early(self) -> bool:
        """Whether it was told to leave before its input had ended."""
        return self._leaving and not self.input_ended

    def _end_commits(self) -> None:
        """Let sinks commit at the end: with a last checkpoint, or at once if none are taken."""
        if self._leaving:
            return
        if self._reports is not None:
            parts = self._state.take(self.last_checkpoint + 1, lambda _: True)
            self._holding = self.input_ended = True
            self._reports.input_ended(self.last_checkpoint, parts)
            self._obey()
        else:
            self._state.commit_at_once()

    def _is_cancelled(self) -> bool:
        return bool(self._cancelled)

    def _reads_no_more(self) -> bool:
        """Say whether a source should leave off: it gives nothing that would still be read."""
        return self._stopping or self._closing or bool(self._cancelled)

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise TaskCancelled

    def _end(self) -> None:
        """Let every operator, from the sources down, put out what it held back for the end."""
        if not self._leaving:
            with suppress(_LeftError):
                self._end_operators()

    def _end_operators(self) -> None:
        ended: set[int] = set()
        for node in end_order(self._graph, self.vertex.nodes):
            loop = None if self._exchange is None else self._exchange.graph.loop_of(node)
            if self._exchange is not None and loop is not None:
                if loop.number not in ended:
                    self._end_loop(self._exchange, loop)
                ended.add(loop.number)
                continue
            if self._exchange is not None:
                self._await_others(self._exchange, self._exchange.inputs_of(node))
            self._end_with_backlog(node)
            if self._exchange is not None:
                self._exchange.end(node)

    def _end_with_backlog(self, node: int) -> None:
        """Let an operator put out what it held back, and what comes of it go round in loops."""
        if node not in self._state.ended_nodes:
            self._end_one(self._live[node])
        self._state.ended_nodes.add(node)
        while self._fuser.backlog:
            self._check_cancelled()
            self._feed_back()

    def _await_others(self, exchange: SlotExchange, ways: Collection[int]) -> None:
        """Take what still comes through exchanges, until nothing more will come."""
        for number in ways:
            self._step_until(partial(exchange.has_ended, number))
            self._time.exchange_ended(number)
        # Nothing may go out between the barrier of a checkpoint and the taking of the state.
        self._step_until(lambda: exchange.aligning is None)

    def _end_loop(self, exchange: SlotExchange, loop: Loop) -> None:
        """End all operators of a loop: none has all of its input before all of them have."""
        self._await_others(exchange, sorted(exchange.inputs & loop.entrances))
        end = LoopEnd(loop, exchange, self._time, self._is_busy, self._step_until)
        for node in end.operators():
            if node in self._live:
                self._end_with_backlog(node)
        for node in loop.nodes:
            exchange.end(node)
        self._await_others(exchange, sorted(exchange.inputs & loop.exchanges))

    def _is_busy(self) -> bool:
        return bool(self._fuser.backlog) or self._time.is_waiting()

    def _step_until(self, condition: Callable[[], bool]) -> None:
        self._obey_orders()
        while not condition():
            self._step(condition)
            self._obey_orders()

    def _obey_orders(self) -> None:
        """Do as told while operators end.

        Raises:
            _LeftError: it was told to leave.
        """
        self._check_cancelled()
        self._obey()
        if self._leaving:
            raise _LeftError

    def _end_one(self, live: LiveOperator) -> None:
        operator, results = live.node.operator, list[object]()
        if isinstance(operator, AssignTimestamps):
            self._time.end(live.node.id)
        try:
            if live.part is not None:
                live.part.end()
                self._fuser.pass_on(live.node.id)
                self._time.tell()
            if live.processor is not None:
                results = live.processor.end()
            elif isinstance(operator, RecordOperator) and operator.final:
                results = list(operator.finish(live.context.keyed_table, live.functions))
        except OperatorError:  # of another operator, or told already
            raise
        except USER_ERRORS as error:
            raise operator_error(error, live.node, "end") from error
        size = self._job.batch_size
        for start in range(0, len(results), size):
            self._check_cancelled()
            self._outputs[live.node.id](results[start : start + size])
            self._fuser.drain()

    def _close(self, failure: BaseException | None) -> None:
        """Close from the sources down; the first failure is raised unless there is one already."""
        self._closing = True
        failures: list[OperatorError] = []
        for node in self.vertex.nodes:
            if node in self._live:
                failures += self._live[node].close()
        self._forget()
        if failure is None and failures:
            failure = failures.pop(0)
            add_notes(failure, failures)
            raise failure
        if failure is not None:
            add_notes(failure, failures)

    def _forget(self) -> None:
        """Keep figures only: whoever holds on to a job that is done shall not keep its state."""
        watermarks, self._gauges = self.watermarks, self.gauges
        self._read_watermarks = lambda: watermarks
        self._forget_time()
        self._meter.end()
        self._intake.forget()
        self._outputs.clear()
        for live in self._live.values():
            live.context.forget()
        self._live.clear()
        self._fuser.forget()
