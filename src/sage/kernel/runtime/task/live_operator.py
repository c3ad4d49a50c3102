"""An operator in a task: its functions made, opened, and closed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import FunctionType
from typing import Any

from sage.common.errors import OperatorError
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.sink import SinkWriter
from sage.dataflow.function.source import SourceReader
from sage.dataflow.function.transform import FlatMapFunction, ListCollector
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.operator.async_calls import CallRunner
from sage.dataflow.operator.async_map import AsyncMap
from sage.dataflow.operator.base import (
    BatchOperator,
    BatchProcessor,
    LivePart,
    RecordOperator,
    Results,
)
from sage.dataflow.operator.record_wise import CallSink
from sage.dataflow.state.declarations import bind_state, declared_states
from sage.dataflow.time import MIN_WATERMARK
from sage.kernel.runtime.task.checked_entry import CheckedEntry
from sage.kernel.runtime.task.failure import USER_ERRORS, operator_error
from sage.kernel.runtime.task.operator_context import OperatorContext
from sage.kernel.runtime.task.restored_state import RestoredState, Uncommitted
from sage.kernel.state.backend import OperatorStore, restore_parts


@dataclass(frozen=True)
class TaskAccess:
    """What the live part of an operator has of its task.

    Attributes:
        results: Where results go.
        timed: Whether the records that come in have event times.
        set_watermark: Lets event time behind the operator come as far as told.
        fail: Gives an error to the operator's policy, with the record.
        pass_on: Delivers what has been put out so far.
        pause: Waits until the task is woken, for at most so many seconds; raises if it is cancelled.
    """

    results: Results
    timed: bool
    set_watermark: Callable[[int], None]
    fail: Callable[[BaseException, Any], None]
    pass_on: Callable[[], None]
    pause: Callable[[float | None], None]


class LiveOperator:
    """One operator of one subtask.

    Attributes:
        node: The operator's place in the graph.
        context: The runtime as its functions see it.
        functions: The live functions, in the order of the operator's specs.
        entries: What is called with records, in the order of the operator's inputs.
        processor: The live part of a batch operator; None for the others.
        reader: Of a source; None for the others.
        positions: Where it was when its state was last taken.
        writer: Of a sink that writes batches; None for the others.
        uncommitted: What such a writer has prepared and not committed yet.
        store: The state that its functions declare; None if they declare none.
        restored: What the operator finds of an earlier attempt.
        watermark: How far its event time has come; kept in checkpoints.
        part: What of a record operator lives as long as the task; None if it needs nothing.
    """

    def __init__(
        self, node: StreamNode, context: OperatorContext, restored: RestoredState | None = None
    ) -> None:
        self.node = node
        self.context = context
        self.functions: list[Any] = []
        self.entries: list[Callable[..., Any]] = []
        self.processor: BatchProcessor | None = None
        self.part: LivePart | None = None
        self.reader: SourceReader[Any] | None = None
        self.positions: dict[str, Any] | None = None
        self.writer: SinkWriter[Any] | None = None
        self.uncommitted = Uncommitted()
        self.restored = restored
        said = None if restored is None else restored.last("watermark")
        self.watermark: int = MIN_WATERMARK if said is None else said
        self.store: OperatorStore | None = None
        self._closers: list[Callable[[], None]] = []

    def open(self) -> None:
        """Make the functions and open them.

        Raises:
            OperatorError: one of them failed; those made before it still want `close`.
        """
        try:
            for spec in self.node.operator.functions:
                self._open_function(spec.create())
            self.entries = [
                self._entry(function, entry)
                for spec, function in zip(self.node.operator.functions, self.functions, strict=True)
                for entry in spec.entry_points(function)
            ]
            if isinstance(self.node.operator, BatchOperator):
                state = None if self.restored is None else self.restored.last("writer")
                self.processor = self.node.operator.create(self.entries, self.context, state)
                self._closers.append(self.processor.close)
                self.writer = self.processor.writer
            if self.restored is not None:
                self._take_over(self.restored)
        except USER_ERRORS as error:
            raise operator_error(error, self.node, "open") from error

    def _take_over(self, restored: RestoredState) -> None:
        """Take over tables, and commit what belongs to the checkpoint and may not be committed yet."""
        for tables in restored.chains("tables"):
            self.context.load_tables(tables, restored.share)
        if self.writer is not None:
            for waiting in restored.uncommitted:
                Uncommitted(dict(waiting)).commit(self.writer, max(waiting))

    def create_part(self, access: TaskAccess) -> None:
        """Make what of the operator lives as long as the task.

        Raises:
            OperatorError: the function or what was said about it does not do.
        """
        made = _LivePartContext(self, access)
        try:
            self.part = self.node.operator.create_live(made)
            if self.part is not None:
                self._closers.append(self.part.close)
                if self.restored is not None:
                    self._go_on(self.part, self.restored)
        except USER_ERRORS as error:
            raise operator_error(error, self.node, "open") from error

    def _go_on(self, part: LivePart, restored: RestoredState) -> None:
        if parts := restored.chains("live"):
            part.load(parts, restored.share)
        part.resume(self.watermark)

    def _entry(self, function: Any, entry: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called with records."""
        operator = self.node.operator
        if isinstance(operator, AsyncMap):
            return entry
        entry = _with_collector(function, entry)
        return self._checked(entry) if isinstance(operator, RecordOperator) else entry

    def _checked(self, entry: Callable[..., Any]) -> Callable[..., Any]:
        """Let the first result be looked at, unless nobody uses it: what a sink's `def` returns."""
        is_def = isinstance(entry, FunctionType) and not hasattr(entry, "__wrapped__")
        if isinstance(self.node.operator, CallSink) and is_def and entry.__name__ != "<lambda>":
            return entry
        return CheckedEntry(entry, self.node)

    def _open_function(self, function: Any) -> None:
        self.functions.append(function)
        if declared_states(function):
            self._bind_state(function)
        if isinstance(function, BaseFunction):
            function.ctx = self.context
            self._closers.append(function.close)
            function.open()

    def _bind_state(self, function: Any) -> None:
        """Give a function the state that it declares, as an earlier attempt has left it."""
        if self.store is None:
            job = self.context.job
            open_store = partial(
                job.state.open_store,
                job.job_name,
                self.node.uid,
                self.context.now_ms,
                states=len(declared_states(function)),
            )
            self.store, close = open_store(layered=job.checkpoints)
            self._closers.append(close)
            if self.restored is not None:
                _restore(self.store, self.restored, partial(open_store, layered=False))
        bind_state(function, self.store)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Let `closer` be called by `close`."""
        self._closers.append(closer)

    def close(self) -> list[OperatorError]:
        """Close everything that was opened, once; return what failed."""
        failures = []
        while self._closers:
            try:
                self._closers.pop()()
            except USER_ERRORS as error:  # reported; the others must be closed too
                failures.append(operator_error(error, self.node, "close"))
        return failures


def _restore(
    store: OperatorStore,
    restored: RestoredState,
    make_other: Callable[[], tuple[OperatorStore, Callable[[], None]]],
) -> None:
    restore_parts(store, restored.chains("store"), restored.share, make_other)
    if settled := restored.last("operator_state"):
        store.load_operator_state(settled)


@dataclass(frozen=True)
class _LivePartContext:
    """Implements `LiveContext`."""

    live: LiveOperator
    access: TaskAccess

    @property
    def results(self) -> Results:
        """Where results go."""
        return self.access.results

    @property
    def timed(self) -> bool:
        """Whether the records that come in have event times."""
        return self.access.timed

    @property
    def runtime(self) -> OperatorContext:
        """The runtime as functions see it."""
        return self.live.context

    @property
    def entries(self) -> list[Callable[..., Any]]:
        """The entry points of the functions."""
        return self.live.entries

    @property
    def functions(self) -> list[Any]:
        """The live functions."""
        return self.live.functions

    def set_key(self, key: Any) -> None:
        """Let the state that the functions declare be that of `key`."""
        if self.live.store is not None:
            self.live.store.current_key = key

    def set_watermark(self, watermark: int) -> None:
        """Let event time behind this operator come as far as `watermark`."""
        self.access.set_watermark(watermark)

    def fail(self, error: BaseException, record: Any) -> None:
        """Give the error policy what the function failed with."""
        self.access.fail(error, record)

    def pass_on(self) -> None:
        """Deliver what has been put out so far."""
        self.access.pass_on()

    def run_calls(self, *, capacity: int, blocking: bool, collects: bool) -> CallRunner:
        """Make what runs calls of the function while the task goes on."""
        # asyncio takes a while to import, and most programs do without.
        from sage.kernel.runtime.task import async_runner  # noqa: PLC0415

        node = self.live.node
        settings = async_runner.RunnerSettings(
            kind=node.operator.kind,
            name=node.name,
            capacity=capacity,
            collects=collects,
            context=self.live.context,
            pause=self.access.pause,
        )
        runner = async_runner.ThreadRunner if blocking else async_runner.LoopRunner
        return runner(self.live.entries[0], settings)


def _with_collector(function: Any, entry: Callable[..., Any]) -> Callable[..., Any]:
    """Give a `FlatMapFunction` its collector, and join what it collects to what it returns."""
    if not isinstance(function, FlatMapFunction):
        return entry
    collector: ListCollector[Any] = ListCollector()
    function.out = collector
    take = collector.take

    def execute(data: Any) -> Iterable[Any]:
        try:
            result = entry(data)
        except BaseException:
            take()  # what a failed record left must not go out with the next one
            raise
        if result is None:
            return take()
        if isinstance(result, (list, tuple)):
            return chain(collected, result) if (collected := take()) else result
        return _interleave(result, take)

    return execute


def _interleave(items: Iterable[Any], take: Callable[[], list[Any]]) -> Iterable[Any]:
    """Yield what a generator yields, and before each item what was collected on the way to it."""
    try:
        for item in items:
            yield from take()
            yield item
        yield from take()
    finally:
        take()
